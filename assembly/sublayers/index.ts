// What a layer is made of. A sublayer takes the residual stream x [rows, width] and adds to it: x += f(norm(x)). Each has
// a file beside this one, and one line in each function.

import { ATTENTION_OPS, attention_buffers, attention_check, attention_emit } from "./attention";
import { MAMBA_OPS, mamba_buffers, mamba_check, mamba_emit } from "./mamba";
import { MLP_OPS, mlp_buffers, mlp_check, mlp_emit } from "./mlp";

export const SUBLAYER_NONE: u32 = 0;
export const SUBLAYER_ATTENTION: u32 = 1;
export const SUBLAYER_GATED_MLP: u32 = 2;
export const SUBLAYER_MLP: u32 = 3; // squared ReLU, no gate
export const SUBLAYER_MAMBA: u32 = 4;

/** Checks that the pack has every tensor of it. */
export function sublayer_check(sublayer: u32, layer: u32): i32 {
  if (sublayer == SUBLAYER_ATTENTION) return attention_check(layer);
  if (sublayer == SUBLAYER_MAMBA) return mamba_check(layer);
  return mlp_check(layer, sublayer == SUBLAYER_GATED_MLP);
}

/** Most op records of it. */
export function sublayer_ops(sublayer: u32): u32 {
  if (sublayer == SUBLAYER_ATTENTION) return ATTENTION_OPS;
  if (sublayer == SUBLAYER_MAMBA) return MAMBA_OPS;
  return MLP_OPS;
}

/** Takes its scratch at the present cut. */
export function sublayer_buffers(sublayer: u32, layer: u32): void {
  if (sublayer == SUBLAYER_ATTENTION) attention_buffers(layer);
  else if (sublayer == SUBLAYER_MAMBA) mamba_buffers(layer);
  else mlp_buffers(layer);
}

/** Appends its ops and takes its caches and states. x: the stream; y: [rows, width], scratch. */
export function sublayer_emit(sublayer: u32, layer: u32, x: usize, y: usize): void {
  if (sublayer == SUBLAYER_ATTENTION) attention_emit(layer, x, y);
  else if (sublayer == SUBLAYER_MAMBA) mamba_emit(layer, x, y);
  else mlp_emit(layer, x, y);
}
