// The program: a flat list of op records (layout: abi.ts) that every executor walks. Model builders append to it with
// the functions below; in a layout that only counts bytes the records go nowhere.

import {
  DTYPE_Q4,
  DTYPE_Q8,
  HEADER_FIXED_TENSORS,
  HEADER_NORM_EPS,
  HEADER_STACKS,
  NONE,
  ROLE_GATED_NORM,
  ROW_TILE,
  STACK_TENSOR,
  STACK_TENSORS,
  TENSOR_COLS,
  TENSOR_DTYPE,
  TENSOR_GROUP,
  TENSOR_LAYER,
  TENSOR_LENGTH,
  TENSOR_ROLE,
  TENSOR_ROWS,
} from "../packs/format";
import {
  ATTENTION_CODED,
  ATTENTION_CONTEXT,
  ATTENTION_HEADS,
  ATTENTION_K,
  ATTENTION_K_CACHE,
  ATTENTION_KV_HEADS,
  ATTENTION_OUT,
  ATTENTION_Q,
  ATTENTION_QK_CHANNELS,
  ATTENTION_QK_UNITS,
  ATTENTION_SCALE,
  ATTENTION_SCRATCH,
  ATTENTION_TABLE,
  ATTENTION_V,
  ATTENTION_V_CACHE,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  AXIS_COLS,
  AXIS_ROWS,
  CONV_CHANNELS,
  CONV_DATA,
  CONV_STATE,
  CONV_TAPS,
  CONV_UNIT_BYTES,
  CONV_UNITS,
  CONV_WEIGHT,
  EMBED_DTYPE,
  EMBED_GROUP,
  EMBED_OUT,
  EMBED_WEIGHT,
  EMBED_WIDTH,
  FLAG_ALONGSIDE,
  FLAG_OUTPUTS,
  GATE_GATE,
  GATE_UP,
  GATE_WIDTH,
  GATED_NORM_CHANNELS,
  GATED_NORM_DATA,
  GATED_NORM_DIVISOR,
  GATED_NORM_EPS,
  GATED_NORM_GATE,
  GATED_NORM_GROUPS,
  GATED_NORM_HEADS,
  GATED_NORM_UNIT_BYTES,
  GATED_NORM_UNITS,
  GATED_NORM_WEIGHT,
  MATMUL_AXIS,
  MATMUL_BIAS,
  MATMUL_BIAS_BYTES,
  MATMUL_CODES,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_IN,
  MATMUL_IN_STRIDE,
  MATMUL_OUT,
  MATMUL_OUT_STRIDE,
  MATMUL_PANEL_BYTES,
  MATMUL_PANELS,
  MATMUL_PARTS,
  MATMUL_ROOM,
  MATMUL_ROWS,
  MATMUL_SCRATCH,
  MATMUL_WEIGHT,
  MATMUL_WIDE,
  NORM_EPS,
  NORM_IN,
  NORM_OUT,
  NORM_WEIGHT,
  NORM_WIDTH,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_CONV,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_GATED_NORM,
  OP_LAYER,
  OP_MATMUL,
  OP_NORM,
  OP_QUANTIZE,
  OP_ROLE,
  OP_ROPE,
  OP_SCAN,
  OP_SELECT,
  OP_SQUARED_RELU,
  OP_STEP_SIZE,
  QUANTIZE_COLS,
  QUANTIZE_DTYPE,
  QUANTIZE_GROUP,
  QUANTIZE_IN,
  QUANTIZE_OUT,
  ROPE_ANGLES,
  ROPE_CHANNELS,
  ROPE_HEADS,
  ROPE_K,
  ROPE_KV_HEADS,
  ROPE_Q,
  ROPE_UNIT_BYTES,
  ROPE_UNITS,
  SCAN_A,
  SCAN_B,
  SCAN_BC_CHANNELS,
  SCAN_BC_UNITS,
  SCAN_C,
  SCAN_D,
  SCAN_DT,
  SCAN_GROUPS,
  SCAN_HEADS,
  SCAN_OUT,
  SCAN_SCRATCH,
  SCAN_STATE,
  SCAN_X,
  SCAN_XZ_CHANNELS,
  SCAN_XZ_UNITS,
  SELECT_IN,
  SELECT_OUT,
  SELECT_WIDTH,
  SQUARED_RELU_DATA,
  SQUARED_RELU_WIDTH,
  STEP_SIZE_BIAS,
  STEP_SIZE_DATA,
  STEP_SIZE_HEADS,
  STEP_SIZE_LEAST,
  STEP_SIZE_MOST,
} from "./abi";
import {
  cut_channels,
  cut_kept,
  cut_loaded,
  fixed_tensor_ptr,
  is_stacked_along_cols,
  unit_parts,
  unit_tensor_ptr,
} from "./cut";
import { MATMUL_SCRATCH_BYTES } from "./kernels/matmul";
import { codes_row_bytes } from "./kernels/quantize";
import { cache_table } from "./kv-cache";
import { arena_take, PART_SCRATCH } from "./memory";
import {
  pack_count,
  pack_field,
  pack_float,
  stack_channels,
  stack_ptr,
  stack_tensor,
  tensor_ptr,
  tensor_span,
} from "./pack";
import {
  shape_coded,
  shape_context,
  shape_device,
  shape_exact,
  shape_outputs,
  shape_rows,
  shape_threads,
} from "./shape";
import { state_take } from "./state";

