// What goes wrong with GPUs, made to go wrong: "fault".

import { GpuError, requestDevice } from "../gpu/device";
import { selfTest } from "../gpu/self-test";
import type { ShaderName } from "../gpu/wgsl";
import type { SnugError } from "../runtime/errors";
import type { Host } from "../runtime/host";
import { openPack } from "../runtime/pack";
import type { Plan } from "../runtime/plan";
import type { SmallPack } from "./gpu-fixtures";
import { expect, expectEqual, type GpuContext, type GpuTest, hostOf, sourceOf } from "./gpu-test";
import { GREEDY, promptOf, tokensOf, withModel } from "./gpu-texts";

const OPTIONS = { pruning: 0, context: 128, rows: 16, device: "gpu" } as const;
const GENERATED = { ...GREEDY, maxTokens: 30 };
const SAMPLED = { temperature: 0.8, seed: 5, maxTokens: 30 };
const LOSSES = 3;

/** Less than this no device has: https://www.w3.org/TR/webgpu/#limits. */
const LEAST_LIMITS = {
  maxBufferSize: 2 ** 28,
  maxStorageBufferBindingSize: 2 ** 27,
  maxComputeWorkgroupStorageSize: 16384,
};

/** For each shader, a piece of its text and what makes it wrong. */
const WRONG: Readonly<Record<ShaderName, readonly [from: string, to: string]>> = {
  argmax: ["other > values[l] ||", "other < values[l] ||"],
  attention: ["sum *= params.scale", "sum *= params.scale * 1.5"],
  attentionRows: ["if (start + p <= seen) { own", "if (start + p <= seen + 1u) { own"],
  candidates: ["values[i] > value", "values[i] < value"],
  combine: ["shares[s] = power(", "shares[s] = 1.1 * f32(s) + power("],
  conv: ["sum += tap[BEFORE] * rows[r]", "sum += tap[0] * rows[r]"],
  elementwise: ["silu(a[i]) * b[i]", "a[i] * b[i]"],
  embed: ["row % 4u", "(row + 1u) % 4u"],
  gatedNorm: ["silu(gate[at])", "gate[at]"],
  gemm: ["dot4I8Packed(x.w, w[j].w)", "dot4I8Packed(x.w, w[j].z)"],
  gemmF32: ["sums[3] += x.w * w", "sums[3] += x.z * w"],
  gemv: ["sum += partial[base + s * 4u][r % 4u]", "sum += partial[base + s * 4u][(r + 1u) % 4u]"],
  norm: [" * weight[params.weight + c]", " * weight[params.weight]"],
  quantize: ["127.0 / most", "100.0 / most"],
  rope: ["key.x * turn.y - key.y * turn.x", "key.x * turn.y + key.y * turn.x"],
  scan: ["h[j] * decay", "h[j]"],
  select: ["step_output(id.y)", "min(step_output(id.y), 0u)"],
};
/** What only devices with packed products use. */
const ONLY_INT8: readonly ShaderName[] = ["gemm", "quantize"];

export function faultTests(context: GpuContext): GpuTest[] {
  if (!context.executes) return [];
  const [pack, other] = ["mamba2", "llama"].map((family) =>
    context.fixtures.small.find((one) => one.hasText && one.family === family),
  );
  if (pack === undefined || other === undefined) return [];
  // What the self-test notices is the same everywhere, and each device compiles all its kernels.
  const shaders = (Object.keys(WRONG) as ShaderName[]).filter(
    (name) => context.device.packedDot || !ONLY_INT8.includes(name),
  );
  const essential = [
    { name: `fault lost, greedy: ${other.family}`, run: () => lostTest(context, other, GENERATED) },
    { name: "fault no adapter", run: () => noAdapterTest(context, other) },
  ];
  // Each of the others compiles all kernels anew, for a device of its own.
  if (!context.thorough) return essential;
  return [
    ...essential,
    { name: "fault none: the self-test passes", run: () => selfTest(context.device) },
    ...shaders.map((shader) => ({ name: `fault wrong ${shader}`, run: () => wrongTest(context, shader) })),
    { name: `fault lost, sampled: ${pack.family}`, run: () => lostTest(context, pack, SAMPLED) },
    { name: "fault lost before a prompt", run: () => lostBeforeTest(context, other) },
    { name: "fault load aborted", run: () => abortedTest(context, other) },
    { name: "fault memory refused", run: () => refusedTest(context, other) },
    { name: "fault memory refused, with a budget", run: () => smallerTest(context) },
    ...[pack, other].map((one) => ({
      name: `fault no features, least limits: ${one.family}`,
      run: () => plainTest(context, one),
    })),
  ];
}

