// Cuts the weights of a layer into stacks of units: which rows and columns of which matrix make a unit, in which
// order. In *stored order* a unit's share of a matrix is one block of its rows or of its columns, so that a matrix is
// quantized whole and then cut (format.ts draws the units). How channels are ranked is sort.ts's business.

import { SnugError } from "../runtime/index";
import type { ModelConfig } from "./checkpoint";
import {
  BLOCK_COLS,
  DTYPE_F32,
  DTYPE_Q4,
  DTYPE_Q8,
  DTYPE_VECTOR,
  GROUP_MAX,
  GROUP_MIN,
  KIND_MLP,
  KIND_QK,
  KIND_VO,
  ROLE_DOWN,
  ROLE_GATE,
  ROLE_GATE_BIAS,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_O,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_ROPE,
  ROLE_UP,
  ROLE_UP_BIAS,
  ROLE_V,
} from "./format";
import { encodeF32, encodeQuantized, type Panel, type Quantized } from "./quantize";
import type { StoredTensor } from "./write";

/** What a matrix's columns multiply: the activations whose statistics its quantization needs. */
export type Input = "attention" | "values" | "mlp" | "hidden" | "head";

/** A matrix of all units of a stack, in stored order. */
export interface UnitMatrix {
  readonly role: number;
  readonly values: Float32Array; // [rows, cols]
  readonly rows: number;
  readonly cols: number;
  /** Which of its sides the units share out. */
  readonly axis: "rows" | "cols";
  readonly input: Input;
}

/** Small numbers of all units: [units, cols], f32. */
export interface UnitVector {
  readonly role: number;
  readonly values: Float32Array;
  /** Shape of one unit's share. */
  readonly rows: number;
  readonly cols: number;
}

/** The units of one kind in one layer, in stored order. */
export interface StackWeights {
  readonly kind: number;
  readonly channels: number;
  readonly units: number;
  readonly matrices: readonly UnitMatrix[];
  readonly vectors: readonly UnitVector[];
}

/** An attention's weights, row-major as in a checkpoint: q [heads × headDim, width], o [width, heads × headDim]. */
export interface AttentionWeights {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly o: Float32Array;
  readonly qBias: Float32Array | null;
  readonly kBias: Float32Array | null;
}

export interface MlpWeights {
  readonly gate: Float32Array; // [mlpWidth, width]
  readonly up: Float32Array;
  readonly down: Float32Array; // [width, mlpWidth]
  readonly gateBias: Float32Array | null;
  readonly upBias: Float32Array | null;
}

/** Sizes of units. */
export interface UnitSizes {
  /** Dimensions of each head in a QK and a VO unit. */
  readonly qkChannels: number;
  readonly voChannels: number;
  /** Channels of an MLP unit; the last unit is filled up with zeros. */
  readonly mlpChannels: number;
}

const HEAD_CHANNELS = 16;
const MLP_CHANNELS = 128;

/** The unit sizes for a model: 16 dimensions of each head, 128 channels of the MLP, or the nearest that its shape allows. */
export function unitSizes(config: ModelConfig, dtype: number): UnitSizes {
  const { headDim, heads, mlpWidth } = config;
  const fits = (channels: number) => dtype === DTYPE_F32 || (heads * channels) % BLOCK_COLS === 0;
  const qkChannels = largestDivisor(headDim, HEAD_CHANNELS, (channels) => channels % 2 === 0);
  const voChannels = largestDivisor(headDim, HEAD_CHANNELS, fits);
  if (qkChannels === 0 || voChannels === 0)
    throw new SnugError(
      "unsupported",
      `${heads} heads of ${headDim} cannot be cut into units whose columns are a multiple of ${BLOCK_COLS}; ` +
        "pack with --weights f32",
    );
  const mlpChannels = Math.min(MLP_CHANNELS, Math.ceil(mlpWidth / BLOCK_COLS) * BLOCK_COLS);
  return { qkChannels, voChannels, mlpChannels };
}

/** The largest group of at most `most` columns that divides `cols`; 0 for f32. */
export function groupSize(cols: number, dtype: number, most: number): number {
  if (dtype === DTYPE_F32) return 0;
  const limit = Math.min(most, GROUP_MAX);
  const group = largestDivisor(cols, limit, (size) => size % BLOCK_COLS === 0 && size >= GROUP_MIN);
  if (group === 0)
    throw new SnugError(
      "unsupported",
      `a matrix of ${cols} columns cannot be quantized: columns must be a multiple of ${BLOCK_COLS}; pack with --weights f32`,
    );
  return group;
}

