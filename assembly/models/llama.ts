// Llama: attention, then a gated MLP, in every layer.

import { SUBLAYER_ATTENTION, SUBLAYER_GATED_MLP, SUBLAYER_NONE } from "../sublayers/index";

/** Sublayer `index` of any layer; SUBLAYER_NONE past the last. */
export function llama_sublayer(index: u32): u32 {
  return index == 0 ? SUBLAYER_ATTENTION : index == 1 ? SUBLAYER_GATED_MLP : SUBLAYER_NONE;
}
