// What every WebGPU must do: one list of tests, bundled for whoever has a device; test/hosts/gpu runs it in Node, Deno and
// browsers.

import { type Device, requestDevice } from "../gpu/device";
import { opTests } from "./gpu-cases";
import { faultTests } from "./gpu-faults";
import { type GpuFixtures, INDEX } from "./gpu-fixtures";
import { programTests } from "./gpu-programs";
import type { GpuContext, GpuTest } from "./gpu-test";
import { textTests } from "./gpu-texts";

export interface GpuReport {
  adapter: string;
  features: string[];
  cases: number;
  failures: { name: string; message: string }[];
  notes: string[];
}

export interface GpuSuiteOptions {
  /** False where shaders and pipelines are only validated. */
  executes: boolean;
  /** All cases; false leaves some out, always the same, where all would take long. Default true. */
  thorough?: boolean;
  /** Only tests whose names contain it. */
  filter?: string;
  log?: (line: string) => void;
  /** Files by name: "demo.snug", "dist/core.wasm", and those of gpu-fixtures.ts. */
  fetchBytes: (name: string) => Promise<Uint8Array>;
}

export async function runGpuSuite(gpu: GPU, options: GpuSuiteOptions): Promise<GpuReport> {
  const device = await requestDevice(gpu);
  const report: GpuReport = {
    adapter: device.name,
    features: [...device.device.features, ...gpu.wgslLanguageFeatures],
    ...{ cases: 0, failures: [], notes: [] },
  };
  const { executes, thorough = true, fetchBytes, filter = "", log } = options;
  const fixtures = JSON.parse(new TextDecoder().decode(await fetchBytes(INDEX))) as GpuFixtures;
  const note = (line: string) => {
    report.notes.push(line);
    log?.(line);
  };
  const seconds = new Map<string, number>();
  for (const { name, run } of allTests({ gpu, device, executes, thorough, fixtures, fetchBytes, note })) {
    if (!name.includes(filter)) continue;
    report.cases++;
    const started = performance.now();
    const failure = await failureOf(device, run);
    const [kind = ""] = name.split(" ");
    seconds.set(kind, (seconds.get(kind) ?? 0) + (performance.now() - started) / 1000);
    if (failure === undefined) continue;
    report.failures.push({ name, message: failure });
    log?.(`FAILED ${name}: ${failure}`);
  }
  note(`seconds: ${[...seconds].map(([kind, taken]) => `${kind} ${taken.toFixed(1)}`).join(", ")}`);
  device.destroy();
  return report;
}

function allTests(context: GpuContext): GpuTest[] {
  return [...opTests(context), ...programTests(context), ...textTests(context), ...faultTests(context)];
}

async function failureOf({ device }: Device, run: () => Promise<void>): Promise<string | undefined> {
  const scopes = ["validation", "internal", "out-of-memory"] as const;
  for (const scope of scopes) device.pushErrorScope(scope);
  let failure: string | undefined;
  try {
    await run();
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  // What the device found wrong says more than what came of it.
  for (const _ of scopes) failure = (await device.popErrorScope())?.message ?? failure;
  return failure;
}