function largestDivisor(n: number, most: number, allowed: (divisor: number) => boolean): number {
  for (let divisor = Math.min(n, most); divisor > 0; divisor--)
    if (n % divisor === 0 && allowed(divisor)) return divisor;
  return 0;
}

/** Which channel of an attention's output [heads × headDim] stands where in stored order. */
export function valueChannels({ heads, headDim }: ModelConfig, { voChannels }: UnitSizes): number[] {
  const plain = Array.from({ length: headDim }, (_, i) => i);
  return storedRows(heads, headDim, voChannels, () => plain);
}

/**
 * Stacks of an attention. `pairs[g]` ranks the RoPE pairs (i, i + headDim / 2) of KV head g, best first; v's rows and
 * o's columns are taken in the order in which they come.
 */
export function attentionStacks(
  config: ModelConfig,
  weights: AttentionWeights,
  pairs: readonly ArrayLike<number>[],
  sizes: UnitSizes,
): StackWeights[] {
  const { heads, kvHeads, headDim, width } = config;
  const { qkChannels, voChannels } = sizes;
  const share = heads / kvHeads;
  const half = headDim / 2;
  const dims = pairs.map((ranked) => {
    const inUnit = qkChannels / 2;
    return Array.from({ length: headDim }, (_, at) => {
      const unit = Math.floor(at / qkChannels);
      const j = at % qkChannels;
      const pair = ranked[unit * inUnit + (j % inUnit)] as number;
      return j < inUnit ? pair : pair + half;
    });
  });
  const qRows = storedRows(heads, headDim, qkChannels, (head) => dims[Math.floor(head / share)] as number[]);
  const kRows = storedRows(kvHeads, headDim, qkChannels, (head) => dims[head] as number[]);
  const plain = Array.from({ length: headDim }, (_, i) => i);
  const vRows = storedRows(kvHeads, headDim, voChannels, () => plain);
  const oCols = valueChannels(config, sizes);

  const angles = new Float32Array((kvHeads * headDim) / 2);
  kRows.forEach((row, at) => {
    const j = at % qkChannels;
    if (j >= qkChannels / 2) return;
    const head = Math.floor(at / qkChannels);
    angles[(head * qkChannels) / 2 + j] = config.ropeInverseFrequencies[row % headDim] as number;
  });
  const vectors: UnitVector[] = [{ role: ROLE_ROPE, values: angles, rows: kvHeads, cols: qkChannels / 2 }];
  if (weights.qBias)
    vectors.push({ role: ROLE_Q_BIAS, values: gather(weights.qBias, qRows), rows: 1, cols: heads * qkChannels });
  if (weights.kBias)
    vectors.push({ role: ROLE_K_BIAS, values: gather(weights.kBias, kRows), rows: 1, cols: kvHeads * qkChannels });

  const q = matrix(ROLE_Q, gatherRows(weights.q, qRows, width), heads * headDim, width, "rows", "attention");
  const k = matrix(ROLE_K, gatherRows(weights.k, kRows, width), kvHeads * headDim, width, "rows", "attention");
  const v = matrix(ROLE_V, gatherRows(weights.v, vRows, width), kvHeads * headDim, width, "rows", "attention");
  const o = matrix(ROLE_O, gatherCols(weights.o, oCols, heads * headDim), width, heads * headDim, "cols", "values");
  return [
    { kind: KIND_QK, channels: qkChannels, units: headDim / qkChannels, matrices: [q, k], vectors },
    { kind: KIND_VO, channels: voChannels, units: headDim / voChannels, matrices: [v, o], vectors: [] },
  ];
}

