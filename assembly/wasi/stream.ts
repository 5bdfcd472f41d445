// From the bytes of tokens to text: whole characters only. What cannot become one is U+FFFD, as in runtime/stream.ts.

import { DECODED_INCOMPLETE, DECODED_LENGTH_SHIFT, utf8_decode } from "../characters";
import { POINT_MASK } from "../unicode";
import { write_point } from "./writer";

const pending = memory.data(8); // of a character that more bytes may complete: 4 at most
let count: u32 = 0;
let last: u32 = 0;

/** Forgets what has not become a character. */
export function stream_start(): void {
  count = 0;
}

/** Writes the characters that these bytes complete. */
export function stream_push(ptr: usize, bytes: u32): void {
  for (let i: u32 = 0; i < bytes; i++) {
    store<u8>(pending + count++, load<u8>(ptr + i));
    drain(false);
  }
}

/** Writes what is left, once no more bytes come. */
export function stream_end(): void {
  drain(true);
}

/** The character that was written last; 0 before the first. */
export function stream_last(): u32 {
  return last;
}

function drain(end: bool): void {
  while (count > 0) {
    const decoded = utf8_decode(pending, pending + count);
    const length = (decoded >>> DECODED_LENGTH_SHIFT) & 7;
    if ((decoded & DECODED_INCOMPLETE) != 0 && !end) return;
    last = decoded & POINT_MASK;
    write_point(last);
    count -= length;
    memory.copy(pending, pending + length, count);
  }
}
