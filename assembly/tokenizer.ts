// From text to tokens: finds added tokens, reads the text between them, splits it into pre-tokens and merges those. Long
// texts come in pieces: what could still change with more text is left for the next call. What follows a prompt, and
// which token goes before it, is for the host.

import {
  ADDED_FLAGS,
  ADDED_ID,
  ADDED_STRIP_LEFT,
  ADDED_STRIP_RIGHT,
  ADDED_TEXT_MAX,
  NONE,
  TOKENIZER_NFC,
  TOKENIZER_PREFIX_SPACE,
} from "../packs/format";
import { STATUS_ARGUMENT, STATUS_OK, STATUS_STATE, STATUS_TEXT } from "./abi";
import { bpe_encode, bpe_take, bpe_work_bytes } from "./bpe";
import {
  CHARACTER_BYTES,
  CHARACTER_SHIFT,
  characters_read,
  characters_work_bytes,
  DECODED_LENGTH_SHIFT,
  NO_CUT,
  utf8_decode,
  utf8_encode,
} from "./characters";
import { pretoken_configure, pretoken_end, pretoken_reach } from "./pre-tokenizer";
import { fail } from "./status";
import { CLASS_NEWLINE, CLASS_SPACE, POINT_MASK, unicode_class } from "./unicode";
import {
  ADDED_NORMAL,
  ADDED_RAW,
  added_begins,
  added_find,
  added_longest,
  added_strips_left,
  byte_token,
  token_bytes_length,
  token_bytes_ptr,
  vocabulary_flags,
  vocabulary_open,
  vocabulary_pattern,
  vocabulary_tokens,
  whole_find,
} from "./vocabulary";

export { token_bytes_length, token_bytes_ptr, token_special } from "./vocabulary";

/** Least bytes of a piece that is not the last: an added token and as much again must fit. */
const PIECE_BYTES_MIN: u32 = 1024;
const TEXT_BYTES_MAX: u32 = 1 << 26;
/** A pre-token of garbage may be longer than its text: each invalid byte is read as three. This much always fits. */
const PRETOKEN_SPARE_BYTES: u32 = 4096;
const SPACE: u32 = 0x20;
/** Characters of a section are numbered from here: one before the first may be put there, the prefix space. */
const FIRST: u32 = 1;

let text: usize = 0;
let textBytes: u32 = 0;
let isLast: bool = true;
let isSpecial: bool = false;
let out: usize = 0; // u32 [capacity]
let capacity: u32 = 0;
let characters: usize = 0; // of a section
let work: usize = 0; // pre-token bytes, then what bpe.ts needs; or what characters.ts needs
let workBytes: u32 = 0; // of a pre-token

let written: u32 = 0; // tokens so far
let committed: u32 = 0; // of them, those of the text before `consumed`
let consumed: u32 = 0;
let isFull: bool = false;
let isStart: bool = true; // the next character begins the text, or follows an added token
let isStartCommitted: bool = true; // the same of the one at `consumed`
let matchAt: u32 = 0;

/**
 * Opens the tokenizer tensor at `ptr` for a model of `vocabulary` ids. It is used where it lies. STATUS_OK, or a
 * negative status with a: byte offset in the tensor, b: the value there.
 */
export function tokenizer_open(ptr: usize, bytes: u32, vocabulary: u32): i32 {
  const status = vocabulary_open(ptr, bytes, vocabulary);
  if (status === STATUS_OK) pretoken_configure(vocabulary_pattern(), vocabulary_flags());
  return status;
}

/** Working memory, 8-aligned, that tokenizer_encode needs for a piece of so many bytes; 0 if no piece may be so long. */
export function tokenizer_scratch_bytes(bytes: u32): u32 {
  if (bytes > TEXT_BYTES_MAX) return 0;
  const pretoken = bytes + PRETOKEN_SPARE_BYTES;
  const merging = pretoken + 8 + bpe_work_bytes(pretoken);
  return (bytes + FIRST + 1) * CHARACTER_BYTES + max(merging, characters_work_bytes(bytes));
}

/**
 * Writes the tokens of a piece of UTF-8 text to u32 [outCapacity] and returns how many, or a negative status. `first`:
 * a text begins here. `last`: and ends here; otherwise the piece has 1024 bytes or more. `special`: the names of special
 * tokens stand for these tokens, else they are plain text. tokenizer_consumed() then says how many bytes are done: the
 * next piece begins there. Before the end of a text it is less than all, but never 0; a pre-token that fills the piece
 * is cut. Too little room for all tokens also leaves a rest, and is an error only if the first pre-token does not fit.
 */
