// What a device is asked before it is trusted: a small model of all ops, run as one row, as a few and as many, against
// numbers known beforehand (test/self-test-gpu.test.ts works them out in f64). Drivers differ, and one that computes
// wrongly says nothing.

import { CACHE_BLOCK, DEVICE_ALIGN, ROW_BYTES, ROW_OUTPUT, ROW_POSITION, ROW_TOKEN } from "../assembly/abi";
import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, DTYPE_Q8, ROW_TILE } from "../packs/format";
import { type Device, GpuError } from "./device";
import { Executor } from "./executor";
import { KNOWN_F32, KNOWN_INT8 } from "./known-numbers";
import type { MatmulOp, Matrix, Op, QuantizeOp } from "./ops";
import { tileBytesOf } from "./passes";

const WIDTH = 32;
const GROUP = 32;
const VOCABULARY = 48;
const HEADS = 2;
const DIMS = 16;
const CHANNELS = 64;
const TAPS = 4;
const STATE = 16;
const CONTEXT = 192;
/** Rows of each step, from position 0 on; the last ones are beyond the positions that attention takes at once. */
export const SELF_TEST_STEPS: readonly number[] = [1, 3, 12, 130, 1];
const MANY_ROWS = 12;
const ROWS = Math.max(...SELF_TEST_STEPS);
/**
 * Of the largest logit. On activations in 8 bit, a last digit that differs can round a number the other way: those products
 * are tried by themselves too, where nothing is rounded.
 */
const ERROR_F32 = 1e-3;
const ERROR_INT8 = 4e-2;
const SCALE_BITS = 0x2c00; // f16 1/16: of every group
const HALVES = SCALE_BITS | (SCALE_BITS << 16);

export interface SelfTestModel {
  readonly ops: readonly Op[];
  /** From address 0 on. */
  readonly weights: Uint8Array<ArrayBuffer>;
  readonly vocabulary: number;
}

/** Throws a GpuError with reason "wrong" if the device does not get the known numbers. */
export async function selfTest(device: Device): Promise<void> {
  const logits = await selfTestLogits(device);
  const known = device.packedDot ? KNOWN_INT8 : KNOWN_F32;
  const largest = Math.max(...known.map(Math.abs));
  const off = known.map((value, i) => Math.abs((logits[i] ?? Number.NaN) - value) / largest);
  const worst = Math.max(...off); // NaN, if one of them is
  if (!(worst <= (device.packedDot ? ERROR_INT8 : ERROR_F32)))
    throw wrong(device, `${worst.toPrecision(2)} off in its self-test`);
  if (!(await choosesRightly(device))) throw wrong(device, "it does not find the largest of some numbers");
  if (device.packedDot) for (const dtype of [DTYPE_Q4, DTYPE_Q8]) await testProducts(device, dtype);
}

function wrong(device: Device, how: string): GpuError {
  return new GpuError("wrong", `the GPU (${device.name}) computes wrongly: ${how}`);
}

const PRODUCT_ROWS = 32;
const PRODUCT_COLS = 128;
const CODE_MOST = 127;

/** Products of whole numbers, which come out exact: of one row, and of many. */
async function testProducts(device: Device, dtype: number): Promise<void> {
  const memory = new Layout();
  const matrix = memory.matrix(dtype, PRODUCT_ROWS, PRODUCT_COLS);
  const weights = memory.image();
  const [input, codes, out] = [PRODUCT_COLS * 4, PRODUCT_COLS * 2, PRODUCT_ROWS * 4].map((bytes) =>
    memory.take(MANY_ROWS * bytes),
  ) as [number, number, number];
  const ops = [codesOp(input, codes, PRODUCT_COLS), productOp(matrix, input, codes, out)];
  const capacity = { rows: MANY_ROWS, outputs: 1, sequences: 1 };
  const executor = await Executor.of(device, ops, { vocabulary: 1, capacity });
  try {
    // The first of each group is the largest, so that numbers are their own codes.
    const x = Float32Array.from({ length: MANY_ROWS * PRODUCT_COLS }, (_, i) =>
      i % GROUP === 0 ? CODE_MOST : ((i * 37) % (2 * CODE_MOST + 1)) - CODE_MOST,
    );
    executor.upload(0, weights);
    executor.upload(input, new Uint8Array(x.buffer));
    await executor.compiled();
    for (const rows of [1, MANY_ROWS]) {
      executor.run(rowsOf(rows, 0));
      const got = new Float32Array((await executor.memory(out, rows * PRODUCT_ROWS * 4)).slice().buffer);
      for (const [i, value] of got.entries()) {
        const [t, row] = [Math.floor(i / PRODUCT_ROWS), i % PRODUCT_ROWS];
        let want = 0;
        for (let col = 0; col < PRODUCT_COLS; col++)
          want += (levelOf(weights, matrix, row, col) * (x[t * PRODUCT_COLS + col] as number)) / 16;
        if (value !== want) throw wrong(device, `a product of whole numbers is ${value}, not ${want}`);
      }
    }
  } finally {
    executor.destroy();
  }
}

