// Attention: x += o(attention(q, k, v of norm(x))), grouped heads, RoPE where the pack has angles. What is cut away is
// not there: without values only the bias of o is left; without queries every position scores alike.

import {
  HEADER_HEAD_DIM,
  HEADER_HEADS,
  HEADER_KV_HEADS,
  HEADER_LAYERS,
  HEADER_WIDTH,
  KIND_QK,
  KIND_VO,
  NONE,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_MIXER_NORM,
  ROLE_O,
  ROLE_O_BIAS,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_ROPE,
  ROLE_V,
  STACK_CHANNELS,
} from "../../packs/format";
import { DEVICE_SPLIT_ROWS, DEVICE_SPLITS, FLAG_ADD } from "../abi";
import { cut_channels } from "../cut";
import { attention_scratch_floats } from "../kernels/attention";
import { cache_take, cache_value_dims } from "../kv-cache";
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
  stack_units,
} from "../pack";
import { emit_attention, emit_norm, emit_rope, emit_unit_cols, emit_unit_rows } from "../program";
import { shape_coded, shape_device, shape_rows, shape_threads } from "../shape";

/** Most op records of one. */
export const ATTENTION_OPS: u32 = 11;

/** Checks that a layer has every tensor of an attention, in its shape. */
export function attention_check(layer: u32): i32 {
  const width = pack_field(HEADER_WIDTH);
  const heads = pack_field(HEADER_HEADS);
  const kvHeads = pack_field(HEADER_KV_HEADS);
  const headDim = pack_field(HEADER_HEAD_DIM);
  if (heads == 0) return missing(HEADER_HEADS);
  if (!is_vector(fixed_tensor(ROLE_MIXER_NORM, layer), 1, width)) return missing(HEADER_LAYERS);
  if (!is_optional_vector(fixed_tensor(ROLE_O_BIAS, layer), width)) return missing(HEADER_LAYERS);
  const qk = stack_find(layer, KIND_QK);
  const vo = stack_find(layer, KIND_VO);
  if (qk == NONE || vo == NONE) return missing(HEADER_LAYERS);
  let channels = stack_channels(qk);
  const rope = stack_tensor(qk, ROLE_ROPE);
  if (channels % 2 != 0 || channels * stack_units(qk) > headDim) return corrupt(stack_ptr(qk) + STACK_CHANNELS);
  if (
    !is_matrix(stack_tensor(qk, ROLE_Q), heads * channels, width) ||
    !is_matrix(stack_tensor(qk, ROLE_K), kvHeads * channels, width) ||
    !is_optional_vector(stack_tensor(qk, ROLE_Q_BIAS), heads * channels) ||
    !is_optional_vector(stack_tensor(qk, ROLE_K_BIAS), kvHeads * channels) ||
    (rope != 0 && !is_vector(rope, kvHeads, channels / 2))
  )
    return corrupt(stack_ptr(qk));
  channels = stack_channels(vo);
  if (channels * stack_units(vo) > headDim) return corrupt(stack_ptr(vo) + STACK_CHANNELS);
  if (
    !is_matrix(stack_tensor(vo, ROLE_V), kvHeads * channels, width) ||
    !is_matrix(stack_tensor(vo, ROLE_O), width, heads * channels)
  )
    return corrupt(stack_ptr(vo));
  return 0;
}

let q: usize = 0; // [rows, heads × kept dims]
let k: usize = 0; // [rows, kvHeads × kept dims]
let v: usize = 0;
let attended: usize = 0; // [rows, heads × kept dims]
let scratch: usize = 0;

/** Takes a layer's scratch at the present cut. */
export function attention_buffers(layer: u32): void {
  const rows = shape_rows();
  const qkDims = cut_channels(stack_find(layer, KIND_QK));
  const voDims = cut_channels(stack_find(layer, KIND_VO));
  q = scratch_take(rows, pack_field(HEADER_HEADS) * qkDims);
  k = scratch_take(rows, pack_field(HEADER_KV_HEADS) * qkDims);
  v = scratch_take(rows, pack_field(HEADER_KV_HEADS) * voDims);
  attended = scratch_take(rows, pack_field(HEADER_HEADS) * voDims);
  scratch = shape_device()
    ? scratch_take(DEVICE_SPLIT_ROWS, (pack_field(HEADER_HEADS) as u64) * DEVICE_SPLITS * (voDims + 2))
    : scratch_take(shape_threads(), attention_scratch_floats(qkDims, voDims, shape_coded()));
}

/** Appends a layer's ops and takes its caches. x: [rows, width], the stream; y: [rows, width], scratch. */
export function attention_emit(layer: u32, x: usize, y: usize): void {
  const heads = pack_field(HEADER_HEADS);
  const kvHeads = pack_field(HEADER_KV_HEADS);
  const scale: f32 = 1 / sqrt<f32>(pack_field(HEADER_HEAD_DIM) as f32);
  const qk = stack_find(layer, KIND_QK);
  const vo = stack_find(layer, KIND_VO);
  const qkDims = cut_channels(qk);
  const voDims = cut_channels(vo);
  if (voDims > 0) {
    emit_norm(0, x, y, fixed_tensor(ROLE_MIXER_NORM, layer));
    if (qkDims > 0) {
      emit_unit_rows(qk, ROLE_Q, ROLE_Q_BIAS, y, q);
      emit_unit_rows(qk, ROLE_K, ROLE_K_BIAS, y, k);
    }
    emit_unit_rows(vo, ROLE_V, 0, y, v);
    const angles = stack_tensor(qk, ROLE_ROPE);
    if (qkDims > 0 && angles != 0) emit_rope(qk, angles, heads, kvHeads, q, k);
    const kCache = cache_take(kvHeads, qkDims);
    const vCache = cache_take(kvHeads, cache_value_dims(voDims));
    emit_attention(qk, vo, heads, kvHeads, scale, q, k, v, attended, kCache, vCache, scratch);
  }
  emit_unit_cols(vo, ROLE_O, fixed_tensor(ROLE_O_BIAS, layer), attended, x, FLAG_ADD);
}
