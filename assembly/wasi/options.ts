// What the command line says: the options of `snug run` that make sense here, under the same names. Every function
// returns a problem's code, 0 for none.

import { arena_reserve } from "../memory";
import { bytes_are, bytes_are_text, bytes_to_zero } from "./bytes";
import { is_none, is_space, parse_number, parse_size, parse_whole } from "./numbers";
import { PROBLEM_MEMORY, PROBLEM_NONE, PROBLEM_USAGE, problem, problem_words } from "./problem";
import { PENALTY_LEAST, PENALTY_MOST, TEMPERATURE_MOST, TOP_K_MOST, TOP_P_LEAST } from "./sampling";
import { args_get, args_sizes_get } from "./wasi_snapshot_preview1";
import { write_bytes, write_number, write_text } from "./writer";

export const OPTION_PACK: i32 = 0;
export const OPTION_PROMPT: i32 = 1;
export const OPTION_TOKENS: i32 = 2;
export const OPTION_ACTIVATIONS: i32 = 3;
export const OPTION_MEMORY: i32 = 4;
export const OPTION_PRUNING: i32 = 5;
export const OPTION_CONTEXT: i32 = 6;
export const OPTION_MAX_TOKENS: i32 = 7;
export const OPTION_TEMPERATURE: i32 = 8;
export const OPTION_TOP_K: i32 = 9;
export const OPTION_TOP_P: i32 = 10;
export const OPTION_MIN_P: i32 = 11;
export const OPTION_REPEAT_PENALTY: i32 = 12;
export const OPTION_SEED: i32 = 13;
export const OPTION_IDS: i32 = 14; // from here on flags
export const OPTION_PLAN: i32 = 15;
export const OPTION_HELP: i32 = 16;
export const OPTION_VERSION: i32 = 17;

const UNKNOWN: i32 = -1;

const COUNT_MOST: f64 = 1e9;
const SEED_MOST: f64 = 9007199254740991;
const TOKEN_DIGITS_MAX: u32 = 10;

// A record for each option
const GIVEN: u32 = 0; // u32: 1 if it was given
const TEXT: u32 = 4; // address and length of what was given
const TEXT_BYTES: u32 = 8;
const VALUE: u32 = 16; // f64, of an option that is a number
const RECORD_BYTES: i32 = 24;
const records = memory.data(432, 8); // one for each of 18

const sizes = memory.data(8, 4);

export function option_given(option: i32): bool {
  return load<u32>(record(option), GIVEN) != 0;
}

/** The text of an option that was given, not ended by a zero. */
export function option_ptr(option: i32): usize {
  return load<u32>(record(option), TEXT);
}

export function option_bytes(option: i32): u32 {
  return load<u32>(record(option), TEXT_BYTES);
}

/** An option that is a number; NaN if it was not given. */
export function option_value(option: i32): f64 {
  return option_given(option) ? load<f64>(record(option), VALUE) : NaN;
}

/** Reads the program's arguments and checks all that can be checked without a pack. */
export function options_read(): i32 {
  if (args_sizes_get(sizes, sizes + 4) != 0) return problem_words(PROBLEM_USAGE, "the host gives no arguments");
  const count = load<u32>(sizes);
  const pointers = arena_reserve((count as usize) * 4 + load<u32>(sizes, 4));
  if (pointers == 0) return problem_words(PROBLEM_MEMORY, "the engine refused memory for the arguments");
  if (args_get(pointers, pointers + count * 4) != 0) return problem_words(PROBLEM_USAGE, "the host gives no arguments");
  for (let i: u32 = 1; i < count; i++) {
    const at = load<u32>(pointers + i * 4) as usize;
    const bytes = bytes_to_zero(at);
    if (bytes < 2 || load<u8>(at) != 45) return word_problem(at, bytes);
    let named = bytes;
    if (load<u8>(at, 1) == 45) for (let j: u32 = 0; j < named; j++) if (load<u8>(at + j) == 61) named = j;
    const option = option_find(at, named);
    if (option == UNKNOWN) return unknown_problem(at, named);
    store<u32>(record(option), 1, GIVEN);
    if (option >= OPTION_IDS) {
      if (named < bytes) return value_problem(at, named, " takes no value");
      continue;
    }
    let value = at + named + 1;
    let valueBytes = bytes - named - 1;
    if (named == bytes) {
      i++;
      value = i < count ? (load<u32>(pointers + i * 4) as usize) : 0;
      if (value == 0) return value_problem(at, named, " needs a value: --help says which");
      valueBytes = bytes_to_zero(value);
      if (option_find(value, valueBytes) != UNKNOWN)
        return value_problem(at, named, " needs a value: --help says which");
    }
    store<u32>(record(option), value as u32, TEXT);
    store<u32>(record(option), valueBytes, TEXT_BYTES);
    const failed = take(option, at, named);
    if (failed) return failed;
  }
  return check_together();
}

