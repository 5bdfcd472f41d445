// Turns UTF-8 bytes into an array of classified characters, composed (NFC) where the tokenizer wants it, each with the
// byte it comes from. Invalid bytes become U+FFFD as in the WHATWG Encoding Standard. Knows nothing of tokens.

import {
  COMBINING_NONE,
  POINT_MASK,
  symbol_point,
  unicode_class,
  unicode_combining,
  unicode_decompose,
  unicode_normalize,
  unicode_spare_bytes,
} from "./unicode";

/** A character: code point with its CLASS_* bit, and the byte of the text where it begins. */
export const CHARACTER_BYTES: u32 = 8;
export const CHARACTER_SHIFT: u32 = 3;
/** The character begins where the text cannot be cut: normalization mixed it with those before it. */
export const NO_CUT: u32 = 0xffffffff;
/** Where a decoded character has its length. */
export const DECODED_LENGTH_SHIFT: u32 = 21;

/** Set where more bytes could complete a decoded character. */
export const DECODED_INCOMPLETE: u32 = 1 << 31;

const REPLACEMENT: u32 = 0xfffd;

let characters: usize = 0; // [count + 1]
let count: u32 = 0;
let symbolsPtr: usize = 0; // u32: the decomposed run that is being read
let spare: usize = 0;

/** Working memory that characters_read needs, beside the characters, for a text of so many bytes. */
export function characters_work_bytes(textBytes: u32): u32 {
  return (textBytes << 3) + unicode_spare_bytes(textBytes << 1); // fewer than two symbols come of each byte
}

/**
 * Reads the characters that begin in bytes [from, to) of a text of textBytes bytes into [to − from + 1] at `out`; the one
 * after the last has no class, and the byte where reading stopped. That is before a character which more text could
 * complete, unless `last`; and where `open` and `nfc`, before characters that could compose with more text. Returns how
 * many there are; never more than bytes, normalized or not.
 */
export function characters_read(
  text: usize,
  textBytes: u32,
  from: u32,
  to: u32,
  last: bool,
  open: bool,
  nfc: bool,
  out: usize,
  work: usize,
): u32 {
  characters = out;
  count = 0;
  symbolsPtr = work;
  spare = work + (textBytes << 3);
  let at = from;
  let symbols: u32 = 0; // of the run that begins at byte `cut`
  let cut = from;
  while (at < to) {
    const decoded = utf8_decode(text + at, text + textBytes);
    if (decoded & DECODED_INCOMPLETE && !last) break;
    const point = decoded & POINT_MASK;
    if (!nfc) append(point, at);
    else {
      if (unicode_combining(point) === COMBINING_NONE) {
        compose(symbols, cut);
        symbols = 0;
        cut = at;
      }
      symbols += unicode_decompose(point, symbolsPtr + (symbols << 2));
    }
    at += (decoded >>> DECODED_LENGTH_SHIFT) & 7;
  }
  if (nfc && open) at = cut;
  else compose(symbols, cut);
  const end = characters + (count << CHARACTER_SHIFT);
  store<u32>(end, 0);
  store<u32>(end, at, 4);
  return count;
}

/** Code point at `at` (21 bits) and the bytes that it takes (3 bits above); DECODED_INCOMPLETE if `end` cuts it short. */
export function utf8_decode(at: usize, end: usize): u32 {
  const lead: u32 = load<u8>(at);
  if (lead < 0x80) return lead | (1 << DECODED_LENGTH_SHIFT);
  let more: u32 = 1;
  let low: u32 = 0x80; // bounds of the second byte: no overlong form, no surrogate, nothing above U+10FFFF
  let high: u32 = 0xbf;
  let point = lead & 0x1f;
  if (lead >= 0xf0) {
    if (lead > 0xf4) return REPLACEMENT | (1 << DECODED_LENGTH_SHIFT);
    more = 3;
    point = lead & 7;
    if (lead === 0xf0) low = 0x90;
    if (lead === 0xf4) high = 0x8f;
  } else if (lead >= 0xe0) {
    more = 2;
    point = lead & 15;
    if (lead === 0xe0) low = 0xa0;
    if (lead === 0xed) high = 0x9f;
  } else if (lead < 0xc2) return REPLACEMENT | (1 << DECODED_LENGTH_SHIFT);
  for (let length: u32 = 1; length <= more; length++) {
    if (at + length === end) return REPLACEMENT | (length << DECODED_LENGTH_SHIFT) | DECODED_INCOMPLETE;
    const next: u32 = load<u8>(at + length);
    if (next < low || next > high) return REPLACEMENT | (length << DECODED_LENGTH_SHIFT);
    point = (point << 6) | (next & 0x3f);
    low = 0x80;
    high = 0xbf;
  }
  return point | ((more + 1) << DECODED_LENGTH_SHIFT);
}

/** Writes a code point as UTF-8 and returns its length. */
export function utf8_encode(point: u32, out: usize): u32 {
  if (point < 0x80) {
    store<u8>(out, point);
    return 1;
  }
  if (point < 0x800) {
    store<u8>(out, 0xc0 | (point >>> 6));
    store<u8>(out, 0x80 | (point & 0x3f), 1);
    return 2;
  }
  if (point < 0x10000) {
    store<u8>(out, 0xe0 | (point >>> 12));
    store<u8>(out, 0x80 | ((point >>> 6) & 0x3f), 1);
    store<u8>(out, 0x80 | (point & 0x3f), 2);
    return 3;
  }
  store<u8>(out, 0xf0 | (point >>> 18));
  store<u8>(out, 0x80 | ((point >>> 12) & 0x3f), 1);
  store<u8>(out, 0x80 | ((point >>> 6) & 0x3f), 2);
  store<u8>(out, 0x80 | (point & 0x3f), 3);
  return 4;
}

function append(point: u32, offset: u32): void {
  const to = characters + (count << CHARACTER_SHIFT);
  store<u32>(to, point | unicode_class(point));
  store<u32>(to, offset, 4);
  count++;
}

/** Appends the run of decomposed symbols, composed again. */
function compose(symbols: u32, offset: u32): void {
  if (symbols > 1) symbols = unicode_normalize(symbolsPtr, symbols, spare);
  for (let i: u32 = 0; i < symbols; i++) append(symbol_point(load<u32>(symbolsPtr + (i << 2))), i ? NO_CUT : offset);
}
