// What every stage of packing works with.

import type { Checkpoint } from "./checkpoint";
import type { Linalg } from "./linalg";
import type { Shards } from "./shards";
import type { UnitSizes } from "./stacks";
import type { Hash } from "./write";

/** How weights are stored: DTYPE_F32, DTYPE_Q8 or DTYPE_Q4, in groups of at most `group` columns. */
export interface WeightFormat {
  readonly dtype: number;
  readonly group: number;
}

export interface Workshop {
  readonly checkpoint: Checkpoint;
  readonly shards: Shards;
  readonly linalg: Linalg;
  readonly format: WeightFormat;
  readonly sizes: UnitSizes;
  readonly hash: Hash;
  /** Says what is being done and what share of the whole is done, 0 … 1; throws if the caller has stopped it. */
  progress(stage: string, done: number): void;
}
