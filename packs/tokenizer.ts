// Compiles a hub's tokenizer.json into the tokenizer tensor that the core uses as it lies (drawn in format.ts). What it
// does not know it refuses by name: a tokenizer that is nearly right gives a model nearly right words.

import { SnugError } from "../runtime/index";
import {
  ADDED_BYTES,
  ADDED_STRIP_LEFT,
  ADDED_STRIP_RIGHT,
  ADDED_TEXT_MAX,
  MERGE_BYTES,
  NONE,
  PATTERN_GPT2,
  PATTERN_LLAMA3,
  PATTERN_O200K,
  PATTERN_QWEN2,
  PATTERN_QWEN35,
  PATTERN_TEKKEN,
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
} from "./format";

export interface CompiledTokenizer {
  /** The tokenizer tensor. */
  bytes: Uint8Array;
  /** Largest id plus one: no model with a smaller vocabulary can use it. */
  tokens: number;
  /** What goes before a prompt. */
  beginToken: number | undefined;
  /** What tokenizer_config.json calls the end of a text. */
  endToken: number | undefined;
}

/** A merge or a token may be any id below this; a hostile file cannot ask for more memory than that. */
const TOKENS_MAX = 1 << 22;

const CASED_LOWER = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+";
const CASED_UPPER = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*";
const CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** The regular expressions that tokenizer.json files split with; assembly/pre-tokenizer.ts has their steps. */
export const PATTERNS: readonly (readonly [regex: string, pattern: number])[] = [
  ["'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", PATTERN_GPT2],
  [`${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`, PATTERN_LLAMA3],
  [`${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`, PATTERN_QWEN2],
  [
    `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`,
    PATTERN_QWEN35,
  ],
  [`${CASED_LOWER}|${CASED_UPPER}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`, PATTERN_TEKKEN],
  [
    `${CASED_LOWER}${CONTRACTION}?|${CASED_UPPER}${CONTRACTION}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`,
    PATTERN_O200K,
  ],
];

interface Vocabulary {
  /** Ids of the model's own tokens, by the byte-level characters that they are written in. */
  ids: Map<string, number>;
  /** Bytes of each token, by id; undefined where no token has the id. */
  bytes: (Uint8Array | undefined)[];
}

interface AddedToken {
  id: number;
  content: string;
  flags: number;
  normalized: boolean;
  special: boolean;
}

interface Merge {
  left: number;
  right: number;
  rank: number;
  merged: number;
}

/**
 * The tokenizer tensor for the parsed tokenizer.json and tokenizer_config.json (undefined where there is none). Throws
 * "checkpoint" where the files contradict themselves and "unsupported" where they want what the core does not do.
 */
export function compileTokenizer(tokenizerJson: unknown, tokenizerConfig: unknown): CompiledTokenizer {
  const root = object(tokenizerJson, "");
  const model = object(root.model, "model");
  checkModel(model);
  checkDecoder(root.decoder);
  const nfc = readNormalizer(root.normalizer, "normalizer");
  const { pattern, flags } = readPreTokenizer(root.pre_tokenizer);
  const added = readAdded(root.added_tokens, nfc);
  const vocabulary = readVocabulary(model.vocab, added);
  const merges = readMerges(model.merges, vocabulary.ids);
  const config = tokenizerConfig === undefined ? {} : object(tokenizerConfig, "", CONFIG);
  const idOf = (content: string) => added.find((token) => token.content === content)?.id ?? vocabulary.ids.get(content);
  const wholeWords = boolean(model.ignore_merges ?? false, "model.ignore_merges");
  return {
    bytes: write(
      vocabulary,
      byteTokens(vocabulary.ids, model.unk_token ?? null),
      merges,
      added,
      wholeWords,
      pattern,
      flags | (nfc ? TOKENIZER_NFC : 0),
    ),
    tokens: vocabulary.bytes.length,
    beginToken: readBegin(root.post_processor, config, idOf),
    endToken: configToken(config, "eos_token", idOf),
  };
}

// Reading tokenizer.json

function checkModel(model: Fields): void {
  if (model.type !== undefined && model.type !== "BPE") throw unsupported("model.type", model.type, '"BPE"');
  for (const key of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if ((model[key] ?? "") !== "") throw unsupported(`model.${key}`, model[key], "null");
  }
  if (model.byte_fallback === true) throw unsupported("model.byte_fallback", true, "false: byte-level tokens");
  if ((model.dropout ?? 0) !== 0) throw unsupported("model.dropout", model.dropout, "null");
}

