// The kinds of sublayers (the parts of a layer that add to the residual stream) that can be packed: one file for each.

import type { Checkpoint } from "../checkpoint";
import type { SublayerName } from "../config";
import { KIND_BC, KIND_MLP, KIND_QK, KIND_VO, KIND_XZ } from "../format";
import type { StackWeights, UnitSizes } from "../stacks";
import { readAttention } from "./attention";
import { readMamba } from "./mamba";
import { readMlp } from "./mlp";
import type { Sublayer } from "./sublayer";

export type { Sorting, Sublayer } from "./sublayer";

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