/** Lays properties over a GPU for the time of some work. */
async function patched<T>(gpu: GPU, properties: object, work: () => Promise<T>): Promise<T> {
  const before = Object.keys(properties).map((name) => [name, Object.getOwnPropertyDescriptor(gpu, name)] as const);
  for (const [name, value] of Object.entries(properties))
    Object.defineProperty(gpu, name, { value, configurable: true, writable: true });
  try {
    return await work();
  } finally {
    for (const [name, own] of before) {
      if (own === undefined) delete gpu[name as keyof GPU];
      else Object.defineProperty(gpu, name, own);
    }
  }
}

/** Does some work; `made` sees each device before it is used. */
function watching<T>(gpu: GPU, made: (device: GPUDevice) => void, work: () => Promise<T>): Promise<T> {
  const original = gpu.requestAdapter.bind(gpu);
  const requestAdapter = async (options?: GPURequestAdapterOptions) => {
    const adapter = await original(options);
    if (adapter === null) return null;
    return adapterOver(adapter, {
      async requestDevice(descriptor?: GPUDeviceDescriptor) {
        const device = await adapter.requestDevice(descriptor);
        made(device);
        return device;
      },
    });
  };
  return patched(gpu, { requestAdapter }, work);
}

function adapterOver(adapter: GPUAdapter, changes: Partial<GPUAdapter>): GPUAdapter {
  const { features, limits, info } = adapter;
  const requestDevice: GPUAdapter["requestDevice"] = (descriptor) => adapter.requestDevice(descriptor);
  return { ...{ features, limits, info, requestDevice }, ...changes } as GPUAdapter;
}

async function wrongTest({ gpu }: GpuContext, shader: ShaderName): Promise<void> {
  const [from, to] = WRONG[shader];
  let edits = 0;
  const device = await requestDevice(gpu, {
    edit: (name, text) => {
      if (name !== shader || !text.includes(from)) return text;
      edits++;
      return text.replaceAll(from, to);
    },
  });
  try {
    const found = await selfTest(device).then(
      () => "nothing",
      (error: unknown) => error,
    );
    expect(edits > 0, `the self-test runs no ${shader} with "${from}"`);
    expect(found instanceof GpuError && found.reason === "wrong", `with a wrong ${shader} it finds ${found}`);
  } finally {
    device.destroy();
  }
}

/** Its GPU goes away, up to so many times, in the middle of a text: the text is the same. */
async function lostTest(context: GpuContext, { file }: SmallPack, options: object): Promise<void> {
  const most = context.thorough ? LOSSES : 1;
  const devices: GPUDevice[] = [];
  const keep = (device: GPUDevice) => devices.push(device);
  await watching(context.gpu, keep, () =>
    withModel(context, hostOf(context), file, OPTIONS, async (model) => {
      const prompt = promptOf(model);
      const want = await tokensOf(model, prompt, options);
      const generation = model.generate(prompt, options);
      let pieces = 0;
      for await (const _ of generation) if (++pieces % 4 === 0 && devices.length <= most) devices.at(-1)?.destroy();
      const { tokens } = await generation.result();
      expect(devices.length > 1, `${devices.length} devices over ${pieces} pieces: none was lost`);
      expectEqual(tokens, want, `tokens, over ${devices.length} devices`);
    }),
  );
}

async function lostBeforeTest(context: GpuContext, { file }: SmallPack): Promise<void> {
  const devices: GPUDevice[] = [];
  const keep = (device: GPUDevice) => devices.push(device);
  await watching(context.gpu, keep, () =>
    withModel(context, hostOf(context), file, OPTIONS, async (model) => {
      const prompt = promptOf(model);
      const want = await tokensOf(model, prompt, GENERATED);
      devices.at(-1)?.destroy();
      expectEqual(await tokensOf(model, prompt, GENERATED), want, "tokens");
      expectEqual([devices.length], [2], "devices");
    }),
  );
}

/** Whoever stops loading finds the same device as it was. */
async function abortedTest(context: GpuContext, { file }: SmallPack): Promise<void> {
  const devices: GPUDevice[] = [];
  const keep = (device: GPUDevice) => devices.push(device);
  await watching(context.gpu, keep, async () => {
    const host = hostOf(context);
    const pack = await openPack(sourceOf(await context.fetchBytes(file), file), host, {});
    const stop = new AbortController();
    const code = await pack.load(pack.plan(OPTIONS), { signal: stop.signal, onProgress: () => stop.abort() }).then(
      () => "none",
      (error: SnugError) => error.code,
    );
    expect(code === "aborted", `${code} instead of aborted`);
    const tokens = await withModel(context, host, file, OPTIONS, (model) =>
      tokensOf(model, promptOf(model), GENERATED),
    );
    expect(tokens.length > 0, "no tokens");
    expectEqual([devices.length], [1], "devices");
  });
}

