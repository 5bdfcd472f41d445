// The tokenizers and texts that the tokenizer's tests run over: the fixture under every pattern and setting, random text
// that mixes what splits, folds, composes and breaks, and texts picked by hand.

import { readFileSync } from "node:fs";
import { PATTERNS } from "../packs/tokenizer";
import type { Random } from "./random";

// biome-ignore lint/suspicious/noExplicitAny: a file of another program, taken apart and put together at will
export type TokenizerJson = any;

export interface Variant {
  name: string;
  json: TokenizerJson;
}

export const fixture = (): TokenizerJson => JSON.parse(readFileSync("test/fixtures/tokenizer.json", "utf8"));

const NFC = { type: "NFC" };
const PATTERN_NAMES = ["gpt2", "llama3", "qwen2", "qwen35", "tekken", "o200k"];

const byteLevel = (useRegex: boolean, prefixSpace = false) => ({
  type: "ByteLevel",
  add_prefix_space: prefixSpace,
  trim_offsets: true,
  use_regex: useRegex,
});

/** A pre-tokenizer that splits with one of PATTERNS. */
export const split = (regex: string) => ({
  type: "Sequence",
  pretokenizers: [{ type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false }, byteLevel(false)],
});

const digits = (each: boolean) => ({
  type: "Sequence",
  pretokenizers: [{ type: "Digits", individual_digits: each }, byteLevel(true)],
});

/** The fixture with each pattern, then with each other setting. */
export function variants(): Variant[] {
  const make = (name: string, changes: object, model: object = {}): Variant => {
    const json = fixture();
    return { name, json: { ...json, ...changes, model: { ...json.model, ...model } } };
  };
  return [
    ...PATTERNS.map(([regex], i) => make(PATTERN_NAMES[i], { pre_tokenizer: split(regex) })),
    make("gpt2 by ByteLevel", { pre_tokenizer: byteLevel(true) }),
    make("prefix space", { pre_tokenizer: byteLevel(true, true) }),
    make("digits", { pre_tokenizer: digits(true) }),
    make("digit runs", { pre_tokenizer: digits(false) }),
    make("NFC", { normalizer: NFC }),
    make("NFC, prefix space", {
      normalizer: { type: "Sequence", normalizers: [NFC] },
      pre_tokenizer: byteLevel(true, true),
    }),
    make("NFC, qwen35", { normalizer: NFC, pre_tokenizer: split(PATTERNS[3][0]) }),
    make("NFC, tekken", { normalizer: NFC, pre_tokenizer: split(PATTERNS[4][0]) }),
    make("ignore_merges", {}, { ignore_merges: true }),
  ];
}

const PIECES = [
  ..."abcdefgstmdlrvezABCSTMDLRVEZ0123456789",
  ...".,;:!?-_/\\'\"()[]{}<>|@#$%^&*+=~`",
  ..." \t\n\r\u00a0\u2003\u3000\u0085\u2028\v\f",
  " ",
  "  ",
  "   ",
  "\r\n",
  "\n\n",
  "\n  \n",
  " \n",
  "        ",
  "the",
  " the",
  " king",
  "Once upon a time",
  "HelloWorld",
  "XMLHttp",
  "naïve",
  "café",
  "cafe\u0301",
  "Å",
  "A\u030a",
  "\u212b",
  "'s",
  "'S",
  "'t",
  "'re",
  "'RE",
  "'Ve",
  "'ll",
  "'lL",
  "'d",
  "'M",
  "don't",
  "WE'LL",
  "''s",
  "' s",
  ..."éßñøÆŒǅǈʰªºαβΣςжЩѢЖאבגعربيहिन्दीไทยกำ한국어中文字日本語ひらがなカタカナ",
  ..."½¾²³ⅫⅣ٣४三〇①𝟘",
  ..."👍😀🏽❤️👩‍👩‍👧🇩🇪🇫\u200d\ufe0f",
  ..."\u0300\u0301\u0323\u0308\u0345\u0334\u093c\u094d\u05b0\u20dd\u1ab0\u302a",
  ..."\u1100\u1161\u11a8가각\u0958\ufb2c\u0344\u0f73\u1d160\uf900\u2126",
  ..."\u0000\u0001\u007f\u00ad\u200b\u200e\ufeff\ufffd\ue000\uffff\u{10ffff}\u{e0100}\u{20000}\u{1f468}",
  "\ud800",
  "\udc00",
  "\udbff\ud800",
  "12345",
  "3.14",
  "1,000",
  "<|endoftext|>",
  "<|im_start|>",
  "<|im_end|>",
  "<|begin|>",
  "<|end|>",
  "<|end",
  "<mask>",
  " <mask>",
  "<gap>",
  "<gap>  ",
  "[tool]",
  "[tool] use",
  " [tool] use ",
  "café!",
  "cafe\u0301!",
];

/** Text of a few dozen random pieces; now and then one piece over and over. */
export function randomText(random: Random): string {
  let text = "";
  for (let left = random.int(24) + 1; left > 0; left--) {
    const kind = random.int(20);
    if (kind === 0) text += random.pick(PIECES).repeat(random.int(12));
    else if (kind === 1) text += randomCharacter(random);
    else text += random.pick(PIECES);
  }
  return text;
}

/** An assigned code point, but not U+017F, on whose folding the JavaScript library differs from the original. */
function randomCharacter(random: Random): string {
  const character = String.fromCodePoint(random.int(3) ? random.int(0x3000) : random.int(0x110000));
  return character === "ſ" || /\p{Cn}/u.test(character) ? "x" : character;
}

/** Texts on which an implementation may well go wrong. */
export const TEXTS: readonly string[] = [
  "",
  " ",
  "Once upon a time there was a king who had",
  "She said, \"I'm sure they'll've gone; WE'RE late, it'S his'n.\" 'twas 'll' '",
  "tabs\tand\t\tmore \t x\n\n\n  indented\r\n\r\n\twindows   \n  \n end  ",
  "   leading and trailing   ",
  "\n",
  " \n \n x",
  "a\u0085b\u00a0c\u2003\u3000d\ufeffe\u200bf",
  "1234567890 12 3.14159 1,000,000 ½ Ⅻ ٣٤٥ 三 ①②③ a1b22c333d4444",
  "HelloWorld XMLHttpRequest camelCase ALLCAPS a_B aB中A文B ǅabc ʰA",
  "Привет, МИР! Ελληνικά ΣΊΣΥΦΟΣ עִבְרִית עברית العربيّة हिन्दी ภาษาไทย 한국어 中文 日本語",
  "e\u0301 A\u030a\u0301 q\u0323\u0307 q\u0307\u0323 \u1100\u1161\u11a8 \u212b \u0344 \ufb2c \u0958 \u0301\u0323x",
  "👍🏽👩‍👩‍👧‍👦🇩🇪 ❤️ \u{e0100} \u0000\u0001\ufffd",
  "Ma'ſt 'ſ 'ſt",
  "https://example.org/a/b?c=d#e // ///\n//\r\n path\\to\\x {}[]()<>|",
  "<|begin|>text<|end|> <|end <|begin|><|begin|>|>",
  "a  <mask>  b <mask><mask>\n<mask> <gap>  c<gap>\n\n<gap>",
  "use [tool] use  [tool] use[tool]  [tool] useful \n[tool]\n",
  "cafe\u0301! café! cafe\u0301 café!!",
];
