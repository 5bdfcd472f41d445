// MLP: x += down(silu(gate y) × up y), or without a gate x += down(max(up y, 0)²), where y = norm(x). Without channels
// only the bias of down is left.

import {
  HEADER_LAYERS,
  HEADER_WIDTH,
  KIND_MLP,
  NONE,
  ROLE_DOWN,
  ROLE_DOWN_BIAS,
  ROLE_GATE,
  ROLE_GATE_BIAS,
  ROLE_MLP_NORM,
  ROLE_UP,
  ROLE_UP_BIAS,
} from "../../packs/format";
import { FLAG_ADD } from "../abi";
import { cut_channels } from "../cut";
import { scratch_take } from "../memory";
import {
  corrupt,
  fixed_tensor,
  is_matrix,
  is_optional_vector,
  is_vector,
  missing,
  pack_field,
  stack_channels,
  stack_find,
  stack_ptr,
  stack_tensor,
} from "../pack";
import { emit_gate, emit_norm, emit_squared_relu, emit_unit_cols, emit_unit_rows } from "../program";
import { shape_rows } from "../shape";

/** Most op records of one. */
export const MLP_OPS: u32 = 8;

/** Checks that a layer has every tensor of an MLP, in its shape. */
export function mlp_check(layer: u32, gated: bool): i32 {
  const width = pack_field(HEADER_WIDTH);
  if (!is_vector(fixed_tensor(ROLE_MLP_NORM, layer), 1, width)) return missing(HEADER_LAYERS);
  if (!is_optional_vector(fixed_tensor(ROLE_DOWN_BIAS, layer), width)) return missing(HEADER_LAYERS);
  const mlp = stack_find(layer, KIND_MLP);
  if (mlp == NONE) return missing(HEADER_LAYERS);
  const channels = stack_channels(mlp);
  const gate = stack_tensor(mlp, ROLE_GATE);
  if (
    (gated ? !is_matrix(gate, channels, width) : gate != 0) ||
    !is_matrix(stack_tensor(mlp, ROLE_UP), channels, width) ||
    !is_matrix(stack_tensor(mlp, ROLE_DOWN), width, channels) ||
    !is_optional_vector(stack_tensor(mlp, ROLE_GATE_BIAS), channels) ||
    !is_optional_vector(stack_tensor(mlp, ROLE_UP_BIAS), channels)
  )
    return corrupt(stack_ptr(mlp));
  return 0;
}

let gate: usize = 0; // [rows, kept channels]
let up: usize = 0;

/** Takes a layer's scratch at the present cut. */
export function mlp_buffers(layer: u32): void {
  const rows = shape_rows();
  const mlp = stack_find(layer, KIND_MLP);
  gate = scratch_take(rows, cut_channels(mlp));
  up = stack_tensor(mlp, ROLE_GATE) == 0 ? gate : scratch_take(rows, cut_channels(mlp));
}

/** Appends a layer's ops. x: [rows, width], the stream; y: [rows, width], scratch. */
export function mlp_emit(layer: u32, x: usize, y: usize): void {
  const mlp = stack_find(layer, KIND_MLP);
  const channels = cut_channels(mlp);
  if (channels > 0) {
    emit_norm(0, x, y, fixed_tensor(ROLE_MLP_NORM, layer));
    if (stack_tensor(mlp, ROLE_GATE) != 0) {
      emit_unit_rows(mlp, ROLE_GATE, ROLE_GATE_BIAS, y, gate);
      emit_unit_rows(mlp, ROLE_UP, ROLE_UP_BIAS, y, up);
      emit_gate(gate, up, channels);
    } else {
      emit_unit_rows(mlp, ROLE_UP, ROLE_UP_BIAS, y, up);
      emit_squared_relu(up, channels);
    }
  }
  emit_unit_cols(mlp, ROLE_DOWN, fixed_tensor(ROLE_DOWN_BIAS, layer), gate, x, FLAG_ADD);
}
