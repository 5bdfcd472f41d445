// Mamba-2: x += out(norm(scan(conv(x y), conv(B y), conv(C y), dt y) × silu(z y))), where y = norm(x). Without head
// dimensions only the bias of out is left; without state what goes past it.

import {
  HEADER_LAYERS,
  HEADER_SSM_GROUPS,
  HEADER_SSM_HEAD_DIM,
  HEADER_SSM_HEADS,
  HEADER_SSM_NORM_GROUPS,
  HEADER_SSM_STATE,
  HEADER_SSM_STEP_LEAST,
  HEADER_SSM_STEP_MOST,
  HEADER_SSM_TAPS,
  HEADER_WIDTH,
  KIND_BC,
  KIND_XZ,
  NONE,
  ROLE_A,
  ROLE_B,
  ROLE_B_BIAS,
  ROLE_B_CONV,
  ROLE_C,
  ROLE_C_BIAS,
  ROLE_C_CONV,
  ROLE_D,
  ROLE_DT,
  ROLE_DT_BIAS,
  ROLE_GATED_NORM,
  ROLE_MIXER_NORM,
  ROLE_OUT,
  ROLE_OUT_BIAS,
  ROLE_X,
  ROLE_X_BIAS,
  ROLE_X_CONV,
  ROLE_Z,
  ROLE_Z_BIAS,
  STACK_CHANNELS,
} from "../../packs/format";
import { FLAG_ADD, FLAG_ALONGSIDE } from "../abi";
import { cut_channels } from "../cut";
import { scan_scratch_floats } from "../kernels/scan";
import { scratch_take } from "../memory";
import {
  corrupt,
  fixed_tensor,
  is_matrix,
  is_optional_vector,
  is_vector,
  missing,
  pack_field,
  pack_float,
  stack_channels,
  stack_find,
  stack_ptr,
  stack_tensor,
  stack_units,
} from "../pack";
import {
  emit_conv,
  emit_gated_norm,
  emit_matmul,
  emit_norm,
  emit_scan,
  emit_step_size,
  emit_unit_cols,
  emit_unit_rows,
} from "../program";
import { shape_device, shape_rows, shape_threads } from "../shape";

/** Most op records of one. */
export const MAMBA_OPS: u32 = 19;

/** Checks that a layer has every tensor of a Mamba-2, in its shape. */
export function mamba_check(layer: u32): i32 {
  const width = pack_field(HEADER_WIDTH);
  const heads = pack_field(HEADER_SSM_HEADS);
  const groups = pack_field(HEADER_SSM_GROUPS);
  const taps = pack_field(HEADER_SSM_TAPS);
  if (heads == 0) return missing(HEADER_SSM_HEADS);
  if (
    !is_vector(fixed_tensor(ROLE_MIXER_NORM, layer), 1, width) ||
    !is_matrix(fixed_tensor(ROLE_DT, layer), heads, width) ||
    !is_vector(fixed_tensor(ROLE_DT_BIAS, layer), 1, heads) ||
    !is_vector(fixed_tensor(ROLE_A, layer), 1, heads) ||
    !is_vector(fixed_tensor(ROLE_D, layer), 1, heads) ||
    !is_optional_vector(fixed_tensor(ROLE_OUT_BIAS, layer), width)
  )
    return missing(HEADER_LAYERS);
  const bc = stack_find(layer, KIND_BC);
  const xz = stack_find(layer, KIND_XZ);
  if (bc == NONE || xz == NONE) return missing(HEADER_LAYERS);
  let channels = stack_channels(bc);
  if (channels * stack_units(bc) > pack_field(HEADER_SSM_STATE)) return corrupt(stack_ptr(bc) + STACK_CHANNELS);
  channels *= groups;
  if (
    !is_matrix(stack_tensor(bc, ROLE_B), channels, width) ||
    !is_matrix(stack_tensor(bc, ROLE_C), channels, width) ||
    !is_optional_vector(stack_tensor(bc, ROLE_B_BIAS), channels) ||
    !is_optional_vector(stack_tensor(bc, ROLE_C_BIAS), channels) ||
    !is_vector(stack_tensor(bc, ROLE_B_CONV), taps + 1, channels) ||
    !is_vector(stack_tensor(bc, ROLE_C_CONV), taps + 1, channels)
  )
    return corrupt(stack_ptr(bc));
  channels = stack_channels(xz);
  if (channels * stack_units(xz) > pack_field(HEADER_SSM_HEAD_DIM)) return corrupt(stack_ptr(xz) + STACK_CHANNELS);
  channels *= heads;
  if (
    !is_matrix(stack_tensor(xz, ROLE_Z), channels, width) ||
    !is_matrix(stack_tensor(xz, ROLE_X), channels, width) ||
    !is_optional_vector(stack_tensor(xz, ROLE_Z_BIAS), channels) ||
    !is_optional_vector(stack_tensor(xz, ROLE_X_BIAS), channels) ||
    !is_vector(stack_tensor(xz, ROLE_X_CONV), taps + 1, channels) ||
    !is_vector(stack_tensor(xz, ROLE_GATED_NORM), 1, channels) ||
    !is_matrix(stack_tensor(xz, ROLE_OUT), width, channels)
  )
    return corrupt(stack_ptr(xz));
  return 0;
}

