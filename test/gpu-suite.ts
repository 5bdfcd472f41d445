// What every WebGPU must do: one list of tests, bundled for whoever has a device; test/hosts/gpu runs it in Node, Deno and
// browsers.

import { type Device, requestDevice } from "../gpu/device";
import { CASES } from "./cases";
import { runCase } from "./gpu-cases";

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
  /** Only tests whose names contain it. */
  filter?: string;
  log?: (line: string) => void;
  /** Files by name: "demo.snug", "dist/core.wasm". */
  fetchBytes?: (name: string) => Promise<Uint8Array>;
}

interface GpuTest {
  readonly name: string;
  run(): Promise<void>;
}

export async function runGpuSuite(gpu: GPU, options: GpuSuiteOptions): Promise<GpuReport> {
  const device = await requestDevice(gpu);
  const report: GpuReport = {
    adapter: device.name,
    features: [...device.device.features, ...gpu.wgslLanguageFeatures],
    ...{ cases: 0, failures: [], notes: [] },
  };
  for (const { name, run } of tests(device, options)) {
    if (options.filter !== undefined && !name.includes(options.filter)) continue;
    report.cases++;
    const scopes = ["validation", "internal", "out-of-memory"] as const;
    for (const scope of scopes) device.device.pushErrorScope(scope);
    let failure: string | undefined;
    try {
      await run();
    } catch (error) {
      failure = error instanceof Error ? error.message : String(error);
    }
    // What the device found wrong says more than what came of it.
    for (const _ of scopes) failure = (await device.device.popErrorScope())?.message ?? failure;
    if (failure === undefined) continue;
    report.failures.push({ name, message: failure });
    options.log?.(`FAILED ${name}: ${failure}`);
  }
  device.destroy();
  return report;
}

function tests(device: Device, { executes }: GpuSuiteOptions): GpuTest[] {
  const isCoded = (name: string) => name.includes(" int8 ");
  return CASES.filter(({ name }) => device.packedDot || !isCoded(name)).map(({ name, make }) => ({
    name,
    run: () => runCase(device, make(), executes),
  }));
}
