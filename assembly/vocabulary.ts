// The tokens of a pack: checks the tokenizer tensor (drawn in packs/format.ts) once, then answers what a token's bytes
// are, what two tokens merge to, and which added token stands at an address. Trusts nothing it has not checked here.

import {
  ADDED_BYTES,
  ADDED_FLAGS,
  ADDED_ID,
  ADDED_STRIP_LEFT,
  ADDED_STRIP_RIGHT,
  ADDED_TEXT_MAX,
  MERGE_BYTES,
  MERGE_MERGED,
  MERGE_RANK,
  MERGE_RIGHT,
  NONE,
  PATTERN_MAX,
  TOKENIZER_ADDED_NORMAL,
  TOKENIZER_ADDED_RAW,
  TOKENIZER_DIGIT_RUNS,
  TOKENIZER_DIGITS,
  TOKENIZER_FIELDS_BYTES,
  TOKENIZER_FLAGS,
  TOKENIZER_MERGES,
  TOKENIZER_NFC,
  TOKENIZER_PATTERN,
  TOKENIZER_PREFIX_SPACE,
  TOKENIZER_TEXT_BYTES,
  TOKENIZER_TOKENS,
  TOKENIZER_WHOLE,
} from "../packs/format";
import { STATUS_CORRUPT, STATUS_OK, STATUS_TOKEN, STATUS_TRUNCATED, STATUS_UNSUPPORTED } from "./abi";
import { fail } from "./status";

const INDEX_BYTES: u32 = 257 * 4;
const BYTE_TOKENS_BYTES: u32 = 256 * 4;
const FLAGS_KNOWN: u32 = TOKENIZER_NFC | TOKENIZER_PREFIX_SPACE | TOKENIZER_DIGITS | TOKENIZER_DIGIT_RUNS;

/** Added tokens come in two lists: matched in the raw text, or in the normalized text between those. */
export const ADDED_RAW: u32 = 0;
export const ADDED_NORMAL: u32 = 1;

let blob: usize = 0;
let tokens: u32 = 0; // 0: none is open
let whole: u32 = 0;
let byteTokensPtr: usize = 0; // u32 [256]
let offsetsPtr: usize = 0; // u32 [tokens + 1]
let specialsPtr: usize = 0; // bits [tokens]
let leftsPtr: usize = 0; // u32 [tokens + 1]
let mergesPtr: usize = 0; // [merges]
let wholePtr: usize = 0; // u32 [whole]
let indexPtr: usize = 0; // u32 [2, 257]
let addedPtr: usize = 0; // [raw + normal]
let addedRaw: u32 = 0;
let textPtr: usize = 0;
let longestRaw: u32 = 0;
let longestNormal: u32 = 0;
let stripsLeft: u32 = 0; // bit l: list l has a token that takes white space before it

/**
 * Opens the tokenizer tensor at `ptr`, `bytes` long, for a model of `vocabulary` ids. The tensor stays where it is and
 * must not change. STATUS_OK, or the reason with a: byte offset in the tensor, b: the value there.
 */
export function vocabulary_open(ptr: usize, bytes: u32, vocabulary: u32): i32 {
  tokens = 0;
  if (bytes < (TOKENIZER_FIELDS_BYTES as u32)) return fail(STATUS_TRUNCATED, TOKENIZER_FIELDS_BYTES, bytes);
  blob = ptr;
  const count = load<u32>(ptr, TOKENIZER_TOKENS);
  const merges = load<u32>(ptr, TOKENIZER_MERGES);
  const normal = load<u32>(ptr, TOKENIZER_ADDED_NORMAL);
  const textBytes = load<u32>(ptr, TOKENIZER_TEXT_BYTES);
  whole = load<u32>(ptr, TOKENIZER_WHOLE);
  addedRaw = load<u32>(ptr, TOKENIZER_ADDED_RAW);
  const pattern = load<u32>(ptr, TOKENIZER_PATTERN);
  const flags = load<u32>(ptr, TOKENIZER_FLAGS);
  if (count === 0) return corrupt(ptr + TOKENIZER_TOKENS);
  if (count > vocabulary) return fail(STATUS_TOKEN, count - 1, vocabulary);
  if (pattern === 0 || pattern > (PATTERN_MAX as u32)) return fail(STATUS_UNSUPPORTED, TOKENIZER_PATTERN, pattern);
  if (flags & ~FLAGS_KNOWN) return fail(STATUS_UNSUPPORTED, TOKENIZER_FLAGS, flags);

  // The sum of nine sections of < 2³² entries, ≤ 12 bytes each, stays far below 2⁶⁴.
  let at: u64 = TOKENIZER_FIELDS_BYTES;
  byteTokensPtr = ptr + (at as usize);
  at += BYTE_TOKENS_BYTES;
  offsetsPtr = ptr + (at as usize);
  at += ((count as u64) + 1) * 4;
  specialsPtr = ptr + (at as usize);
  at += (((count as u64) + 31) / 32) * 4;
  leftsPtr = ptr + (at as usize);
  at += ((count as u64) + 1) * 4;
  mergesPtr = ptr + (at as usize);
  at += (merges as u64) * MERGE_BYTES;
  wholePtr = ptr + (at as usize);
  at += (whole as u64) * 4;
  indexPtr = ptr + (at as usize);
  at += INDEX_BYTES * 2;
  addedPtr = ptr + (at as usize);
  at += ((addedRaw as u64) + normal) * ADDED_BYTES;
  textPtr = ptr + (at as usize);
  at += textBytes;
  if (at > bytes) return fail(STATUS_TRUNCATED, at as f64, bytes);

  let status = check_tokens(count, textBytes);
  if (status === STATUS_OK) status = check_merges(count, merges);
  if (status === STATUS_OK) status = check_whole(count);
  stripsLeft = 0;
  if (status === STATUS_OK) status = check_added(count, ADDED_RAW, addedRaw);
  if (status === STATUS_OK) status = check_added(count, ADDED_NORMAL, normal);
  if (status === STATUS_OK) tokens = count;
  return status;
}

