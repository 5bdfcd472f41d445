// snug.wasm, a command for hosts of WASI preview 1: continues a prompt with a pack, cut to a budget. Nothing managed is
// ever allocated: AssemblyScript's heap would lie where the arena does.

import { NONE } from "../packs/format";
import { PLAN_PRUNING_RATE } from "./abi";
import { plan_ptr } from "./plan";
import { text_capacity, text_token_length, text_token_ptr } from "./text";
import { bytes_are } from "./wasi/bytes";
import { file_open } from "./wasi/file";
import {
  generation_ended,
  generation_next,
  generation_start,
  generation_token,
  generation_tokens,
  prompt_begin_token,
  prompt_start,
  prompt_text,
  prompt_token,
  prompt_tokens,
} from "./wasi/generation";
import { HELP } from "./wasi/help";
import { is_none } from "./wasi/numbers";
import {
  next_token,
  OPTION_ACTIVATIONS,
  OPTION_CONTEXT,
  OPTION_HELP,
  OPTION_IDS,
  OPTION_MAX_TOKENS,
  OPTION_MEMORY,
  OPTION_MIN_P,
  OPTION_PACK,
  OPTION_PLAN,
  OPTION_PRUNING,
  OPTION_REPEAT_PENALTY,
  OPTION_SEED,
  OPTION_TEMPERATURE,
  OPTION_TOKENS,
  OPTION_TOP_K,
  OPTION_TOP_P,
  OPTION_VERSION,
  option_bytes,
  option_given,
  option_ptr,
  option_value,
  options_read,
  token_at,
} from "./wasi/options";
import {
  PROBLEM_NONE,
  PROBLEM_SOURCE,
  PROBLEM_USAGE,
  problem,
  problem_name,
  problems_to,
  write_errno,
} from "./wasi/problem";
import { prompt_bytes, prompt_find, prompt_ptr, prompt_say } from "./wasi/prompt";
import { report_plan, report_speed, report_table } from "./wasi/report";
import { random_seed, sampling_set } from "./wasi/sampling";
import { session_load, session_plan, session_read } from "./wasi/session";
import { stream_end, stream_last, stream_push } from "./wasi/stream";
import { VERSION } from "./wasi/version";
import { CLOCK_MONOTONIC, clock_time_get, ERRNO_PIPE, proc_exit, STDERR, STDOUT } from "./wasi/wasi_snapshot_preview1";
import { write_flush, write_text, write_to, write_whole } from "./wasi/writer";

const EXIT_FAILED: i32 = 1;
const EXIT_USAGE: i32 = 2;
/** Whoever reads stdout has seen enough: an end without a word. */
const NOBODY_READS: i32 = -1;
const LINE_FEED: u32 = 10;

const time = memory.data(8, 8);

finish(command());

function finish(code: i32): void {
  if (code == PROBLEM_NONE || code == NOBODY_READS) {
    write_flush();
    return;
  }
  write_text("\n");
  if (code == PROBLEM_USAGE) write_text("See snug.wasm --help.\n");
  write_flush();
  proc_exit(code == PROBLEM_USAGE ? EXIT_USAGE : EXIT_FAILED);
}

/** Returns a problem's code, 0 for none. */
function command(): i32 {
  const started = seconds();
  problems_to(STDERR);
  let failed = options_read();
  if (failed) return failed;
  if (option_given(OPTION_HELP)) return print(HELP);
  if (option_given(OPTION_VERSION)) {
    failed = print(VERSION);
    return failed ? failed : print("\n");
  }
  problem_name(option_ptr(OPTION_PACK), option_bytes(OPTION_PACK));
  failed = file_open(option_ptr(OPTION_PACK), option_bytes(OPTION_PACK));
  if (failed) return failed;
  // What stdin says is kept before the arena, which begins with the header.
  const wantsText = !option_given(OPTION_PLAN) && !option_given(OPTION_TOKENS);
  failed = wantsText ? prompt_find() : PROBLEM_NONE;
  if (failed == 0) failed = session_read();
  if (failed == 0) failed = plan();
  if (failed) return failed;
  if (option_given(OPTION_PLAN)) {
    write_to(STDOUT);
    report_table();
    return written();
  }
  prompt_say();
  write_to(STDERR);
  report_plan(how());
  failed = session_load();
  if (failed == 0) failed = read_prompt();
  return failed ? failed : generate(started);
}

