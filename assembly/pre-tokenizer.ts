// Where a pre-token ends. Each pattern of packs/tokenizer.ts is written out as the steps that its regular expression
// takes; they read each character a bounded number of times. Merging within a pre-token is for bpe.ts.

import {
  PATTERN_GPT2,
  PATTERN_LLAMA3,
  PATTERN_O200K,
  PATTERN_QWEN35,
  PATTERN_TEKKEN,
  TOKENIZER_DIGIT_RUNS,
  TOKENIZER_DIGITS,
} from "../packs/format";
import { CHARACTER_SHIFT } from "./characters";
import {
  CLASS_LETTER,
  CLASS_LOWER,
  CLASS_MARK,
  CLASS_NEWLINE,
  CLASS_NUMBER,
  CLASS_OTHER,
  CLASS_SLASH,
  CLASS_SPACE,
  CLASS_UPPER,
  POINT_MASK,
} from "./unicode";

const LETTERS: u32 = CLASS_UPPER | CLASS_LOWER | CLASS_LETTER; // \p{L}
const SPACES: u32 = CLASS_SPACE | CLASS_NEWLINE; // \s
const OTHERS: u32 = CLASS_OTHER | CLASS_SLASH; // [^\s\p{L}\p{M}\p{N}]
const UPPERS: u32 = CLASS_UPPER | CLASS_LETTER | CLASS_MARK; // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
const LOWERS: u32 = CLASS_LOWER | CLASS_LETTER | CLASS_MARK; // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
const BEFORE_WORD: u32 = CLASS_OTHER | CLASS_SLASH | CLASS_MARK | CLASS_SPACE; // [^\r\n\p{L}\p{N}]

const APOSTROPHE: u32 = 0x27;
const SPACE: u32 = 0x20;
const LONG_S: u32 = 0x17f; // folds to "s" where case is ignored

let pattern: u32 = 0;
let digits: u32 = 0; // TOKENIZER_DIGITS, TOKENIZER_DIGIT_RUNS or 0
let word: u32 = 0; // classes that a word is made of
let punctuation: u32 = 0;
let tail: u32 = 0; // what may follow punctuation
let numbers: u32 = 0; // most characters of a number
let characters: usize = 0;
let reach: u32 = 0;

/** Takes up a PATTERN_* and the TOKENIZER_* flags. */
export function pretoken_configure(newPattern: u32, flags: u32): void {
  pattern = newPattern;
  digits = flags & (TOKENIZER_DIGITS | TOKENIZER_DIGIT_RUNS);
  const marks = pattern === PATTERN_QWEN35;
  word = marks ? LETTERS | CLASS_MARK : LETTERS;
  punctuation = marks ? OTHERS : OTHERS | CLASS_MARK;
  tail = pattern === PATTERN_TEKKEN || pattern === PATTERN_O200K ? CLASS_NEWLINE | CLASS_SLASH : CLASS_NEWLINE;
  numbers = pattern === PATTERN_LLAMA3 || pattern === PATTERN_O200K ? 3 : 1;
}

/**
 * End of the pre-token that begins at character i of `array`, i < end. Character `end` must have no class: no run goes
 * over it, and it counts as the end of the text.
 */
export function pretoken_end(array: usize, i: u32, end: u32): u32 {
  characters = array;
  reach = i;
  if (digits && character(i) & CLASS_NUMBER) return digits & TOKENIZER_DIGIT_RUNS ? run(i, CLASS_NUMBER) : i + 1;
  if (pattern === PATTERN_GPT2) return gpt2_end(i, end);
  if (pattern === PATTERN_TEKKEN || pattern === PATTERN_O200K) return cased_end(i, end);
  return llama3_end(i, end);
}

/** The last character that the last pretoken_end looked at: while it is before `end`, more text changes nothing. */
export function pretoken_reach(): u32 {
  return reach;
}

