// Answers as the canonical ABI lays them out: a result's case, then, at a place that its alignment sets, what it holds.

import {
  PLAN_CONTEXT,
  PLAN_CORE_BYTES,
  PLAN_KEPT_UNITS,
  PLAN_KV_BYTES,
  PLAN_MAXIMUM_BYTES,
  PLAN_MEMORY_BYTES,
  PLAN_MINIMUM_BYTES,
  PLAN_PERPLEXITY,
  PLAN_PRUNING_RATE,
  PLAN_READ_BYTES,
  PLAN_ROWS,
  PLAN_SCRATCH_BYTES,
  PLAN_STATE_BYTES,
  PLAN_TOTAL_BYTES,
  PLAN_UNITS,
  PLAN_WEIGHTS_BYTES,
} from "../abi";
import { plan_ptr } from "../plan";
import { is_none } from "../wasi/numbers";
import { written_bytes, written_ptr } from "../wasi/writer";
import { room_close } from "./room";

const ANSWER_BYTES: i32 = 128;
const answer = memory.data(ANSWER_BYTES, 8);

// Where a result's contents begin
const WORDS: u32 = 4; // nothing wider than 32 bits in any case
const WIDE: u32 = 8;

/** result<_, error> of a problem's code, 0 for none. */
export function answer_problem(code: i32): usize {
  return refuse(code, WORDS);
}

/** result<u32, error> */
export function answer_count(code: i32, count: u32): usize {
  if (code == 0) store<u32>(answer, count, WORDS);
  return refuse(code, WORDS);
}

/** result<list<_>, error>; count: of elements. */
export function answer_list(code: i32, ptr: usize, count: u32): usize {
  if (code == 0) {
    store<u32>(answer, ptr as u32, WORDS);
    store<u32>(answer, count, WORDS + 4);
  }
  return refuse(code, WORDS);
}

/** result<option<piece>, error>: none. */
export function answer_nothing(): usize {
  store<u8>(answer, 0, WORDS);
  return refuse(0, WORDS);
}

/** result<option<piece>, error>; finish: a finish-reason, from 0, or −1. */
export function answer_piece(token: u32, text: usize, textBytes: u32, finish: i32): usize {
  store<u8>(answer, 1, WORDS);
  store<u32>(answer, token, WORDS + 4);
  store<u32>(answer, text as u32, WORDS + 8);
  store<u32>(answer, textBytes, WORDS + 12);
  store<u8>(answer, finish < 0 ? 0 : 1, WORDS + 16);
  store<u8>(answer, finish, WORDS + 17);
  return refuse(0, WORDS);
}

/** result<plan, error>: the core's plan. */
export function answer_plan(code: i32): usize {
  if (code != 0) return refuse(code, WIDE);
  bytes_fact(0, PLAN_MEMORY_BYTES);
  bytes_fact(8, PLAN_TOTAL_BYTES);
  bytes_fact(16, PLAN_CORE_BYTES);
  bytes_fact(24, PLAN_WEIGHTS_BYTES);
  bytes_fact(32, PLAN_KV_BYTES);
  bytes_fact(40, PLAN_STATE_BYTES);
  bytes_fact(48, PLAN_SCRATCH_BYTES);
  bytes_fact(56, PLAN_READ_BYTES);
  bytes_fact(64, PLAN_MINIMUM_BYTES);
  bytes_fact(72, PLAN_MAXIMUM_BYTES);
  store<f64>(answer, fact(PLAN_PRUNING_RATE), WIDE + 80);
  store<u8>(answer, is_none(fact(PLAN_PERPLEXITY)) ? 0 : 1, WIDE + 88);
  store<f64>(answer, fact(PLAN_PERPLEXITY), WIDE + 96);
  store<u32>(answer, fact(PLAN_KEPT_UNITS) as u32, WIDE + 104);
  store<u32>(answer, fact(PLAN_UNITS) as u32, WIDE + 108);
  store<u32>(answer, fact(PLAN_CONTEXT) as u32, WIDE + 112);
  store<u32>(answer, fact(PLAN_ROWS) as u32, WIDE + 116);
  return refuse(0, WIDE);
}

/** The case, and with a problem its error: the sentence is the writer's. The call is over. */
function refuse(code: i32, at: u32): usize {
  store<u8>(answer, code == 0 ? 0 : 1);
  if (code != 0) {
    store<u8>(answer + at, code - 1);
    store<u32>(answer + at, written_ptr() as u32, 4);
    store<u32>(answer + at, written_bytes(), 8);
  }
  room_close();
  return answer;
}

function bytes_fact(at: u32, field: u32): void {
  store<u64>(answer + at, fact(field) as u64, WIDE);
}

function fact(field: u32): f64 {
  return load<f64>(plan_ptr() + field);
}
