// What a GPU can do at most through WebGPU: how fast it reads, multiplies, starts a dispatch and answers. Each function
// checks that what it timed was computed.

import {
  BUFFER_COPY_DST,
  BUFFER_COPY_SRC,
  BUFFER_MAP_READ,
  BUFFER_STORAGE,
  BUFFER_UNIFORM,
  MAP_READ,
} from "../../../gpu/usage";
import { median } from "../contest";
import { type PassTime, PassTimer } from "./pass-timer";
import { readBack } from "./read-back";

/** What a time was taken with: the GPU's timestamps, or the host's clock where there are none. */
export type Clock = "gpu" | "host";

export interface ReadBandwidth {
  /** Read in one pass. */
  readonly bytes: number;
  /** That they lie in, each read by a dispatch of its own. */
  readonly buffers: number;
  /** Of a dispatch: as many as were fastest. */
  readonly workgroups: number;
  readonly bytesPerSecond: number;
  readonly clock: Clock;
}

/** C [rows, cols] = A [rows, inner] × B [inner, cols]. */
export interface GemmShape {
  readonly rows: number;
  readonly cols: number;
  readonly inner: number;
}

export interface GemmRate extends GemmShape {
  readonly seconds: number;
  /** A multiplication and an addition are two. */
  readonly operationsPerSecond: number;
  readonly clock: Clock;
}

/** Of a dispatch that waits for the one before it, and does next to nothing itself. */
export interface DispatchTime {
  /** null where the device has no timestamps. */
  readonly gpuSeconds: number | null;
  readonly wallSeconds: number;
  /** For the host to record it; not part of `wallSeconds`. */
  readonly encodeSeconds: number;
}

export interface Ceilings {
  readonly read: ReadBandwidth;
  readonly gemms: readonly GemmRate[];
  readonly dispatch: DispatchTime;
  readonly readBackSeconds: number;
}

export interface CeilingSizes {
  readonly readBytes: number;
  /** Of a dispatch that reads: the fastest of these is told. */
  readonly readWorkgroups: readonly number[];
  readonly gemms: readonly GemmShape[];
  /** In one pass. */
  readonly dispatches: number;
}

const BUFFER_BYTES = 2 ** 30;
const THREADS = 256;
const GEMM_TILE = 128;
const CHECKED = 16;
const ROUNDING = 2 ** -24;
const MULTIPLIER = 0x9e3779b1;
const FILLING_WORKGROUPS = 4096;

// A word of memory is its place times MULTIPLIER, and as a number of a matrix, one of 256 between −1 and 1.
const WORD = `fn word(at: u32) -> u32 { return at * ${MULTIPLIER}u; }`;
const wordAt = (at: number) => Math.imul(at, MULTIPLIER) >>> 0;
const valueAt = (at: number) => ((wordAt(at) >>> 24) - 128) / 128;

export async function measureCeilings(device: GPUDevice, sizes: CeilingSizes): Promise<Ceilings> {
  const gemms: GemmRate[] = [];
  for (const shape of sizes.gemms) gemms.push(await gemmRate(device, shape));
  return {
    read: await readBandwidth(device, sizes.readBytes, sizes.readWorkgroups),
    gemms,
    dispatch: await dispatchTime(device, sizes.dispatches),
    readBackSeconds: await readBackSeconds(device),
  };
}

