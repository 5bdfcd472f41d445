// What packs/tokenizer.ts refuses, by name, and what it reads of the settings beside vocabulary and merges.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { compileTokenizer } from "../packs/tokenizer";
import { SnugError } from "../runtime/errors";
import { fixture, split, type TokenizerJson } from "./tokenizer-cases";

describe("compileTokenizer", () => {
  const changed = (change: (json: TokenizerJson) => void): TokenizerJson => {
    const json = fixture();
    change(json);
    return json;
  };
  const refusals: [code: string, message: RegExp, change: (json: TokenizerJson) => void][] = [
    ["unsupported", /model\.type is "WordPiece"/, (json) => (json.model.type = "WordPiece")],
    ["unsupported", /model\.byte_fallback is true/, (json) => (json.model.byte_fallback = true)],
    ["unsupported", /model\.end_of_word_suffix is "<\/w>"/, (json) => (json.model.end_of_word_suffix = "</w>")],
    ["unsupported", /model\.dropout is 0\.1/, (json) => (json.model.dropout = 0.1)],
    ["checkpoint", /model\.ignore_merges is "yes"/, (json) => (json.model.ignore_merges = "yes")],
    ["checkpoint", /model\.vocab is undefined/, (json) => delete json.model.vocab],
    ["checkpoint", /model\.vocab\["a"\] is -1/, (json) => (json.model.vocab.a = -1)],
    ["checkpoint", /model\.vocab\["a"\] is 1\.5/, (json) => (json.model.vocab.a = 1.5)],
    ["checkpoint", /model\.vocab\["a"\] is 1e\+30/, (json) => (json.model.vocab.a = 1e30)],
    [
      "checkpoint",
      /model\.vocab\["b"\] is 64, expected an id of its own, not that of "a"/,
      (json) => {
        json.model.vocab.a = 64;
        json.model.vocab.b = 64;
      },
    ],
    [
      "unsupported",
      /no token for byte 97 \("a"\)/,
      (json) => {
        delete json.model.vocab.a;
        json.model.merges = [];
        json.model.unk_token = "<unk>";
      },
    ],
    [
      "unsupported",
      /no token for any byte/,
      (json) => {
        json.model.vocab = { word: 0 };
        json.model.merges = [];
        json.added_tokens = [];
      },
    ],
    ["checkpoint", /model\.merges\[0\] is "a b c"/, (json) => (json.model.merges[0] = "a b c")],
    [
      "checkpoint",
      /model\.merges\[0\] is \["q","zz"\].*"zz" is not there/,
      (json) => (json.model.merges[0] = ["q", "zz"]),
    ],
    ["checkpoint", /model\.merges is null/, (json) => (json.model.merges = null)],
    ["unsupported", /decoder\.type is "Metaspace"/, (json) => (json.decoder.type = "Metaspace")],
    ["unsupported", /normalizer\.type is "NFKC"/, (json) => (json.normalizer = { type: "NFKC" })],
    [
      "unsupported",
      /normalizer\.normalizers\[0\]\.type is "Lowercase"/,
      (json) => {
        json.normalizer = { type: "Sequence", normalizers: [{ type: "Lowercase" }] };
      },
    ],
    ["unsupported", /pre_tokenizer\.type is "Metaspace"/, (json) => (json.pre_tokenizer = { type: "Metaspace" })],
    ["unsupported", /pattern is "\\\\w\+\|x"/, (json) => (json.pre_tokenizer = split("\\w+|x"))],
    [
      "unsupported",
      /behavior is "MergedWithNext"/,
      (json) => {
        json.pre_tokenizer.pretokenizers[0].behavior = "MergedWithNext";
      },
    ],
    [
      "unsupported",
      /pretokenizers\[1\]\.use_regex is true/,
      (json) => (json.pre_tokenizer.pretokenizers[1].use_regex = true),
    ],
    [
      "unsupported",
      /pretokenizers\[1\]\.add_prefix_space is true/,
      (json) => {
        json.pre_tokenizer.pretokenizers[1].add_prefix_space = true;
      },
    ],
    [
      "unsupported",
      /pre_tokenizer\.pretokenizers is \["Split","Split","ByteLevel"\]/,
      (json) => {
        json.pre_tokenizer.pretokenizers.unshift(json.pre_tokenizer.pretokenizers[0]);
      },
    ],
    ["unsupported", /added_tokens\[0\]\.single_word is true/, (json) => (json.added_tokens[0].single_word = true)],
    ["unsupported", /added_tokens\[0\]\.content is ""/, (json) => (json.added_tokens[0].content = "")],
    ["unsupported", /added_tokens\[0\]\.content is "yyy/, (json) => (json.added_tokens[0].content = "y".repeat(257))],
    ["checkpoint", /added_tokens\[1\]\.id is 586/, (json) => (json.added_tokens[1].id = json.added_tokens[0].id)],
    [
      "checkpoint",
      /added_tokens\[1\]\.content is "<\|begin\|>"/,
      (json) => (json.added_tokens[1].content = "<|begin|>"),
    ],
    [
      "checkpoint",
      /added_tokens is "<mask>", expected an id of its own, not 64/,
      (json) => (json.added_tokens[2].id = 64),
    ],
    ["checkpoint", /added_tokens is "a", expected the id 64/, (json) => (json.added_tokens[2].content = "a")],
    [
      "unsupported",
      /post_processor\.type is "BertProcessing"/,
      (json) => (json.post_processor = { type: "BertProcessing" }),
    ],
    [
      "unsupported",
      /post_processor\.single is/,
      (json) => json.post_processor.single.push(json.post_processor.single[0]),
    ],
    ["checkpoint", /special_tokens\.<\|begin\|> is undefined/, (json) => (json.post_processor.special_tokens = {})],
  ];
  for (const [code, message, change] of refusals)
    test(`refuses: ${message.source}`, () => {
      assert.throws(
        () => compileTokenizer(changed(change), undefined),
        (error) => {
          assert.ok(error instanceof SnugError);
          assert.match(error.message, message);
          assert.equal(error.code, code);
          return true;
        },
      );
    });

  test("an NFC tokenizer's added token is in NFC where it is matched in normalized text", () => {
    const json = changed((fixed) => {
      fixed.normalizer = { type: "NFC" };
      fixed.added_tokens.at(-1).content = "cafe\u0301!";
    });
    assert.throws(() => compileTokenizer(json, undefined), /added_tokens\[6\]\.content/);
  });

  test("files that are not objects are refused", () => {
    for (const value of [null, undefined, 1, "x", []])
      assert.throws(() => compileTokenizer(value, undefined), SnugError);
    assert.throws(() => compileTokenizer(fixture(), 7), /tokenizer_config\.json/);
  });

  test("merges may be pairs; of two for the same pair the later counts; a split may remove what does not match", () => {
    const pairs = changed((json) => {
      json.model.merges = json.model.merges.map((merge: string) => merge.split(" "));
    });
    assert.deepEqual(compileTokenizer(pairs, undefined), compileTokenizer(fixture(), undefined));
    const twice = changed((json) => json.model.merges.push(json.model.merges[0]));
    assert.notDeepEqual(compileTokenizer(twice, undefined).bytes, compileTokenizer(fixture(), undefined).bytes);
    const removed = changed((json) =>
      Object.assign(json.pre_tokenizer.pretokenizers[0], { behavior: "Removed", invert: true }),
    );
    assert.deepEqual(compileTokenizer(removed, undefined), compileTokenizer(fixture(), undefined));
  });

  test("the token before a prompt and the one that ends a text", () => {
    const config = { bos_token: "<|end|>", add_bos_token: true, eos_token: { content: "<|end|>" } };
    const ends = (change: (json: TokenizerJson) => void, settings?: unknown) => {
      const { beginToken, endToken } = compileTokenizer(changed(change), settings);
      return [beginToken, endToken];
    };
    assert.deepEqual(
      ends(() => {}, config),
      [586, 587],
    );
    assert.deepEqual(
      ends(() => {}),
      [586, undefined],
    );
    assert.deepEqual(
      ends((json) => (json.post_processor = null), config),
      [587, 587],
    );
    assert.deepEqual(
      ends((json) => (json.post_processor = { type: "ByteLevel" }), {}),
      [undefined, undefined],
    );
    assert.deepEqual(
      ends((json) => json.post_processor.single.shift(), config),
      [undefined, 587],
    );
    const nested = (json: TokenizerJson) => {
      json.post_processor = { type: "Sequence", processors: [{ type: "ByteLevel" }, json.post_processor] };
    };
    assert.deepEqual(ends(nested, config), [586, 587]);
    assert.throws(() => ends(() => {}, { eos_token: "<nowhere>" }), /eos_token is "<nowhere>"/);
  });
});