const nowhere = memory.data(OP_BYTES, 8);
let programPtr: usize = 0;
let count: u32 = 0;
let emitting = false;
let wide: bool = false;
let layerNow: u32 = 0;
let codesPtr: usize = 0;
let scratchPtr: usize = 0;
// What the codes are of, while ops follow each other that change neither the input nor the codes:
let codesInput: usize = 0;
let codesDtype: u32 = 0;
let codesGroup: u32 = 0;
let matmulInput: usize = 0; // of the op before, if it is a matmul

/** Does the engine fuse vectors to 256 bits? To be said before a program is made; where nothing is said, it does not. */
export function program_wide(on: bool): void {
  wide = on;
}

/** Starts a program at an address that the layout has taken. */
export function program_start(ptr: usize, emit: bool): void {
  programPtr = ptr;
  count = 0;
  emitting = emit;
  layerNow = NONE;
}

/** Takes what the matrices work in: their threads' scratch, and the codes of the widest input at the present cut. */
export function program_buffers(): void {
  scratchPtr = shape_device() ? 0 : arena_take(PART_SCRATCH, (shape_threads() as u64) * MATMUL_SCRATCH_BYTES);
  let most: u64 = 0;
  for (let i: u32 = 0; i < pack_field(HEADER_FIXED_TENSORS); i++) {
    const tensor = tensor_ptr(i);
    const head = load<u32>(tensor, TENSOR_LAYER) == NONE;
    most = max(most, codes_bytes(tensor, load<u32>(tensor, TENSOR_COLS), head ? shape_outputs() : shape_rows()));
  }
  for (let s: u32 = 0; s < pack_count(HEADER_STACKS); s++) {
    const first = load<u32>(stack_ptr(s), STACK_TENSOR);
    for (let i = first; i < first + load<u32>(stack_ptr(s), STACK_TENSORS); i++) {
      const tensor = tensor_ptr(i);
      const cols = load<u32>(tensor, TENSOR_COLS);
      most = max(most, codes_bytes(tensor, is_stacked_along_cols(tensor) ? cut_kept(s) * cols : cols, shape_rows()));
    }
  }
  codesPtr = arena_take(PART_SCRATCH, most);
}

/** Bytes of the codes of `rows` rows of an input of `cols` columns for this matrix: 0 where activations stay f32. */
function codes_bytes(tensor: usize, cols: u32, rows: u32): u64 {
  return works_on_codes(tensor) ? (rows as u64) * codes_row_bytes(cols, load<u32>(tensor, TENSOR_GROUP)) : 0;
}

function works_on_codes(tensor: usize): bool {
  const dtype = load<u32>(tensor, TENSOR_DTYPE);
  return !shape_exact() && (dtype == DTYPE_Q4 || dtype == DTYPE_Q8);
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
  store<f32>(op, pack_float(HEADER_NORM_EPS), NORM_EPS);
}

/** out = matrix of the fixed part · input; strides in floats. */
export function emit_matmul(flags: u32, matrix: usize, input: usize, out: usize, outStride: u32): void {
  const cols = load<u32>(matrix, TENSOR_COLS);
  append_matmul(flags, matrix, fixed_tensor_ptr(matrix), input, cols, out, outStride, 1, AXIS_ROWS);
}

