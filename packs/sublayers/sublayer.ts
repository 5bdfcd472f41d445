// What a kind of sublayer is to the packer: how its channels are ranked, and how they are cut into stacks of units.

import type { SublayerName } from "../config";
import type { Linalg, Matrix } from "../linalg";
import type { Statistics } from "../shard";
import type { ValueBasis } from "../sort";
import type { StackWeights, UnitMatrix } from "../stacks";
import type { StoredTensor } from "../write";

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