function plan(): i32 {
  const context = option_given(OPTION_CONTEXT) ? (option_value(OPTION_CONTEXT) as u32) : 0;
  const exact = bytes_are(option_ptr(OPTION_ACTIVATIONS), option_bytes(OPTION_ACTIVATIONS), "f32");
  return session_plan(option_value(OPTION_MEMORY), option_value(OPTION_PRUNING), context, 0, exact);
}

/** Where the budget came from. */
function how(): string {
  if (option_given(OPTION_MEMORY)) return "as given";
  return load<f64>(plan_ptr(), PLAN_PRUNING_RATE) > 0 ? "what this pruning rate takes" : "everything is kept";
}

function read_prompt(): i32 {
  prompt_start();
  if (!option_given(OPTION_TOKENS)) {
    prompt_begin_token();
    return prompt_text(prompt_ptr(), prompt_bytes());
  }
  const end = option_ptr(OPTION_TOKENS) + option_bytes(OPTION_TOKENS);
  let failed = PROBLEM_NONE;
  let id = token_at(option_ptr(OPTION_TOKENS), end);
  for (; failed == 0 && !is_none(id); id = token_at(next_token(), end)) failed = prompt_token(id);
  return failed;
}

function generate(started: f64): i32 {
  const seed: u64 = option_given(OPTION_SEED) ? (option_value(OPTION_SEED) as u64) : random_seed();
  let failed = sampling_set(
    option_value(OPTION_TEMPERATURE),
    option_value(OPTION_TOP_K),
    option_value(OPTION_TOP_P),
    option_value(OPTION_MIN_P),
    option_value(OPTION_REPEAT_PENALTY),
    seed,
  );
  if (failed) return failed;
  const promptStarted = seconds();
  failed = generation_start(option_given(OPTION_MAX_TOKENS) ? (option_value(OPTION_MAX_TOKENS) as u32) : u32.MAX_VALUE);
  if (failed) return failed;
  const answerStarted = seconds();
  let first = answerStarted;
  const ids = option_given(OPTION_IDS) || text_capacity() == 0;
  write_to(STDOUT);
  for (;;) {
    failed = generation_next();
    if (failed) return failed;
    if (generation_token() == NONE) break;
    if (generation_tokens() == 1) first = seconds();
    write_token(generation_token(), ids);
    failed = written();
    if (failed) return failed;
  }
  stream_end();
  if (ids || (stream_last() != 0 && stream_last() != LINE_FEED)) write_text("\n");
  failed = written();
  if (failed) return failed;
  const ended = seconds();
  write_to(STDERR);
  report_speed(
    prompt_tokens(),
    answerStarted - promptStarted,
    first - started,
    generation_tokens(),
    ended - answerStarted,
    generation_ended(),
    seed as f64,
  );
  return PROBLEM_NONE;
}

/** Writes a token as an id or as the characters that it completes. */
function write_token(token: u32, id: bool): void {
  if (id) {
    if (generation_tokens() > 1) write_text(",");
    write_whole(token);
  } else if (!generation_ended()) stream_push(text_token_ptr(token), text_token_length(token));
}

function print(words: string): i32 {
  write_to(STDOUT);
  write_text(words);
  return written();
}

/** Sends what has been written to stdout. */
function written(): i32 {
  const errno = write_flush();
  if (errno == 0) return PROBLEM_NONE;
  if (errno == ERRNO_PIPE) return NOBODY_READS;
  problem(PROBLEM_SOURCE);
  write_text("cannot write the result: ");
  write_errno(errno);
  return PROBLEM_SOURCE;
}

function seconds(): f64 {
  return clock_time_get(CLOCK_MONOTONIC, 1, time) == 0 ? (load<u64>(time) as f64) / 1e9 : 0;
}