/** The number that a code stands for; packs/format.ts has the layout. */
function levelOf(weights: Uint8Array, { address, dtype, cols }: PlacedMatrix, row: number, col: number): number {
  const tile = address + Math.floor(row / ROW_TILE) * tileBytesOf(dtype, cols, GROUP);
  const group = tile + Math.floor(col / GROUP) * tileBytesOf(dtype, GROUP, GROUP);
  const [lane, i] = [row % ROW_TILE, col % GROUP];
  const blockCols = dtype === DTYPE_Q4 ? BLOCK_COLS : BLOCK_COLS / 2;
  const byte = weights[group + ROW_TILE * 2 + Math.floor(i / blockCols) * 64 + lane * 4 + (i % 4)] as number;
  if (dtype === DTYPE_Q8) return (byte << 24) >> 24;
  return ((byte >> (i % BLOCK_COLS < 4 ? 0 : 4)) & 15) - 8;
}

/** The logits of the last row of each step. */
export async function selfTestLogits(device: Device): Promise<number[]> {
  const { ops, weights, vocabulary } = selfTestModel(device.packedDot);
  const capacity = { rows: ROWS, outputs: 1, sequences: 1 };
  const table = Uint32Array.from({ length: CONTEXT / CACHE_BLOCK }, (_, i) => i);
  const executor = await Executor.of(device, ops, { vocabulary, capacity, table });
  try {
    executor.upload(0, weights);
    await executor.compiled();
    const logits: number[] = [];
    let position = 0;
    for (const rows of SELF_TEST_STEPS) {
      logits.push(...(await executor.logits(rowsOf(rows, position))));
      position += rows;
    }
    return logits;
  } finally {
    executor.destroy();
  }
}

const CHOICES = 1000;
const CHOICE_COLS = 8;
const CANDIDATES = 10;
/** Those that reach the smallest of the candidates' parts: few more, if it is the right one. */
const CANDIDATES_MOST = 30;

/** Compares choices among many logits with the logits that they are made from. */
async function choosesRightly(device: Device): Promise<boolean> {
  const memory = new Layout();
  const head = memory.matrix(DTYPE_F32, CHOICES, CHOICE_COLS);
  const weights = memory.image();
  const [input, out] = [memory.take(CHOICE_COLS * 4), memory.take(CHOICES * 4)];
  const op = { ...productOp(head, input, 0, out), outputs: true };
  const capacity = { rows: 1, outputs: 1, sequences: 1 };
  const executor = await Executor.of(device, [op], { vocabulary: CHOICES, capacity });
  const largest = (logits: Float32Array) => logits.indexOf(Math.max(...logits));
  try {
    executor.upload(0, weights);
    executor.upload(input, new Uint8Array(Float32Array.from({ length: CHOICE_COLS }, (_, i) => i + 1).buffer));
    await executor.compiled();
    const row = rowsOf(1, 0);
    const [best] = await executor.best(row);
    const logits = await executor.lastLogits(1);
    if (best !== largest(logits)) return false;
    for await (const token of executor.greedy(row, 1)) if (token !== best) return false;
    const candidates = await executor.candidates(row, CANDIDATES);
    if (candidates === null || candidates.ids.length < CANDIDATES || candidates.ids.length > CANDIDATES_MOST)
      return false;
    const found = new Map(candidates.ids.map((id, i) => [id, candidates.logits[i]]));
    return logits.every((logit, id) => found.get(id) === (logit >= candidates.bound ? logit : undefined));
  } finally {
    executor.destroy();
  }
}