function checkDecoder(decoder: unknown): void {
  const type = object(decoder, "decoder").type;
  if (type !== "ByteLevel") throw unsupported("decoder.type", type, '"ByteLevel"');
}

/** Whether the text is to be put into NFC. */
function readNormalizer(value: unknown, key: string): boolean {
  if (value === null || value === undefined) return false;
  const normalizer = object(value, key);
  if (normalizer.type === "NFC") return true;
  if (normalizer.type !== "Sequence") throw unsupported(`${key}.type`, normalizer.type, '"NFC", or none');
  const parts = array(normalizer.normalizers, `${key}.normalizers`);
  return parts.map((part, i) => readNormalizer(part, `${key}.normalizers[${i}]`)).includes(true);
}

/** Splits, then ByteLevel: the split is a regular expression, or ByteLevel's own with or without Digits before it. */
function readPreTokenizer(value: unknown): { pattern: number; flags: number } {
  const root = object(value, "pre_tokenizer");
  const isSequence = root.type === "Sequence";
  const list = isSequence ? array(root.pretokenizers, "pre_tokenizer.pretokenizers") : [value];
  const keyOf = (i: number) => (isSequence ? `pre_tokenizer.pretokenizers[${i}]` : "pre_tokenizer");
  const steps = list.map((step, i) => object(step, keyOf(i)));
  const last = steps.length - 1;
  if (last < 0 || steps[last].type !== "ByteLevel") {
    throw unsupported(`${keyOf(Math.max(0, last))}.type`, steps[last]?.type, '"ByteLevel" as the last step');
  }
  if (last > 1)
    throw unsupported(
      "pre_tokenizer.pretokenizers",
      steps.map((step) => step.type),
      "at most two steps",
    );
  const ownRegex = boolean(steps[last].use_regex ?? true, `${keyOf(last)}.use_regex`);
  const prefixSpace = boolean(steps[last].add_prefix_space, `${keyOf(last)}.add_prefix_space`);
  if (last === 0) {
    if (!ownRegex) throw unsupported(`${keyOf(0)}.use_regex`, false, "true, or a Split before it");
    return { pattern: PATTERN_GPT2, flags: prefixSpace ? TOKENIZER_PREFIX_SPACE : 0 };
  }
  if (prefixSpace) throw unsupported(`${keyOf(1)}.add_prefix_space`, true, "false after another step");
  if (steps[0].type === "Digits") {
    if (!ownRegex) throw unsupported(`${keyOf(1)}.use_regex`, false, "true after Digits");
    const each = boolean(steps[0].individual_digits ?? false, `${keyOf(0)}.individual_digits`);
    return { pattern: PATTERN_GPT2, flags: each ? TOKENIZER_DIGITS : TOKENIZER_DIGIT_RUNS };
  }
  if (steps[0].type !== "Split") throw unsupported(`${keyOf(0)}.type`, steps[0].type, '"Split" or "Digits"');
  if (ownRegex) throw unsupported(`${keyOf(1)}.use_regex`, true, "false after Split");
  return { pattern: readSplit(steps[0], keyOf(0)), flags: 0 };
}

function readSplit(split: Fields, key: string): number {
  // Every pattern matches every character, so to isolate what matches is to remove what does not.
  const invert = boolean(split.invert ?? false, `${key}.invert`);
  const behavior = invert ? "Removed" : "Isolated";
  if (split.behavior !== behavior) throw unsupported(`${key}.behavior`, split.behavior, `"${behavior}"`);
  const regex = object(split.pattern, `${key}.pattern`).Regex;
  // Some files have the line breaks themselves in it.
  const escaped = typeof regex === "string" ? regex.replaceAll("\r", "\\r").replaceAll("\n", "\\n") : undefined;
  const known = PATTERNS.find(([source]) => source === escaped);
  if (!known) throw unsupported(`${key}.pattern`, regex ?? split.pattern, "a regular expression that snug knows");
  return known[1];
}