/** The device has no more than `room` bytes for buffers of at least `least` bytes. */
function scarce(device: GPUDevice, room: number, least: number): void {
  const [createBuffer, popErrorScope] = [device.createBuffer.bind(device), device.popErrorScope.bind(device)];
  let [taken, refused] = [0, false];
  device.createBuffer = (descriptor) => {
    const { size } = descriptor;
    const counts = size >= least;
    if (counts) taken += size;
    if (taken > room) refused = true;
    const buffer = createBuffer(descriptor);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      if (counts) taken -= size;
      destroy();
    };
    return buffer;
  };
  // Out-of-memory errors are told by the outer one of the two scopes that allocations have.
  let pops = 0;
  device.popErrorScope = async () => {
    const isTold = ++pops % 2 === 0 && refused;
    if (isTold) refused = false;
    const error = await popErrorScope();
    return isTold ? { message: "out of memory" } : error;
  };
}

async function refusedTest(context: GpuContext, { file }: SmallPack): Promise<void> {
  const host = hostOf(context);
  await watching(
    context.gpu,
    (device) => scarce(device, 0, 2 ** 18),
    async () => {
      const code = await withModel(context, host, file, OPTIONS, async () => "none").catch(
        (error: SnugError) => `${error.name} ${error.code}`,
      );
      expect(code === "SnugError memory", `${code} instead of SnugError memory`);
    },
  );
}

/** A plan for a budget is made anew for less, until it fits. */
async function smallerTest(context: GpuContext): Promise<void> {
  const file = "demo.snug";
  const host = hostOf(context);
  const pack = await openPack(sourceOf(await context.fetchBytes(file), file), host, {});
  const options = { context: OPTIONS.context, rows: OPTIONS.rows, device: "gpu" } as const;
  const all = pack.plan(options);
  const least = pack.plan({ ...options, pruning: 1 });
  const room = Math.floor((all.deviceBytes + least.deviceBytes) / 2);
  await watching(
    context.gpu,
    (device) => scarce(device, room, 2 ** 16),
    async () => {
      const smaller: Plan[] = [];
      const plan = pack.plan({ ...options, memory: all.totalBytes });
      const model = await pack.load(plan, { onSmaller: (tried) => smaller.push(tried) });
      try {
        expect(smaller.length > 0, "no smaller plan was tried");
        expectEqual([model.plan.totalBytes], [smaller.at(-1)?.totalBytes ?? 0], "bytes of the plan");
        expect(model.plan.deviceBytes <= room, `${model.plan.deviceBytes} bytes where there are ${room}`);
        const taken = await tokensOf(model, promptOf(model), { ...GREEDY, maxTokens: 3 });
        expect(taken.length > 0, "no tokens");
      } finally {
        model.dispose();
      }
    },
  );
}

/** A device as plain as there may be: the same texts come of it, up to what activations in f32 change. */
async function plainTest(context: GpuContext, { file }: SmallPack): Promise<void> {
  const { gpu } = context;
  const original = gpu.requestAdapter.bind(gpu);
  const plain = {
    wgslLanguageFeatures: new Set<string>(),
    async requestAdapter(options?: GPURequestAdapterOptions) {
      const adapter = await original(options);
      if (adapter === null) return null;
      const limits = new Proxy(adapter.limits, {
        get: (target, name) => LEAST_LIMITS[name as keyof typeof LEAST_LIMITS] ?? Reflect.get(target, name, target),
      });
      return adapterOver(adapter, { features: new Set<string>() as unknown as GPUSupportedFeatures, limits });
    },
  };
  const exact = { ...OPTIONS, activations: "f32" } as const;
  const run = (host: Host, options: typeof OPTIONS | typeof exact) =>
    withModel(context, host, file, options, (model) => tokensOf(model, promptOf(model), GENERATED));
  const want = await run(hostOf(context), exact);
  await patched(gpu, plain, async () => {
    const host = hostOf(context);
    expectEqual(await run(host, exact), want, "tokens with activations in f32");
    // Without packed products, a plan with activations in 8 bit works on f32.
    expectEqual(await run(host, OPTIONS), want, "tokens with activations in 8 bit");
  });
}

async function noAdapterTest(context: GpuContext, { file }: SmallPack): Promise<void> {
  await patched(context.gpu, { requestAdapter: async () => null }, async () => {
    const code = await withModel(context, hostOf(context), file, OPTIONS, async () => "none").catch(
      (error: SnugError) => `${error.name} ${error.code}`,
    );
    expect(code === "SnugError gpu", `${code} instead of SnugError gpu`);
  });
}