/** Stack of a gated MLP; `order` ranks its channels, best first. */
export function mlpStack(
  config: ModelConfig,
  weights: MlpWeights,
  order: ArrayLike<number>,
  sizes: UnitSizes,
): StackWeights {
  const { width, mlpWidth } = config;
  const channels = sizes.mlpChannels;
  const units = Math.ceil(mlpWidth / channels);
  // Channels past the last are zeros: −1 gathers nothing.
  const rows = Array.from({ length: units * channels }, (_, i) => (i < mlpWidth ? (order[i] as number) : -1));
  const vectors: UnitVector[] = [];
  if (weights.gateBias)
    vectors.push({ role: ROLE_GATE_BIAS, values: gather(weights.gateBias, rows), rows: 1, cols: channels });
  if (weights.upBias)
    vectors.push({ role: ROLE_UP_BIAS, values: gather(weights.upBias, rows), rows: 1, cols: channels });
  return {
    kind: KIND_MLP,
    channels,
    units,
    matrices: [
      matrix(ROLE_GATE, gatherRows(weights.gate, rows, width), rows.length, width, "rows", "mlp"),
      matrix(ROLE_UP, gatherRows(weights.up, rows, width), rows.length, width, "rows", "mlp"),
      matrix(ROLE_DOWN, gatherCols(weights.down, rows, mlpWidth), width, rows.length, "cols", "hidden"),
    ],
    vectors,
  };
}

/** A matrix ready to be stored: its values as they are, or quantized. */
export type Encoded = Float32Array | Quantized;

/** The tensors of each unit of a stack; `encoded` are its matrices, in their order. */
export function unitTensors(stack: StackWeights, encoded: readonly Encoded[]): StoredTensor[][] {
  return Array.from({ length: stack.units }, (_, unit) => [
    ...stack.matrices.map((m, i) => {
      const rows = m.axis === "rows" ? m.rows / stack.units : m.rows;
      const cols = m.axis === "cols" ? m.cols / stack.units : m.cols;
      const panel = { row: m.axis === "rows" ? unit * rows : 0, rows, col: m.axis === "cols" ? unit * cols : 0, cols };
      return storeMatrix(m.role, encoded[i] as Encoded, m.rows, m.cols, panel);
    }),
    ...stack.vectors.map(({ role, values, rows, cols }) =>
      storeVector(role, values.subarray(unit * rows * cols, (unit + 1) * rows * cols), rows, cols),
    ),
  ]);
}

/** A matrix [rows, cols], or a panel of it, as it is stored. */
export function storeMatrix(
  role: number,
  encoded: Encoded,
  rows: number,
  cols: number,
  panel: Panel = { row: 0, rows, col: 0, cols },
): StoredTensor {
  const shape = { role, rows: panel.rows, cols: panel.cols };
  if (encoded instanceof Float32Array)
    return { ...shape, dtype: DTYPE_F32, group: 0, bytes: encodeF32(encoded, rows, cols, panel) };
  const dtype = encoded.bits === 4 ? DTYPE_Q4 : DTYPE_Q8;
  return { ...shape, dtype, group: encoded.group, bytes: encodeQuantized(encoded, panel) };
}

export function storeVector(role: number, values: Float32Array, rows: number, cols: number): StoredTensor {
  const bytes = new Uint8Array(values.slice().buffer);
  return { role, dtype: DTYPE_VECTOR, rows, cols, group: 0, bytes };
}

/** Rows in stored order [unit][head][dim of the unit]; `dims` lists a head's dims, best first, unit by unit. */
function storedRows(
  heads: number,
  headDim: number,
  channels: number,
  dims: (head: number) => readonly number[],
): number[] {
  const rows: number[] = [];
  for (let at = 0; at < headDim; at += channels)
    for (let head = 0; head < heads; head++)
      for (const dim of dims(head).slice(at, at + channels)) rows.push(head * headDim + dim);
  return rows;
}

function matrix(
  role: number,
  values: Float32Array,
  rows: number,
  cols: number,
  axis: UnitMatrix["axis"],
  input: Input,
): UnitMatrix {
  return { role, values, rows, cols, axis, input };
}

function gather(values: Float32Array, order: readonly number[]): Float32Array {
  return Float32Array.from(order, (i) => (i < 0 ? 0 : (values[i] as number)));
}

function gatherRows(values: Float32Array, order: readonly number[], cols: number): Float32Array {
  const out = new Float32Array(order.length * cols);
  order.forEach((row, i) => {
    if (row >= 0) out.set(values.subarray(row * cols, (row + 1) * cols), i * cols);
  });
  return out;
}

function gatherCols(values: Float32Array, order: readonly number[], cols: number): Float32Array {
  const rows = values.length / cols;
  const out = new Float32Array(rows * order.length);
  for (let row = 0; row < rows; row++)
    order.forEach((col, i) => {
      if (col >= 0) out[row * order.length + i] = values[row * cols + col] as number;
    });
  return out;
}