/** How many ids there are; 0 while no tokenizer is open. */
export function vocabulary_tokens(): u32 {
  return tokens;
}

export function vocabulary_pattern(): u32 {
  return load<u32>(blob, TOKENIZER_PATTERN);
}

export function vocabulary_flags(): u32 {
  return load<u32>(blob, TOKENIZER_FLAGS);
}

/** Address of a token's bytes. They are not always whole characters. */
export function token_bytes_ptr(id: u32): usize {
  return id < tokens ? text_of(id) : 0;
}

/** Length of a token's bytes; 0 where no token has the id. */
export function token_bytes_length(id: u32): u32 {
  return id < tokens ? length_of(id) : 0;
}

/** 1 if the token is special: it stands for no text. */
export function token_special(id: u32): u32 {
  return id < tokens ? (load<u32>(specialsPtr + ((id >>> 5) << 2)) >>> (id & 31)) & 1 : 0;
}

/** Token of one byte. Defined for each byte that occurs in UTF-8. */
export function byte_token(byte: u32): u32 {
  return load<u32>(byteTokensPtr + (byte << 2));
}

/** Address of the merge of two tokens, or 0. */
export function merge_find(left: u32, right: u32): usize {
  let low = load<u32>(leftsPtr + (left << 2));
  let high = load<u32>(leftsPtr + (left << 2), 4);
  while (low < high) {
    const middle = (low + high) >>> 1;
    const merge = mergesPtr + middle * MERGE_BYTES;
    const here = load<u32>(merge, MERGE_RIGHT);
    if (here === right) return merge;
    if (here < right) low = middle + 1;
    else high = middle;
  }
  return 0;
}

/** The token that a whole pre-token is, or NONE. */
export function whole_find(bytes: usize, length: u32): u32 {
  let low: u32 = 0;
  let high = whole;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const id = load<u32>(wholePtr + (middle << 2));
    const order = compare_bytes(text_of(id), length_of(id), bytes, length);
    if (order === 0) return id;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return NONE;
}

/** Bytes of the longest token of a list of added tokens; 0 where it is empty. */
export function added_longest(list: u32): u32 {
  return list === ADDED_RAW ? longestRaw : longestNormal;
}

/** Whether a token of the list takes the white space before it. */
export function added_strips_left(list: u32): bool {
  return ((stripsLeft >>> list) & 1) !== 0;
}

/** Whether a token of the list begins with the byte. */
export function added_begins(list: u32, byte: u32): bool {
  const index = indexPtr + list * INDEX_BYTES + (byte << 2);
  return load<u32>(index) < load<u32>(index, 4);
}

/**
 * Address of the added token that matches most of the text at `at`, before `end`, or 0. Special tokens count only
 * where `special`.
 */
export function added_find(list: u32, at: usize, end: usize, special: bool): usize {
  const index = indexPtr + list * INDEX_BYTES + ((load<u8>(at) as usize) << 2);
  const first = addedPtr + (list === ADDED_RAW ? 0 : addedRaw * ADDED_BYTES);
  let low = load<u32>(index);
  let high = load<u32>(index, 4);
  let best: usize = 0;
  // added[low … high) are those that begin with text[0 … depth); the one that is no longer comes first.
  for (let depth: u32 = 1; low < high; depth++) {
    const entry = first + low * ADDED_BYTES;
    const id = load<u32>(entry, ADDED_ID);
    if (length_of(id) === depth) {
      if (special || !token_special(id)) best = entry;
      low++;
    }
    if (at + depth === end) break;
    const byte: u32 = load<u8>(at + depth);
    low = added_bound(first, low, high, depth, byte);
    high = added_bound(first, low, high, depth, byte + 1);
  }
  return best;
}

/** First of added[low … high) whose byte at `depth` is ≥ byte. All are longer than depth. */
function added_bound(first: usize, low: u32, high: u32, depth: u32, byte: u32): u32 {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (load<u8>(text_of(load<u32>(first + middle * ADDED_BYTES, ADDED_ID)) + depth) < byte) low = middle + 1;
    else high = middle;
  }
  return low;
}