function check_together(): i32 {
  if (option_given(OPTION_HELP) || option_given(OPTION_VERSION)) return PROBLEM_NONE;
  if (!option_given(OPTION_PACK))
    return problem_words(PROBLEM_USAGE, "--pack is missing: snug.wasm --pack FILE --prompt TEXT");
  if (option_given(OPTION_MEMORY) && option_given(OPTION_PRUNING))
    return problem_words(PROBLEM_USAGE, "--memory and --pruning exclude each other: give one of them");
  if (option_given(OPTION_TOKENS) && option_given(OPTION_PROMPT))
    return problem_words(PROBLEM_USAGE, "--tokens is the prompt: leave --prompt out");
  return PROBLEM_NONE;
}

function option_find(ptr: usize, bytes: u32): i32 {
  if (bytes_are(ptr, bytes, "--pack")) return OPTION_PACK;
  if (bytes_are(ptr, bytes, "--prompt")) return OPTION_PROMPT;
  if (bytes_are(ptr, bytes, "--tokens")) return OPTION_TOKENS;
  if (bytes_are(ptr, bytes, "--activations")) return OPTION_ACTIVATIONS;
  if (bytes_are(ptr, bytes, "--memory")) return OPTION_MEMORY;
  if (bytes_are(ptr, bytes, "--pruning")) return OPTION_PRUNING;
  if (bytes_are(ptr, bytes, "--context")) return OPTION_CONTEXT;
  if (bytes_are(ptr, bytes, "--max-tokens")) return OPTION_MAX_TOKENS;
  if (bytes_are(ptr, bytes, "--temperature")) return OPTION_TEMPERATURE;
  if (bytes_are(ptr, bytes, "--top-k")) return OPTION_TOP_K;
  if (bytes_are(ptr, bytes, "--top-p")) return OPTION_TOP_P;
  if (bytes_are(ptr, bytes, "--min-p")) return OPTION_MIN_P;
  if (bytes_are(ptr, bytes, "--repeat-penalty")) return OPTION_REPEAT_PENALTY;
  if (bytes_are(ptr, bytes, "--seed")) return OPTION_SEED;
  if (bytes_are(ptr, bytes, "--ids")) return OPTION_IDS;
  if (bytes_are(ptr, bytes, "--plan")) return OPTION_PLAN;
  if (bytes_are(ptr, bytes, "--help") || bytes_are(ptr, bytes, "-h")) return OPTION_HELP;
  if (bytes_are(ptr, bytes, "--version") || bytes_are(ptr, bytes, "-v")) return OPTION_VERSION;
  return UNKNOWN;
}

/** Reads an option's value; `name`: as it was written. */
function take(option: i32, name: usize, nameBytes: u32): i32 {
  const ptr = option_ptr(option);
  const bytes = option_bytes(option);
  switch (option) {
    case OPTION_PACK:
      return bytes > 0 ? PROBLEM_NONE : value_problem(name, nameBytes, " is empty: give a file");
    case OPTION_PROMPT:
      return bytes_are_text(ptr, bytes) ? PROBLEM_NONE : value_problem(name, nameBytes, " is not UTF-8");
    case OPTION_TOKENS:
      return check_tokens(ptr, bytes, name, nameBytes);
    case OPTION_ACTIVATIONS:
      if (bytes_are(ptr, bytes, "int8") || bytes_are(ptr, bytes, "f32")) return PROBLEM_NONE;
      return quoted_problem(name, nameBytes, " is int8 or f32, not ", ptr, bytes);
    case OPTION_MEMORY: {
      const size = parse_size(ptr, bytes);
      store<f64>(record(option), size, VALUE);
      if (isFinite<f64>(size)) return PROBLEM_NONE;
      return quoted_problem(
        name,
        nameBytes,
        " is a size: bytes, or a number with KB, MB, GB, KiB, MiB or GiB, not ",
        ptr,
        bytes,
      );
    }
    case OPTION_PRUNING:
    case OPTION_MIN_P:
      return take_number(option, name, nameBytes, 0, 1);
    case OPTION_CONTEXT:
    case OPTION_MAX_TOKENS:
      return take_whole(option, name, nameBytes, 1, COUNT_MOST);
    case OPTION_TEMPERATURE:
      return take_number(option, name, nameBytes, 0, TEMPERATURE_MOST);
    case OPTION_TOP_K:
      return take_whole(option, name, nameBytes, 0, TOP_K_MOST);
    case OPTION_TOP_P:
      return take_number(option, name, nameBytes, TOP_P_LEAST, 1);
    case OPTION_REPEAT_PENALTY:
      return take_number(option, name, nameBytes, PENALTY_LEAST, PENALTY_MOST);
    default:
      return take_whole(option, name, nameBytes, 0, SEED_MOST);
  }
}

