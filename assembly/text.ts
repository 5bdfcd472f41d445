// Where text goes in and tokens come out: buffers in the step's scratch, and a pack's tokenizer over them.

import { HEADER_VOCABULARY, TENSOR_LENGTH, TENSOR_OFFSET } from "../packs/format";
import { STATUS_CORRUPT, STATUS_STATE, STATUS_TEXT, STATUS_UNSUPPORTED } from "./abi";
import { tokenizer_ptr } from "./cut";
import { pack_field, pack_fixed_offset } from "./pack";
import { fail, status_detail_ptr } from "./status";
import { tokenizer_consumed, tokenizer_encode, tokenizer_open, tokenizer_scratch_bytes } from "./tokenizer";
import { token_bytes_length, token_bytes_ptr, token_special } from "./vocabulary";

// Text comes in pieces of this size; it bounds nothing but the longest word that is encoded as one.
const PIECE_BYTES: u32 = 16384;

let buffers: usize = 0;
let opened = false;

/** Bytes of all buffers: text, tokens, and the tokenizer's own. */
export function text_bytes(): u32 {
  return PIECE_BYTES + PIECE_BYTES * 4 + tokenizer_scratch_bytes(PIECE_BYTES);
}

/** Sets where the buffers lie. */
export function text_place(ptr: usize): void {
  buffers = ptr;
}

/** Opens the tokenizer that has been loaded. */
export function text_open(tensor: usize): i32 {
  const bytes = load<u64>(tensor, TENSOR_LENGTH) as u32;
  const status = tokenizer_open(tokenizer_ptr(), bytes, pack_field(HEADER_VOCABULARY));
  opened = status == 0;
  if (opened) return 0;
  // The tokenizer counts from its own start; to a host all of this is damage at a place of the file.
  const start = (pack_fixed_offset() + load<u64>(tensor, TENSOR_OFFSET)) as f64;
  const a = load<f64>(status_detail_ptr());
  const b = load<f64>(status_detail_ptr(), 8);
  if (status == STATUS_CORRUPT || status == STATUS_UNSUPPORTED) return fail(status, start + a, b);
  return fail(STATUS_CORRUPT, start, load<u32>(tokenizer_ptr()));
}

/** Where a host puts a piece of text, UTF-8. The next step overwrites it. */
export function text_ptr(): usize {
  return buffers;
}

/** Most bytes of a piece; 0 while there is no tokenizer. */
export function text_capacity(): u32 {
  return opened ? PIECE_BYTES : 0;
}

/**
 * Encodes the piece at text_ptr() and returns how many tokens lie at text_tokens_ptr(). text_consumed() of its bytes
 * are done then, and the next piece begins there. first, last: does the text begin, end with this piece?
 */
export function text_encode(bytes: u32, first: bool, last: bool, special: bool): i32 {
  if (!opened) return fail(STATUS_STATE, 7, 0);
  if (bytes > PIECE_BYTES) return fail(STATUS_TEXT, bytes, PIECE_BYTES);
  const scratch = buffers + PIECE_BYTES * 5;
  return tokenizer_encode(buffers, bytes, first, last, special, text_tokens_ptr(), PIECE_BYTES, scratch);
}

export function text_consumed(): u32 {
  return tokenizer_consumed();
}

/** u32 ids. */
export function text_tokens_ptr(): usize {
  return buffers + PIECE_BYTES;
}

/** Address of the bytes that a token stands for. */
export function text_token_ptr(token: u32): usize {
  return opened && token < pack_field(HEADER_VOCABULARY) ? token_bytes_ptr(token) : 0;
}

/** Length of the bytes that a token stands for; 0 for special tokens, which stand for no text. */
export function text_token_length(token: u32): u32 {
  if (!opened || token >= pack_field(HEADER_VOCABULARY) || token_special(token) != 0) return 0;
  return token_bytes_length(token);
}
