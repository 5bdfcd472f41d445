// The tokenizer against the original's ids, against its JavaScript port on random text, and against hostile input.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { Tokenizer } from "@huggingface/tokenizers";
import { STATUS_ARGUMENT, STATUS_OK, STATUS_STATE, STATUS_TEXT, STATUS_TOKEN, STATUS_TRUNCATED } from "../assembly/abi";
import { PATTERN_MAX, TOKENIZER_FIELDS_BYTES } from "../packs/format";
import { compileTokenizer, PATTERNS } from "../packs/tokenizer";
import { loadTestModule, type ModuleKind, type TestModule } from "./harness";
import { type random, withRandom } from "./random";
import { fixture, randomText, split, TEXTS, type TokenizerJson, variants } from "./tokenizer-cases";
import { classOf, unicodeTables } from "./unicode-tables.gen";

const TALE = "../shared/models/tale-llama";
const VALID = "../shared/text/valid.txt";
const skipTale = existsSync(TALE) ? false : `${TALE} is absent`;
const TEXT_BYTES = 1 << 16;
const PIECE_BYTES_MIN = 1024;

const utf8 = (text: string) => new TextEncoder().encode(text);
const wellFormed = (text: string) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(utf8(text));
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

interface Options {
  special?: boolean;
  /** Bytes of the pieces that the text is handed over in, once each; the whole text if absent. */
  piece?: () => number;
  /** Tokens that fit. */
  capacity?: number;
}

/** An open tokenizer in a test module. */
class Core {
  readonly module: TestModule;
  readonly tokens: number;

  constructor(json: TokenizerJson, kind: ModuleKind = "release", config?: unknown) {
    this.module = loadTestModule(kind);
    const { bytes, tokens } = compileTokenizer(json, config);
    this.tokens = tokens;
    assert.equal(this.module.exports.tokenizer_open(this.module.put(bytes), bytes.length, tokens), STATUS_OK);
    this.#start = this.module.reserve(0);
  }

  readonly #start: number;

