// An attention: the pairs of its queries and keys by their energy; its values in the basis whose first channels carry
// most of the output.

import type { Checkpoint } from "../checkpoint";
import type { ModelConfig } from "../config";
import { readOptionalTensor, readTensor } from "../families/index";
import {
  KIND_QK,
  KIND_VO,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_MIXER_NORM,
  ROLE_O,
  ROLE_O_BIAS,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_ROPE,
  ROLE_V,
} from "../format";
import type { Linalg, Matrix } from "../linalg";
import { counting, meanMoments, reordered } from "../moments";
import type { Statistics } from "../shard";
import { jointBasis, outputGram, rankPairs, type ValueBasis } from "../sort";
import {
  colMatrix,
  rowMatrix,
  type StackWeights,
  storedChannels,
  storeVector,
  type UnitSizes,
  unitVector,
} from "../stacks";
import type { StoredTensor } from "../write";
import type { Sorting, Sublayer } from "./sublayer";

/** Row-major as in a checkpoint: q [heads × headDim, width], o [width, heads × headDim]. */
export interface AttentionWeights {
  readonly norm: Float32Array; // [width]
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly o: Float32Array;
  readonly qBias: Float32Array | null;
  readonly kBias: Float32Array | null;
  readonly vBias: Float32Array | null;
  readonly oBias: Float32Array | null;
}

export async function readAttention(checkpoint: Checkpoint, layer: number, sizes: UnitSizes): Promise<Sublayer> {
  return new Attention(checkpoint.config, sizes, {
    norm: await readTensor(checkpoint, "mixerNorm", layer),
    q: await readTensor(checkpoint, "q", layer),
    k: await readTensor(checkpoint, "k", layer),
    v: await readTensor(checkpoint, "v", layer),
    o: await readTensor(checkpoint, "o", layer),
    qBias: await readOptionalTensor(checkpoint, "qBias", layer),
    kBias: await readOptionalTensor(checkpoint, "kBias", layer),
    vBias: await readOptionalTensor(checkpoint, "vBias", layer),
    oBias: await readOptionalTensor(checkpoint, "oBias", layer),
  });
}

class Attention implements Sublayer {
  readonly name = "attention";
  readonly vectors: readonly StoredTensor[];
  readonly matrices = [];
  readonly #config: ModelConfig;
  readonly #sizes: UnitSizes;
  readonly #weights: AttentionWeights;

  constructor(config: ModelConfig, sizes: UnitSizes, weights: AttentionWeights) {
    this.#config = config;
    this.#sizes = sizes;
    this.#weights = weights;
    const oBias = outputBias(config, weights);
    this.vectors = [
      storeVector(ROLE_MIXER_NORM, weights.norm, 1, config.width),
      ...(oBias ? [storeVector(ROLE_O_BIAS, oBias, 1, config.width)] : []),
    ];
  }

