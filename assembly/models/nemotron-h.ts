// Nemotron-H: every layer is one thing: a Mamba-2, an attention without RoPE, or a squared-ReLU MLP. Which it is shows
// in the layer's stacks.

import { KIND_BC, KIND_MLP, NONE } from "../../packs/format";
import { stack_find } from "../pack";
import { SUBLAYER_ATTENTION, SUBLAYER_MAMBA, SUBLAYER_MLP, SUBLAYER_NONE } from "../sublayers/index";

/** Sublayer `index` of a layer; SUBLAYER_NONE past the last. */
export function nemotron_h_sublayer(layer: u32, index: u32): u32 {
  if (index > 0) return SUBLAYER_NONE;
  if (stack_find(layer, KIND_BC) != NONE) return SUBLAYER_MAMBA;
  return stack_find(layer, KIND_MLP) != NONE ? SUBLAYER_MLP : SUBLAYER_ATTENTION;
}