/** Consecutive tokens of one sequence; the last one wants logits. */
function rowsOf(count: number, position: number): Uint8Array {
  const records = new Uint8Array(count * ROW_BYTES);
  const view = new DataView(records.buffer);
  for (let t = 0; t < count; t++) {
    view.setUint32(t * ROW_BYTES + ROW_TOKEN, selfTestToken(position + t), true);
    view.setUint32(t * ROW_BYTES + ROW_POSITION, position + t, true);
    view.setUint32(t * ROW_BYTES + ROW_OUTPUT, t === count - 1 ? 1 : 0, true);
  }
  return records;
}

/** The token at a position. */
export function selfTestToken(position: number): number {
  return (position * 11 + 5) % VOCABULARY;
}

/** coded: matrices of 4 and 8 bit work on activations of 8 bit. */
export function selfTestModel(coded: boolean): SelfTestModel {
  const memory = new Layout();
  const rows = (floats: number) => memory.take(ROWS * floats * 4);
  const vector = (floats: number, from: number, to: number) => memory.floats(floats, from, to);
  const embedding = memory.matrix(DTYPE_Q4, VOCABULARY, WIDTH);
  const norms = Array.from({ length: 5 }, () => vector(WIDTH, 0.5, 1.5));
  const [qBias, oBias] = [vector(HEADS * DIMS, -0.2, 0.2), vector(WIDTH, -0.2, 0.2)];
  const angles = vector(DIMS / 2, 0.01, 1);
  const [q, k, v] = [HEADS, 1, 1].map((heads) => memory.matrix(DTYPE_Q4, heads * DIMS, WIDTH));
  const o = memory.matrix(DTYPE_Q4, WIDTH, HEADS * DIMS);
  const [gate, up] = [0, 1].map(() => memory.matrix(DTYPE_Q4, CHANNELS, WIDTH));
  const down = memory.matrix(DTYPE_Q4, WIDTH, CHANNELS / 2, 2);
  const [z, x] = [0, 1].map(() => memory.matrix(DTYPE_Q8, HEADS * DIMS, WIDTH));
  const [b, c] = [0, 1].map(() => memory.matrix(DTYPE_F32, STATE, WIDTH));
  const dt = memory.matrix(DTYPE_Q8, HEADS, WIDTH);
  const convs = [HEADS * DIMS, STATE, STATE].map((channels) => vector((TAPS + 1) * channels, -0.5, 0.5));
  const [dtBias, a, d, gatedNorm] = [
    vector(HEADS, -1, 1),
    vector(HEADS, -1, -0.1),
    vector(HEADS, 0.5, 1),
    vector(HEADS * DIMS, 0.5, 1.5),
  ];
  const out = memory.matrix(DTYPE_Q4, WIDTH, HEADS * DIMS);
  const [upSquared, downSquared] = [memory.matrix(DTYPE_Q4, CHANNELS, WIDTH), memory.matrix(DTYPE_Q4, WIDTH, CHANNELS)];
  const head = memory.matrix(DTYPE_Q8, VOCABULARY, WIDTH);

  const weights = memory.image();
  const stream = rows(WIDTH);
  const y = rows(WIDTH);
  const selected = memory.take(WIDTH * 4);
  const codes = rows(CHANNELS * 2);
  const [qs, ks, vs, attended] = [rows(HEADS * DIMS), rows(DIMS), rows(DIMS), rows(HEADS * DIMS)];
  const scratch = memory.take(8 * HEADS * 16 * (DIMS + 2) * 4);
  const [gates, ups, channels] = [rows(CHANNELS), rows(CHANNELS), rows(CHANNELS)];
  const [zs, xs, scanned] = [rows(HEADS * DIMS), rows(HEADS * DIMS), rows(HEADS * DIMS)];
  const [bs, cs, dts] = [rows(STATE), rows(STATE), rows(HEADS)];
  const logits = memory.take(VOCABULARY * 4);
  const [kCache, vCache] = [memory.take(CONTEXT * DIMS * 4), memory.take(CONTEXT * DIMS * 4)];
  const convStates = [HEADS * DIMS, STATE, STATE].map((width) => memory.take((TAPS - 1) * width * 4));
  const state = memory.take(HEADS * DIMS * STATE * 4);

  const ops: Op[] = [];
  const norm = (index: number, input = stream, to = y, outputs = false) =>
    ops.push({ kind: "norm", outputs, input, out: to, weight: norms[index] as number, width: WIDTH, eps: 1e-5 });
  let coder = 0; // what the codes are of
  const matmul = (matrix: PlacedMatrix, input: number, to: number, options: MatmulOptions = {}) => {
    const { add = false, outputs = false, bias = 0, alongside = false, axisRows = true } = options;
    const isCoded = coded && matrix.dtype !== DTYPE_F32;
    const op = productOp(matrix, input, isCoded ? codes : 0, to, axisRows);
    if (isCoded && !(alongside && coder === input)) {
      ops.push({ ...codesOp(input, codes, op.rowCols), outputs });
      coder = input;
    }
    ops.push({ ...op, outputs, alongside, add, matrices: op.matrices.map((one) => ({ ...one, bias })) });
  };
  const alongside = { alongside: true };

  ops.push({
    kind: "embed",
    out: stream,
    weight: embedding.address,
    dtype: DTYPE_Q4,
    group: GROUP,
    width: WIDTH,
    first: 0,
    tokens: VOCABULARY,
  });
  norm(0);
  matmul(q as PlacedMatrix, y, qs, { bias: qBias });
  matmul(k as PlacedMatrix, y, ks, alongside);
  matmul(v as PlacedMatrix, y, vs, alongside);
  const shape = { units: 1, channels: DIMS, heads: HEADS, kvHeads: 1 };
  ops.push({ kind: "rope", q: qs, k: ks, ...shape, angles, unitBytes: 64 });
  ops.push({
    ...{ kind: "attention", q: qs, k: ks, v: vs, out: attended, ...shape, valueUnits: 1, valueChannels: DIMS },
    ...{ kCache, vCache, context: CONTEXT, scale: 0.25, scratch, rope: null },
  });
  matmul(o, attended, stream, { add: true, bias: oBias });
  norm(1);
  matmul(gate as PlacedMatrix, y, gates);
  matmul(up as PlacedMatrix, y, ups, alongside);
  ops.push({ kind: "gate", gate: gates, up: ups, width: CHANNELS });
  matmul(down, gates, stream, { add: true, axisRows: false });
  norm(2);
  matmul(z as PlacedMatrix, y, zs);
  matmul(x as PlacedMatrix, y, xs, alongside);
  matmul(dt, y, dts, alongside);
  matmul(b as PlacedMatrix, y, bs, alongside);
  matmul(c as PlacedMatrix, y, cs, alongside);
  for (const [i, data] of [xs, bs, cs].entries()) {
    const width = i === 0 ? HEADS * DIMS : STATE;
    const own = { units: 1, channels: width, taps: TAPS, unitBytes: 0 };
    ops.push({ kind: "conv", data, ...own, weight: convs[i] as number, state: convStates[i] as number });
  }
  ops.push({ kind: "stepSize", data: dts, heads: HEADS, bias: dtBias, least: 0.001, most: 2 });
  ops.push({
    ...{ kind: "scan", x: xs, b: bs, c: cs, dt: dts, out: scanned, a, d, state },
    ...{ units: 1, channels: DIMS, stateUnits: 1, stateChannels: STATE, heads: HEADS, groups: 1 },
  });
  ops.push({
    ...{ kind: "gatedNorm", data: scanned, gate: zs, weight: gatedNorm, unitBytes: 0, units: 1, heads: HEADS },
    ...{ channels: DIMS, groups: 1, divisor: HEADS * DIMS, eps: 1e-5 },
  });
  matmul(out, scanned, stream, { add: true });
  norm(3);
  matmul(upSquared, y, channels);
  ops.push({ kind: "squaredRelu", data: channels, width: CHANNELS });
  matmul(downSquared, channels, stream, { add: true });
  ops.push({ kind: "select", input: stream, out: selected, width: WIDTH });
  norm(4, selected, selected, true);
  matmul(head, selected, logits, { outputs: true });
  return { ops, weights, vocabulary: VOCABULARY };
}