function readAdded(value: unknown, nfc: boolean): AddedToken[] {
  const ids = new Set<number>();
  const contents = new Set<string>();
  return array(value ?? [], "added_tokens").map((item, i) => {
    const key = `added_tokens[${i}]`;
    const fields = object(item, key);
    const content = string(fields.content, `${key}.content`);
    const id = tokenId(fields.id, `${key}.id`);
    const flag = (name: string) => boolean(fields[name] ?? false, `${key}.${name}`);
    const special = flag("special");
    const normalized = boolean(fields.normalized ?? !special, `${key}.normalized`);
    const length = encode(content).length;
    if (length === 0 || length > ADDED_TEXT_MAX) {
      throw unsupported(`${key}.content`, content, `1 to ${ADDED_TEXT_MAX} bytes of UTF-8`);
    }
    if (flag("single_word")) throw unsupported(`${key}.single_word`, true, `false ("${content}")`);
    if (normalized && nfc && content.normalize("NFC") !== content) {
      throw unsupported(`${key}.content`, content, "text in NFC, for it is matched in normalized text");
    }
    if (ids.has(id)) throw contradiction(`${key}.id`, id, "an id that no other added token has");
    if (contents.has(content)) throw contradiction(`${key}.content`, content, "text that no other added token has");
    ids.add(id);
    contents.add(content);
    const flags = (flag("lstrip") ? ADDED_STRIP_LEFT : 0) | (flag("rstrip") ? ADDED_STRIP_RIGHT : 0);
    return { id, content, flags, normalized, special };
  });
}

function readVocabulary(value: unknown, added: AddedToken[]): Vocabulary {
  const ids = new Map<string, number>();
  const names = new Map<number, string>();
  for (const [token, id] of Object.entries(object(value, "model.vocab"))) {
    const key = `model.vocab[${JSON.stringify(token)}]`;
    const number = tokenId(id, key);
    const other = names.get(number);
    if (other !== undefined) throw contradiction(key, number, `an id of its own, not that of ${JSON.stringify(other)}`);
    ids.set(token, number);
    names.set(number, token);
  }
  const bytes: (Uint8Array | undefined)[] = [];
  for (const [id, token] of names) bytes[id] = tokenBytes(token);
  for (const { id, content } of added) {
    const name = names.get(id);
    if (name !== undefined && name !== content) {
      throw contradiction("added_tokens", content, `an id of its own, not ${id}, that of ${JSON.stringify(name)}`);
    }
    const own = ids.get(content);
    if (own !== undefined && own !== id)
      throw contradiction("added_tokens", content, `the id ${own}, as in model.vocab`);
    bytes[id] = encode(content);
  }
  return { ids, bytes };
}

/** Merges by (left, right); of two for the same pair the later counts, as everywhere. */
function readMerges(value: unknown, ids: Map<string, number>): Merge[] {
  const merges = new Map<number, Merge>();
  for (const [rank, item] of array(value, "model.merges").entries()) {
    const key = `model.merges[${rank}]`;
    const pair = typeof item === "string" ? item.split(" ") : array(item, key);
    if (pair.length !== 2) throw contradiction(key, item, "two tokens");
    const [leftName, rightName] = pair.map((part, i) => string(part, `${key}[${i}]`));
    const [left, right, merged] = [leftName, rightName, leftName + rightName].map((name) => {
      const id = ids.get(name);
      if (id === undefined)
        throw contradiction(key, item, `tokens of model.vocab; ${JSON.stringify(name)} is not there`);
      return id;
    });
    merges.set(left * TOKENS_MAX + right, { left, right, rank, merged });
  }
  return [...merges.values()].sort((a, b) => a.left - b.left || a.right - b.right);
}

/** The token before a prompt: the template's first, else tokenizer_config.json's if it says that it is added. */
function readBegin(post: unknown, config: Fields, idOf: (content: string) => number | undefined): number | undefined {
  const template = findTemplate(post, "post_processor");
  if (!template) return config.add_bos_token === true ? configToken(config, "bos_token", idOf) : undefined;
  const { fields, key } = template;
  const steps = array(fields.single, `${key}.single`).map((step, i) => object(step, `${key}.single[${i}]`));
  const names = steps.map((step, i) => {
    if (step.SpecialToken === undefined) return undefined;
    return string(
      object(step.SpecialToken, `${key}.single[${i}].SpecialToken`).id,
      `${key}.single[${i}].SpecialToken.id`,
    );
  });
  const begins = names[0] === undefined ? 0 : 1;
  if (steps.length !== begins + 1 || names[begins] !== undefined) {
    throw unsupported(`${key}.single`, fields.single, "the text, with at most one token before it");
  }
  if (begins === 0) return undefined;
  const tokens = object(fields.special_tokens, `${key}.special_tokens`);
  const token = object(tokens[names[0] as string], `${key}.special_tokens.${names[0]}`);
  const tokenIds = array(token.ids, `${key}.special_tokens.${names[0]}.ids`);
  if (tokenIds.length !== 1) throw unsupported(`${key}.special_tokens.${names[0]}.ids`, tokenIds, "one id");
  return tokenId(tokenIds[0], `${key}.special_tokens.${names[0]}.ids[0]`);
}