function text_of(id: u32): usize {
  return textPtr + load<u32>(offsetsPtr + (id << 2));
}

function length_of(id: u32): u32 {
  return load<u32>(offsetsPtr + (id << 2), 4) - load<u32>(offsetsPtr + (id << 2));
}

/** < 0, 0 or > 0, as bytes a come before, are, or come after bytes b; a prefix comes first. */
function compare_bytes(a: usize, aLength: u32, b: usize, bLength: u32): i32 {
  const order = memory.compare(a, b, min(aLength, bLength));
  return order ? order : aLength < bLength ? -1 : aLength > bLength ? 1 : 0;
}

function corrupt(ptr: usize): i32 {
  return fail(STATUS_CORRUPT, (ptr - blob) as f64, load<u32>(ptr));
}

/** Offsets begin at 0, never fall and end with the text; each byte of UTF-8 has a token. */
function check_tokens(count: u32, textBytes: u32): i32 {
  if (load<u32>(offsetsPtr) !== 0) return corrupt(offsetsPtr);
  const last = offsetsPtr + (count << 2);
  for (let at = offsetsPtr; at < last; at += 4) if (load<u32>(at) > load<u32>(at, 4)) return corrupt(at + 4);
  if (load<u32>(last) !== textBytes) return corrupt(last);
  for (let byte: u32 = 0; byte < 256; byte++) {
    const id = byte_token(byte);
    if (id >= count && id !== NONE) return corrupt(byteTokensPtr + (byte << 2));
  }
  return STATUS_OK;
}

/** Each left's merges are a range after the one before it, by right, and name tokens that exist. */
function check_merges(count: u32, merges: u32): i32 {
  if (load<u32>(leftsPtr) !== 0) return corrupt(leftsPtr);
  const last = leftsPtr + (count << 2);
  if (load<u32>(last) !== merges) return corrupt(last);
  for (let at = leftsPtr; at < last; at += 4) {
    const from = load<u32>(at);
    const to = load<u32>(at, 4);
    if (from > to || to > merges) return corrupt(at + 4);
    for (let i = from; i < to; i++) {
      const merge = mergesPtr + i * MERGE_BYTES;
      const right = load<u32>(merge, MERGE_RIGHT);
      if (right >= count) return corrupt(merge + MERGE_RIGHT);
      if (i > from && load<u32>(merge - MERGE_BYTES, MERGE_RIGHT) >= right) return corrupt(merge + MERGE_RIGHT);
      if (load<u32>(merge, MERGE_RANK) >= merges) return corrupt(merge + MERGE_RANK);
      if (load<u32>(merge, MERGE_MERGED) >= count) return corrupt(merge + MERGE_MERGED);
    }
  }
  return STATUS_OK;
}

/** Whole tokens are sorted by their bytes. */
function check_whole(count: u32): i32 {
  for (let i: u32 = 0; i < whole; i++) {
    const at = wholePtr + (i << 2);
    const id = load<u32>(at);
    if (id >= count || length_of(id) === 0) return corrupt(at);
    if (i === 0) continue;
    const before = load<u32>(at - 4);
    if (compare_bytes(text_of(before), length_of(before), text_of(id), length_of(id)) >= 0) return corrupt(at);
  }
  return STATUS_OK;
}

/** Added tokens are sorted by their bytes, and the index finds each under its first byte. */
function check_added(count: u32, list: u32, entries: u32): i32 {
  const index = indexPtr + list * INDEX_BYTES;
  const first = addedPtr + (list === ADDED_RAW ? 0 : addedRaw * ADDED_BYTES);
  let longest: u32 = 0;
  if (load<u32>(index) !== 0) return corrupt(index);
  if (load<u32>(index, 1024) !== entries) return corrupt(index + 1024);
  for (let byte: u32 = 0; byte < 256; byte++) {
    const from = load<u32>(index + (byte << 2));
    const to = load<u32>(index + (byte << 2), 4);
    if (from > to || to > entries) return corrupt(index + (byte << 2) + 4);
    for (let i = from; i < to; i++) {
      const entry = first + i * ADDED_BYTES;
      const id = load<u32>(entry, ADDED_ID);
      const flags = load<u32>(entry, ADDED_FLAGS);
      if (id >= count) return corrupt(entry + ADDED_ID);
      if (flags & ~(ADDED_STRIP_LEFT | ADDED_STRIP_RIGHT)) return corrupt(entry + ADDED_FLAGS);
      const length = length_of(id);
      if (length === 0 || length > (ADDED_TEXT_MAX as u32) || load<u8>(text_of(id)) !== byte)
        return corrupt(entry + ADDED_ID);
      if (i > from) {
        const before = load<u32>(entry - ADDED_BYTES, ADDED_ID);
        if (compare_bytes(text_of(before), length_of(before), text_of(id), length) >= 0) return corrupt(entry);
      }
      longest = max(longest, length);
      if (flags & ADDED_STRIP_LEFT) stripsLeft |= 1 << list;
    }
  }
  if (list === ADDED_RAW) longestRaw = longest;
  else longestNormal = longest;
  return STATUS_OK;
}
