// A host's process, and what it writes.

import process from "node:process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { endGroup, start } from "../child";
import type { Task } from "./host";

interface Settings extends Pick<Task, "log" | "signal"> {
  /** What its environment has beside this process's. */
  readonly env: NodeJS.ProcessEnv;
}

/**
 * Runs a program until it exits; log gets the lines that it writes, to stdout and to stderr. Rejects unless it exits with 0;
 * ends it when the signal is aborted.
 */
export async function run(command: readonly string[], { env, log, signal }: Settings): Promise<void> {
  const child = start(command, { env: { ...process.env, ...env } });
  for (const stream of [child.stdout, child.stderr]) createInterface(stream as Readable).on("line", log);
  const end = () => endGroup(child);
  signal.addEventListener("abort", end);
  try {
    const ending = await new Promise<string | number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, killer) => resolve(killer ?? code));
    });
    if (ending !== 0) throw new Error(`${command[0]} ended with ${ending}`);
  } finally {
    signal.removeEventListener("abort", end);
  }
}
