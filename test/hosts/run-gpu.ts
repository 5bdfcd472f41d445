// deno run-gpu.js DIST: the built package on the engine's own WebGPU. Prints a GpuRun as JSON.

import process from "node:process";
import { pathToFileURL } from "node:url";
import type * as Snug from "../../runtime/index";
import { DEMO, GREEDY, PROMPT, WHOLE } from "./expected";

export interface GpuRun {
  readonly tokens: readonly number[];
  readonly deviceBytes: number;
}

const [dist] = process.argv.slice(2) as [string];
const { open } = (await import(pathToFileURL(`${dist}/index.js`).href)) as typeof Snug;
const pack = await open(DEMO);
const model = await pack.load(pack.plan({ ...WHOLE, device: "gpu" }));
const { tokens } = await model.generate(PROMPT, GREEDY).result();
const run: GpuRun = { tokens, deviceBytes: model.plan.deviceBytes };
process.stdout.write(JSON.stringify(run));
process.exit(0);
