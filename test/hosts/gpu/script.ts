// node|deno script.js [--null] [--thorough] [FILTER]: the GPU suite in a script, on the Vulkan driver that the environment
// names, or on none (--null); --thorough: all cases. DAWN_NODE: path of another build of Dawn's binding than npm's. Logs to stderr, writes the report to stdout.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import process from "node:process";
import { parseArgs } from "node:util";
import { runGpuSuite } from "../../gpu-suite";
import { REPORT } from "./host";
import { fixturePath } from "./places";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { null: { type: "boolean", default: false }, thorough: { type: "boolean", default: false } },
});
const [filter = ""] = positionals;
const executes = !values.null;

/** The engine's own, as Deno has it; else Dawn. */
async function findGpu(): Promise<GPU> {
  if (globalThis.navigator?.gpu) return navigator.gpu;
  const { DAWN_NODE } = process.env;
  const dawn = DAWN_NODE ? createRequire(import.meta.url)(DAWN_NODE) : await import("webgpu");
  const { create, globals } = dawn as typeof import("webgpu");
  Object.assign(globalThis, globals);
  return create(["enable-dawn-features=allow_unsafe_apis", ...(executes ? [] : ["backend=null"])]);
}

const report = await runGpuSuite(await findGpu(), {
  ...{ executes, thorough: values.thorough, filter },
  log: (line) => console.error(line),
  fetchBytes: async (name) => new Uint8Array(await readFile(fixturePath(name))),
});
process.stdout.write(`${REPORT}${JSON.stringify(report)}\n`, () => process.exit());
