// A Mamba-2: the dimensions of its state, and those of its heads, by greedy elimination.

import type { Checkpoint } from "../checkpoint";
import type { ModelConfig, SsmConfig } from "../config";
import { readOptionalTensor, readTensor } from "../families/index";
import {
  KIND_BC,
  KIND_XZ,
  ROLE_A,
  ROLE_B,
  ROLE_B_BIAS,
  ROLE_B_CONV,
  ROLE_C,
  ROLE_C_BIAS,
  ROLE_C_CONV,
  ROLE_D,
  ROLE_DT,
  ROLE_DT_BIAS,
  ROLE_GATED_NORM,
  ROLE_MIXER_NORM,
  ROLE_OUT,
  ROLE_OUT_BIAS,
  ROLE_X,
  ROLE_X_BIAS,
  ROLE_X_CONV,
  ROLE_Z,
  ROLE_Z_BIAS,
} from "../format";
import type { Linalg, Matrix } from "../linalg";
import { counting, meanMoments, reordered } from "../moments";
import type { Statistics } from "../shard";
import { eliminate, eliminationOrder } from "../sort";
import {
  colMatrix,
  rowMatrix,
  type StackWeights,
  storedChannels,
  storeVector,
  type UnitMatrix,
  type UnitSizes,
  type UnitVector,
  unitVector,
} from "../stacks";
import type { StoredTensor } from "../write";
import type { Sorting, Sublayer } from "./sublayer";

const A_MOST = 1e30; // a head that forgets at once does so with a finite number too

/** Row-major as in a checkpoint; inner = heads × headDim, bc = groups × state. */
export interface MambaWeights {
  readonly norm: Float32Array; // [width]
  readonly inProj: Float32Array; // rows z [inner], x [inner], B [bc], C [bc], dt [heads]
  readonly inProjBias: Float32Array | null;
  readonly conv: Float32Array; // [x, B, C][taps]
  readonly convBias: Float32Array | null;
  readonly dtBias: Float32Array; // [heads]
  readonly aLog: Float32Array; // [heads]
  readonly d: Float32Array; // [heads]
  readonly gatedNorm: Float32Array; // [inner]
  readonly outProj: Float32Array; // [width, inner]
  readonly outProjBias: Float32Array | null;
}

export async function readMamba(checkpoint: Checkpoint, layer: number, sizes: UnitSizes): Promise<Sublayer> {
  const { config } = checkpoint;
  return new Mamba(config, config.ssm as SsmConfig, sizes, {
    norm: await readTensor(checkpoint, "mixerNorm", layer),
    inProj: await readTensor(checkpoint, "inProj", layer),
    inProjBias: await readOptionalTensor(checkpoint, "inProjBias", layer),
    conv: await readTensor(checkpoint, "conv", layer),
    convBias: await readOptionalTensor(checkpoint, "convBias", layer),
    dtBias: await readTensor(checkpoint, "dtBias", layer),
    aLog: await readTensor(checkpoint, "aLog", layer),
    d: await readTensor(checkpoint, "d", layer),
    gatedNorm: await readTensor(checkpoint, "gatedNorm", layer),
    outProj: await readTensor(checkpoint, "outProj", layer),
    outProjBias: await readOptionalTensor(checkpoint, "outProjBias", layer),
  });
}

class Mamba implements Sublayer {
  readonly name = "mamba";
  readonly vectors: readonly StoredTensor[];
  readonly matrices: readonly UnitMatrix[];
  readonly #width: number;
  readonly #ssm: SsmConfig;
  readonly #sizes: UnitSizes;
  readonly #weights: MambaWeights;

  constructor({ width }: ModelConfig, ssm: SsmConfig, sizes: UnitSizes, weights: MambaWeights) {
    this.#width = width;
    this.#ssm = ssm;
    this.#sizes = sizes;
    this.#weights = weights;
    const { heads } = ssm;
    const { norm, inProj, inProjBias, dtBias, aLog, d, outProjBias } = weights;
    const dt = this.#rows().dt;
    const perHead = (role: number, values: Float32Array) => storeVector(role, values, 1, heads);
    this.vectors = [
      storeVector(ROLE_MIXER_NORM, norm, 1, width),
      perHead(
        ROLE_DT_BIAS,
        dtBias.map((value, head) => value + (inProjBias?.[dt + head] ?? 0)),
      ),
      perHead(
        ROLE_A,
        aLog.map((value) => -Math.min(Math.exp(value), A_MOST)),
      ),
      perHead(ROLE_D, d),
      ...(outProjBias ? [storeVector(ROLE_OUT_BIAS, outProjBias, 1, width)] : []),
    ];
    const order = counting(heads).map((head) => dt + head);
    this.matrices = [rowMatrix(ROLE_DT, inProj, order, width)];
  }

  natural(): Sorting {
    const { heads, headDim, groups, state } = this.#ssm;
    const plain = (lists: number, length: number) => Array.from({ length: lists }, () => counting(length));
    return sorting(plain(groups, state), plain(heads, headDim));
  }