function findTemplate(value: unknown, key: string): { fields: Fields; key: string } | undefined {
  if (value === null || value === undefined) return undefined;
  const fields = object(value, key);
  if (fields.type === "TemplateProcessing") return { fields, key };
  if (fields.type === "ByteLevel") return undefined; // moves offsets, not tokens
  if (fields.type !== "Sequence")
    throw unsupported(`${key}.type`, fields.type, '"TemplateProcessing", "ByteLevel" or none');
  const found = array(fields.processors, `${key}.processors`).map((part, i) =>
    findTemplate(part, `${key}.processors[${i}]`),
  );
  const templates = found.filter((part) => part !== undefined);
  if (templates.length > 1) throw unsupported(`${key}.processors`, `${templates.length} templates`, "one");
  return templates[0];
}

/** Id of a token that tokenizer_config.json names, as text or as an object with its content. */
function configToken(config: Fields, name: string, idOf: (content: string) => number | undefined): number | undefined {
  const value = config[name];
  if (value === null || value === undefined) return undefined;
  const content =
    typeof value === "string" ? value : string(object(value, name, CONFIG).content, `${name}.content`, CONFIG);
  const id = idOf(content);
  if (id === undefined) throw contradiction(name, content, "a token of tokenizer.json", CONFIG);
  return id;
}

// Bytes

const encode = (text: string) => new TextEncoder().encode(text);

/** Byte-level text writes each byte as one printable character: itself, or one from U+0100 on. */
const BYTE_OF_CHARACTER = new Map(
  Array.from({ length: 256 }, (_, byte) => byte)
    .map((byte) => ({ byte, shown: (byte > 32 && byte < 127) || (byte > 160 && byte !== 173) }))
    .sort((a, b) => Number(b.shown) - Number(a.shown) || a.byte - b.byte)
    .map(({ byte, shown }, i) => [String.fromCharCode(shown ? byte : 256 + i - 188), byte] as const),
);

/** Bytes of a token written in byte-level text; one that is not is plain text. */
function tokenBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => BYTE_OF_CHARACTER.get(character));
  return bytes.includes(undefined) ? encode(token) : Uint8Array.from(bytes as number[]);
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

/** Lays the sections out in the order that format.ts draws. */
function write(
  vocabulary: Vocabulary,
  ofBytes: readonly number[],
  merges: Merge[],
  added: AddedToken[],
  wholeWords: boolean,
  pattern: number,
  flags: number,
): Uint8Array {
  const tokens = vocabulary.bytes.length;
  const bytesOf = (id: number) => vocabulary.bytes[id] as Uint8Array;
  const byBytes = (a: { id: number }, b: { id: number }) => compareBytes(bytesOf(a.id), bytesOf(b.id));
  const lists = [false, true].map((normal) => added.filter((token) => token.normalized === normal).sort(byBytes));
  const specials = new Set(added.filter((token) => token.special).map((token) => token.id));
  const whole = wholeWords ? wholeTokens(vocabulary, specials).sort(byBytes) : [];
  const textBytes = vocabulary.bytes.reduce((sum, bytes) => sum + (bytes?.length ?? 0), 0);
  const words = 256 + 2 * (tokens + 1) + Math.ceil(tokens / 32) + whole.length + 2 * 257;
  const sections = TOKENIZER_FIELDS_BYTES + words * 4 + merges.length * MERGE_BYTES + added.length * ADDED_BYTES;
  const bytes = new Uint8Array(sections + textBytes);
  const view = new DataView(bytes.buffer);
  const field = (offset: number, value: number) => view.setUint32(offset, value, true);
  field(TOKENIZER_TOKENS, tokens);
  field(TOKENIZER_MERGES, merges.length);
  field(TOKENIZER_WHOLE, whole.length);
  field(TOKENIZER_ADDED_RAW, lists[0].length);
  field(TOKENIZER_ADDED_NORMAL, lists[1].length);
  field(TOKENIZER_TEXT_BYTES, textBytes);
  field(TOKENIZER_PATTERN, pattern);
  field(TOKENIZER_FLAGS, flags);

  let at = TOKENIZER_FIELDS_BYTES;
  const put = (...values: number[]) => {
    for (const value of values) {
      field(at, value);
      at += 4;
    }
  };
  put(...ofBytes);
  let text = 0;
  for (let id = 0; id < tokens; id++) {
    put(text);
    bytes.set(vocabulary.bytes[id] ?? [], sections + text);
    text += vocabulary.bytes[id]?.length ?? 0;
  }
  put(text);
  for (let id = 0; id < tokens; id += 32) {
    let bits = 0;
    for (let i = 0; i < 32; i++) if (specials.has(id + i)) bits |= 1 << i;
    put(bits >>> 0);
  }
  let merge = 0;
  for (let id = 0; id <= tokens; id++) {
    put(merge);
    while (merge < merges.length && merges[merge].left === id) merge++;
  }
  for (const { right, rank, merged } of merges) put(right, rank, merged);
  for (const { id } of whole) put(id);
  for (const list of lists) {
    for (let byte = 0; byte <= 256; byte++) put(list.filter(({ id }) => bytesOf(id)[0] < byte).length);
  }
  for (const list of lists) for (const { id, flags: strips } of list) put(id, strips);
  return bytes;
}