/** 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
function gpt2_end(i: u32, end: u32): u32 {
  const contraction = contraction_end(i, end, false);
  if (contraction > i) return contraction;
  const from = point(i) === SPACE && i + 1 < end ? i + 1 : i;
  if (from > i) see(from);
  const first = character(from);
  if (first & LETTERS) return run(from, LETTERS);
  if (first & CLASS_NUMBER && !digits) return run(from, CLASS_NUMBER);
  if (first & punctuation) return run(from, punctuation);
  return spaces_end(i, run(i, SPACES), end);
}

/** (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
function llama3_end(i: u32, end: u32): u32 {
  const contraction = contraction_end(i, end, true);
  if (contraction > i) return contraction;
  if (character(i) & word) return run(i, word);
  if (character(i) & BEFORE_WORD) {
    const ended = run(i + 1, word);
    if (ended > i + 1) return ended;
  }
  return rest_end(i, end);
}

/**
 * [^\r\n\p{L}\p{N}]?U*L+S?|[^\r\n\p{L}\p{N}]?U+L*S?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * with U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], L = [\p{Ll}\p{Lm}\p{Lo}\p{M}], and for O200K S = (?i:'s|'t|'re|'ve|'m|'ll|'d)
 * and \p{N}{1,3}
 */
function cased_end(i: u32, end: u32): u32 {
  const ended = cased_word_end(i);
  if (ended === i) return rest_end(i, end);
  return pattern === PATTERN_O200K ? contraction_end(ended, end, true) : ended;
}

/** [^\r\n\p{L}\p{N}]?U*L+|[^\r\n\p{L}\p{N}]?U+L*, or i. */
function cased_word_end(i: u32): u32 {
  const from = character(i) & BEFORE_WORD ? i + 1 : i;
  let ended = lower_word_end(from);
  if (ended > from) return ended;
  if (from > i) {
    ended = lower_word_end(i); // a mark may stand before a word or begin one
    if (ended > i) return ended;
  }
  ended = run(from, UPPERS);
  return ended > from ? ended : i;
}

/** U*L+ from i: where the capitals are not followed by L, they give back those after the last that is one. Else i. */
function lower_word_end(i: u32): u32 {
  const capitals = run(i, UPPERS);
  const ended = run(capitals, LOWERS);
  if (ended > capitals) return ended;
  for (let last = capitals; last > i; last--) if (character(last - 1) & LOWERS) return last;
  return i;
}

/** \p{N}{1,n}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
function rest_end(i: u32, end: u32): u32 {
  if (character(i) & CLASS_NUMBER) {
    let at = i + 1;
    while (at < i + numbers && character(at) & CLASS_NUMBER) at++;
    see(min(at, i + numbers - 1));
    return at;
  }
  const from = point(i) === SPACE ? i + 1 : i;
  const ended = run(from, punctuation);
  if (ended > from) return run(ended, tail);
  const spaces = run(i, SPACES);
  for (let last = spaces; last > i; last--) if (character(last - 1) & CLASS_NEWLINE) return last;
  return spaces_end(i, spaces, end);
}

/** \s+(?!\S)|\s+ over the white space [i, ended): leaves the last character to what follows, unless it is the only one. */
function spaces_end(i: u32, ended: u32, end: u32): u32 {
  if (ended === end || ended === i + 1 || (digits && character(ended) & CLASS_NUMBER)) return ended;
  return ended - 1;
}

/** End of 's|'t|'re|'ve|'m|'ll|'d at character i, in any case where `fold`; i where there is none. */
function contraction_end(i: u32, end: u32, fold: bool): u32 {
  see(i);
  if (i >= end || point(i) !== APOSTROPHE) return i;
  see(i + 1);
  if (i + 1 >= end) return i;
  const first = letter(i + 1, fold);
  if (first === 0x73 || first === 0x74 || first === 0x6d || first === 0x64) return i + 2; // s t m d
  if (first !== 0x72 && first !== 0x76 && first !== 0x6c) return i; // r v l
  see(i + 2);
  if (i + 2 >= end) return i;
  return letter(i + 2, fold) === (first === 0x6c ? 0x6c : 0x65) ? i + 3 : i; // l e
}

function letter(i: u32, fold: bool): u32 {
  const code = point(i);
  if (!fold) return code;
  return code === LONG_S ? 0x73 : code < 0x80 ? code | 0x20 : code;
}

/** First character from i on that is in none of the classes. */
function run(i: u32, classes: u32): u32 {
  while (character(i) & classes) i++;
  see(i);
  return i;
}

function see(i: u32): void {
  reach = max(reach, i);
}

function character(i: u32): u32 {
  return load<u32>(characters + (i << CHARACTER_SHIFT));
}

function point(i: u32): u32 {
  return character(i) & POINT_MASK;
}
