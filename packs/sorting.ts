// What one layer's channels are sorted by, and the layer in stored order: the same function, most important first.

import type { Checkpoint } from "./checkpoint";
import { readOptionalTensor, readTensor } from "./families";
import { ROLE_ATTENTION_NORM, ROLE_DOWN_BIAS, ROLE_MLP_NORM, ROLE_O_BIAS } from "./format";
import type { Linalg, Matrix } from "./linalg";
import type { Statistics } from "./shard";
import { descending, eliminationOrder, jointBasis, outputGram, qkPairScores, type ValueBasis } from "./sort";
import {
  type AttentionWeights,
  attentionStacks,
  type MlpWeights,
  mlpStack,
  type StackWeights,
  storeVector,
  type UnitSizes,
  valueChannels,
} from "./stacks";
import type { FixedTensor } from "./write";

/** A layer's weights as the checkpoint has them; the bias of the values is in that of the output. */
export interface LayerWeights {
  readonly attention: AttentionWeights;
  readonly mlp: MlpWeights;
  readonly fixed: readonly FixedTensor[];
}

/** How a layer is sorted. */
export interface Sorting {
  /** Of each KV group: its RoPE pairs, best first. */
  readonly pairs: readonly ArrayLike<number>[];
  /** Of each KV group: the basis of its values; null leaves them as they are. */
  readonly bases: readonly (ValueBasis | null)[];
  /** The MLP's channels, best first. */
  readonly mlp: ArrayLike<number>;
}

/** The order in which the checkpoint has everything. */
export function naturalSorting({ config }: Checkpoint): Sorting {
  return {
    pairs: Array.from({ length: config.kvHeads }, () => counting(config.headDim / 2)),
    bases: Array.from({ length: config.kvHeads }, () => null),
    mlp: counting(config.mlpWidth),
  };
}

/**
 * Sorts by what goes into the matrices: RoPE pairs by the energy of the pair in queries and keys; values in the basis
 * whose first channels carry most of the attention's output through o; MLP channels by greedy elimination.
 */
export function sortLayer(
  { config }: Checkpoint,
  { attention, mlp }: LayerWeights,
  statistics: Statistics,
  linalg: Linalg,
): Sorting {
  const { width, heads, kvHeads, headDim } = config;
  const share = heads / kvHeads;
  return linalg.scope(() => {
    const inputs = moments(linalg, statistics.attention, statistics.rows);
    const mean = statistics.attentionMean.map((value) => value / statistics.rows);
    const { qBias, kBias } = attention;
    const biases = qBias && kBias ? { biases: { q: qBias, k: kBias, mean } } : {};
    const scores = qkPairScores(linalg, inputs, { heads, kvHeads, headDim, q: attention.q, k: attention.k, ...biases });
    const pairs = Array.from({ length: kvHeads }, (_, kv) =>
      descending(scores.subarray((kv * headDim) / 2, ((kv + 1) * headDim) / 2)),
    );
    const values = linalg.view(moments(linalg, statistics.values, statistics.rows));
    const bases = Array.from({ length: kvHeads }, (_, kv) => {
      const covariance = headMoments(values, heads * headDim, headDim, kv * share, share);
      return jointBasis(
        linalg,
        covariance,
        outputGram(linalg, attention.o, width, headDim, kv * share, share),
        headDim,
      );
    });
    const hidden = cropped(linalg, moments(linalg, statistics.hidden, statistics.rows), config.mlpWidth);
    return { pairs, bases, mlp: eliminationOrder(linalg, hidden, mlp.down, width) };
  });
}

/** The stacks of a layer in stored order. */
export function sortedStacks(
  { config }: Checkpoint,
  { attention, mlp }: LayerWeights,
  sorting: Sorting,
  sizes: UnitSizes,
  linalg: Linalg,
): StackWeights[] {
  const { width, heads, kvHeads, headDim } = config;
  const v = attention.v.slice();
  const o = attention.o.slice();
  sorting.bases.forEach((basis, kv) => {
    if (basis === null) return;
    const from = kv * headDim * width;
    const rows = attention.v.subarray(from, from + headDim * width);
    v.set(product(linalg, Float32Array.from(basis.v), rows, headDim, headDim, width), from);
    const share = heads / kvHeads;
    for (let head = kv * share; head < (kv + 1) * share; head++) {
      const cols = readCols(attention.o, width, head * headDim, headDim);
      const turned = product(linalg, cols, Float32Array.from(basis.o), width, headDim, headDim);
      writeCols(o, width, head * headDim, headDim, turned);
    }
  });
  return [
    ...attentionStacks(config, { ...attention, v, o }, sorting.pairs, sizes),
    mlpStack(config, mlp, sorting.mlp, sizes),
  ];
}

/** Second moments of o's input in stored order: what sum() over the natural layer saw, turned and permuted. */
export function sortedValueMoments(
  { config }: Checkpoint,
  statistics: Statistics,
  sorting: Sorting,
  sizes: UnitSizes,
  linalg: Linalg,
): Matrix {
  const { heads, kvHeads, headDim } = config;
  const natural = moments(linalg, statistics.values, statistics.rows);
  const turned = turnRows(linalg, natural, sorting.bases, heads / kvHeads, headDim);
  transpose(linalg.view(turned), turned.rows);
  const order = valueChannels(config, sizes);
  return permuted(linalg, turnRows(linalg, turned, sorting.bases, heads / kvHeads, headDim), order);
}

/** Second moments of down's input in stored order; `channels` counts those that fill the last unit. */
export function sortedHiddenMoments(
  { config }: Checkpoint,
  statistics: Statistics,
  sorting: Sorting,
  channels: number,
  linalg: Linalg,
): Matrix {
  const order = Array.from({ length: channels }, (_, i) => (i < config.mlpWidth ? (sorting.mlp[i] as number) : -1));
  return permuted(linalg, moments(linalg, statistics.hidden, statistics.rows), order);
}

