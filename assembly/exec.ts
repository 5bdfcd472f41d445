// Executes steps on the CPU: walks the program, op by op, over the rows that the host has written.

import { HEADER_VOCABULARY } from "../packs/format";
import {
  CEILING_FROM,
  CEILING_ITEMS,
  FLAG_ALONGSIDE,
  FLAG_OUTPUTS,
  OP_ATTENTION,
  OP_BYTES,
  OP_CEILING_PRODUCTS,
  OP_CEILING_READ,
  OP_CODE,
  OP_CONV,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_GATED_NORM,
  OP_MATMUL,
  OP_NORM,
  OP_QUANTIZE,
  OP_ROPE,
  OP_SCAN,
  OP_SELECT,
  OP_SQUARED_RELU,
  OP_STEP_SIZE,
  ROW_BYTES,
  ROW_OUTPUT,
  ROW_POSITION,
  ROW_SEQUENCE,
  ROW_TOKEN,
  STATUS_ARGUMENT,
  STATUS_CONTEXT,
  STATUS_STATE,
  STATUS_THREAD,
  STATUS_TOKEN,
} from "./abi";
import { attention } from "./kernels/attention";
import { ceiling_multiply, ceiling_read } from "./kernels/ceilings";
import { embed, gate, norm, select_rows, squared_relu } from "./kernels/elementwise";
import { matmul } from "./kernels/matmul";
import { quantize } from "./kernels/quantize";
import { rope } from "./kernels/rope";
import { scan } from "./kernels/scan";
import { conv, gated_norm, step_size } from "./kernels/ssm";
import { load_ready } from "./load";
import { pack_field } from "./pack";
import { rows_ptr } from "./plan";
import { program_length, program_ptr } from "./program";
import { shape_context, shape_device, shape_outputs, shape_rows, shape_sequences } from "./shape";
import { fail } from "./status";
import {
  step_count,
  step_length,
  step_outputs,
  step_program,
  step_rows,
  threads_begin,
  threads_broken,
  threads_join,
  threads_meet,
  threads_next,
} from "./threads";

let stepRows: u32 = 0;
let stepOutputs: u32 = 0;

/**
 * Runs the first `count` rows at rows_ptr() through the model. Rows of one sequence stand in ascending order of
 * position, and every position before a row's own is in this step or was in an earlier one; where a layer has a state,
 * it is the state behind the row before. Returns how many rows of logits lie at logits_ptr(). Not in a device plan.
 */
export function step(count: u32): i32 {
  const status = step_begin(count);
  if (status < 0) return status;
  const done = step_ops(0, program_length());
  return done < 0 ? done : (stepOutputs as i32);
}

/** Checks the rows and makes them the step that step_ops(), or a device, works on. Returns how many want logits. */
export function step_begin(count: u32): i32 {
  if (!load_ready()) return fail(STATUS_STATE, 6, 0);
  if (count == 0 || count > shape_rows()) return fail(STATUS_ARGUMENT, 0, count);
  const vocabulary = pack_field(HEADER_VOCABULARY);
  let outputs: u32 = 0;
  for (let t: u32 = 0; t < count; t++) {
    const row = rows_ptr() + t * ROW_BYTES;
    const token = load<u32>(row, ROW_TOKEN);
    const position = load<u32>(row, ROW_POSITION);
    if (token >= vocabulary) return fail(STATUS_TOKEN, token, vocabulary);
    if (position >= shape_context()) return fail(STATUS_CONTEXT, (position as f64) + 1, shape_context());
    if (load<u32>(row, ROW_SEQUENCE) >= shape_sequences())
      return fail(STATUS_ARGUMENT, 0, load<u32>(row, ROW_SEQUENCE));
    if (load<u32>(row, ROW_OUTPUT) != 0) outputs++;
  }
  if (outputs > shape_outputs()) return fail(STATUS_ARGUMENT, 0, outputs);
  stepRows = count;
  stepOutputs = outputs;
  return outputs as i32;
}

/** Runs the ops [first, end) of the program over the step's rows: all of them, or a stretch that a host observes. Not in a device plan. */
export function step_ops(first: u32, end: u32): i32 {
  if (shape_device()) return fail(STATUS_STATE, 8, 0);
  if (!load_ready() || first >= end || end > program_length()) return fail(STATUS_ARGUMENT, 1, end);
  const program = program_ptr() + first * OP_BYTES;
  threads_begin(program, end - first, rows_ptr(), stepRows, stepOutputs);
  walk(program, end - first, rows_ptr(), stepRows, stepOutputs);
  return threads_broken() ? fail(STATUS_THREAD, 0, 0) : 0;
}

const ceilingOp = memory.data(OP_BYTES, 8);

/** Does `items` of OP_CEILING_* at an address, by all threads. */
export function ceiling(code: u32, from: usize, items: u32): void {
  store<u32>(ceilingOp, code, OP_CODE);
  store<u32>(ceilingOp, from as u32, CEILING_FROM);
  store<u32>(ceilingOp, items, CEILING_ITEMS);
  threads_begin(ceilingOp, 1, 0, 1, 0);
  walk(ceilingOp, 1, 0, 1, 0);
}

/** Makes this instance one more thread of the steps that the host's own begins. False: there are enough. */
export function thread_join(): i32 {
  return threads_join() ? 1 : 0;
}

/** Waits for the next step and does this thread's share of it; 0 when there will be none. To be called in a loop. */
export function thread_serve(): i32 {
  if (!threads_next()) return 0;
  walk(step_program(), step_length(), step_rows(), step_count(), step_outputs());
  return 1;
}

/** Does this thread's share of every op. steps: ROW_* [rows]. */
function walk(program: usize, ops: u32, steps: usize, rows: u32, outputs: u32): void {
  const end = program + ops * OP_BYTES;
  for (let op = program; op < end; op += OP_BYTES) {
    // What the op before wrote is there, unless this one needs none of it.
    const flags = load<u32>(op, OP_FLAGS);
    if (op != program && (flags & FLAG_ALONGSIDE) == 0) threads_meet();
    const count = (flags & FLAG_OUTPUTS) != 0 ? outputs : rows;
    if (count != 0) run(op, steps, count);
  }
  threads_meet();
}

function run(op: usize, steps: usize, count: u32): void {
  switch (load<u32>(op, OP_CODE)) {
    case OP_EMBED:
      embed(op, steps, count);
      break;
    case OP_NORM:
      norm(op, count);
      break;
    case OP_QUANTIZE:
      quantize(op, count);
      break;
    case OP_MATMUL:
      matmul(op, count);
      break;
    case OP_ROPE:
      rope(op, steps, count);
      break;
    case OP_ATTENTION:
      attention(op, steps, count);
      break;
    case OP_GATE:
      gate(op, count);
      break;
    case OP_SELECT:
      select_rows(op, steps, count);
      break;
    case OP_SQUARED_RELU:
      squared_relu(op, count);
      break;
    case OP_CONV:
      conv(op, steps, count);
      break;
    case OP_STEP_SIZE:
      step_size(op, count);
      break;
    case OP_SCAN:
      scan(op, steps, count);
      break;
    case OP_GATED_NORM:
      gated_norm(op, count);
      break;
    case OP_CEILING_READ:
      ceiling_read(op);
      break;
    case OP_CEILING_PRODUCTS:
      ceiling_multiply(op);
      break;
  }
}
