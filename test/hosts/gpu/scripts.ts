// Hosts that run the suite as a script: Dawn in Node, on each driver that it takes and on none, and wgpu in Deno.

import { join } from "node:path";
import type { GpuReport } from "../../gpu-suite";
import { installed } from "../child";
import { DENO, type Engine, NODE } from "../engines";
import { type GpuHost, REPORT } from "./host";
import { BUILD, BUNDLES } from "./places";
import { run } from "./process";
import { type Driver, lavapipe, newLavapipe, swiftShader } from "./vulkan";

export const SCRIPT_HOSTS: readonly GpuHost[] = [
  scriptHost("dawn-swiftshader", NODE, swiftShader),
  scriptHost("dawn-lavapipe", NODE, newLavapipe, ["--thorough"]),
  scriptHost("dawn-null", NODE, () => ({}), ["--null", "--thorough"]),
  scriptHost("deno", DENO, () => ({ ...lavapipe(), DENO_NO_UPDATE_CHECK: "1", DENO_DIR: join(BUILD, "deno") })),
];

function scriptHost(name: string, engine: Engine, driver: Driver, flags: readonly string[] = []): GpuHost {
  return {
    name,
    async run({ filter, thorough, log, signal }) {
      const [program = "", ...rest] = engine.command(BUILD);
      const command = [installed(program), ...rest, join(BUNDLES, "script.js"), ...flags, filter];
      if (thorough) command.push("--thorough");
      const reports: string[] = [];
      const take = (line: string) => (line.startsWith(REPORT) ? reports.push(line) : log(line));
      await run(command, { env: { ...driver(), NO_COLOR: "1" }, log: take, signal });
      const [report] = reports;
      if (report === undefined) throw new Error("the script ended without a report");
      return JSON.parse(report.slice(REPORT.length)) as GpuReport;
    },
  };
}