/** out[rows, kept × panel rows] = the kept units' panels of `role`, stacked along the output, · input (+ bias). */
export function emit_unit_rows(stack: u32, role: u32, biasRole: u32, input: usize, out: usize): void {
  const matrix = stack_tensor(stack, role);
  const weight = unit_tensor_ptr(stack, matrix, 0);
  const bias = stack_tensor(stack, biasRole);
  const rows = load<u32>(matrix, TENSOR_ROWS);
  const cols = load<u32>(matrix, TENSOR_COLS);
  const units = cut_kept(stack);
  const op = append_matmul(0, matrix, weight, input, cols, out, units * rows, units, AXIS_ROWS);
  if (bias != 0) {
    store<u32>(op, unit_tensor_ptr(stack, bias, 0) as u32, MATMUL_BIAS);
    store<u32>(op, tensor_span(bias), MATMUL_BIAS_BYTES);
  }
  // Without rows that fill up a tile, and zeros behind a panel, the panels are one.
  if (rows % ROW_TILE != 0 || load<u64>(matrix, TENSOR_LENGTH) != tensor_span(matrix)) return;
  store<u32>(op, units * rows, MATMUL_ROWS);
  store<u32>(op, min(units, 1), MATMUL_PANELS);
}

/** out += the kept units' panels of `role`, stacked along the input, · input[rows, kept × panel cols] (+ bias). */
export function emit_unit_cols(stack: u32, role: u32, bias: usize, input: usize, out: usize, flags: u32): void {
  const matrix = stack_tensor(stack, role);
  const weight = unit_tensor_ptr(stack, matrix, 0);
  const units = cut_kept(stack);
  if (units == 0 && bias == 0) return;
  const inStride = units * load<u32>(matrix, TENSOR_COLS);
  const outStride = load<u32>(matrix, TENSOR_ROWS);
  const op = append_matmul(flags, matrix, weight, input, inStride, out, outStride, units, AXIS_COLS);
  store<u32>(op, unit_parts(matrix), MATMUL_PARTS);
  store<u32>(op, cut_loaded(stack), MATMUL_ROOM);
  if (bias != 0) store<u32>(op, fixed_tensor_ptr(bias) as u32, MATMUL_BIAS);
}