let z: usize = 0; // [rows, kept units, heads, channels]
let xs: usize = 0;
let scanned: usize = 0;
let b: usize = 0; // [rows, kept units, groups, channels]
let c: usize = 0;
let dt: usize = 0; // [rows, heads]
let scratch: usize = 0;

/** Takes a layer's scratch at the present cut. */
export function mamba_buffers(layer: u32): void {
  const rows = shape_rows();
  const heads = pack_field(HEADER_SSM_HEADS);
  const headDim = cut_channels(stack_find(layer, KIND_XZ));
  const inner = heads * headDim;
  const state = cut_channels(stack_find(layer, KIND_BC));
  z = scratch_take(rows, inner);
  xs = scratch_take(rows, inner);
  scanned = scratch_take(rows, inner);
  b = scratch_take(rows, pack_field(HEADER_SSM_GROUPS) * state);
  c = scratch_take(rows, pack_field(HEADER_SSM_GROUPS) * state);
  dt = scratch_take(rows, heads);
  scratch = shape_device() ? 0 : scratch_take(shape_threads(), scan_scratch_floats(state));
}

/** Appends a layer's ops and takes its states. x: [rows, width], the stream; y: [rows, width], scratch. */
export function mamba_emit(layer: u32, x: usize, y: usize): void {
  const heads = pack_field(HEADER_SSM_HEADS);
  const groups = pack_field(HEADER_SSM_GROUPS);
  const bc = stack_find(layer, KIND_BC);
  const xz = stack_find(layer, KIND_XZ);
  const state = cut_channels(bc);
  const headDim = cut_channels(xz);
  if (headDim > 0) {
    const normGroups = pack_field(HEADER_SSM_NORM_GROUPS);
    const divisor = (((heads / normGroups) as u64) * pack_field(HEADER_SSM_HEAD_DIM)) as f32;
    emit_norm(0, x, y, fixed_tensor(ROLE_MIXER_NORM, layer));
    emit_unit_rows(xz, ROLE_Z, ROLE_Z_BIAS, y, z);
    emit_unit_rows(xz, ROLE_X, ROLE_X_BIAS, y, xs);
    if (state > 0) {
      emit_unit_rows(bc, ROLE_B, ROLE_B_BIAS, y, b);
      emit_unit_rows(bc, ROLE_C, ROLE_C_BIAS, y, c);
    }
    emit_matmul(0, fixed_tensor(ROLE_DT, layer), y, dt, heads);
    emit_conv(0, xz, ROLE_X_CONV, xs);
    if (state > 0) {
      emit_conv(FLAG_ALONGSIDE, bc, ROLE_B_CONV, b);
      emit_conv(FLAG_ALONGSIDE, bc, ROLE_C_CONV, c);
    }
    emit_step_size(
      FLAG_ALONGSIDE,
      dt,
      fixed_tensor(ROLE_DT_BIAS, layer),
      pack_float(HEADER_SSM_STEP_LEAST),
      pack_float(HEADER_SSM_STEP_MOST),
    );
    emit_scan(
      xz,
      bc,
      heads,
      groups,
      fixed_tensor(ROLE_A, layer),
      fixed_tensor(ROLE_D, layer),
      xs,
      b,
      c,
      dt,
      scanned,
      scratch,
    );
    emit_gated_norm(xz, heads, normGroups, divisor, scanned, z);
  }
  emit_unit_cols(xz, ROLE_OUT, fixed_tensor(ROLE_OUT_BIAS, layer), scanned, x, FLAG_ADD);
}
