// Comparing and checking bytes that came from outside.

import { DECODED_INCOMPLETE, DECODED_LENGTH_SHIFT, utf8_decode } from "../characters";
import { POINT_MASK } from "../unicode";

const REPLACEMENT: u32 = 0xfffd;
const REPLACEMENT_BYTES: u32 = 3;

/** Are these bytes the words, which are ASCII? */
export function bytes_are(ptr: usize, bytes: usize, words: string): bool {
  if (bytes != (words.length as usize)) return false;
  const want = changetype<usize>(words);
  for (let i: usize = 0; i < bytes; i++) if (load<u8>(ptr + i) != load<u8>(want + i * 2)) return false;
  return true;
}

/** Length of a string that ends with a zero. */
export function bytes_to_zero(ptr: usize): u32 {
  let length: u32 = 0;
  while (load<u8>(ptr + length) != 0) length++;
  return length;
}

/** Are these bytes UTF-8? */
export function bytes_are_text(ptr: usize, bytes: usize): bool {
  const end = ptr + bytes;
  while (ptr < end) {
    const decoded = utf8_decode(ptr, end);
    const length = (decoded >>> DECODED_LENGTH_SHIFT) & 7;
    if ((decoded & DECODED_INCOMPLETE) != 0) return false;
    // U+FFFD itself may stand in a text.
    if ((decoded & POINT_MASK) == REPLACEMENT && !is_replacement(ptr, length)) return false;
    ptr += length;
  }
  return true;
}

function is_replacement(ptr: usize, length: u32): bool {
  return length == REPLACEMENT_BYTES && load<u8>(ptr) == 0xef && load<u8>(ptr, 1) == 0xbf && load<u8>(ptr, 2) == 0xbd;
}
