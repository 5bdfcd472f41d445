// One generation, as in runtime/generation.ts: a prompt gathers in the history, is read in chunks of the plan's rows, and
// a token follows another until something ends it. Every function returns a problem's code, 0 for none.

import { HEADER_BEGIN_TOKEN, HEADER_END_TOKENS, HEADER_VOCABULARY, NONE } from "../../packs/format";
import { PLAN_CONTEXT, PLAN_ROWS, ROW_BYTES, ROW_OUTPUT, ROW_POSITION, ROW_SEQUENCE, ROW_TOKEN } from "../abi";
import { step } from "../exec";
import { pack_field } from "../pack";
import { history_ptr, plan_ptr, rows_ptr } from "../plan";
import { logits_choose } from "../sample";
import { text_capacity, text_consumed, text_encode, text_ptr, text_tokens_ptr } from "../text";
import {
  PROBLEM_CONTEXT,
  PROBLEM_NONE,
  PROBLEM_UNSUPPORTED,
  PROBLEM_USAGE,
  problem,
  problem_words,
  status_problem,
  write_name,
} from "./problem";
import { write_text, write_whole } from "./writer";

let prompt: u32 = 0; // tokens; those past the context's end are only counted
let made: u32 = 0;
let most: u32 = 0;
let ended = true;
let token: u32 = NONE;

/** Forgets the last generation: a new prompt begins. */
export function prompt_start(): void {
  prompt = 0;
  made = 0;
  ended = true;
}

/** Adds the token that the model's texts begin with, if it has one. */
export function prompt_begin_token(): void {
  const begin = pack_field(HEADER_BEGIN_TOKEN);
  if (begin != NONE) append(begin);
}

/** Adds a token as it is. */
export function prompt_token(id: f64): i32 {
  const vocabulary = pack_field(HEADER_VOCABULARY);
  if (id < (vocabulary as f64)) {
    append(id as u32);
    return PROBLEM_NONE;
  }
  return token_problem(id);
}

/** The problem of an id that the vocabulary does not have. */
export function token_problem(id: f64): i32 {
  problem(PROBLEM_USAGE);
  write_text("token id ");
  write_whole(id);
  write_text(" is not below the vocabulary's ");
  write_whole(pack_field(HEADER_VOCABULARY));
  return PROBLEM_USAGE;
}

/** Adds the tokens of a text; special tokens written out in it are recognised. The step's scratch is overwritten. */
export function prompt_text(ptr: usize, bytes: u32): i32 {
  for (let at: u32 = 0; at < bytes; ) {
    const count = encode_piece(ptr, at, bytes);
    if (count < 0) return encode_problem(count);
    for (let i: u32 = 0; i < (count as u32); i++) append(load<u32>(text_tokens_ptr() + i * 4));
    at += text_consumed();
  }
  return PROBLEM_NONE;
}

/** Encodes as much as can be of a text from `at` on; text_consumed() of its bytes are done then. */
export function encode_piece(ptr: usize, at: u32, bytes: u32): i32 {
  const piece = min(bytes - at, text_capacity());
  memory.copy(text_ptr(), ptr + at, piece);
  return text_encode(piece, at == 0, at + piece == bytes, true);
}

/** The problem that encode_piece() answered with. */
export function encode_problem(status: i32): i32 {
  if (text_capacity() != 0) return status_problem(status);
  problem(PROBLEM_UNSUPPORTED);
  write_name();
  write_text(" has no tokenizer: give token ids instead of text");
  return PROBLEM_UNSUPPORTED;
}

/** Tokens of the prompt so far. */
export function prompt_tokens(): u32 {
  return prompt;
}

/** Reads the prompt; at most so many tokens are to follow, and not more than the context has room for. */
export function generation_start(mostTokens: u32): i32 {
  const context = load<f64>(plan_ptr(), PLAN_CONTEXT) as u32;
  if (prompt == 0)
    return problem_words(
      PROBLEM_USAGE,
      "the prompt is empty, and this model has no token to begin with: give some text",
    );
  if (prompt > context) {
    problem(PROBLEM_CONTEXT);
    write_text("the prompt is ");
    write_whole(prompt);
    write_text(" tokens long, the context has room for ");
    write_whole(context);
    write_text(": shorten it or plan a larger context");
    return PROBLEM_CONTEXT;
  }
  const rows = load<f64>(plan_ptr(), PLAN_ROWS) as u32;
  for (let at: u32 = 0; at < prompt; at += rows) {
    const count = min(rows, prompt - at);
    const failed = run(at, count, at + count == prompt);
    if (failed) return failed;
  }
  most = min(mostTokens, context - prompt);
  made = 0;
  ended = false;
  return PROBLEM_NONE;
}

/** Makes the next token, generation_token(): NONE once there is none. */
export function generation_next(): i32 {
  token = NONE;
  if (generation_over()) return PROBLEM_NONE;
  const at = prompt + made;
  if (made > 0) {
    const failed = run(at - 1, 1, true);
    if (failed) return failed;
  }
  const chosen = logits_choose(0, at);
  if (chosen < 0) return status_problem(chosen);
  token = chosen as u32;
  store<u32>(history_ptr() + at * 4, token);
  made++;
  ended = is_end(token);
  return PROBLEM_NONE;
}

/** The token that was made last, or NONE. */
export function generation_token(): u32 {
  return token;
}

/** Tokens made so far. */
export function generation_tokens(): u32 {
  return made;
}

/** Does nothing follow any more? */
export function generation_over(): bool {
  return ended || made == most;
}

/** Did an end token come? */
export function generation_ended(): bool {
  return ended;
}

function append(id: u32): void {
  if (prompt < (load<f64>(plan_ptr(), PLAN_CONTEXT) as u32)) store<u32>(history_ptr() + prompt * 4, id);
  prompt++;
}

/** One step over tokens of the history; with `last`, logits of the last of them. */
function run(first: u32, count: u32, last: bool): i32 {
  for (let i: u32 = 0; i < count; i++) {
    const row = rows_ptr() + i * ROW_BYTES;
    store<u32>(row, load<u32>(history_ptr() + (first + i) * 4), ROW_TOKEN);
    store<u32>(row, first + i, ROW_POSITION);
    store<u32>(row, 0, ROW_SEQUENCE);
    store<u32>(row, last && i == count - 1 ? 1 : 0, ROW_OUTPUT);
  }
  return status_problem(step(count));
}

function is_end(id: u32): bool {
  const ends = pack_field(HEADER_END_TOKENS);
  for (let i: u32 = 0; i < ends; i++) if (pack_field(HEADER_END_TOKENS + 4 + i * 4) == id) return true;
  return false;
}
