// Executes steps on the CPU: walks the program, op by op, over the rows that the host has written.

import { HEADER_VOCABULARY } from "../packs/format";
import {
  FLAG_OUTPUTS,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_CONV,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_GATED_NORM,
  OP_MATMUL,
  OP_NORM,
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
  STATUS_TOKEN,
} from "./abi";
import { attention } from "./kernels/attention";
import { embed, gate, norm, rope, select_rows, squared_relu } from "./kernels/elementwise";
import { matmul } from "./kernels/matmul";
import { scan } from "./kernels/scan";
import { conv, gated_norm, step_size } from "./kernels/ssm";
import { load_ready } from "./load";
import { pack_field } from "./pack";
import { plan_context, plan_outputs, plan_rows, plan_sequences, rows_ptr } from "./plan";
import { program_length, program_ptr } from "./program";
import { fail } from "./status";

let stepRows: u32 = 0;
let stepOutputs: u32 = 0;

/**
 * Runs the first `count` rows at rows_ptr() through the model. Rows of one sequence stand in ascending order of
 * position, and every position before a row's own is in this step or was in an earlier one; where a layer has a state,
 * it is the state behind the row before. Returns how many rows of logits lie at logits_ptr().
 */
export function step(count: u32): i32 {
  const status = step_begin(count);
  if (status < 0) return status;
  step_ops(0, program_length());
  return stepOutputs as i32;
}

/** Checks the rows and makes them the step that step_ops() works on. */
export function step_begin(count: u32): i32 {
  if (!load_ready()) return fail(STATUS_STATE, 6, 0);
  if (count == 0 || count > plan_rows()) return fail(STATUS_ARGUMENT, 0, count);
  const vocabulary = pack_field(HEADER_VOCABULARY);
  let outputs: u32 = 0;
  for (let t: u32 = 0; t < count; t++) {
    const row = rows_ptr() + t * ROW_BYTES;
    const token = load<u32>(row, ROW_TOKEN);
    const position = load<u32>(row, ROW_POSITION);
    if (token >= vocabulary) return fail(STATUS_TOKEN, token, vocabulary);
    if (position >= plan_context()) return fail(STATUS_CONTEXT, (position as f64) + 1, plan_context());
    if (load<u32>(row, ROW_SEQUENCE) >= plan_sequences()) return fail(STATUS_ARGUMENT, 0, load<u32>(row, ROW_SEQUENCE));
    if (load<u32>(row, ROW_OUTPUT) != 0) outputs++;
  }
  if (outputs > plan_outputs()) return fail(STATUS_ARGUMENT, 0, outputs);
  stepRows = count;
  stepOutputs = outputs;
  return outputs as i32;
}

/** Runs the ops [first, end) of the program over the step's rows: all of them, or a stretch that a host observes. */
export function step_ops(first: u32, end: u32): i32 {
  if (!load_ready() || end > program_length()) return fail(STATUS_ARGUMENT, 1, end);
  const steps = rows_ptr();
  for (let i = first; i < end; i++) {
    const op = program_ptr() + i * OP_BYTES;
    const count = (load<u32>(op, OP_FLAGS) & FLAG_OUTPUTS) != 0 ? stepOutputs : stepRows;
    if (count == 0) continue;
    switch (load<u32>(op, OP_CODE)) {
      case OP_EMBED:
        embed(op, steps, count);
        break;
      case OP_NORM:
        norm(op, count);
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
    }
  }
  return 0;
}