function take_number(option: i32, name: usize, nameBytes: u32, least: f64, most: f64): i32 {
  const value = parse_number(option_ptr(option), option_bytes(option));
  return keep(option, name, nameBytes, value, " is a number from ", least, most);
}

function take_whole(option: i32, name: usize, nameBytes: u32, least: f64, most: f64): i32 {
  const value = parse_whole(option_ptr(option), option_bytes(option));
  return keep(option, name, nameBytes, value, " is a whole number from ", least, most);
}

function keep(option: i32, name: usize, nameBytes: u32, value: f64, kind: string, least: f64, most: f64): i32 {
  store<f64>(record(option), value, VALUE);
  if (value >= least && value <= most) return PROBLEM_NONE;
  value_problem(name, nameBytes, kind);
  write_number(least);
  write_text(" to ");
  write_number(most);
  write_text(", not ");
  write_quoted(option_ptr(option), option_bytes(option));
  return PROBLEM_USAGE;
}

// Token ids, separated by commas or spaces

let nextToken: usize = 0;

/** The id at `at`, before `end`, as a number; NaN if none is left. next_token() is where to look for the one after it. */
export function token_at(at: usize, end: usize): f64 {
  while (at < end && is_separator(load<u8>(at))) at++;
  let to = at;
  while (to < end && !is_separator(load<u8>(to))) to++;
  nextToken = to;
  return parse_whole(at, to - at);
}

export function next_token(): usize {
  return nextToken;
}

function check_tokens(ptr: usize, bytes: u32, name: usize, nameBytes: u32): i32 {
  const end = ptr + bytes;
  let count: u32 = 0;
  for (let at = ptr; ; count++) {
    while (at < end && is_separator(load<u8>(at))) at++;
    if (at == end) break;
    const id = token_at(at, end);
    if (is_none(id) || nextToken - at > TOKEN_DIGITS_MAX) {
      value_problem(name, nameBytes, " is a list of token ids such as 1,2,3: ");
      write_quoted(at, (nextToken - at) as u32);
      write_text(" is not one");
      return PROBLEM_USAGE;
    }
    at = nextToken;
  }
  return count > 0 ? PROBLEM_NONE : value_problem(name, nameBytes, " is empty: give token ids such as 1,2,3");
}

function is_separator(byte: u32): bool {
  return byte == 44 || is_space(byte);
}

// Words

function word_problem(ptr: usize, bytes: u32): i32 {
  problem(PROBLEM_USAGE);
  write_quoted(ptr, bytes);
  write_text(" is one argument too many: the pack comes after --pack, the prompt after --prompt");
  return PROBLEM_USAGE;
}

function unknown_problem(name: usize, nameBytes: u32): i32 {
  problem(PROBLEM_USAGE);
  write_text("unknown option ");
  write_bytes(name, nameBytes);
  write_text(": --help lists those that there are");
  return PROBLEM_USAGE;
}

function value_problem(name: usize, nameBytes: u32, words: string): i32 {
  problem(PROBLEM_USAGE);
  write_bytes(name, nameBytes);
  write_text(words);
  return PROBLEM_USAGE;
}

function quoted_problem(name: usize, nameBytes: u32, words: string, ptr: usize, bytes: u32): i32 {
  value_problem(name, nameBytes, words);
  write_quoted(ptr, bytes);
  return PROBLEM_USAGE;
}

function write_quoted(ptr: usize, bytes: u32): void {
  write_text('"');
  write_bytes(ptr, bytes);
  write_text('"');
}

function record(option: i32): usize {
  return records + option * RECORD_BYTES;
}
