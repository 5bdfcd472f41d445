// The program: a flat list of op records (layout: abi.ts) that every executor walks. Model builders append to it with
// the functions below; in a layout that only counts bytes the records go nowhere.

import {
  NONE,
  STACK_CHANNELS,
  STACK_UNIT_BYTES,
  TENSOR_COLS,
  TENSOR_DTYPE,
  TENSOR_GROUP,
  TENSOR_OFFSET,
  TENSOR_ROLE,
  TENSOR_ROWS,
} from "../packs/format";
import {
  ATTENTION_HEADS,
  ATTENTION_K,
  ATTENTION_K_CACHE,
  ATTENTION_KV_HEADS,
  ATTENTION_OUT,
  ATTENTION_Q,
  ATTENTION_QK_CHANNELS,
  ATTENTION_QK_UNITS,
  ATTENTION_SCALE,
  ATTENTION_SCORES,
  ATTENTION_V,
  ATTENTION_V_CACHE,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  AXIS_COLS,
  AXIS_ROWS,
  EMBED_DTYPE,
  EMBED_GROUP,
  EMBED_OUT,
  EMBED_WEIGHT,
  EMBED_WIDTH,
  GATE_GATE,
  GATE_UP,
  GATE_WIDTH,
  MATMUL_AXIS,
  MATMUL_BIAS,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_IN,
  MATMUL_IN_STRIDE,
  MATMUL_OUT,
  MATMUL_OUT_STRIDE,
  MATMUL_PANEL_BYTES,
  MATMUL_PANELS,
  MATMUL_ROWS,
  MATMUL_WEIGHT,
  NORM_EPS,
  NORM_IN,
  NORM_OUT,
  NORM_WEIGHT,
  NORM_WIDTH,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_LAYER,
  OP_MATMUL,
  OP_NORM,
  OP_ROLE,
  OP_ROPE,
  OP_SELECT,
  ROPE_ANGLES,
  ROPE_CHANNELS,
  ROPE_DATA,
  ROPE_HEADS,
  ROPE_SHARE,
  ROPE_UNIT_BYTES,
  ROPE_UNITS,
  SELECT_IN,
  SELECT_OUT,
  SELECT_WIDTH,
} from "./abi";
import { cut_kept, fixed_tensor_ptr, stack_address } from "./cut";
import { pack_norm_eps, stack_ptr, stack_tensor } from "./pack";

const nowhere = memory.data(OP_BYTES, 8);
let programPtr: usize = 0;
let count: u32 = 0;
let emitting = false;
let layerNow: u32 = 0;

/** Starts a program at an address that the layout has taken. */
export function program_start(ptr: usize, emit: bool): void {
  programPtr = ptr;
  count = 0;
  emitting = emit;
  layerNow = NONE;
}

/** The ops that follow belong to this layer, or to none: NONE. */
export function program_layer(layer: u32): void {
  layerNow = layer;
}

export function program_ptr(): usize {
  return programPtr;
}

/** Number of records. */
export function program_length(): u32 {
  return count;
}

/** out = rows of the embedding; out: [rows, width]. */
export function emit_embed(embedding: usize, out: usize): void {
  const op = append(OP_EMBED, 0);
  store<u32>(op, out as u32, EMBED_OUT);
  store<u32>(op, fixed_tensor_ptr(embedding) as u32, EMBED_WEIGHT);
  store<u32>(op, load<u32>(embedding, TENSOR_DTYPE), EMBED_DTYPE);
  store<u32>(op, load<u32>(embedding, TENSOR_GROUP), EMBED_GROUP);
  store<u32>(op, load<u32>(embedding, TENSOR_COLS), EMBED_WIDTH);
}

/** out = RMS norm of input; both [rows, width of the weight]. */
export function emit_norm(flags: u32, input: usize, out: usize, weight: usize): void {
  const op = append(OP_NORM, flags);
  store<u32>(op, input as u32, NORM_IN);
  store<u32>(op, out as u32, NORM_OUT);
  store<u32>(op, fixed_tensor_ptr(weight) as u32, NORM_WEIGHT);
  store<u32>(op, load<u32>(weight, TENSOR_COLS), NORM_WIDTH);
  store<f32>(op, pack_norm_eps(), NORM_EPS);
}

/** out = matrix of the fixed part · input; strides in floats. */
export function emit_matmul(flags: u32, matrix: usize, input: usize, out: usize, outStride: u32): void {
  const op = append(OP_MATMUL, flags);
  store<u32>(op, fixed_tensor_ptr(matrix) as u32, MATMUL_WEIGHT);
  matmul_shape(op, matrix, input, load<u32>(matrix, TENSOR_COLS), out, outStride, 1, 0, AXIS_ROWS);
}

/** out[rows, kept × panel rows] = the kept units' panels of `role`, stacked along the output, · input (+ bias). */
export function emit_unit_rows(stack: u32, role: u32, biasRole: u32, input: usize, out: usize): void {
  const matrix = stack_tensor(stack, role);
  const units = cut_kept(stack);
  const op = append(OP_MATMUL, 0);
  const outStride = units * load<u32>(matrix, TENSOR_ROWS);
  store<u32>(op, unit_tensor_ptr(stack, matrix), MATMUL_WEIGHT);
  matmul_shape(op, matrix, input, load<u32>(matrix, TENSOR_COLS), out, outStride, units, unit_bytes(stack), AXIS_ROWS);
  const bias = stack_tensor(stack, biasRole);
  if (bias != 0) store<u32>(op, unit_tensor_ptr(stack, bias), MATMUL_BIAS);
}