export function tokenizer_encode(
  textPtr: usize,
  bytes: u32,
  first: u32,
  last: u32,
  special: u32,
  outPtr: usize,
  outCapacity: u32,
  scratchPtr: usize,
): i32 {
  consumed = 0;
  if (!vocabulary_tokens()) return fail(STATUS_STATE, 0, 0);
  if (bytes > TEXT_BYTES_MAX) return fail(STATUS_TEXT, bytes, TEXT_BYTES_MAX);
  if (!last && bytes < PIECE_BYTES_MIN) return fail(STATUS_ARGUMENT, 1, bytes);
  text = textPtr;
  textBytes = bytes;
  isLast = last !== 0;
  isSpecial = special !== 0;
  out = outPtr;
  capacity = outCapacity;
  characters = scratchPtr;
  work = scratchPtr + (bytes + FIRST + 1) * CHARACTER_BYTES;
  workBytes = bytes + PRETOKEN_SPARE_BYTES;
  committed = 0;
  isFull = false;
  if (first) isStartCommitted = true;
  restart();
  encode_sections();
  if (consumed === 0 && bytes > 0 && !isFull) {
    restart();
    encode_section(0, decided_end(), true, 0);
  }
  if (consumed === 0 && isFull) return fail(STATUS_ARGUMENT, 6, outCapacity);
  return committed;
}

/** Bytes of the last piece that its tokens stand for. */
export function tokenizer_consumed(): u32 {
  return consumed;
}

function restart(): void {
  written = 0;
  isStart = isStartCommitted;
}

/** Sections of text, each up to the next added token of the raw list; stops where more text could change something. */
function encode_sections(): void {
  for (let at: u32 = 0; at < textBytes; ) {
    const token = find_raw(at);
    const end = token ? matchAt : decided_end();
    const flags = token ? load<u32>(token, ADDED_FLAGS) : 0;
    if (!encode_section(at, end, token !== 0 || isLast, flags) || !token) return;
    const id = load<u32>(token, ADDED_ID);
    at = end + token_bytes_length(id);
    if (flags & ADDED_STRIP_RIGHT) {
      at = skip_spaces(at);
      if (textBytes - at < 4 && !isLast && consumed) return; // a space could follow
    }
    if (!put(id)) return;
    isStart = true;
    commit(at);
  }
}

/** End of the text whose added tokens are certain. */
function decided_end(): u32 {
  const longest = added_longest(ADDED_RAW);
  return isLast || longest === 0 ? textBytes : textBytes - (longest - 1);
}

/** The first added token of the raw list from byte `at` on, or 0; sets matchAt. */
function find_raw(at: u32): usize {
  if (added_longest(ADDED_RAW) === 0) return 0;
  const end = decided_end();
  for (; at < end; at++) {
    const token = added_find(ADDED_RAW, text + at, text + textBytes, isSpecial);
    if (token) {
      matchAt = at;
      return token;
    }
  }
  return 0;
}

function skip_spaces(at: u32): u32 {
  while (at < textBytes) {
    const decoded = utf8_decode(text + at, text + textBytes);
    if (!is_space(unicode_class(decoded & POINT_MASK))) break;
    at += (decoded >>> DECODED_LENGTH_SHIFT) & 7;
  }
  return at;
}

/**
 * Encodes bytes [from, to). `closed`: the section ends there, else at a point yet to be seen. `flags` are those of the
 * added token that ends it. Returns false if some is left.
 */
function encode_section(from: u32, to: u32, closed: bool, flags: u32): bool {
  const nfc = (vocabulary_flags() & TOKENIZER_NFC) !== 0;
  const array = characters + FIRST * CHARACTER_BYTES;
  let end = FIRST + characters_read(text, textBytes, from, to, isLast, !closed, nfc, array, work);
  if (flags & ADDED_STRIP_LEFT || (!closed && added_strips_left(ADDED_RAW))) end = trim_spaces(FIRST, end);
  const longest = added_longest(ADDED_NORMAL);
  let decided = end; // where the section is not closed, a longer text could put an added token after this
  if (longest && !closed) decided = end < longest ? FIRST : end - (longest - 1);
  for (let at = FIRST; at < end; ) {
    const token = longest ? find_normal(at, decided, end) : 0;
    if (!token) {
      if (!closed && added_strips_left(ADDED_NORMAL)) decided = trim_spaces(at, decided);
      return at < decided && encode_pretokens(at, decided, closed) && closed;
    }
    const strips = load<u32>(token, ADDED_FLAGS);
    const id = load<u32>(token, ADDED_ID);
    const textEnd = strips & ADDED_STRIP_LEFT ? trim_spaces(at, matchAt) : matchAt;
    if (!encode_pretokens(at, textEnd, true)) return false;
    at = matchAt + characters_of(id);
    if (strips & ADDED_STRIP_RIGHT) {
      while (at < end && is_space(character(at))) at++;
      if (at === end && !closed) return false;
    }
    if (!put(id)) return false;
    isStart = true;
    commit(offset_of(at));
  }
  return closed;
}