/** The token of each byte, NONE for those that have none: they are left out of the text, unless `unknown` stands for them. */
function byteTokens(ids: Map<string, number>, unknown: unknown): number[] {
  const tokens = new Array<number>(256).fill(NONE);
  for (const [character, byte] of BYTE_OF_CHARACTER) {
    const id = ids.get(character);
    const inText = byte !== 0xc0 && byte !== 0xc1 && byte < 0xf5; // UTF-8 never uses the others
    if (id !== undefined) tokens[byte] = id;
    else if (inText && unknown !== null)
      throw new SnugError(
        "unsupported",
        `${FILE}: model.vocab has no token for byte ${byte} (${JSON.stringify(character)}), and model.unk_token is ` +
          `${shown(unknown)}; this version needs a token for each byte, or no unk_token`,
      );
  }
  if (tokens.every((id) => id === NONE))
    throw new SnugError(
      "unsupported",
      `${FILE}: model.vocab has no token for any byte; this version needs byte-level BPE`,
    );
  return tokens;
}

/** Tokens that a pre-token can be as a whole: those whose bytes are what byte-level text says; special ones are no text. */
function wholeTokens({ ids, bytes }: Vocabulary, specials: Set<number>): { id: number }[] {
  return Array.from(ids, ([name, id]) => ({ name, id })).filter(({ name, id }) => {
    const isByteLevel = name !== "" && Array.from(name).every((character) => BYTE_OF_CHARACTER.has(character));
    return isByteLevel && !specials.has(id) && compareBytes(tokenBytes(name), bytes[id] as Uint8Array) === 0;
  });
}

// Checking

type Fields = Record<string, unknown>;

const FILE = "tokenizer.json";
const CONFIG = "tokenizer_config.json";
const SHOWN_MAX = 300;

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text;
}

function unsupported(key: string, value: unknown, expected: string): SnugError {
  return new SnugError("unsupported", `${FILE}: ${key} is ${shown(value)}; this version needs ${expected}`);
}

function contradiction(key: string, value: unknown, expected: string, file = FILE): SnugError {
  return new SnugError("checkpoint", `${file}: ${key || "the file"} is ${shown(value)}, expected ${expected}`);
}

function object(value: unknown, key: string, file = FILE): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw contradiction(key, value, "an object", file);
  }
  return value as Fields;
}

function array(value: unknown, key: string): unknown[] {
  if (!Array.isArray(value)) throw contradiction(key, value, "an array");
  return value;
}

function string(value: unknown, key: string, file = FILE): string {
  if (typeof value !== "string") throw contradiction(key, value, "a string", file);
  return value;
}

function boolean(value: unknown, key: string): boolean {
  if (typeof value !== "boolean") throw contradiction(key, value, "true or false");
  return value;
}

function tokenId(value: unknown, key: string): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value >= TOKENS_MAX) {
    throw contradiction(key, value, `an id from 0 to ${TOKENS_MAX - 1}`);
  }
  return value;
}