  /** Ids of a text, in guarded memory of just the promised sizes. */
  encode(text: string | Uint8Array, { special = true, piece, capacity }: Options = {}): number[] {
    const { exports, memory } = this.module;
    const bytes = typeof text === "string" ? utf8(text) : text;
    const ids: number[] = [];
    let at = 0;
    let first = 1;
    do {
      this.module.reset();
      this.module.reserve(this.#start - this.module.reserve(0)); // the tokenizer stays
      const length = Math.min(piece ? piece() : bytes.length, bytes.length - at);
      const last = at + length === bytes.length;
      const room = capacity ?? length * 3 + 3;
      const input = this.module.guarded(length);
      const output = this.module.guarded(room * 4);
      const scratch = this.module.guarded(exports.tokenizer_scratch_bytes(length));
      new Uint8Array(memory.buffer).set(bytes.subarray(at, at + length), input.ptr);
      const flags = [first, Number(last), Number(special)];
      const count = exports.tokenizer_encode(input.ptr, length, ...flags, output.ptr, room, scratch.ptr);
      for (const buffer of [input, output, scratch]) buffer.check();
      assert.ok(count >= 0, `status ${count}`);
      for (const id of this.module.get(Uint32Array, output.ptr, count)) ids.push(id);
      const consumed = exports.tokenizer_consumed();
      assert.ok(consumed > 0 || length === 0, "nothing consumed");
      if (last && capacity === undefined) assert.equal(consumed, length);
      at += consumed;
      first = 0;
    } while (at < bytes.length);
    return ids;
  }

  decode(ids: number[]): string {
    const { exports, memory } = this.module;
    const view = new Uint8Array(memory.buffer);
    const bytes: number[] = [];
    for (const id of ids) {
      const ptr = exports.token_bytes_ptr(id);
      const end = ptr + exports.token_bytes_length(id);
      for (let at = ptr; at < end; at++) bytes.push(view[at]);
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }
}

/** Fails with the text, not with a thousand ids. */
function sameIds(got: number[], want: number[], text: string, name: string): void {
  if (got.length === want.length && got.every((id, i) => id === want[i])) return;
  const at = got.findIndex((id, i) => id !== want[i]);
  const near = (ids: number[]) => ids.slice(Math.max(0, at - 3), at + 5).join(" ");
  assert.fail(`${name}: ${JSON.stringify(text).slice(0, 400)}\n  at ${at}: got ${near(got)}, want ${near(want)}`);
}

/** A tokenizer for the JavaScript port, told in its own terms what the original does. */
function port(json: TokenizerJson): Tokenizer {
  const pre = json.pre_tokenizer;
  const [gpt2] = PATTERNS[0];
  const isolate = (regex: string) => ({
    type: "Split",
    pattern: { Regex: regex },
    behavior: "Isolated",
    invert: false,
  });
  let steps = pre;
  if (pre.type === "ByteLevel" && !pre.add_prefix_space) steps = split(gpt2); // its own \s is not White_Space
  if (pre.pretokenizers?.[0].type === "Digits") {
    const number = isolate(pre.pretokenizers[0].individual_digits ? "\\p{N}" : "\\p{N}+"); // its Digits are ASCII
    steps = { type: "Sequence", pretokenizers: [number, ...split(gpt2).pretokenizers] };
  }
  return new Tokenizer({ post_processor: null, ...json, pre_tokenizer: steps }, {});
}

/** Without the two characters on which JavaScript's white space, which the port trims by, differs. */
const plainSpaces = (text: string) => text.replaceAll(/[\u0085\ufeff]/g, "\u00a0");

describe("the original's ids", () => {
  const golden = readJson("test/fixtures/tokenizer-golden.json").variants;
  for (const kind of ["debug", "release"] as const)
    for (const { name, json } of variants())
      test(`${name} (${kind})`, () => {
        const core = new Core(json, kind);
        for (const [i, text] of TEXTS.entries()) {
          const [ids, plain] = Array.isArray(golden[name][i][0]) ? golden[name][i] : [golden[name][i], golden[name][i]];
          sameIds(core.encode(text), ids, text, name);
          sameIds(core.encode(text, { special: false }), plain, text, `${name}, no special tokens`);
        }
      });
});

describe("the JavaScript port's ids", () => {
  for (const { name, json } of variants())
    test(`${name}: 400 random texts`, () =>
      withRandom(31, (seeded) => {
        const core = new Core(json);
        const tokenizer = port(json);
        for (let i = 0; i < 400; i++) {
          const text = plainSpaces(randomText(seeded));
          sameIds(core.encode(text), tokenizer.encode(text, { add_special_tokens: false }).ids, text, name);
        }
      }));

  test("tale-llama: 20000 random texts", { skip: skipTale }, () =>
    withRandom(32, (seeded) => {
      const json = readJson(`${TALE}/tokenizer.json`);
      const core = new Core(json);
      const tokenizer = port(json);
      for (let i = 0; i < 20000; i++) {
        const text = randomText(seeded);
        sameIds(core.encode(text), tokenizer.encode(text).ids, text, "tale-llama");
      }
    }),
  );

  test("tale-llama: valid.txt and the golden prompts", { skip: skipTale }, () => {
    const json = readJson(`${TALE}/tokenizer.json`);
    const core = new Core(json, "release", readJson(`${TALE}/tokenizer_config.json`));
    const text = readFileSync(VALID, "utf8").replaceAll("'ſ", "ſ"); // see U+017F in tokenizer-cases.ts
    const ids = port(json).encode(text).ids;
    sameIds(core.encode(text), ids, text, "valid.txt");
    sameIds(core.encode(text, { piece: () => 4096 }), ids, text, "valid.txt in pieces");
    assert.equal(core.decode(ids), text);
    for (const { prompt, ids: want } of readJson(`${TALE}/golden.json`).cases)
      sameIds(core.encode(prompt), want, prompt, "");
  });
});

describe("pieces of text", () => {
  for (const { name, json } of variants())
    test(`${name}: in pieces as at once`, () =>
      withRandom(33, (seeded) => {
        const core = new Core(json);
        for (let round = 0; round < 6; round++) {
          let text = "";
          while (text.length < 12000) text += randomText(seeded);
          if (round > 3) text = text.replaceAll(/[<[!]/g, ""); // no added token in it
          const whole = core.encode(text);
          for (const most of [PIECE_BYTES_MIN, 1500, 4000]) {
            const piece = () => PIECE_BYTES_MIN + seeded.int(most - PIECE_BYTES_MIN + 1);
            sameIds(core.encode(text, { piece }), whole, text, `${name}, pieces up to ${most}`);
          }
        }
      }));

  test("a pre-token longer than a piece is cut between characters", () => {
    const core = new Core(fixture());
    const [nfc] = variants().filter((variant) => variant.name === "NFC");
    for (const unit of ["a", "é", "👍", " ", "\n", "文", "0"]) {
      const text = unit.repeat(5000);
      assert.equal(core.decode(core.encode(text, { piece: () => 1024 })), text);
    }
    const marks = `e${"\u0301\u0323".repeat(4000)}`;
    assert.match(
      new Core(nfc.json).decode(new Core(nfc.json).encode(marks, { piece: () => 1024 })),
      /^[ẹé][\u0301\u0323]*/u,
    );
    for (const unit of ["<mask>", "<gap>", "[tool] use"]) {
      for (const text of [`x${unit}${" ".repeat(4000)}x`, `x${" ".repeat(4000)}${unit}x`]) {
        assert.equal(core.encode(text, { piece: () => 1024 }).filter((id) => core.decode([id]) === unit).length, 1);
      }
    }
  });

  test("tokens that do not fit leave a rest; the first pre-token must fit", () => {
    const core = new Core(fixture());
    const text = TEXTS.slice(0, 12).join("");
    sameIds(core.encode(text, { capacity: 64 }), core.encode(text), text, "capacity 64");
    assert.throws(() => core.encode(text, { capacity: 0 }), new RegExp(`status ${STATUS_ARGUMENT}`));
  });
});

describe("bytes", () => {
  test("decoding gives the text back", () =>
    withRandom(34, (seeded) => {
      for (const { name, json } of variants().filter((variant) => !/prefix|NFC/.test(variant.name))) {
        const core = new Core({
          ...json,
          added_tokens: json.added_tokens.filter((token: TokenizerJson) => !token.rstrip),
        });
        for (let i = 0; i < 200; i++) {
          const text = wellFormed(plainSpaces(randomText(seeded))).replaceAll(/\s+<mask>/gu, "<mask>");
          assert.equal(core.decode(core.encode(text)), text, name);
          assert.equal(core.decode(core.encode(text, { special: false })), text, name);
        }
      }
    }));

  test("invalid UTF-8 is read as a TextDecoder reads it", () =>
    withRandom(35, (seeded) => {
      const heads = [
        0xc0, 0xc2, 0xdf, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff, 0x80, 0x90, 0xa0, 0xbf, 0x41, 0x20,
      ];
      const core = new Core(fixture());
      for (let i = 0; i < 3000; i++) {
        const bytes = Uint8Array.from({ length: seeded.int(40) }, () =>
          seeded.int(4) ? seeded.pick(heads) : seeded.int(256),
        );
        const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
        sameIds(core.encode(bytes), core.encode(text), text, `bytes ${bytes}`);
      }
    }));

  test("a token has its bytes, an id without a token none", () => {
    const json = fixture();
    const last = json.added_tokens.at(-1);
    last.id += 40; // leaves a hole
    const core = new Core(json);
    const { exports } = core.module;
    assert.equal(core.tokens, last.id + 1);
    assert.equal(core.decode([last.id]), "café!");
    assert.equal(core.decode(["Ġthe", "Ċ"].map((name) => json.model.vocab[name])), " the\n");
    for (const id of [last.id - 1, last.id + 1, 0xffffffff]) {
      assert.equal(exports.token_bytes_length(id), 0);
      assert.equal(exports.token_special(id), 0);
    }
    const special = json.added_tokens.filter((token: TokenizerJson) => exports.token_special(token.id) === 1);
    assert.deepEqual(
      special.map((token: TokenizerJson) => token.content),
      ["<|begin|>", "<|end|>", "<mask>"],
    );
    sameIds(core.encode("café!"), [last.id], "café!", "hole");
  });
});

describe("Unicode", () => {
  const { exports } = loadTestModule();
  const here = Math.round(Number(process.versions.unicode) * 100);
  const version = exports.UNICODE_VERSION.value;
  if (here !== version)
    console.log(`Unicode ${here / 100} here, ${version / 100} in the tables: comparing what both know`);

  test("the checked-in classes are those of \\p{…}", () => {
    const classes = [0, 1, 2, 3, 4, 5, 6, 7].map((number) => 1 << (21 + number));
    for (let point = 0; point <= 0x10ffff; point = point === 0xd7ff ? 0xe000 : point + 1) {
      const got = classes.indexOf(exports.unicode_class(point));
      if (point === 47 || got === classOf(point)) continue;
      const unknown = here < version ? /\p{Cn}/u.test(String.fromCodePoint(point)) : here > version && got === 0;
      assert.ok(unknown, `U+${point.toString(16)}: class ${got}, \\p says ${classOf(point)}`);
    }
  });

  test("the checked-in tables are what the generator writes", { skip: here !== version && "another Unicode" }, () => {
    const source = readFileSync("assembly/unicode-tables.ts", "utf8");
    for (const [key, values] of Object.entries(unicodeTables())) {
      const name = key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
      const data = new RegExp(`const ${name}: usize = memory\\.data<u\\d+>\\(\\[([^\\]]*)\\]`).exec(source)?.[1] ?? "";
      assert.deepEqual(data.split(",").slice(0, -1).map(Number), values, name);
    }
  });

  test("every code point and random sequences are normalized as normalize() does", () =>
    withRandom(36, (seeded) => {
      const [nfc] = variants().filter((variant) => variant.name === "NFC");
      const core = new Core({ ...nfc.json, added_tokens: [] });
      const marks: string[] = [];
      const mixing: string[] = [];
      let text = "";
      for (let point = 0; point <= 0x10ffff; point = point === 0xd7ff ? 0xe000 : point + 1) {
        const character = String.fromCodePoint(point);
        if (here !== version && /\p{Cn}/u.test(character)) continue;
        if (/\p{M}/u.test(character)) marks.push(character);
        if (character.normalize("NFC") !== character || character.normalize("NFD") !== character)
          mixing.push(character);
        text += /\p{M}/u.test(character) ? `a${character}${character}` : character;
      }
      mixing.push(..."aeqסक한\u1100\u1161\u11a8가");
      for (let i = 0; i < 60000; i++) {
        if (seeded.int(4) === 0) text += seeded.pick(mixing);
        else for (let length = seeded.int(seeded.int(50) ? 5 : 90); length >= 0; length--) text += seeded.pick(marks);
      }
      const bytes = utf8(text);
      const piece = () => TEXT_BYTES;
      const got = core.decode(core.encode(bytes, { piece }));
      const want = text.normalize("NFC");
      if (got === want) return;
      let at = 0;
      while (got[at] === want[at]) at++;
      const near = (value: string) =>
        Array.from(value.slice(at - 8, at + 8), (c) => c.codePointAt(0)?.toString(16)).join(" ");
      assert.fail(`at ${at}: got ${near(got)}, want ${near(want)}`);
    }));
});

describe("hostile input", () => {
  const long = [
    ["one letter", "a"],
    ["capitals", "A"],
    ["capitals after another letter", "中AAAAAAAA"],
    ["a mark before each capital", "\u0301AAAA"],
    ["spaces", " "],
    ["newlines among spaces", "\n                               "],
    ["apostrophes", "'"],
    ["digits", "1"],
    ["marks in the wrong order", "\u0301\u0323"],
    ["beginnings of special tokens", "<|begin|"],
    ["special tokens", "<|begin|>"],
    ["beginnings of added tokens", "[tool] us"],
    ["invalid bytes", "\ufffd"],
  ];
  for (const { name, json } of variants())
    test(`${name}: 64 KB of the same, in sane time`, () => {
      const core = new Core(json);
      const started = performance.now();
      for (const [what, unit] of long) {
        const text = unit.repeat(TEXT_BYTES / utf8(unit).length);
        assert.ok(core.encode(text).length > 0, what);
      }
      assert.ok(performance.now() - started < 20000, "a machine a hundred times slower would manage");
    });

  test("10000 damaged tensors are refused or harmless", () =>
    withRandom(37, (seeded) => {
      const sources = ["ignore_merges", "NFC, tekken", "prefix space"].map((name) => {
        const json = variants().find((variant) => variant.name === name)?.json;
        return compileTokenizer(json, undefined);
      });
      const text = utf8(TEXTS.join(""));
      const { exports, memory } = loadTestModule("debug");
      const textPtr = 33 << 20;
      const outPtr = 34 << 20;
      const scratchPtr = 35 << 20;
      let opened = 0;
      for (let i = 0; i < 10000; i++) {
        const { bytes: source, tokens } = seeded.pick(sources);
        let bytes = source.slice();
        const view = new DataView(bytes.buffer);
        for (let changes = seeded.int(3) + 1; changes > 0; changes--) damage(seeded, view, seeded.int(6) === 0);
        if (seeded.int(10) === 0) bytes = bytes.subarray(0, seeded.int(bytes.length));
        const end = memory.buffer.byteLength; // the tensor ends where memory does: reading on traps
        const ptr = end - bytes.length;
        new Uint8Array(memory.buffer).set(bytes, ptr);
        const status = exports.tokenizer_open(ptr, bytes.length, tokens);
        assert.ok(status <= STATUS_OK);
        new Uint8Array(memory.buffer).set(text, textPtr);
        const flags = [1, 1, seeded.int(2)];
        const count = exports.tokenizer_encode(textPtr, text.length, ...flags, outPtr, 100000, scratchPtr);
        if (status !== STATUS_OK) {
          assert.equal(count, STATUS_STATE);
          continue;
        }
        opened++;
        assert.ok(count >= 0 && exports.tokenizer_consumed() === text.length);
        for (const id of new Uint32Array(memory.buffer, outPtr, count)) {
          assert.ok(id < tokens);
          const token = exports.token_bytes_ptr(id);
          assert.ok(token >= ptr && token + exports.token_bytes_length(id) <= end);
        }
      }
      assert.ok(opened > 500 && opened < 9500, `${opened} opened`);
    }));

  test("wrong calls are refused with their numbers", () => {
    const { module } = new Core(fixture());
    const { exports } = module;
    const detail = () => Array.from(module.get(Float64Array, exports.status_detail_ptr(), 2));
    const { bytes, tokens } = compileTokenizer(fixture(), undefined);
    const ptr = module.put(bytes);
    const scratch = module.reserve(exports.tokenizer_scratch_bytes(4096));
    const encode = (length: number, last: number) =>
      exports.tokenizer_encode(ptr, length, 1, last, 0, ptr, 99, scratch);
    assert.equal(encode(100, 0), STATUS_ARGUMENT);
    assert.deepEqual(detail(), [1, 100]);
    assert.equal(encode(1 << 30, 1), STATUS_TEXT);
    assert.equal(exports.tokenizer_scratch_bytes(1 << 30), 0);
    assert.equal(encode(0, 1), 0);
    assert.equal(exports.tokenizer_open(ptr, bytes.length, tokens - 1), STATUS_TOKEN);
    assert.deepEqual(detail(), [tokens - 1, tokens - 1]);
    assert.equal(exports.tokenizer_open(ptr, bytes.length - 1, tokens), STATUS_TRUNCATED);
    assert.deepEqual(detail(), [bytes.length, bytes.length - 1]);
    assert.equal(encode(10, 1), STATUS_STATE);
  });
});

/** Changes a byte, or a u32 to a number that is likely to hurt; near the fields rather often. */
function damage(seeded: ReturnType<typeof random>, view: DataView, nearFields: boolean): void {
  const from = seeded.int(2) ? 0 : Math.floor(view.byteLength * 0.6); // tables, or rather the text
  const at = nearFields ? seeded.int(TOKENIZER_FIELDS_BYTES) : from + seeded.int(view.byteLength - 3 - from);
  if (seeded.int(2)) view.setUint8(at, seeded.int(256));
  else {
    const near = view.getUint32(at & ~3, true) + seeded.int(5) - 2;
    const numbers = [
      0,
      1,
      near >>> 0,
      view.byteLength,
      0x7fffffff,
      0x80000000,
      0xffffffff,
      seeded.int(PATTERN_MAX + 2),
    ];
    view.setUint32(at & ~3, seeded.pick(numbers), true);
  }
}