/** Four numbers from −8 to 7 of four times 4 bits. */
function signedBytes(word: number): number {
  return (((word & 0x0f0f0f0f) | 0x80808080) - 0x08080808) ^ 0x80808080;
}

interface MatmulOptions {
  readonly add?: boolean;
  readonly outputs?: boolean;
  readonly bias?: number;
  readonly alongside?: boolean;
  readonly axisRows?: boolean;
}

interface PlacedMatrix {
  readonly address: number;
  readonly dtype: number;
  /** Of a panel, as are cols. */
  readonly rows: number;
  readonly cols: number;
  readonly panels: number;
  readonly panelBytes: number;
}

function codesOp(input: number, out: number, cols: number): QuantizeOp {
  return { kind: "quantize", outputs: false, input, out, cols, group: GROUP, norm: null };
}

/** codes: 0 where activations stay f32. */
function productOp(matrix: PlacedMatrix, input: number, codes: number, out: number, axisRows = true): MatmulOp {
  const { address, dtype, rows, cols, panels, panelBytes } = matrix;
  const rowCols = cols * (axisRows ? 1 : panels);
  const placed: Matrix = { weight: address, rows, panels, panelBytes, bias: 0, biasBytes: 0, out, outStride: rows };
  return {
    ...{ kind: "matmul", outputs: false, alongside: false, add: false, input, inputStride: rowCols, codes, dtype },
    ...{ group: dtype === DTYPE_F32 ? 0 : GROUP, cols, axisRows, firstCol: 0, rowCols },
    ...{ matrices: [placed], quantize: null, gated: false, squaredRelu: false, roles: [0] },
  };
}

