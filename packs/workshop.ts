// What every stage of packing works with.

import type { WeightFormat } from "./chain";
import type { Checkpoint } from "./checkpoint";
import type { Linalg } from "./linalg";
import type { Shards } from "./shards";
import type { UnitSizes } from "./stacks";
import type { Hash } from "./write";

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
