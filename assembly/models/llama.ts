// Llama: x += attention(norm(x)); x += mlp(norm(x)); logits = head(norm(x)). A part of a layer whose units are all
// cut away is not there; the bias of its output is.

import {
  HEADER_HEAD_DIM,
  HEADER_HEADS,
  HEADER_KV_HEADS,
  HEADER_LAYERS,
  HEADER_VOCABULARY,
  HEADER_WIDTH,
  KIND_MLP,
  KIND_QK,
  KIND_VO,
  NONE,
  ROLE_ATTENTION_NORM,
  ROLE_DOWN,
  ROLE_DOWN_BIAS,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_GATE,
  ROLE_GATE_BIAS,
  ROLE_HEAD,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_MLP_NORM,
  ROLE_O,
  ROLE_O_BIAS,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_ROPE,
  ROLE_UP,
  ROLE_UP_BIAS,
  ROLE_V,
  STACK_CHANNELS,
  STACK_UNITS,
} from "../../packs/format";
import { FLAG_ADD, FLAG_OUTPUTS } from "../abi";
import { cut_channels } from "../cut";
import { cache_take } from "../kv-cache";
import { arena_take, PART_SCRATCH } from "../memory";
import {
  corrupt,
  fixed_tensor,
  is_matrix,
  is_vector,
  pack_field,
  pack_header_ptr,
  stack_find,
  stack_ptr,
  stack_tensor,
} from "../pack";
import {
  emit_attention,
  emit_embed,
  emit_gate,
  emit_matmul,
  emit_norm,
  emit_rope,
  emit_select,
  emit_unit_cols,
  emit_unit_rows,
  program_layer,
} from "../program";

const LAYER_OPS: u32 = 14;
const END_OPS: u32 = 4;

/** Most op records of a program. */
export function llama_ops(): u32 {
  return pack_field(HEADER_LAYERS) * LAYER_OPS + END_OPS;
}

/** Checks that the pack has every tensor that the program uses, in its shape. */
export function llama_check(): i32 {
  const width = pack_field(HEADER_WIDTH);
  const vocabulary = pack_field(HEADER_VOCABULARY);
  const heads = pack_field(HEADER_HEADS);
  const kvHeads = pack_field(HEADER_KV_HEADS);
  const headDim = pack_field(HEADER_HEAD_DIM);
  const head = fixed_tensor(ROLE_HEAD, NONE);
  if (!is_matrix(fixed_tensor(ROLE_EMBEDDING, NONE), vocabulary, width)) return missing(HEADER_VOCABULARY);
  if (head != 0 && !is_matrix(head, vocabulary, width)) return missing(HEADER_VOCABULARY);
  if (!is_vector(fixed_tensor(ROLE_FINAL_NORM, NONE), 1, width)) return missing(HEADER_WIDTH);
  for (let layer: u32 = 0; layer < pack_field(HEADER_LAYERS); layer++) {
    if (!is_vector(fixed_tensor(ROLE_ATTENTION_NORM, layer), 1, width)) return missing(HEADER_LAYERS);
    if (!is_vector(fixed_tensor(ROLE_MLP_NORM, layer), 1, width)) return missing(HEADER_LAYERS);
    if (!is_optional(fixed_tensor(ROLE_O_BIAS, layer), width)) return missing(HEADER_LAYERS);
    if (!is_optional(fixed_tensor(ROLE_DOWN_BIAS, layer), width)) return missing(HEADER_LAYERS);

    const qk = stack_find(layer, KIND_QK);
    const vo = stack_find(layer, KIND_VO);
    const mlp = stack_find(layer, KIND_MLP);
    if (qk == NONE || vo == NONE || mlp == NONE) return missing(HEADER_LAYERS);
    let channels = unit_channels(qk);
    if (channels % 2 != 0 || channels * unit_count(qk) > headDim) return corrupt(stack_ptr(qk) + STACK_CHANNELS);
    if (
      !is_matrix(stack_tensor(qk, ROLE_Q), heads * channels, width) ||
      !is_matrix(stack_tensor(qk, ROLE_K), kvHeads * channels, width) ||
      !is_optional(stack_tensor(qk, ROLE_Q_BIAS), heads * channels) ||
      !is_optional(stack_tensor(qk, ROLE_K_BIAS), kvHeads * channels) ||
      !is_vector(stack_tensor(qk, ROLE_ROPE), kvHeads, channels / 2)
    )
      return corrupt(stack_ptr(qk));
    channels = unit_channels(vo);
    if (channels * unit_count(vo) > headDim) return corrupt(stack_ptr(vo) + STACK_CHANNELS);
    if (
      !is_matrix(stack_tensor(vo, ROLE_V), kvHeads * channels, width) ||
      !is_matrix(stack_tensor(vo, ROLE_O), width, heads * channels)
    )
      return corrupt(stack_ptr(vo));
    channels = unit_channels(mlp);
    if (
      !is_matrix(stack_tensor(mlp, ROLE_GATE), channels, width) ||
      !is_matrix(stack_tensor(mlp, ROLE_UP), channels, width) ||
      !is_matrix(stack_tensor(mlp, ROLE_DOWN), width, channels) ||
      !is_optional(stack_tensor(mlp, ROLE_GATE_BIAS), channels) ||
      !is_optional(stack_tensor(mlp, ROLE_UP_BIAS), channels)
    )
      return corrupt(stack_ptr(mlp));
  }
  return 0;
}