/** Addresses one behind the other, and pseudo-random weights at the first of them. */
class Layout {
  #end = DEVICE_ALIGN;
  #seed = 2463534242;
  readonly #weights: { address: number; words: Uint32Array<ArrayBuffer> }[] = [];

  take(bytes: number): number {
    const address = this.#end;
    this.#end = Math.ceil((address + bytes) / DEVICE_ALIGN) * DEVICE_ALIGN;
    return address;
  }

  /** f32 from one number to another. */
  floats(count: number, from: number, to: number): number {
    const values = Float32Array.from({ length: count }, () => from + ((to - from) * this.#next()) / 2 ** 32);
    return this.#put(new Uint32Array(values.buffer));
  }

  /** Codes of all sizes, and one scale; f32 from −1/2 to 1/2. */
  matrix(dtype: number, rows: number, cols: number, panels = 1): PlacedMatrix {
    const panelBytes = Math.ceil(rows / ROW_TILE) * tileBytesOf(dtype, cols, dtype === DTYPE_F32 ? 0 : GROUP);
    const words = new Uint32Array((panels * panelBytes) / 4);
    const isQuantized = dtype !== DTYPE_F32;
    const groupWords = isQuantized ? tileBytesOf(dtype, GROUP, GROUP) / 4 : 1;
    const floats = new Float32Array(words.buffer);
    for (let i = 0; i < words.length; i++) {
      if (!isQuantized) floats[i] = this.#next() / 2 ** 32 - 0.5;
      else if (i % groupWords < ROW_TILE / 2) words[i] = HALVES;
      // Of 8 bit, only the higher four are random: weights are not 16 times as large as those of 4 bit.
      else words[i] = dtype === DTYPE_Q4 ? this.#next() : signedBytes(this.#next());
    }
    return { address: this.#put(words), dtype, rows, cols, panels, panelBytes };
  }

  /** All weights, from address 0 on. */
  image(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#end);
    for (const { address, words } of this.#weights) bytes.set(new Uint8Array(words.buffer), address);
    return bytes;
  }

  #put(words: Uint32Array<ArrayBuffer>): number {
    const address = this.take(words.byteLength);
    this.#weights.push({ address, words });
    return address;
  }

  /** xorshift32 */
  #next(): number {
    this.#seed ^= this.#seed << 13;
    this.#seed ^= this.#seed >>> 17;
    this.#seed ^= this.#seed << 5;
    return this.#seed >>> 0;
  }
}