/** Reads `bytes`, or as much as the device can hold of them, by each of these numbers of workgroups. */
export async function readBandwidth(
  device: GPUDevice,
  bytes: number,
  workgroups: readonly number[],
): Promise<ReadBandwidth> {
  const most = Math.min(BUFFER_BYTES, device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  const bufferBytes = Math.min(bytes, Math.floor(most / 2 ** 16) * 2 ** 16);
  const sources: GPUBuffer[] = [];
  while (sources.length * bufferBytes < bytes) {
    const source = await createOrNull(device, bufferBytes);
    if (source === null) break;
    sources.push(source);
  }
  if (sources.length === 0) throw new Error(`no buffer of ${bufferBytes} bytes could be had`);
  const sumsBytes = Math.max(...workgroups) * 4;
  const sums = sources.map(() => createStorage(device, sumsBytes));
  const fill = await compile(device, FILL_WORDS);
  const read = await compile(device, READ);
  await run(
    device,
    fill,
    sources.map((source) => [source]),
    FILLING_WORKGROUPS,
  );

  const groups = sources.map((source, i) => bind(device, read, [source, sums[i]]));
  const words = bufferBytes / 4;
  const expected = Number((BigInt(MULTIPLIER) * ((BigInt(words) * BigInt(words - 1)) / 2n)) & 0xffffffffn);
  const timer = new PassTimer(device);
  let best: ReadBandwidth | null = null;
  for (const count of workgroups) {
    for (const sum of sums) poison(device, sum, sumsBytes);
    const time = await timer.time((pass) => {
      pass.setPipeline(read);
      for (const group of groups) {
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(count);
      }
    });
    for (const sum of sums) {
      const parts = new Uint32Array(await readBack(device, sum, 0, count * 4));
      const total = parts.reduce((a, b) => (a + b) >>> 0, 0);
      if (total !== expected) throw new Error(`reading sums up to ${total}, not ${expected}`);
    }
    const { seconds, clock } = timed(time);
    const total = bufferBytes * sources.length;
    const rate = { bytes: total, buffers: sources.length, workgroups: count, bytesPerSecond: total / seconds, clock };
    if (best === null || rate.bytesPerSecond > best.bytesPerSecond) best = rate;
  }
  timer.dispose();
  for (const buffer of [...sources, ...sums]) buffer.destroy();
  return best as ReadBandwidth;
}

/** Multiplies matrices of f32 by tiles in workgroup memory. All sides are multiples of 128. */
export async function gemmRate(device: GPUDevice, { rows, cols, inner }: GemmShape): Promise<GemmRate> {
  const [a, b, c] = [rows * inner, inner * cols, rows * cols].map((count) => createStorage(device, count * 4));
  const fill = await compile(device, FILL_VALUES);
  const gemm = await compile(device, GEMM);
  await run(device, fill, [[a], [b]], FILLING_WORKGROUPS);
  const shape = device.createBuffer({ size: 16, usage: BUFFER_UNIFORM | BUFFER_COPY_DST });
  device.queue.writeBuffer(shape, 0, new Uint32Array([rows, cols, inner, 0]));

  const checked = Array.from({ length: CHECKED }, (_, i) => wordAt(i + 1) % (rows * cols));
  for (const at of checked) device.queue.writeBuffer(c, at * 4, new Float32Array([Number.NaN]));
  const group = bind(device, gemm, [a, b, c, shape]);
  const timer = new PassTimer(device);
  const time = await timer.time((pass) => {
    pass.setPipeline(gemm);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(cols / GEMM_TILE, rows / GEMM_TILE);
  });
  for (const at of checked) {
    const [got] = new Float32Array(await readBack(device, c, at * 4, 4));
    const [row, col] = [Math.floor(at / cols), at % cols];
    let [sum, size] = [0, 0];
    for (let k = 0; k < inner; k++) {
      const product = valueAt(row * inner + k) * valueAt(k * cols + col);
      sum += product;
      size += Math.abs(product);
    }
    if (!(Math.abs(got - sum) <= 8 * Math.sqrt(inner) * ROUNDING * size))
      throw new Error(`the product at ${row}, ${col} is ${got}, not ${sum}`);
  }
  timer.dispose();
  for (const buffer of [a, b, c, shape]) buffer.destroy();
  const { seconds, clock } = timed(time);
  return { rows, cols, inner, seconds, operationsPerSecond: (2 * rows * cols * inner) / seconds, clock };
}

export async function dispatchTime(device: GPUDevice, count: number): Promise<DispatchTime> {
  const counter = createStorage(device, 4);
  const increment = await compile(device, INCREMENT);
  const group = bind(device, increment, [counter]);
  const timer = new PassTimer(device);
  const encodings: number[] = [];
  const { gpu, wall } = await timer.time((pass) => {
    const started = performance.now();
    for (let i = 0; i < count; i++) {
      pass.setPipeline(increment);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(1);
    }
    encodings.push((performance.now() - started) / 1000);
  });
  await expectCount(device, counter, encodings.length * count);
  timer.dispose();
  counter.destroy();
  return {
    gpuSeconds: gpu && gpu / count,
    wallSeconds: wall / count,
    encodeSeconds: median(encodings) / count,
  };
}

/** From recording one small dispatch until the host has read what it wrote. */
export async function readBackSeconds(device: GPUDevice, count = 50): Promise<number> {
  const counter = createStorage(device, 4);
  const increment = await compile(device, INCREMENT);
  const group = bind(device, increment, [counter]);
  const read = device.createBuffer({ size: 4, usage: BUFFER_MAP_READ | BUFFER_COPY_DST });
  const times: number[] = [];
  for (let i = 1; i <= count; i++) {
    const started = performance.now();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(increment);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(counter, 0, read, 0, 4);
    device.queue.submit([encoder.finish()]);
    await read.mapAsync(MAP_READ);
    const [got] = new Uint32Array(read.getMappedRange());
    times.push((performance.now() - started) / 1000);
    if (got !== i) throw new Error(`after ${i} dispatches, ${got} is read`);
    read.unmap();
  }
  counter.destroy();
  read.destroy();
  return median(times.slice(Math.floor(count / 5)));
}

// Working with a device

function timed({ gpu, wall }: PassTime): { seconds: number; clock: Clock } {
  return gpu === null ? { seconds: wall, clock: "host" } : { seconds: gpu, clock: "gpu" };
}

function createStorage(device: GPUDevice, size: number): GPUBuffer {
  const usage = BUFFER_STORAGE | BUFFER_COPY_SRC | BUFFER_COPY_DST;
  return device.createBuffer({ size, usage });
}

/** null where the memory is not there. */
async function createOrNull(device: GPUDevice, size: number): Promise<GPUBuffer | null> {
  device.pushErrorScope("out-of-memory");
  const buffer = createStorage(device, size);
  return (await device.popErrorScope()) === null ? buffer : null;
}

function compile(device: GPUDevice, code: string): Promise<GPUComputePipeline> {
  return device.createComputePipelineAsync({
    layout: "auto",
    compute: { module: device.createShaderModule({ code }) },
  });
}

function bind(device: GPUDevice, pipeline: GPUComputePipeline, buffers: readonly GPUBuffer[]): GPUBindGroup {
  const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
  return device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
}

/** One dispatch for each list of buffers. */
async function run(
  device: GPUDevice,
  pipeline: GPUComputePipeline,
  bindings: readonly (readonly GPUBuffer[])[],
  workgroups: number,
): Promise<void> {
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  for (const buffers of bindings) {
    pass.setBindGroup(0, bind(device, pipeline, buffers));
    pass.dispatchWorkgroups(workgroups);
  }
  pass.end();
  device.queue.submit([encoder.finish()]);
  await device.queue.onSubmittedWorkDone();
}

function poison(device: GPUDevice, buffer: GPUBuffer, bytes: number): void {
  device.queue.writeBuffer(buffer, 0, new Uint8Array(bytes).fill(0xa5));
}

async function expectCount(device: GPUDevice, counter: GPUBuffer, expected: number): Promise<void> {
  const [got] = new Uint32Array(await readBack(device, counter, 0, 4));
  if (got !== expected) throw new Error(`${got} dispatches ran, not ${expected}`);
}

// Kernels

const FILL_WORDS = `
${WORD}
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  for (var i = id.x; i < arrayLength(&words); i += workgroups.x * ${THREADS}u) { words[i] = word(i); }
}`;

const FILL_VALUES = `
${WORD}
@group(0) @binding(0) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) workgroups: vec3u) {
  for (var i = id.x; i < arrayLength(&values); i += workgroups.x * ${THREADS}u) {
    values[i] = (f32(word(i) >> 24u) - 128.0) / 128.0;
  }
}`;

// Four loads of a thread are under way at once; a workgroup writes one sum.
const READ = `
@group(0) @binding(0) var<storage, read> words: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
var<workgroup> total: atomic<u32>;

@compute @workgroup_size(${THREADS})
fn main(
  @builtin(global_invocation_id) id: vec3u,
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let step = workgroups.x * ${THREADS}u;
  let end = arrayLength(&words);
  var sum = vec4u();
  var i = id.x;
  for (; i + 3u * step < end; i += 4u * step) {
    sum += words[i] + words[i + step] + words[i + 2u * step] + words[i + 3u * step];
  }
  for (; i < end; i += step) { sum += words[i]; }
  atomicAdd(&total, sum.x + sum.y + sum.z + sum.w);
  workgroupBarrier();
  if (thread == 0u) { sums[workgroup.x] = atomicLoad(&total); }
}`;

const INCREMENT = `
@group(0) @binding(0) var<storage, read_write> counter: u32;

@compute @workgroup_size(1)
fn main() { counter += 1u; }`;

// A workgroup makes a tile of 128 × 128 in steps of 8 along the inner side; a thread makes 8 rows of it by 4 columns and
// the 4 that lie 64 further.
const GEMM = `
struct Shape { rows: u32, cols: u32, inner: u32 }
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4f>;
@group(0) @binding(3) var<uniform> shape: Shape;
const TILE = ${GEMM_TILE}u;
const STEP = 8u;
var<workgroup> aTile: array<array<f32, TILE>, STEP>; // [inner][row]
var<workgroup> bTile: array<array<vec4f, TILE / 4u>, STEP>; // [inner][column / 4]

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(local_invocation_index) thread: u32) {
  let aRow = tile.y * TILE + thread / 2u;
  let aPart = thread % 2u;
  let bRow = thread / 32u;
  let bPart = thread % 32u;
  let left = thread % 16u;
  let top = thread / 16u * 8u;
  let quarterCols = shape.cols / 4u;
  var sums = array<array<vec4f, 2>, 8>();
  for (var k = 0u; k < shape.inner; k += STEP) {
    let fromA = a[(aRow * shape.inner + k) / 4u + aPart];
    for (var i = 0u; i < 4u; i++) { aTile[aPart * 4u + i][thread / 2u] = fromA[i]; }
    bTile[bRow][bPart] = b[(k + bRow) * quarterCols + tile.x * TILE / 4u + bPart];
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let b0 = bTile[i][left];
      let b1 = bTile[i][left + 16u];
      for (var row = 0u; row < 8u; row++) {
        let fromTile = vec4f(aTile[i][top + row]);
        sums[row][0] = fma(fromTile, b0, sums[row][0]);
        sums[row][1] = fma(fromTile, b1, sums[row][1]);
      }
    }
    workgroupBarrier();
  }
  for (var row = 0u; row < 8u; row++) {
    let at = (tile.y * TILE + top + row) * quarterCols + tile.x * TILE / 4u + left;
    c[at] = sums[row][0];
    c[at + 16u] = sums[row][1];
  }
}`;
