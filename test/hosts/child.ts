// Processes that the suite starts. Each leads a process group, so that whatever it starts ends with it.

import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { CannotRun, HOST_MILLISECONDS } from "./host";

const running = new Set<ChildProcess>();
process.once("exit", () => running.forEach(endGroup));

/** Starts a program that goes on until endGroup(). */
export function start(command: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const [program = "", ...args] = command;
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], ...options, detached: true });
  running.add(child);
  child.once("exit", () => endGroup(child));
  child.once("error", () => running.delete(child));
  return child;
}

/** Ends a process and all that it started. */
export function endGroup(child: ChildProcess): void {
  if (!running.delete(child) || child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {} // all of them have ended
}

/** What a program writes to stdout; rejects, with the end of what it writes to stderr, unless it exits with 0 in time. */
export async function output(command: readonly string[], options: SpawnOptions = {}): Promise<string> {
  const child = start(command, options);
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-2000);
  });
  const late = setTimeout(() => endGroup(child), HOST_MILLISECONDS);
  const started = Date.now();
  try {
    const ending = await new Promise<string | number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => resolve(signal ?? code));
    });
    if (ending === 0) return stdout;
    const seconds = ((Date.now() - started) / 1000).toFixed(0);
    throw new Error(`${command[0]} ended with ${ending} after ${seconds} s: ${stderr.trim() || "it said nothing"}`);
  } finally {
    clearTimeout(late);
  }
}

/** The first of some programs, by name or absolute path, that is installed; throws CannotRun where none is. */
export function installed(...names: readonly string[]): string {
  const folders = (process.env.PATH ?? "").split(delimiter);
  for (const name of names)
    for (const path of name.startsWith("/") ? [name] : folders.map((folder) => join(folder, name)))
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {}
  throw new CannotRun(`${names.join(", ")} ${names.length === 1 ? "is" : "are"} not installed`);
}
