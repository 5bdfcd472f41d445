// What Unicode says about a code point: the classes that pre-token patterns speak of, and canonical composition (NFC).
// Facts come from unicode-tables.ts; what a pattern makes of the classes is for pre-tokenizer.ts.

import {
  ASCII_CLASSES,
  CLASS_BREAKS,
  CLASS_BREAKS_COUNT,
  COMBINING_BREAKS,
  COMBINING_BREAKS_COUNT,
  COMPOSED,
  COMPOSED_COUNT,
  DECOMPOSED,
  DECOMPOSED_COUNT,
} from "./unicode-tables";

/** A class is one bit above the 21 of a code point, so that both travel in one u32. */
export const POINT_MASK: u32 = 0x1fffff;
export const CLASS_OTHER: u32 = 1 << 21;
export const CLASS_UPPER: u32 = 1 << 22; // Lu, Lt
export const CLASS_LOWER: u32 = 1 << 23; // Ll
export const CLASS_LETTER: u32 = 1 << 24; // Lm, Lo
export const CLASS_MARK: u32 = 1 << 25;
export const CLASS_NUMBER: u32 = 1 << 26;
export const CLASS_SPACE: u32 = 1 << 27; // \s but for the next
export const CLASS_NEWLINE: u32 = 1 << 28; // CR and LF
export const CLASS_SLASH: u32 = 1 << 29; // "/", else of class other

/** How a code point behaves after another one; between these two lie the marks, in the order of combining classes. */
export const COMBINING_NONE: u32 = 0;
export const COMBINING_STARTER: u32 = 255; // may compose with what stands before it, or decomposes into marks

const COMBINING_SHIFT: u32 = 21;
const FIRST_COMBINING: u32 = 0x300;
const INSERTION_MAX: u32 = 24;
const BUCKETS_BYTES: u32 = 1024;

const HANGUL_SYLLABLES: u32 = 0xac00;
const HANGUL_LEADS: u32 = 0x1100;
const HANGUL_VOWELS: u32 = 0x1161;
const HANGUL_TRAILS: u32 = 0x11a7; // the one before the first: a syllable without a trail
const LEADS: u32 = 19;
const VOWELS: u32 = 21;
const TRAILS: u32 = 28;

/** The CLASS_* bit of a code point. */
export function unicode_class(point: u32): u32 {
  if (point < 128) return CLASS_OTHER << load<u8>(ASCII_CLASSES + point);
  return CLASS_OTHER << (load<u32>(last_break(CLASS_BREAKS, CLASS_BREAKS_COUNT, (point << 3) | 7)) & 7);
}

/** COMBINING_NONE, a mark's rank, or COMBINING_STARTER. */
export function unicode_combining(point: u32): u32 {
  if (point < FIRST_COMBINING) return COMBINING_NONE;
  return load<u32>(last_break(COMBINING_BREAKS, COMBINING_BREAKS_COUNT, (point << 8) | 255)) & 255;
}

/** Code point of a normalized symbol. */
export function symbol_point(symbol: u32): u32 {
  return symbol & POINT_MASK;
}

/**
 * Appends the full canonical decomposition of a code point to out: u32 [1 … 4], code point with its combining rank
 * above. Returns how many.
 */
export function unicode_decompose(point: u32, out: usize): u32 {
  if (point < 0xc0) {
    store<u32>(out, point);
    return 1;
  }
  const syllable = point - HANGUL_SYLLABLES;
  if (syllable < LEADS * VOWELS * TRAILS) return decompose_hangul(syllable, out);
  const row = decomposition_of(point);
  if (!row) {
    store<u32>(out, point | (unicode_combining(point) << COMBINING_SHIFT));
    return 1;
  }
  const high = load<u32>(row);
  const low = load<u32>(row, 4);
  const count = unicode_decompose(((high & 0x7ff) << 10) | (low >>> 22), out);
  const second = low & POINT_MASK;
  if (!second) return count;
  store<u32>(out + (count << 2), second | (unicode_combining(second) << COMBINING_SHIFT));
  return count + 1;
}

/** The code point that two compose to, or 0. */
export function unicode_compose(first: u32, second: u32): u32 {
  const lead = first - HANGUL_LEADS;
  const vowel = second - HANGUL_VOWELS;
  if (lead < LEADS && vowel < VOWELS) return HANGUL_SYLLABLES + (lead * VOWELS + vowel) * TRAILS;
  const syllable = first - HANGUL_SYLLABLES;
  const trail = second - HANGUL_TRAILS;
  if (syllable < LEADS * VOWELS * TRAILS && syllable % TRAILS === 0 && trail > 0 && trail < TRAILS)
    return first + trail;
  let low: u32 = 0;
  let high = COMPOSED_COUNT;
  const key = ((first as u64) << 21) | second;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const row = DECOMPOSED + ((load<u16>(COMPOSED + (middle << 1)) as usize) << 3);
    const word = ((load<u32>(row) as u64) << 32) | load<u32>(row, 4);
    const pair = (((word >>> 22) & POINT_MASK) << 21) | (word & POINT_MASK);
    if (pair === key) return (word >>> 43) as u32;
    if (pair < key) low = middle + 1;
    else high = middle;
  }
  return 0;
}

