// Hosts that import dist/index.js by themselves: Node, Deno, Bun.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { HostRun } from "./case";
import { ENGINES, type Engine, runScript } from "./engines";
import type { Host } from "./host";

const THREADS = [1, 2];

export const SCRIPT_HOSTS: readonly Host[] = ENGINES.flatMap((engine) =>
  THREADS.map((threads) => scriptHost(engine, threads)),
);

function scriptHost(engine: Engine, threads: number): Host {
  return {
    name: engine.name,
    threads,
    async run(cases, { dist, build }) {
      const file = join(build, "cases.json");
      writeFileSync(file, JSON.stringify(cases));
      return JSON.parse(await runScript(engine, build, "run-cases.js", [dist, file, String(threads)])) as HostRun;
    },
  };
}
