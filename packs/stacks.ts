// Weights of a layer cut into stacks of units. In *stored order* a unit's share of a matrix is one block of its rows or
// of its columns, so that a matrix is quantized whole and then cut (format.ts draws the units). Which rows and columns
// make a unit, and how they are ranked, is for packs/sublayers/ to say.

import { SnugError } from "../runtime/index";
import type { ModelConfig } from "./config";
import { encodeF32, encodeQuantized, type Panel, type Quantized } from "./encode";
import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, DTYPE_Q8, DTYPE_VECTOR, GROUP_MAX, GROUP_MIN } from "./format";
import type { StoredTensor } from "./write";

/** A matrix of all units of a stack, in stored order; or one of the fixed part, which all units share. */
export interface UnitMatrix {
  readonly role: number;
  readonly values: Float32Array; // [rows, cols]
  readonly rows: number;
  readonly cols: number;
  /** Which of its sides the units share out. */
  readonly axis: "rows" | "cols";
}

/** Small numbers of all units: [units, rows, cols], f32. */
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

/** Channels of a unit of each kind. */
export interface UnitSizes {
  /** Dimensions of each head in a QK and a VO unit. */
  readonly qkChannels: number;
  readonly voChannels: number;
  /** Channels of an MLP unit; the last unit is filled up with zeros. */
  readonly mlpChannels: number;
  /** Dimensions of the state in a BC unit, of each SSM head in an XZ unit. */
  readonly bcChannels: number;
  readonly xzChannels: number;
}

const HEAD_CHANNELS = 16;
const MLP_CHANNELS = 128;

/**
 * The unit sizes for a model: 16 dimensions of each head or of the state, 128 channels of the MLP, or the nearest that
 * its shape allows; 0 for what it has none of.
 */
export function unitSizes({ headDim, heads, mlpWidth, ssm }: ModelConfig, dtype: number): UnitSizes {
  const whole = (count: number) => (channels: number) => dtype === DTYPE_F32 || (count * channels) % BLOCK_COLS === 0;
  const size = (dims: number, what: string, allowed: (channels: number) => boolean) => {
    const channels = largestDivisor(dims, HEAD_CHANNELS, allowed);
    if (channels === 0 && dims > 0)
      throw new SnugError(
        "unsupported",
        `${what} of ${dims} cannot be cut into units whose columns are a multiple of ${BLOCK_COLS}; ` +
          "pack with --weights f32",
      );
    return channels;
  };
  return {
    qkChannels: size(headDim, `${heads} heads`, (channels) => channels % 2 === 0),
    voChannels: size(headDim, `${heads} heads`, whole(heads)),
    mlpChannels: Math.min(MLP_CHANNELS, Math.ceil(mlpWidth / BLOCK_COLS) * BLOCK_COLS),
    bcChannels: size(ssm?.state ?? 0, "a state", () => true),
    xzChannels: size(ssm?.headDim ?? 0, `${ssm?.heads} SSM heads`, whole(ssm?.heads ?? 0)),
  };
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

// Making stacks

/**
 * Where channels lie in stored order [unit][head][channel of the unit]: `orders[head]` lists a head's channels, best
 * first; what comes back counts the heads' channels one behind the other, `dims` each.
 */
export function storedChannels(orders: readonly ArrayLike<number>[], dims: number, channels: number): number[] {
  const stored: number[] = [];
  for (let at = 0; at < dims; at += channels)
    orders.forEach((order, head) => {
      for (let i = at; i < at + channels; i++) stored.push(head * dims + (order[i] as number));
    });
  return stored;
}

/** Rows of `values` [rows, cols] in this order, as a matrix whose units share out its rows; −1 gathers zeros. */
export function rowMatrix(role: number, values: Float32Array, order: readonly number[], cols: number): UnitMatrix {
  const out = new Float32Array(order.length * cols);
  order.forEach((row, i) => {
    if (row >= 0) out.set(values.subarray(row * cols, (row + 1) * cols), i * cols);
  });
  return { role, values: out, rows: order.length, cols, axis: "rows" };
}

/** Columns of `values` [rows, cols] in this order, as a matrix whose units share out its columns; −1 gathers zeros. */
export function colMatrix(role: number, values: Float32Array, order: readonly number[], rows: number): UnitMatrix {
  const cols = values.length / rows;
  const out = new Float32Array(rows * order.length);
  for (let row = 0; row < rows; row++)
    order.forEach((col, i) => {
      if (col >= 0) out[row * order.length + i] = values[row * cols + col] as number;
    });
  return { role, values: out, rows, cols: order.length, axis: "cols" };
}

/** The values of a vector in this order, `cols` for each unit; −1 gathers zeros. No vector for null. */
export function unitVector(
  role: number,
  values: Float32Array | null,
  order: readonly number[],
  cols: number,
): UnitVector[] {
  if (values === null) return [];
  const gathered = Float32Array.from(order, (i) => (i < 0 ? 0 : (values[i] as number)));
  return [{ role, values: gathered, rows: 1, cols }];
}

// Storing them

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
