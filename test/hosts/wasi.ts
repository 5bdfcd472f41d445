// snug.wasm under the node:wasi of Node, Deno and Bun: a process a case, as a command is used.

import { dirname, join } from "node:path";
import type { Case, Result } from "./case";
import { argumentsOf, resultOf } from "./command";
import { BUN, DENO, type Engine, NEWEST_NODE, NODE, runScript, versionOf } from "./engines";
import type { Host } from "./host";

/** Deno wants leave to write wherever a folder is opened for a command. */
const WRITING_DENO: Engine = { ...DENO, command: (build) => [...DENO.command(build), "--allow-write"] };

export const WASI_HOSTS: readonly Host[] = [
  ...[NODE, NEWEST_NODE, WRITING_DENO, BUN].map((engine) => wasiHost(engine, "snug.wasm")),
  wasiHost(NEWEST_NODE, "snug.relaxed.wasm"),
];

function wasiHost(engine: Engine, file: string): Host {
  return {
    name: `WASI: ${engine.name}`,
    threads: 1,
    async run(cases, { dist, build }) {
      const version = await versionOf(engine, build);
      const results: Result[] = [];
      for (const one of cases) {
        const args = [join(dist, file), dirname(one.pack), ...argumentsOf(one, one.pack)];
        results.push(
          await runScript(engine, build, "run-wasi.js", args).then((text) => resultOf(one, text), failed(one)),
        );
      }
      return { about: `${version}, ${file}`, results };
    },
  };
}

function failed({ name }: Case): (error: Error) => Result {
  return ({ message }) => ({ name, error: message });
}