/** out += the kept units' panels of `role`, stacked along the input, · input[rows, kept × panel cols] (+ bias). */
export function emit_unit_cols(stack: u32, role: u32, bias: usize, input: usize, out: usize, flags: u32): void {
  const matrix = stack_tensor(stack, role);
  const units = cut_kept(stack);
  if (units == 0 && bias == 0) return;
  const op = append(OP_MATMUL, flags);
  const inStride = units * load<u32>(matrix, TENSOR_COLS);
  const outStride = load<u32>(matrix, TENSOR_ROWS);
  store<u32>(op, unit_tensor_ptr(stack, matrix), MATMUL_WEIGHT);
  matmul_shape(op, matrix, input, inStride, out, outStride, units, unit_bytes(stack), AXIS_COLS);
  if (bias != 0) store<u32>(op, fixed_tensor_ptr(bias) as u32, MATMUL_BIAS);
}

/** Rotates data[rows, kept, heads, channels] in place by the stack's angles; `share` heads in a row have the same. */
export function emit_rope(stack: u32, angles: usize, data: usize, heads: u32, share: u32): void {
  const op = append(OP_ROPE, 0);
  store<u32>(op, data as u32, ROPE_DATA);
  store<u32>(op, cut_kept(stack), ROPE_UNITS);
  store<u32>(op, heads, ROPE_HEADS);
  store<u32>(op, unit_channels(stack), ROPE_CHANNELS);
  store<u32>(op, unit_tensor_ptr(stack, angles), ROPE_ANGLES);
  store<u32>(op, unit_bytes(stack), ROPE_UNIT_BYTES);
  store<u32>(op, share, ROPE_SHARE);
}

/** Attention of the step's rows over the cache; shapes: OP_ATTENTION. */
export function emit_attention(
  qkStack: u32,
  voStack: u32,
  heads: u32,
  kvHeads: u32,
  scale: f32,
  q: usize,
  k: usize,
  v: usize,
  out: usize,
  kCache: usize,
  vCache: usize,
  scores: usize,
): void {
  const op = append(OP_ATTENTION, 0);
  store<u32>(op, q as u32, ATTENTION_Q);
  store<u32>(op, k as u32, ATTENTION_K);
  store<u32>(op, v as u32, ATTENTION_V);
  store<u32>(op, out as u32, ATTENTION_OUT);
  store<u32>(op, cut_kept(qkStack), ATTENTION_QK_UNITS);
  store<u32>(op, unit_channels(qkStack), ATTENTION_QK_CHANNELS);
  store<u32>(op, cut_kept(voStack), ATTENTION_VO_UNITS);
  store<u32>(op, unit_channels(voStack), ATTENTION_VO_CHANNELS);
  store<u32>(op, kCache as u32, ATTENTION_K_CACHE);
  store<u32>(op, vCache as u32, ATTENTION_V_CACHE);
  store<u32>(op, scores as u32, ATTENTION_SCORES);
  store<f32>(op, scale, ATTENTION_SCALE);
  store<u32>(op, heads, ATTENTION_HEADS);
  store<u32>(op, kvHeads, ATTENTION_KV_HEADS);
}

/** gate = silu(gate) × up; both [rows, width]. */
export function emit_gate(gate: usize, up: usize, width: u32): void {
  const op = append(OP_GATE, 0);
  store<u32>(op, gate as u32, GATE_GATE);
  store<u32>(op, up as u32, GATE_UP);
  store<u32>(op, width, GATE_WIDTH);
}

/** out[outputs, width] = the rows of input that want logits. */
export function emit_select(input: usize, out: usize, width: u32): void {
  const op = append(OP_SELECT, 0);
  store<u32>(op, input as u32, SELECT_IN);
  store<u32>(op, out as u32, SELECT_OUT);
  store<u32>(op, width, SELECT_WIDTH);
}

function append(code: u32, flags: u32): usize {
  const op = emitting ? programPtr + count * OP_BYTES : nowhere;
  count++;
  memory.fill(op, 0, OP_BYTES);
  store<u32>(op, code, OP_CODE);
  store<u32>(op, flags, OP_FLAGS);
  store<u32>(op, layerNow, OP_LAYER);
  return op;
}

function matmul_shape(
  op: usize,
  matrix: usize,
  input: usize,
  inStride: u32,
  out: usize,
  outStride: u32,
  panels: u32,
  panelBytes: u32,
  axis: u32,
): void {
  store<u32>(op, load<u32>(matrix, TENSOR_ROLE), OP_ROLE);
  store<u32>(op, input as u32, MATMUL_IN);
  store<u32>(op, inStride, MATMUL_IN_STRIDE);
  store<u32>(op, out as u32, MATMUL_OUT);
  store<u32>(op, outStride, MATMUL_OUT_STRIDE);
  store<u32>(op, load<u32>(matrix, TENSOR_DTYPE), MATMUL_DTYPE);
  store<u32>(op, load<u32>(matrix, TENSOR_GROUP), MATMUL_GROUP);
  store<u32>(op, load<u32>(matrix, TENSOR_ROWS), MATMUL_ROWS);
  store<u32>(op, load<u32>(matrix, TENSOR_COLS), MATMUL_COLS);
  store<u32>(op, panels, MATMUL_PANELS);
  store<u32>(op, panelBytes, MATMUL_PANEL_BYTES);
  store<u32>(op, axis, MATMUL_AXIS);
}

function unit_tensor_ptr(stack: u32, tensor: usize): u32 {
  return (stack_address(stack) + (load<u64>(tensor, TENSOR_OFFSET) as usize)) as u32;
}

function unit_bytes(stack: u32): u32 {
  return load<u32>(stack_ptr(stack), STACK_UNIT_BYTES);
}

function unit_channels(stack: u32): u32 {
  return load<u32>(stack_ptr(stack), STACK_CHANNELS);
}
