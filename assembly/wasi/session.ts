// A pack from its file to a loaded model, in the order that assembly/index.ts names. Every function returns a problem's
// code, 0 for none.

import { HEADER_CONTEXT, PRELUDE_BYTES } from "../../packs/format";
import { KV_DEFAULT, READ_ADDRESS, READ_LENGTH, READ_OFFSET, READ_PIECES } from "../abi";
import { load_finish, load_read, load_read_ptr, load_reads, load_verify } from "../load";
import { pack_field, pack_header, pack_header_ptr, pack_prelude, pack_prelude_ptr } from "../pack";
import { plan_memory, plan_place, plan_pruning, plan_shape } from "../plan";
import { file_size, read_end, read_into, read_start } from "./file";
import { is_none } from "./numbers";
import { PROBLEM_USAGE, problem, status_problem } from "./problem";
import { write_number, write_text, write_whole } from "./writer";

/** Reads and checks the prelude and the header of the file that is open. */
export function session_read(): i32 {
  const prelude = pack_prelude_ptr();
  memory.fill(prelude, 0, PRELUDE_BYTES);
  let failed = read_whole(0, prelude, min<u64>(PRELUDE_BYTES, file_size() as u64));
  if (failed) return failed;
  const headerBytes = pack_prelude(file_size());
  if (headerBytes < 0) return status_problem(headerBytes);
  failed = read_whole(PRELUDE_BYTES, pack_header_ptr(), headerBytes);
  if (failed) return failed;
  return status_problem(pack_header());
}

/**
 * Plans. memoryBytes: the budget, or NaN; pruning: a rate, where there is no budget, or NaN for none. context, rows: 0
 * for what plan_shape() takes by itself. exact: activations in f32.
 */
export function session_plan(memoryBytes: f64, pruning: f64, context: u32, rows: u32, exact: bool): i32 {
  const most = pack_field(HEADER_CONTEXT);
  if (context > most) {
    problem(PROBLEM_USAGE);
    write_text("this model has at most ");
    write_whole(most);
    write_text(" positions, not ");
    write_whole(context);
    return PROBLEM_USAGE;
  }
  const failed = status_problem(plan_shape(context, 1, rows, 1, 1, exact ? 1 : 0, 0, KV_DEFAULT, 0));
  if (failed) return failed;
  if (!is_none(memoryBytes)) return status_problem(plan_memory(memoryBytes));
  const rate = is_none(pruning) ? 0 : pruning;
  if (rate >= 0 && rate <= 1) return status_problem(plan_pruning(rate));
  problem(PROBLEM_USAGE);
  write_text("a pruning rate is between 0 and 1, such as 0.25, not ");
  write_number(rate);
  return PROBLEM_USAGE;
}

/** Grows the memory to the plan and reads what it keeps, straight to its place. */
export function session_load(): i32 {
  let failed = status_problem(plan_place());
  const reads = load_reads();
  for (let index: u32 = 0; index < reads && failed == 0; index++) {
    failed = read_unit(index);
    if (failed == 0) failed = status_problem(load_verify(index));
  }
  return failed ? failed : status_problem(load_finish());
}

/** One read of the load, whose pieces are consecutive bytes of the file. */
function read_unit(index: u32): i32 {
  const read = load_read_ptr();
  let pieces: u32 = 1;
  for (let piece: u32 = 0; piece < pieces; piece++) {
    const status = load_read(index, piece);
    if (status < 0) return status_problem(status);
    pieces = load<f64>(read, READ_PIECES) as u32;
    if (piece == 0) read_start(load<f64>(read, READ_OFFSET) as u64);
    const failed = read_into(load<f64>(read, READ_ADDRESS) as usize, load<f64>(read, READ_LENGTH) as u64);
    if (failed) return failed;
  }
  return read_end();
}

function read_whole(offset: u64, address: usize, bytes: u64): i32 {
  read_start(offset);
  const failed = read_into(address, bytes);
  return failed ? failed : read_end();
}