/** Rotates q[rows, kept, heads, channels] and k[rows, kept, kvHeads, channels] in place by the stack's angles. */
export function emit_rope(stack: u32, angles: usize, heads: u32, kvHeads: u32, q: usize, k: usize): void {
  const op = append(OP_ROPE, 0);
  store<u32>(op, q as u32, ROPE_Q);
  store<u32>(op, k as u32, ROPE_K);
  store<u32>(op, cut_kept(stack), ROPE_UNITS);
  store<u32>(op, heads, ROPE_HEADS);
  store<u32>(op, kvHeads, ROPE_KV_HEADS);
  store<u32>(op, stack_channels(stack), ROPE_CHANNELS);
  store<u32>(op, unit_tensor_ptr(stack, angles, 0) as u32, ROPE_ANGLES);
  store<u32>(op, tensor_span(angles), ROPE_UNIT_BYTES);
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
  scratch: usize,
): void {
  const op = append(OP_ATTENTION, 0);
  store<u32>(op, q as u32, ATTENTION_Q);
  store<u32>(op, k as u32, ATTENTION_K);
  store<u32>(op, v as u32, ATTENTION_V);
  store<u32>(op, out as u32, ATTENTION_OUT);
  store<u32>(op, cut_kept(qkStack), ATTENTION_QK_UNITS);
  store<u32>(op, stack_channels(qkStack), ATTENTION_QK_CHANNELS);
  store<u32>(op, cut_kept(voStack), ATTENTION_VO_UNITS);
  store<u32>(op, stack_channels(voStack), ATTENTION_VO_CHANNELS);
  store<u32>(op, kCache as u32, ATTENTION_K_CACHE);
  store<u32>(op, vCache as u32, ATTENTION_V_CACHE);
  store<u32>(op, shape_device() ? 0 : (cache_table() as u32), ATTENTION_TABLE);
  store<u32>(op, shape_coded() ? 1 : 0, ATTENTION_CODED);
  store<u32>(op, scratch as u32, ATTENTION_SCRATCH);
  store<u32>(op, shape_context(), ATTENTION_CONTEXT);
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

/** data = max(data, 0)²; [rows, width]. */
export function emit_squared_relu(data: usize, width: u32): void {
  const op = append(OP_SQUARED_RELU, 0);
  store<u32>(op, data as u32, SQUARED_RELU_DATA);
  store<u32>(op, width, SQUARED_RELU_WIDTH);
}

/** Causal convolution of data[rows, kept, channels of all heads] in place, by the units' taps; takes its state. */
export function emit_conv(flags: u32, stack: u32, role: u32, data: usize): void {
  const weight = stack_tensor(stack, role);
  const channels = load<u32>(weight, TENSOR_COLS);
  const taps = load<u32>(weight, TENSOR_ROWS) - 1;
  const op = append(OP_CONV, flags);
  store<u32>(op, data as u32, CONV_DATA);
  store<u32>(op, cut_kept(stack), CONV_UNITS);
  store<u32>(op, channels, CONV_CHANNELS);
  store<u32>(op, taps, CONV_TAPS);
  store<u32>(op, unit_tensor_ptr(stack, weight, 0) as u32, CONV_WEIGHT);
  store<u32>(op, tensor_span(weight), CONV_UNIT_BYTES);
  store<u32>(op, state_take(((taps - 1) as u64) * cut_kept(stack) * channels) as u32, CONV_STATE);
}

/** dt[rows, heads] = clamp(softplus(dt + bias), least, most); bias: tensor of the fixed part. */
export function emit_step_size(flags: u32, dt: usize, bias: usize, least: f32, most: f32): void {
  const op = append(OP_STEP_SIZE, flags);
  store<u32>(op, dt as u32, STEP_SIZE_DATA);
  store<u32>(op, load<u32>(bias, TENSOR_COLS), STEP_SIZE_HEADS);
  store<u32>(op, fixed_tensor_ptr(bias) as u32, STEP_SIZE_BIAS);
  store<f32>(op, least, STEP_SIZE_LEAST);
  store<f32>(op, most, STEP_SIZE_MOST);
}

/** The SSM's recurrence over the step's rows; shapes: OP_SCAN. a, d: tensors of the fixed part. Takes its state. */
export function emit_scan(
  xzStack: u32,
  bcStack: u32,
  heads: u32,
  groups: u32,
  a: usize,
  d: usize,
  x: usize,
  b: usize,
  c: usize,
  dt: usize,
  out: usize,
  scratch: usize,
): void {
  const op = append(OP_SCAN, 0);
  const floats = (heads as u64) * cut_channels(xzStack) * cut_channels(bcStack);
  store<u32>(op, x as u32, SCAN_X);
  store<u32>(op, b as u32, SCAN_B);
  store<u32>(op, c as u32, SCAN_C);
  store<u32>(op, dt as u32, SCAN_DT);
  store<u32>(op, out as u32, SCAN_OUT);
  store<u32>(op, fixed_tensor_ptr(a) as u32, SCAN_A);
  store<u32>(op, fixed_tensor_ptr(d) as u32, SCAN_D);
  store<u32>(op, state_take(floats) as u32, SCAN_STATE);
  store<u32>(op, cut_kept(xzStack), SCAN_XZ_UNITS);
  store<u32>(op, stack_channels(xzStack), SCAN_XZ_CHANNELS);
  store<u32>(op, cut_kept(bcStack), SCAN_BC_UNITS);
  store<u32>(op, stack_channels(bcStack), SCAN_BC_CHANNELS);
  store<u32>(op, heads, SCAN_HEADS);
  store<u32>(op, groups, SCAN_GROUPS);
  store<u32>(op, scratch as u32, SCAN_SCRATCH);
}

/** data = the gated norm of data, gate: both [rows, kept, heads, channels]; divisor: channels of an uncut group. */
export function emit_gated_norm(stack: u32, heads: u32, groups: u32, divisor: f32, data: usize, gate: usize): void {
  const weight = stack_tensor(stack, ROLE_GATED_NORM);
  const op = append(OP_GATED_NORM, 0);
  store<u32>(op, data as u32, GATED_NORM_DATA);
  store<u32>(op, gate as u32, GATED_NORM_GATE);
  store<u32>(op, unit_tensor_ptr(stack, weight, 0) as u32, GATED_NORM_WEIGHT);
  store<u32>(op, tensor_span(weight), GATED_NORM_UNIT_BYTES);
  store<u32>(op, cut_kept(stack), GATED_NORM_UNITS);
  store<u32>(op, heads, GATED_NORM_HEADS);
  store<u32>(op, stack_channels(stack), GATED_NORM_CHANNELS);
  store<u32>(op, groups, GATED_NORM_GROUPS);
  store<f32>(op, divisor, GATED_NORM_DIVISOR);
  store<f32>(op, pack_float(HEADER_NORM_EPS), GATED_NORM_EPS);
}

/** out[outputs, width] = the rows of input that want logits. */
export function emit_select(input: usize, out: usize, width: u32): void {
  const op = append(OP_SELECT, 0);
  store<u32>(op, input as u32, SELECT_IN);
  store<u32>(op, out as u32, SELECT_OUT);
  store<u32>(op, width, SELECT_WIDTH);
}

function append(code: u32, flags: u32): usize {
  if (code != OP_MATMUL) {
    codesInput = 0;
    matmulInput = 0;
  }
  const op = emitting ? programPtr + count * OP_BYTES : nowhere;
  count++;
  memory.fill(op, 0, OP_BYTES);
  store<u32>(op, code, OP_CODE);
  store<u32>(op, flags, OP_FLAGS);
  store<u32>(op, layerNow, OP_LAYER);
  return op;
}

/** A matmul, and before it what makes its input's codes, unless they are there. Strides in floats. */
function append_matmul(
  flags: u32,
  matrix: usize,
  weight: usize,
  input: usize,
  inStride: u32,
  out: usize,
  outStride: u32,
  panels: u32,
  axis: u32,
): usize {
  const dtype = load<u32>(matrix, TENSOR_DTYPE);
  const group = load<u32>(matrix, TENSOR_GROUP);
  const coded = works_on_codes(matrix);
  if (coded && !(codesInput == input && codesDtype == dtype && codesGroup == group)) {
    const quantize = append(OP_QUANTIZE, flags & FLAG_OUTPUTS);
    store<u32>(quantize, input as u32, QUANTIZE_IN);
    store<u32>(quantize, codesPtr as u32, QUANTIZE_OUT);
    store<u32>(quantize, inStride, QUANTIZE_COLS);
    store<u32>(quantize, group, QUANTIZE_GROUP);
    store<u32>(quantize, dtype, QUANTIZE_DTYPE);
    codesInput = input;
    codesDtype = dtype;
    codesGroup = group;
  }
  // Matrices with the same input have outputs of their own.
  const op = append(OP_MATMUL, matmulInput == input ? flags | FLAG_ALONGSIDE : flags);
  matmulInput = input;
  store<u32>(op, load<u32>(matrix, TENSOR_ROLE), OP_ROLE);
  store<u32>(op, weight as u32, MATMUL_WEIGHT);
  store<u32>(op, input as u32, MATMUL_IN);
  store<u32>(op, inStride, MATMUL_IN_STRIDE);
  store<u32>(op, out as u32, MATMUL_OUT);
  store<u32>(op, outStride, MATMUL_OUT_STRIDE);
  store<u32>(op, dtype, MATMUL_DTYPE);
  store<u32>(op, group, MATMUL_GROUP);
  store<u32>(op, load<u32>(matrix, TENSOR_ROWS), MATMUL_ROWS);
  store<u32>(op, load<u32>(matrix, TENSOR_COLS), MATMUL_COLS);
  store<u32>(op, panels, MATMUL_PANELS);
  store<u32>(op, tensor_span(matrix), MATMUL_PANEL_BYTES);
  store<u32>(op, axis, MATMUL_AXIS);
  store<u32>(op, wide ? 1 : 0, MATMUL_WIDE);
  store<u32>(op, (coded ? codesPtr : 0) as u32, MATMUL_CODES);
  store<u32>(op, scratchPtr as u32, MATMUL_SCRATCH);
  return op;
}
