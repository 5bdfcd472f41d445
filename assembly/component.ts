// The core as a component, see component.wit: its functions as the canonical ABI calls them. An option comes as whether
// it is there, and its value.

import { HEADER_VOCABULARY, NONE } from "../packs/format";
import {
  answer_count,
  answer_list,
  answer_nothing,
  answer_piece,
  answer_plan,
  answer_problem,
} from "./component/answers";
import { room_more, room_open, room_take } from "./component/room";
import { load_ready } from "./load";
import { pack_field, pack_opened } from "./pack";
import { plan_placed } from "./plan";
import { text_consumed, text_token_length, text_token_ptr, text_tokens_ptr } from "./text";
import { file_open } from "./wasi/file";
import {
  encode_piece,
  encode_problem,
  generation_ended,
  generation_next,
  generation_over,
  generation_start,
  generation_token,
  prompt_begin_token,
  prompt_start,
  prompt_text,
  prompt_token,
  prompt_tokens,
  token_problem,
} from "./wasi/generation";
import { is_none } from "./wasi/numbers";
import { PROBLEM_MEMORY, PROBLEM_NONE, PROBLEM_USAGE, problem_name, problem_words } from "./wasi/problem";
import { random_seed, sampling_set } from "./wasi/sampling";
import { session_load, session_plan, session_read } from "./wasi/session";
import { stream_end, stream_push, stream_start } from "./wasi/stream";
import { FIRST_PREOPEN, fd_prestat_get } from "./wasi/wasi_snapshot_preview1";
import { NOWHERE, write_to, written_bytes, written_ptr } from "./wasi/writer";

export { cabi_realloc } from "./component/room";

// begin's arguments, which lie in memory: a prompt, then generate-options
const PROMPT_CASE: u32 = 0; // u8
const PROMPT_TOKENS: u32 = 1;
const PROMPT_PTR: u32 = 4;
const PROMPT_COUNT: u32 = 8;
const MAX_TOKENS: u32 = 16; // options: whether it is there, and behind that the value, at its own alignment
const TEMPERATURE: u32 = 24;
const TOP_K: u32 = 40;
const TOP_P: u32 = 48;
const MIN_P: u32 = 64;
const REPEAT_PENALTY: u32 = 80;
const SEED: u32 = 96;

const FINISH_NOT: i32 = -1;
const FINISH_STOP: i32 = 0;
const FINISH_LENGTH: i32 = 1;

/** Of a token's bytes that become text at once: three times as many fit the writer's buffer. */
const TEXT_SLICE_BYTES: u32 = 512;

const prestat = memory.data(8, 4);

// The first call wakes the adapter, which takes memory of ours.
fd_prestat_get(FIRST_PREOPEN, prestat);
room_open();

export function model_open(path: usize, pathBytes: u32): usize {
  if (plan_placed()) return answer_problem(loaded_problem());
  problem_name(path, pathBytes);
  let failed = file_open(path, pathBytes);
  problem_name(0, 0); // the header comes to lie where the path does
  if (failed == 0) failed = session_read();
  return answer_problem(failed);
}

export function model_plan_for(
  hasMemory: i32,
  memoryBytes: u64,
  hasPruning: i32,
  pruning: f64,
  hasContext: i32,
  context: u32,
  hasRows: i32,
  rows: u32,
  activations: i32,
): usize {
  return answer_plan(
    plan(hasMemory, memoryBytes, hasPruning, pruning, hasContext, context, hasRows, rows, activations),
  );
}

export function model_load(
  hasMemory: i32,
  memoryBytes: u64,
  hasPruning: i32,
  pruning: f64,
  hasContext: i32,
  context: u32,
  hasRows: i32,
  rows: u32,
  activations: i32,
): usize {
  const failed = plan(hasMemory, memoryBytes, hasPruning, pruning, hasContext, context, hasRows, rows, activations);
  return answer_plan(failed ? failed : session_load());
}

export function model_encode(text: usize, textBytes: u32): usize {
  let failed = check_loaded();
  const tokens = room_take(0);
  let count: u32 = 0;
  for (let at: u32 = 0; at < textBytes && failed == 0; at += text_consumed()) {
    const more = encode_piece(text, at, textBytes);
    if (more < 0) failed = encode_problem(more);
    else if (!room_more((more as u64) * 4)) failed = room_problem();
    else memory.copy(tokens + count * 4, text_tokens_ptr(), more * 4);
    count += more;
  }
  return answer_list(failed, tokens, count);
}

