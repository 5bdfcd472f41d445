// Mamba-2: nothing but SSMs.

import { SUBLAYER_MAMBA, SUBLAYER_NONE } from "../sublayers/index";

/** Sublayer `index` of any layer; SUBLAYER_NONE past the last. */
export function mamba2_sublayer(index: u32): u32 {
  return index == 0 ? SUBLAYER_MAMBA : SUBLAYER_NONE;
}
