// An MLP, gated or not: its channels by greedy elimination.

import type { Checkpoint } from "../checkpoint";
import type { ModelConfig } from "../config";
import { readOptionalTensor, readTensor } from "../families/index";
import {
  KIND_MLP,
  ROLE_DOWN,
  ROLE_DOWN_BIAS,
  ROLE_GATE,
  ROLE_GATE_BIAS,
  ROLE_MLP_NORM,
  ROLE_UP,
  ROLE_UP_BIAS,
} from "../format";
import type { Linalg, Matrix } from "../linalg";
import { counting, meanMoments, reordered } from "../moments";
import type { Statistics } from "../shard";
import { eliminationOrder } from "../sort";
import { colMatrix, rowMatrix, type StackWeights, storeVector, type UnitSizes, unitVector } from "../stacks";
import type { StoredTensor } from "../write";
import type { Sorting, Sublayer } from "./sublayer";

/** Row-major as in a checkpoint. */
export interface MlpWeights {
  readonly norm: Float32Array; // [width]
  readonly gate: Float32Array | null; // [mlpWidth, width]
  readonly up: Float32Array;
  readonly down: Float32Array; // [width, mlpWidth]
  readonly gateBias: Float32Array | null;
  readonly upBias: Float32Array | null;
  readonly downBias: Float32Array | null;
}

export async function readMlp(checkpoint: Checkpoint, layer: number, sizes: UnitSizes): Promise<Sublayer> {
  return new Mlp(checkpoint.config, sizes, {
    norm: await readTensor(checkpoint, "mlpNorm", layer),
    gate: await readOptionalTensor(checkpoint, "gate", layer),
    up: await readTensor(checkpoint, "up", layer),
    down: await readTensor(checkpoint, "down", layer),
    gateBias: await readOptionalTensor(checkpoint, "gateBias", layer),
    upBias: await readOptionalTensor(checkpoint, "upBias", layer),
    downBias: await readOptionalTensor(checkpoint, "downBias", layer),
  });
}

export class Mlp implements Sublayer {
  readonly name = "mlp";
  readonly vectors: readonly StoredTensor[];
  readonly matrices = [];
  readonly #config: ModelConfig;
  readonly #channels: number;
  readonly #weights: MlpWeights;

  constructor(config: ModelConfig, { mlpChannels }: Pick<UnitSizes, "mlpChannels">, weights: MlpWeights) {
    this.#config = config;
    this.#channels = mlpChannels;
    this.#weights = weights;
    const { norm, downBias } = weights;
    this.vectors = [
      storeVector(ROLE_MLP_NORM, norm, 1, config.width),
      ...(downBias ? [storeVector(ROLE_DOWN_BIAS, downBias, 1, config.width)] : []),
    ];
  }

  natural(): Sorting {
    return sorting(counting(this.#config.mlpWidth));
  }

  sort(statistics: Statistics, linalg: Linalg): Sorting {
    const { width, mlpWidth } = this.#config;
    return linalg.scope(() => {
      const stored = meanMoments(linalg, statistics.outputs, statistics.rows);
      const c = reordered(linalg, stored, this.#stored(this.natural()), counting(mlpWidth));
      return sorting(eliminationOrder(linalg, c, this.#weights.down, width));
    });
  }

  stacks(sorted: Sorting): StackWeights[] {
    const { gate, up, down, gateBias, upBias } = this.#weights;
    const { width } = this.#config;
    const channels = this.#channels;
    const order = this.#stored(sorted);
    return [
      {
        kind: KIND_MLP,
        channels,
        units: order.length / channels,
        matrices: [
          ...(gate ? [rowMatrix(ROLE_GATE, gate, order, width)] : []),
          rowMatrix(ROLE_UP, up, order, width),
          colMatrix(ROLE_DOWN, down, order, width),
        ],
        vectors: [
          ...unitVector(ROLE_GATE_BIAS, gateBias, order, channels),
          ...unitVector(ROLE_UP_BIAS, upBias, order, channels),
        ],
      },
    ];
  }

  outputMoments(statistics: Statistics, sorted: Sorting, linalg: Linalg): Matrix {
    const moments = meanMoments(linalg, statistics.outputs, statistics.rows);
    return reordered(linalg, moments, this.#stored(this.natural()), this.#stored(sorted));
  }

  /** Channels in stored order; past the last, −1s fill the last unit up. */
  #stored({ orders }: Sorting): number[] {
    const [order = []] = orders.get(KIND_MLP) ?? [];
    const { mlpWidth } = this.#config;
    const filled = Math.ceil(mlpWidth / this.#channels) * this.#channels;
    return Array.from({ length: filled }, (_, i) => (i < mlpWidth ? (order[i] as number) : -1));
  }
}

function sorting(order: ArrayLike<number>): Sorting {
  return { orders: new Map([[KIND_MLP, [order]]]), bases: [] };
}
