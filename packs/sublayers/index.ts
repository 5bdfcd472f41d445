// What the packer knows of each kind of sublayer (a part of a layer that adds to the residual stream): how its weights
// are read, what its channels are ranked by, and how they are cut into stacks of units. One file for each kind.

import type { Checkpoint } from "../checkpoint";
import type { SublayerName } from "../config";
import { KIND_BC, KIND_MLP, KIND_QK, KIND_VO, KIND_XZ } from "../format";
import type { Linalg, Matrix } from "../linalg";
import type { Statistics } from "../shard";
import type { ValueBasis } from "../sort";
import type { StackWeights, UnitMatrix, UnitSizes } from "../stacks";
import type { StoredTensor } from "../write";
import { readAttention } from "./attention";
import { readMamba } from "./mamba";
import { readMlp } from "./mlp";

/** How a sublayer is sorted. */
export interface Sorting {
  /**
   * By kind of unit: the channels of each head or group, best first; of an MLP, one list. Queries and keys are ranked
   * in pairs: a, b, a, b …
   */
  readonly orders: ReadonlyMap<number, readonly ArrayLike<number>[]>;
  /** Of each KV head: the basis of its values. Empty: as they are. */
  readonly bases: readonly ValueBasis[];
}

/** The weights of one sublayer of one layer, as the checkpoint has them. */
export interface Sublayer {
  readonly name: SublayerName;
  /** Norms, biases and the like, of the fixed part. */
  readonly vectors: readonly StoredTensor[];
  /** Matrices of the fixed part that read the sublayer's input. */
  readonly matrices: readonly UnitMatrix[];
  /** The order in which the checkpoint has everything. */
  natural(): Sorting;
  /** The order, and basis, in which the first channels matter most; `statistics`: of the sublayer in natural order. */
  sort(statistics: Statistics, linalg: Linalg): Sorting;
  /** Its stacks in stored order, by ascending kind. The last of their matrices adds to the stream. */
  stacks(sorting: Sorting, linalg: Linalg): StackWeights[];
  /** Second moments of the last matrix's input, sorted; `statistics` as for sort(). */
  outputMoments(statistics: Statistics, sorting: Sorting, linalg: Linalg): Matrix;
}

const READERS: Readonly<
  Record<SublayerName, (checkpoint: Checkpoint, layer: number, sizes: UnitSizes) => Promise<Sublayer>>
> = { attention: readAttention, mlp: readMlp, mamba: readMamba };

/** The kinds of units that it is cut into. */
export const SUBLAYER_KINDS: Readonly<Record<SublayerName, readonly number[]>> = {
  attention: [KIND_QK, KIND_VO],
  mlp: [KIND_MLP],
  mamba: [KIND_BC, KIND_XZ],
};

/** The sublayers of a layer, in the order in which they are computed. */
export async function readSublayers(checkpoint: Checkpoint, layer: number, sizes: UnitSizes): Promise<Sublayer[]> {
  const read: Sublayer[] = [];
  for (const name of checkpoint.config.sublayers[layer] ?? []) read.push(await READERS[name](checkpoint, layer, sizes));
  return read;
}

/** The stacks of a layer in the order of a pack: by kind. */
export function layerStacks(stacks: readonly (readonly StackWeights[])[]): StackWeights[] {
  return stacks.flat().toSorted((a, b) => a.kind - b.kind);
}