let x: usize = 0; // [rows, width]: the residual stream
let y: usize = 0; // [rows, width]
let selected: usize = 0; // [outputs, width]
let q: usize = 0; // [rows, heads × kept dims]
let k: usize = 0;
let v: usize = 0;
let attended: usize = 0;
let gate: usize = 0; // [rows, kept MLP channels]
let up: usize = 0;

/** Lays out the scratch of a step at the present cut. */
export function llama_buffers(rows: u32, outputs: u32): void {
  const width = pack_field(HEADER_WIDTH);
  const heads = pack_field(HEADER_HEADS);
  const kvHeads = pack_field(HEADER_KV_HEADS);
  let qkMost: u32 = 0;
  let voMost: u32 = 0;
  let mlpMost: u32 = 0;
  for (let layer: u32 = 0; layer < pack_field(HEADER_LAYERS); layer++) {
    qkMost = max(qkMost, cut_channels(stack_find(layer, KIND_QK)));
    voMost = max(voMost, cut_channels(stack_find(layer, KIND_VO)));
    mlpMost = max(mlpMost, cut_channels(stack_find(layer, KIND_MLP)));
  }
  x = buffer(rows, width);
  y = buffer(rows, width);
  selected = buffer(outputs, width);
  q = buffer(rows, heads * qkMost);
  k = buffer(rows, kvHeads * qkMost);
  v = buffer(rows, kvHeads * voMost);
  attended = buffer(rows, heads * voMost);
  gate = buffer(rows, mlpMost);
  up = buffer(rows, mlpMost);
}

/** Appends the program and takes the caches at the present cut. scores: [context]; logits: [outputs, vocabulary]. */
export function llama_program(scores: usize, logits: usize): void {
  const layers = pack_field(HEADER_LAYERS);
  const width = pack_field(HEADER_WIDTH);
  const heads = pack_field(HEADER_HEADS);
  const kvHeads = pack_field(HEADER_KV_HEADS);
  const scale: f32 = 1 / sqrt<f32>(pack_field(HEADER_HEAD_DIM) as f32);

  emit_embed(fixed_tensor(ROLE_EMBEDDING, NONE), x);
  for (let layer: u32 = 0; layer < layers; layer++) {
    program_layer(layer);
    const qk = stack_find(layer, KIND_QK);
    const vo = stack_find(layer, KIND_VO);
    const mlp = stack_find(layer, KIND_MLP);
    const qkDims = cut_channels(qk);
    const voDims = cut_channels(vo);
    if (voDims > 0) {
      emit_norm(0, x, y, fixed_tensor(ROLE_ATTENTION_NORM, layer));
      if (qkDims > 0) {
        const angles = stack_tensor(qk, ROLE_ROPE);
        emit_unit_rows(qk, ROLE_Q, ROLE_Q_BIAS, y, q);
        emit_unit_rows(qk, ROLE_K, ROLE_K_BIAS, y, k);
        emit_rope(qk, angles, q, heads, heads / kvHeads);
        emit_rope(qk, angles, k, kvHeads, 1);
      }
      emit_unit_rows(vo, ROLE_V, 0, y, v);
      const kCache = cache_take(kvHeads * qkDims);
      const vCache = cache_take(kvHeads * voDims);
      emit_attention(qk, vo, heads, kvHeads, scale, q, k, v, attended, kCache, vCache, scores);
    }
    emit_unit_cols(vo, ROLE_O, fixed_tensor(ROLE_O_BIAS, layer), attended, x, FLAG_ADD);

    const mlpDims = cut_channels(mlp);
    if (mlpDims > 0) {
      emit_norm(0, x, y, fixed_tensor(ROLE_MLP_NORM, layer));
      emit_unit_rows(mlp, ROLE_GATE, ROLE_GATE_BIAS, y, gate);
      emit_unit_rows(mlp, ROLE_UP, ROLE_UP_BIAS, y, up);
      emit_gate(gate, up, mlpDims);
    }
    emit_unit_cols(mlp, ROLE_DOWN, fixed_tensor(ROLE_DOWN_BIAS, layer), gate, x, FLAG_ADD);
  }
  program_layer(NONE);
  emit_select(x, selected, width);
  emit_norm(FLAG_OUTPUTS, selected, selected, fixed_tensor(ROLE_FINAL_NORM, NONE));
  const head = fixed_tensor(ROLE_HEAD, NONE);
  emit_matmul(
    FLAG_OUTPUTS,
    head != 0 ? head : fixed_tensor(ROLE_EMBEDDING, NONE),
    selected,
    logits,
    pack_field(HEADER_VOCABULARY),
  );
}

function buffer(rows: u32, floats: u32): usize {
  return arena_take(PART_SCRATCH, (rows as u64) * floats * 4);
}

function unit_channels(stack: u32): u32 {
  return load<u32>(stack_ptr(stack), STACK_CHANNELS);
}

function unit_count(stack: u32): u32 {
  return load<u32>(stack_ptr(stack), STACK_UNITS);
}

function is_optional(tensor: usize, cols: u32): bool {
  return tensor == 0 || is_vector(tensor, 1, cols);
}

function missing(field: u32): i32 {
  return corrupt(pack_header_ptr() + field);
}