export async function readLayer(checkpoint: Checkpoint, layer: number): Promise<LayerWeights> {
  const { width, heads, kvHeads, headDim } = checkpoint.config;
  const read = (role: Parameters<typeof readTensor>[1]) => readTensor(checkpoint, role, layer);
  const readOptional = (role: Parameters<typeof readTensor>[1]) => readOptionalTensor(checkpoint, role, layer);
  const o = await read("o");
  let oBias = await readOptional("oBias");
  const vBias = await readOptional("vBias");
  if (vBias) {
    // The softmax's weights sum to 1, so a bias of the values is a constant of the output.
    oBias ??= new Float32Array(width);
    for (let row = 0; row < width; row++)
      for (let i = 0; i < heads * headDim; i++) {
        const kv = Math.floor(i / headDim / (heads / kvHeads));
        oBias[row] =
          (oBias[row] as number) +
          (o[row * heads * headDim + i] as number) * (vBias[kv * headDim + (i % headDim)] as number);
      }
  }
  const vector = (role: number, values: Float32Array | null) =>
    values === null ? [] : [{ layer, ...storeVector(role, values, 1, width) }];
  return {
    attention: {
      q: await read("q"),
      k: await read("k"),
      v: await read("v"),
      o,
      qBias: await readOptional("qBias"),
      kBias: await readOptional("kBias"),
    },
    mlp: {
      gate: await read("gate"),
      up: await read("up"),
      down: await read("down"),
      gateBias: await readOptional("gateBias"),
      upBias: await readOptional("upBias"),
    },
    fixed: [
      ...vector(ROLE_ATTENTION_NORM, await read("attentionNorm")),
      ...vector(ROLE_MLP_NORM, await read("mlpNorm")),
      ...vector(ROLE_O_BIAS, oBias),
      ...vector(ROLE_DOWN_BIAS, await readOptional("downBias")),
    ],
  };
}

/** A sum of squares, upper triangle, as a full matrix of means. */
function moments(linalg: Linalg, sums: Float32Array, rows: number): Matrix {
  const n = Math.sqrt(sums.length);
  const matrix = linalg.put(sums, n, n);
  linalg.mirror(matrix);
  const view = linalg.view(matrix);
  for (let i = 0; i < view.length; i++) view[i] = (view[i] as number) / rows;
  return matrix;
}

/** The first n rows and columns: without the zeros that fill the last unit up. */
function cropped(linalg: Linalg, m: Matrix, n: number): Matrix {
  return permuted(
    linalg,
    m,
    Array.from({ length: n }, (_, i) => i),
  );
}

/** Σ over `heads` heads of their own blocks [headDim, headDim] of a matrix [n, n]. */
function headMoments(values: Float32Array, n: number, headDim: number, first: number, heads: number): Float64Array {
  const out = new Float64Array(headDim * headDim);
  for (let head = first; head < first + heads; head++)
    for (let i = 0; i < headDim; i++)
      for (let j = 0; j < headDim; j++)
        out[i * headDim + j] =
          (out[i * headDim + j] as number) + (values[(head * headDim + i) * n + head * headDim + j] as number);
  return out;
}

/** Every head's rows of M, multiplied with its group's T_v. */
function turnRows(
  linalg: Linalg,
  m: Matrix,
  bases: readonly (ValueBasis | null)[],
  share: number,
  headDim: number,
): Matrix {
  const out = linalg.copy(m);
  bases.forEach((basis, kv) => {
    if (basis === null) return;
    for (let head = kv * share; head < (kv + 1) * share; head++) {
      const block = ({ ptr, cols }: Matrix) => ({ ptr: ptr + head * headDim * cols * 4, rows: headDim, cols });
      linalg.scope(() => {
        linalg.multiply(block(out), linalg.put(Float32Array.from(basis.v), headDim, headDim), block(m));
      });
    }
  });
  return out;
}

function transpose(values: Float32Array, n: number): void {
  for (let i = 0; i < n; i++)
    for (let j = 0; j < i; j++) {
      const above = values[j * n + i] as number;
      values[j * n + i] = values[i * n + j] as number;
      values[i * n + j] = above;
    }
}

/** M with rows and columns taken in this order; −1 takes zeros. */
function permuted(linalg: Linalg, m: Matrix, order: readonly number[]): Matrix {
  const out = linalg.zeros(order.length, order.length);
  const from = linalg.view(m);
  const to = linalg.view(out);
  order.forEach((row, i) => {
    if (row < 0) return;
    order.forEach((col, j) => {
      if (col >= 0) to[i * order.length + j] = from[row * m.cols + col] as number;
    });
  });
  return out;
}

/** A [m, k] · B [k, n]. */
function product(linalg: Linalg, a: Float32Array, b: Float32Array, m: number, k: number, n: number): Float32Array {
  return linalg.scope(() => linalg.get(linalg.multiply(linalg.zeros(m, n), linalg.put(a, m, k), linalg.put(b, k, n))));
}

function readCols(values: Float32Array, rows: number, first: number, count: number): Float32Array {
  const cols = values.length / rows;
  const out = new Float32Array(rows * count);
  for (let row = 0; row < rows; row++)
    out.set(values.subarray(row * cols + first, row * cols + first + count), row * count);
  return out;
}

function writeCols(values: Float32Array, rows: number, first: number, count: number, from: Float32Array): void {
  const cols = values.length / rows;
  for (let row = 0; row < rows; row++) values.set(from.subarray(row * count, (row + 1) * count), row * cols + first);
}

function counting(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}