/**
 * Puts decomposed symbols, u32 [count], into composed canonical order in place, and returns how many are left. Needs
 * unicode_spare_bytes(count) bytes at `spare`.
 */
export function unicode_normalize(symbols: usize, count: u32, spare: usize): u32 {
  for (let i: u32 = 0; i < count; ) {
    const from = i;
    while (i < count && is_mark(load<u32>(symbols + (i << 2)))) i++;
    if (i - from > 1) sort_marks(symbols + (from << 2), i - from, spare);
    i = max(i, from + 1);
  }
  return compose_symbols(symbols, count);
}

export function unicode_spare_bytes(count: u32): u32 {
  return BUCKETS_BYTES + (count << 2);
}

/** Address of the last entry that is ≤ key; the first entry of a table of breaks is for code point 0. */
function last_break(table: usize, count: u32, key: u32): usize {
  let low: u32 = 0;
  let high = count;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (load<u32>(table + (middle << 2)) <= key) low = middle;
    else high = middle;
  }
  return table + (low << 2);
}

function decomposition_of(point: u32): usize {
  let low: u32 = 0;
  let high = DECOMPOSED_COUNT;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const row = DECOMPOSED + (middle << 3);
    const here = load<u32>(row) >>> 11;
    if (here === point) return row;
    if (here < point) low = middle + 1;
    else high = middle;
  }
  return 0;
}

function decompose_hangul(syllable: u32, out: usize): u32 {
  const trail = syllable % TRAILS;
  store<u32>(out, HANGUL_LEADS + syllable / (VOWELS * TRAILS));
  store<u32>(out, (HANGUL_VOWELS + ((syllable / TRAILS) % VOWELS)) | (COMBINING_STARTER << COMBINING_SHIFT), 4);
  if (!trail) return 2;
  store<u32>(out, (HANGUL_TRAILS + trail) | (COMBINING_STARTER << COMBINING_SHIFT), 8);
  return 3;
}

function is_mark(symbol: u32): bool {
  const combining = symbol >>> COMBINING_SHIFT;
  return combining !== COMBINING_NONE && combining !== COMBINING_STARTER;
}

/** Sorts marks by rank, equal ones in their order; long runs by counting, so that no text takes quadratic time. */
function sort_marks(marks: usize, count: u32, spare: usize): void {
  if (count <= INSERTION_MAX) {
    for (let i: u32 = 1; i < count; i++) {
      const mark = load<u32>(marks + (i << 2));
      let to = i;
      for (; to > 0; to--) {
        const before = load<u32>(marks + ((to - 1) << 2));
        if (before >>> COMBINING_SHIFT <= mark >>> COMBINING_SHIFT) break;
        store<u32>(marks + (to << 2), before);
      }
      store<u32>(marks + (to << 2), mark);
    }
    return;
  }
  const sorted = spare + BUCKETS_BYTES;
  memory.fill(spare, 0, BUCKETS_BYTES);
  for (let i: u32 = 0; i < count; i++) {
    const bucket = spare + ((load<u32>(marks + (i << 2)) >>> COMBINING_SHIFT) << 2);
    store<u32>(bucket, load<u32>(bucket) + 1);
  }
  let start: u32 = 0;
  for (let bucket = spare; bucket < sorted; bucket += 4) {
    const marksHere = load<u32>(bucket);
    store<u32>(bucket, start);
    start += marksHere;
  }
  for (let i: u32 = 0; i < count; i++) {
    const mark = load<u32>(marks + (i << 2));
    const bucket = spare + ((mark >>> COMBINING_SHIFT) << 2);
    const to = load<u32>(bucket);
    store<u32>(sorted + (to << 2), mark);
    store<u32>(bucket, to + 1);
  }
  memory.copy(marks, sorted, count << 2);
}

/** A symbol composes with the last starter unless one of its own rank or higher stands between them. */
function compose_symbols(symbols: usize, count: u32): u32 {
  let kept: u32 = 0;
  let starter: usize = 0;
  let lastRank: u32 = 0; // of the symbols kept since the starter; 0: none
  for (let i: u32 = 0; i < count; i++) {
    const symbol = load<u32>(symbols + (i << 2));
    const mark = is_mark(symbol);
    const rank = mark ? symbol >>> COMBINING_SHIFT : 0;
    if (starter && (lastRank === 0 || lastRank < rank)) {
      const composite = unicode_compose(load<u32>(starter) & POINT_MASK, symbol & POINT_MASK);
      if (composite) {
        store<u32>(starter, composite);
        continue;
      }
    }
    const place = symbols + (kept << 2);
    store<u32>(place, symbol);
    kept++;
    if (!mark) starter = place;
    lastRank = rank;
  }
  return kept;
}