/** The first added token of the normal list that begins at a character in [at, to), or 0; sets matchAt. */
function find_normal(at: u32, to: u32, end: u32): usize {
  for (; at < to; at++) {
    let bytes = utf8_encode(character(at) & POINT_MASK, work);
    if (!added_begins(ADDED_NORMAL, load<u8>(work))) continue;
    for (let next = at + 1; next < end && bytes < (ADDED_TEXT_MAX as u32); next++) {
      bytes += utf8_encode(character(next) & POINT_MASK, work + bytes);
    }
    const token = added_find(ADDED_NORMAL, work, work + bytes, isSpecial);
    if (token) {
      matchAt = at;
      return token;
    }
  }
  return 0;
}

/** Characters [at, end) without the white space that ends them. */
function trim_spaces(at: u32, end: u32): u32 {
  while (end > at && is_space(character(end - 1))) end--;
  return end;
}

/** Encodes the characters [at, end); false if there is no room, or if they are not `closed` and some is uncertain. */
function encode_pretokens(at: u32, end: u32, closed: bool): bool {
  if (at === end) return true;
  if (isStart && vocabulary_flags() & TOKENIZER_PREFIX_SPACE && (character(at) & POINT_MASK) !== SPACE) {
    at--; // the place of the added token before it, or the one before FIRST
    store<u32>(characters + (at << CHARACTER_SHIFT), SPACE | CLASS_SPACE);
  }
  const next = character(end);
  store<u32>(characters + (end << CHARACTER_SHIFT), 0);
  let complete = true;
  while (at !== end) {
    const ended = pretoken_end(characters, at, end);
    complete = (closed || pretoken_reach() < end) && encode_pretoken(at, ended);
    if (!complete) break;
    at = ended;
    isStart = false;
    commit(offset_of(at));
  }
  store<u32>(characters + (end << CHARACTER_SHIFT), next);
  return complete;
}

/** Encodes the characters of one pre-token, in parts if they exceed the working memory. */
function encode_pretoken(at: u32, end: u32): bool {
  while (at !== end) {
    let bytes: u32 = 0;
    while (at !== end && bytes + 4 <= workBytes) bytes += utf8_encode(character(at++) & POINT_MASK, work + bytes);
    if (!encode_bytes(bytes)) return false;
  }
  return true;
}

/** Encodes the first bytes of the working memory. */
function encode_bytes(bytes: u32): bool {
  if (bytes === 1) {
    const token = byte_token(load<u8>(work));
    return token === NONE || put(token);
  }
  const id = whole_find(work, bytes);
  if (id !== NONE) return put(id);
  const count = bpe_encode(work, bytes, (work + workBytes + 7) & ~7);
  if (!count) return true;
  isFull = isFull || count > capacity - written;
  if (isFull) return false;
  bpe_take(out + (written << 2));
  written += count;
  return true;
}

function put(id: u32): bool {
  isFull = isFull || written === capacity;
  if (isFull) return false;
  store<u32>(out + (written++ << 2), id);
  return true;
}

/** Everything before byte `offset` is now in tokens, unless the text cannot be cut there. */
function commit(offset: u32): void {
  if (offset === NO_CUT || offset <= consumed) return;
  consumed = offset;
  committed = written;
  isStartCommitted = isStart;
}

/** Characters of a token's text. */
function characters_of(id: u32): u32 {
  const ptr = token_bytes_ptr(id);
  let count: u32 = 0;
  for (let i: u32 = 0; i < token_bytes_length(id); i++) if ((load<u8>(ptr + i) & 0xc0) !== 0x80) count++;
  return count;
}

function is_space(character: u32): bool {
  return (character & (CLASS_SPACE | CLASS_NEWLINE)) !== 0;
}

function character(i: u32): u32 {
  return load<u32>(characters + (i << CHARACTER_SHIFT));
}

function offset_of(i: u32): u32 {
  return load<u32>(characters + (i << CHARACTER_SHIFT), 4);
}
