// Bamba: in every layer a Mamba-2 or an attention, then a gated MLP. Which it is shows in the layer's stacks.

import { KIND_BC, NONE } from "../../packs/format";
import { stack_find } from "../pack";
import { SUBLAYER_ATTENTION, SUBLAYER_GATED_MLP, SUBLAYER_MAMBA, SUBLAYER_NONE } from "../sublayers/index";

/** Sublayer `index` of a layer; SUBLAYER_NONE past the last. */
export function bamba_sublayer(layer: u32, index: u32): u32 {
  if (index == 0) return stack_find(layer, KIND_BC) != NONE ? SUBLAYER_MAMBA : SUBLAYER_ATTENTION;
  return index == 1 ? SUBLAYER_GATED_MLP : SUBLAYER_NONE;
}
