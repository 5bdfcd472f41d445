// Qwen2: attention, then a gated MLP, in every layer. The biases of its queries and keys are tensors of the attention's
// units; that of its values is in the bias of the output.

import { SUBLAYER_ATTENTION, SUBLAYER_GATED_MLP, SUBLAYER_NONE } from "../sublayers/index";

/** Sublayer `index` of any layer; SUBLAYER_NONE past the last. */
export function qwen2_sublayer(index: u32): u32 {
  return index == 0 ? SUBLAYER_ATTENTION : index == 1 ? SUBLAYER_GATED_MLP : SUBLAYER_NONE;
}