  natural(): Sorting {
    const { kvHeads, headDim } = this.#config;
    const pairs = this.#rotaryPairs().flat();
    for (let dim = pairs.length; dim < headDim; dim++) pairs.push(dim);
    return this.#sorting(
      Array.from({ length: kvHeads }, () => pairs),
      [],
    );
  }

  sort(statistics: Statistics, linalg: Linalg): Sorting {
    const { width, heads, kvHeads, headDim } = this.#config;
    const { q, k, o, qBias, kBias } = this.#weights;
    const share = heads / kvHeads;
    return linalg.scope(() => {
      const inputs = meanMoments(linalg, statistics.inputs, statistics.rows);
      const mean = statistics.inputMean.map((value) => value / statistics.rows);
      const biases = qBias && kBias ? { biases: { q: qBias, k: kBias, mean } } : {};
      const pairs = rankPairs(linalg, inputs, { heads, kvHeads, headDim, q, k, ...biases }, this.#rotaryPairs());
      const values = linalg.get(this.#naturalMoments(statistics, linalg));
      const bases = Array.from({ length: kvHeads }, (_, kv) =>
        jointBasis(
          linalg,
          headMoments(values, heads * headDim, headDim, kv * share, share),
          outputGram(linalg, o, width, headDim, kv * share, share),
          headDim,
        ),
      );
      return this.#sorting(pairs, bases);
    });
  }

  stacks({ orders, bases }: Sorting, linalg: Linalg): StackWeights[] {
    const { heads, kvHeads, headDim, width, ropeInverseFrequencies } = this.#config;
    const { qkChannels, voChannels } = this.#sizes;
    const { q, k, qBias, kBias } = this.#weights;
    const share = heads / kvHeads;
    const pairs = orders.get(KIND_QK) as readonly ArrayLike<number>[];
    const dims = pairs.map((ranked) => unitDims(ranked, qkChannels));
    const dimsOf = (count: number) => Array.from({ length: count }, (_, head) => dims[(head / (count / kvHeads)) | 0]);
    const qRows = storedChannels(dimsOf(heads) as number[][], headDim, qkChannels);
    const kRows = storedChannels(dims, headDim, qkChannels);
    const vRows = storedChannels(this.#plain(kvHeads), headDim, voChannels);
    const oCols = this.#outputs();
    const { v, o } = turned(this.#weights, bases, width, headDim, share, linalg);
    // The a's of a unit's pairs stand in its first half.
    const angles = kRows
      .filter((_, at) => at % qkChannels < qkChannels / 2)
      .map((row) => ropeInverseFrequencies[row % headDim] ?? 0);
    return [
      {
        kind: KIND_QK,
        channels: qkChannels,
        units: headDim / qkChannels,
        matrices: [rowMatrix(ROLE_Q, q, qRows, width), rowMatrix(ROLE_K, k, kRows, width)],
        vectors: [
          ...(ropeInverseFrequencies.length > 0
            ? [{ role: ROLE_ROPE, values: Float32Array.from(angles), rows: kvHeads, cols: qkChannels / 2 }]
            : []),
          ...unitVector(ROLE_Q_BIAS, qBias, qRows, heads * qkChannels),
          ...unitVector(ROLE_K_BIAS, kBias, kRows, kvHeads * qkChannels),
        ],
      },
      {
        kind: KIND_VO,
        channels: voChannels,
        units: headDim / voChannels,
        matrices: [rowMatrix(ROLE_V, v, vRows, width), colMatrix(ROLE_O, o, oCols, width)],
        vectors: [],
      },
    ];
  }

  outputMoments(statistics: Statistics, { bases }: Sorting, linalg: Linalg): Matrix {
    const { heads, kvHeads, headDim } = this.#config;
    const natural = this.#naturalMoments(statistics, linalg);
    const once = turnRows(linalg, natural, bases, heads / kvHeads, headDim);
    transpose(linalg.view(once), once.rows);
    const turnedTwice = turnRows(linalg, once, bases, heads / kvHeads, headDim);
    return reordered(linalg, turnedTwice, counting(heads * headDim), this.#outputs());
  }

  /** Second moments of o's input as the checkpoint has it: [head][dim]. */
  #naturalMoments({ outputs, rows }: Statistics, linalg: Linalg): Matrix {
    const { heads, headDim } = this.#config;
    return reordered(linalg, meanMoments(linalg, outputs, rows), this.#outputs(), counting(heads * headDim));
  }

  /** The columns of o [head][dim] in stored order. */
  #outputs(): number[] {
    const { heads, headDim } = this.#config;
    return storedChannels(this.#plain(heads), headDim, this.#sizes.voChannels);
  }

  #rotaryPairs(): [number, number][] {
    const { length } = this.#config.ropeInverseFrequencies;
    return Array.from({ length }, (_, i) => [i, i + length]);
  }

  /** Dimensions in the order in which they come, for `count` heads. */
  #plain(count: number): number[][] {
    const dims = counting(this.#config.headDim);
    return Array.from({ length: count }, () => dims);
  }

  #sorting(pairs: readonly ArrayLike<number>[], bases: readonly ValueBasis[]): Sorting {
    const orders = new Map([
      [KIND_QK, pairs],
      [KIND_VO, this.#plain(this.#config.kvHeads)],
    ]);
    return { orders, bases };
  }
}

/** The dims of a head unit by unit, a's before b's, from its pairs a, b, a, b … */
function unitDims(pairs: ArrayLike<number>, channels: number): number[] {
  const half = channels / 2;
  return Array.from({ length: pairs.length }, (_, at) => {
    const unit = Math.floor(at / channels);
    const i = at % channels;
    return pairs[unit * channels + (i % half) * 2 + (i < half ? 0 : 1)] as number;
  });
}

/** The bias of o, and what the values' bias adds to it: the softmax's weights sum to 1. */
function outputBias(config: ModelConfig, { o, oBias, vBias }: AttentionWeights): Float32Array | null {
  if (vBias === null) return oBias;
  const { width, heads, kvHeads, headDim } = config;
  const share = heads / kvHeads;
  return Float32Array.from({ length: width }, (_, row) => {
    let sum = oBias === null ? 0 : (oBias[row] as number);
    for (let i = 0; i < heads * headDim; i++) {
      const kv = Math.floor(i / headDim / share);
      sum += (o[row * heads * headDim + i] as number) * (vBias[kv * headDim + (i % headDim)] as number);
    }
    return sum;
  });
}

/** v and o in the bases of their KV heads. */
function turned(
  { v, o }: AttentionWeights,
  bases: readonly ValueBasis[],
  width: number,
  headDim: number,
  share: number,
  linalg: Linalg,
): { v: Float32Array; o: Float32Array } {
  const newV = v.slice();
  const newO = o.slice();
  bases.forEach((basis, kv) => {
    const from = kv * headDim * width;
    const rows = v.subarray(from, from + headDim * width);
    newV.set(product(linalg, Float32Array.from(basis.v), rows, headDim, headDim, width), from);
    for (let head = kv * share; head < (kv + 1) * share; head++) {
      const cols = readCols(o, width, head * headDim, headDim);
      writeCols(
        newO,
        width,
        head * headDim,
        headDim,
        product(linalg, cols, Float32Array.from(basis.o), width, headDim, headDim),
      );
    }
  });
  return { v: newV, o: newO };
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
function turnRows(linalg: Linalg, m: Matrix, bases: readonly ValueBasis[], share: number, headDim: number): Matrix {
  const out = linalg.copy(m);
  bases.forEach((basis, kv) => {
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