  /**
   * State dimensions by what dropping them takes from the scan's output, as the gate and the norm let it through; head
   * dimensions by what dropping them takes from the sublayer's output. Both by greedy elimination over all heads, whose
   * order ranks the dimensions of each.
   */
  sort(statistics: Statistics, linalg: Linalg): Sorting {
    const { heads, headDim, groups, state } = this.#ssm;
    return linalg.scope(() => {
      const states = Array.from({ length: groups }, (_, group) => {
        const sums = statistics.states.subarray(group * state * state, (group + 1) * state * state);
        return eliminate(linalg.view(meanMoments(linalg, sums, statistics.rows)), state);
      });
      const stored = meanMoments(linalg, statistics.outputs, statistics.rows);
      const c = reordered(linalg, stored, this.#inner(this.natural()), counting(heads * headDim));
      const order = eliminationOrder(linalg, c, this.#weights.outProj, this.#width);
      const dims = Array.from({ length: heads }, (_, head) =>
        [...order].filter((channel) => Math.floor(channel / headDim) === head).map((channel) => channel % headDim),
      );
      return sorting(states, dims);
    });
  }

  stacks(sorted: Sorting): StackWeights[] {
    const { heads, headDim, groups, state } = this.#ssm;
    const { bcChannels, xzChannels } = this.#sizes;
    const { inProj, inProjBias, gatedNorm, outProj } = this.#weights;
    const first = this.#rows();
    const states = storedChannels(sorted.orders.get(KIND_BC) as readonly ArrayLike<number>[], state, bcChannels);
    const inner = this.#inner(sorted);
    const rows = (channels: readonly number[], from: number) => channels.map((channel) => from + channel);
    const matrix = (role: number, channels: readonly number[], from: number) =>
      rowMatrix(role, inProj, rows(channels, from), this.#width);
    const bias = (role: number, channels: readonly number[], from: number, cols: number) =>
      unitVector(role, inProjBias, rows(channels, from), cols);
    const bc = groups * bcChannels;
    const xz = heads * xzChannels;
    return [
      {
        kind: KIND_BC,
        channels: bcChannels,
        units: state / bcChannels,
        matrices: [matrix(ROLE_B, states, first.b), matrix(ROLE_C, states, first.c)],
        vectors: [
          this.#taps(ROLE_B_CONV, rows(states, first.b - first.x), bc),
          this.#taps(ROLE_C_CONV, rows(states, first.c - first.x), bc),
          ...bias(ROLE_B_BIAS, states, first.b, bc),
          ...bias(ROLE_C_BIAS, states, first.c, bc),
        ],
      },
      {
        kind: KIND_XZ,
        channels: xzChannels,
        units: headDim / xzChannels,
        matrices: [
          matrix(ROLE_Z, inner, first.z),
          matrix(ROLE_X, inner, first.x),
          colMatrix(ROLE_OUT, outProj, inner, this.#width),
        ],
        vectors: [
          this.#taps(ROLE_X_CONV, inner, xz),
          ...unitVector(ROLE_GATED_NORM, gatedNorm, inner, xz),
          ...bias(ROLE_Z_BIAS, inner, first.z, xz),
          ...bias(ROLE_X_BIAS, inner, first.x, xz),
        ],
      },
    ];
  }

  outputMoments(statistics: Statistics, sorted: Sorting, linalg: Linalg): Matrix {
    const moments = meanMoments(linalg, statistics.outputs, statistics.rows);
    return reordered(linalg, moments, this.#inner(this.natural()), this.#inner(sorted));
  }

  /** Channels [head][dim] in stored order. */
  #inner({ orders }: Sorting): number[] {
    const dims = orders.get(KIND_XZ) as readonly ArrayLike<number>[];
    return storedChannels(dims, this.#ssm.headDim, this.#sizes.xzChannels);
  }

  /** The first row of each part of in_proj. */
  #rows() {
    const { heads, headDim, groups, state } = this.#ssm;
    const inner = heads * headDim;
    const b = 2 * inner;
    const c = b + groups * state;
    return { z: 0, x: inner, b, c, dt: c + groups * state };
  }

  /** Taps and bias of the convolution for these of its channels, `cols` of them in a unit. */
  #taps(role: number, channels: readonly number[], cols: number): UnitVector {
    const { taps } = this.#ssm;
    const { conv, convBias } = this.#weights;
    const values = new Float32Array(channels.length * (taps + 1));
    channels.forEach((channel, i) => {
      const unit = Math.floor(i / cols) * (taps + 1) * cols;
      const at = i % cols;
      for (let tap = 0; tap < taps; tap++) values[unit + tap * cols + at] = conv[channel * taps + tap] as number;
      values[unit + taps * cols + at] = convBias?.[channel] ?? 0;
    });
    return { role, values, rows: taps + 1, cols };
  }
}

function sorting(states: readonly ArrayLike<number>[], dims: readonly ArrayLike<number>[]): Sorting {
  return {
    orders: new Map([
      [KIND_BC, states],
      [KIND_XZ, dims],
    ]),
    bases: [],
  };
}