export function model_decode(tokens: usize, count: u32): usize {
  let failed = check_loaded();
  const bytes = room_take(0);
  let length: u32 = 0;
  for (let i: u32 = 0; i < count && failed == 0; i++) {
    const token = load<u32>(tokens + i * 4);
    const more = text_token_length(token);
    if (token >= pack_field(HEADER_VOCABULARY)) failed = token_problem(token);
    else if (!room_more(more)) failed = room_problem();
    else memory.copy(bytes + length, text_token_ptr(token), more);
    length += more;
  }
  return answer_list(failed, bytes, length);
}

export function model_begin(given: usize): usize {
  let failed = check_loaded();
  if (failed == 0) failed = sampling(given);
  if (failed == 0) failed = read_prompt(given);
  const most = load<u8>(given, MAX_TOKENS) != 0 ? load<u32>(given, MAX_TOKENS + 4) : u32.MAX_VALUE;
  if (failed == 0) failed = generation_start(most);
  stream_start();
  return answer_count(failed, prompt_tokens());
}

export function model_next(): usize {
  let failed = check_loaded();
  if (failed == 0) failed = generation_next();
  if (failed) return answer_problem(failed);
  const token = generation_token();
  if (token == NONE) return answer_nothing();
  const text = room_take(0);
  let textBytes: u32 = 0;
  const bytes: u32 = generation_ended() ? 0 : text_token_length(token);
  const over = generation_over();
  for (let at: u32 = 0; at <= bytes; at += TEXT_SLICE_BYTES) {
    write_to(NOWHERE);
    stream_push(text_token_ptr(token) + at, min(TEXT_SLICE_BYTES, bytes - at));
    if (over && at + TEXT_SLICE_BYTES > bytes) stream_end();
    if (!room_more(written_bytes())) return answer_problem(room_problem());
    memory.copy(text + textBytes, written_ptr(), written_bytes());
    textBytes += written_bytes();
  }
  return answer_piece(token, text, textBytes, !over ? FINISH_NOT : generation_ended() ? FINISH_STOP : FINISH_LENGTH);
}

function plan(
  hasMemory: i32,
  memoryBytes: u64,
  hasPruning: i32,
  pruning: f64,
  hasContext: i32,
  context: u32,
  hasRows: i32,
  rows: u32,
  activations: i32,
): i32 {
  if (plan_placed()) return loaded_problem();
  if (!pack_opened()) return problem_words(PROBLEM_USAGE, "no pack is open: open one first");
  if (hasMemory && hasPruning) return problem_words(PROBLEM_USAGE, "give memory or pruning, not both");
  if (hasContext && context == 0) return problem_words(PROBLEM_USAGE, "context must be a whole number above 0, not 0");
  if (hasRows && rows == 0) return problem_words(PROBLEM_USAGE, "rows must be a whole number above 0, not 0");
  return session_plan(
    hasMemory ? (memoryBytes as f64) : NaN,
    hasPruning ? a_number(pruning) : NaN,
    hasContext ? context : 0,
    hasRows ? rows : 0,
    activations != 0,
  );
}

function sampling(given: usize): i32 {
  return sampling_set(
    optional(given + TEMPERATURE),
    load<u8>(given, TOP_K) != 0 ? (load<u32>(given, TOP_K + 4) as f64) : NaN,
    optional(given + TOP_P),
    optional(given + MIN_P),
    optional(given + REPEAT_PENALTY),
    load<u8>(given, SEED) != 0 ? load<u64>(given, SEED + 8) : random_seed(),
  );
}

function read_prompt(given: usize): i32 {
  const ptr = load<u32>(given, PROMPT_PTR) as usize;
  const count = load<u32>(given, PROMPT_COUNT);
  prompt_start();
  if (load<u8>(given, PROMPT_CASE) != PROMPT_TOKENS) {
    prompt_begin_token();
    return prompt_text(ptr, count);
  }
  let failed = PROBLEM_NONE;
  for (let i: u32 = 0; i < count && failed == 0; i++) failed = prompt_token(load<u32>(ptr + i * 4));
  return failed;
}

/** option<f64>, NaN for none. */
function optional(ptr: usize): f64 {
  return load<u8>(ptr) != 0 ? a_number(load<f64>(ptr, 8)) : NaN;
}

/** A NaN that was given is out of every range, not a default. */
function a_number(value: f64): f64 {
  return is_none(value) ? Infinity : value;
}

function check_loaded(): i32 {
  if (load_ready()) return PROBLEM_NONE;
  if (plan_placed()) return loaded_problem();
  return problem_words(PROBLEM_USAGE, "no model is loaded: open a pack and load it first");
}

function loaded_problem(): i32 {
  if (load_ready()) return problem_words(PROBLEM_USAGE, "a model is loaded: another one needs another instance");
  return problem_words(PROBLEM_USAGE, "loading has failed here: another try needs another instance");
}

function room_problem(): i32 {
  return problem_words(PROBLEM_MEMORY, "the engine refused memory for the result");
}
