// A generation as a caller sees it: when it ends, what text comes out, that it can be repeated, and that whatever a
// caller does with it leaves the model as it was.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { NONE } from "../packs/format";
import { SnugError } from "../runtime/errors";
import type { GenerateOptions } from "../runtime/generation";
import type { Model } from "../runtime/model";
import type { Pack } from "../runtime/pack";
import { TextStream } from "../runtime/stream";
import { watchModels } from "./all-returned";
import { random } from "./random";
import { fixture } from "./tokenizer-cases";
import { SMALL_CONFIGS, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, seed: 1 };
const BEGIN = 586; // of the fixture, as END
const END = 587;

const folder = scratchFolder({ after });
let pack: Pack;
let model: Model;

before(async () => {
  writeCheckpoint(folder, { vocab_size: 593 }, 5, { files: { "tokenizer.json": fixture() } });
  pack = await openBytes(await packCheckpoint(folder, { beginToken: BEGIN }));
  model = await pack.load(pack.plan({ rows: 8 }));
});

// Where a generation ends

test("maxTokens, and the context's end", async () => {
  for (const maxTokens of [0, 1, 2, 9]) {
    const result = await model.generate([1, 2, 3], { ...GREEDY, maxTokens }).result();
    assert.equal(result.tokens.length, maxTokens);
    assert.equal(result.finishReason, "length");
    assert.equal(result.prompt.tokens, 3);
    assert.equal(result.decode.tokens, maxTokens);
  }
  const { context } = model.plan;
  for (const length of [context, context - 1, context - 5]) {
    const prompt = Array.from({ length }, (_, i) => i);
    for (const maxTokens of [undefined, 1000]) {
      const result = await model.generate(prompt, { ...GREEDY, ...(maxTokens && { maxTokens }) }).result();
      assert.equal(result.tokens.length, context - length);
      assert.equal(result.finishReason, "length");
    }
  }
});

test("an end token ends the text, and is no part of it", async () => {
  const free = await model.generate("Once", { ...GREEDY, maxTokens: 12 }).result();
  assert.equal(free.finishReason, "length");
  const at = free.tokens.findIndex((token, i) => i > 3 && free.tokens.indexOf(token) === i);
  const ending = await openBytes(
    await packCheckpoint(folder, { beginToken: BEGIN, endTokens: [END, free.tokens[at]] }),
  );
  const result = await (await ending.load()).generate("Once", { ...GREEDY, maxTokens: 12 }).result();
  assert.equal(result.finishReason, "stop");
  assert.deepEqual(result.tokens, free.tokens.slice(0, at + 1));
  assert.equal(result.text, model.decode(free.tokens.slice(0, at)));
});

test("stop texts end the text before them, wherever tokens break", async () => {
  const free = await model.generate("Once", { ...GREEDY, maxTokens: 40 }).result();
  assert.ok(free.text.length > 20);
  for (let from = 0; from < free.text.length; from += 3) {
    for (const length of [1, 2, 5, 11]) {
      const stop = free.text.slice(from, from + length);
      if (stop.isWellFormed?.() === false) continue;
      const generation = model.generate("Once", { ...GREEDY, maxTokens: 40, stop: ["\u{10ffff}", "", stop] });
      let text = "";
      for await (const piece of generation) text += piece;
      const result = await generation.result();
      assert.equal(text, free.text.slice(0, free.text.indexOf(stop)), `stop ${JSON.stringify(stop)}`);
      assert.equal(result.text, text);
      assert.equal(result.finishReason, "stop");
    }
  }
  const none = await model.generate("Once", { ...GREEDY, maxTokens: 40, stop: ["", "\u{10ffff}"] }).result();
  assert.equal(none.text, free.text);
  assert.equal(none.finishReason, "length");
});

// The text stream by itself

const TEXT = "a ä € 👩‍👩‍👧 \ufeff — naïve\n“q” 日本語 \0 🏴󠁧󠁢󠁥󠁮󠁧󠁿!";

/** Everything that a stream gives for these pieces. */
function streamed(stream: TextStream, pieces: Uint8Array[]): string[] {
  return [...pieces.map((piece) => stream.push(piece)), stream.end()];
}

function cutAt(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const edges = [0, ...cuts, bytes.length];
  return edges.slice(1).map((end, i) => bytes.subarray(edges[i], end));
}

test("only whole characters come, wherever the bytes are cut", () => {
  const bytes = new TextEncoder().encode(TEXT);
  const cuts = [
    ...Array.from({ length: bytes.length }, (_, at) => [at]),
    Array.from({ length: bytes.length - 1 }, (_, i) => i + 1), // byte by byte
    ...Array.from({ length: bytes.length - 3 }, (_, at) => [at, at + 1, at + 3]),
  ];
  for (const cut of cuts) {
    const pieces = streamed(new TextStream(), cutAt(bytes, cut));
    assert.equal(pieces.join(""), TEXT, `cut at ${cut}`);
    for (const piece of pieces) assert.ok(!piece.includes("\ufffd"), `half a character, cut at ${cut}`);
  }
});

test("what is no text becomes U+FFFD, and an unfinished character at the end too", () => {
  const stream = new TextStream();
  assert.equal(stream.push(Uint8Array.of(0x61, 0xff, 0x62)), "a\ufffdb");
  assert.equal(stream.push(Uint8Array.of(0xe2, 0x82)), "");
  assert.equal(stream.end(), "\ufffd");
});

test("a stop text is found across any cut, and nothing of it is let out", () => {
  const { int } = random(21);
  const stops = ["END", "日本", "👧x", "aab", "\n\n", "aaaa", "b"];
  for (let round = 0; round < 2000; round++) {
    const text = Array.from(
      { length: 1 + int(20) },
      () => ["a", "b", "c", "E", "N", "D", "日", "本", "👧", "x", "\n"][int(11)],
    ).join("");
    const chosen = Array.from({ length: int(4) }, () => stops[int(stops.length)]);
    const found = chosen.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    const bytes = new TextEncoder().encode(text);
    const cuts = Array.from({ length: int(8) }, () => int(bytes.length + 1)).toSorted((a, b) => a - b);
    const stream = new TextStream(chosen);
    const got = streamed(stream, cutAt(bytes, cuts)).join("");
    const what = `round ${round}: ${JSON.stringify(text)} cut at ${cuts}, stops ${JSON.stringify(chosen)}`;
    assert.equal(stream.stopped, found.length > 0, what);
    // Cut anew, another stop text may be complete first; what comes before the first one is let out in any case.
    if (found.length === 0) assert.equal(got, text, what);
    else {
      assert.ok(text.startsWith(got), what);
      assert.ok(
        chosen.some((stop) => text.startsWith(stop, got.length)),
        what,
      );
      for (const stop of chosen) assert.ok(!got.includes(stop), what);
    }
  }
});

test("text is held back no longer than it must be", () => {
  const stream = new TextStream(["END"]);
  const push = (text: string) => stream.push(new TextEncoder().encode(text));
  assert.deepEqual(["ab", "E", "N", "N", "E", "E"].map(push), ["ab", "", "", "ENN", "", "E"]);
  assert.equal(stream.end(), "E");
});

// Repeating

test("temperature 0 takes the likeliest token, again and again", async () => {
  const scoring = await pack.load(pack.plan({ outputs: 64 }));
  const prompt = model.prompt("The sun");
  assert.equal(prompt[0], BEGIN);
  const result = await model.generate("The sun", { ...GREEDY, maxTokens: 20 }).result();
  const likeliest: number[] = [];
  await scoring.logits([...prompt, ...result.tokens], (logits) => likeliest.push(logits.indexOf(Math.max(...logits))));
  assert.deepEqual(likeliest.slice(prompt.length - 1, -1), result.tokens);
  for (const seed of [1, 2]) {
    const again = await model.generate("The sun", { ...GREEDY, seed, maxTokens: 20 }).result();
    assert.deepEqual(again.tokens, result.tokens);
  }
});

test("a seed repeats a text, another seed makes another", async () => {
  const run = (seed?: number) =>
    model.generate([7, 8], { temperature: 1, maxTokens: 30, ...(seed !== undefined && { seed }) }).result();
  const first = await run(42);
  assert.equal(first.seed, 42);
  assert.deepEqual((await run(42)).tokens, first.tokens);
  for (const seed of [43, 2 ** 32 + 42, Number.MAX_SAFE_INTEGER])
    assert.notDeepEqual((await run(seed)).tokens, first.tokens);
  const drawn = await run();
  assert.deepEqual((await run(drawn.seed)).tokens, drawn.tokens);
});

test("the text is the same in any prefill chunk", async () => {
  const prompt = Array.from({ length: 33 }, (_, i) => (i * 7) % 500);
  const texts: string[] = [];
  for (const rows of [1, 2, 5, 33, 64])
    texts.push(
      (await (await pack.load(pack.plan({ rows }))).generate(prompt, { ...GREEDY, maxTokens: 20 }).result()).text,
    );
  assert.equal(new Set(texts).size, 1);
});

// Reading twice

for (const name of ["mamba2", "bamba"] as const) {
  test(`readTwice is the prompt and the prompt again, begun once: ${name}`, async (context) => {
    const { folder: recurrent } = writeCheckpoint(
      scratchFolder(context),
      { ...SMALL_CONFIGS[name], vocab_size: 593 },
      8,
      {
        files: { "tokenizer.json": fixture() },
      },
    );
    const bytes = await packCheckpoint(recurrent, {
      ...{ beginToken: BEGIN, endTokens: [END], info: { name: "a test", chatTemplate: "{{ messages[0].content }}?" } },
    });
    const stateful = await openBytes(bytes);
    const reader = await stateful.load(stateful.plan({ rows: 4, context: 40 }));
    const ids = Array.from({ length: 9 }, (_, i) => i * 31);
    const text = reader.encode("The sun");
    assert.ok(text.length > 1);
    const cases: [prompt: string | number[], read: number[]][] = [
      [ids, [...ids, ...ids]],
      [
        [BEGIN, ...ids],
        [BEGIN, ...ids, ...ids],
      ],
      [
        [5, BEGIN, 6],
        [5, BEGIN, 6, 5, BEGIN, 6],
      ],
      [[BEGIN], [BEGIN]],
      ["The sun", [BEGIN, ...text, ...text]],
      ["", [BEGIN]],
    ];
    for (const [prompt, read] of cases) {
      for (const options of [GREEDY, { seed: 5, temperature: 1.5 }]) {
        const twice = await reader.generate(prompt, { ...options, maxTokens: 6, readTwice: true }).result();
        const want = await reader.generate(read, { ...options, maxTokens: 6 }).result();
        assert.deepEqual(twice.tokens, want.tokens, JSON.stringify(prompt));
        assert.equal(twice.prompt.tokens, read.length, JSON.stringify(prompt));
        const once = await reader.generate(prompt, { ...options, maxTokens: 6, readTwice: false }).result();
        assert.equal(once.prompt.tokens, typeof prompt === "string" ? reader.prompt(prompt).length : prompt.length);
      }
    }
    const chat = await reader
      .chat([{ role: "user", content: "The sun" }], { ...GREEDY, maxTokens: 6, readTwice: true })
      .result();
    const asked = reader.encode("The sun?");
    assert.equal(chat.prompt.tokens, 2 * asked.length);
    assert.deepEqual(
      chat.tokens,
      (await reader.generate([...asked, ...asked], { ...GREEDY, maxTokens: 6 }).result()).tokens,
    );

    const fits = Array.from({ length: 20 }, (_, i) => i);
    assert.equal((await reader.generate(fits, { ...GREEDY, readTwice: true }).result()).tokens.length, 0);
    const tooLong = reader.generate([...fits, 1], { ...GREEDY, readTwice: true }).result();
    await assert.rejects(tooLong, says("context", "42", "40"));
    await assert.rejects(reader.generate([], { readTwice: true }).result(), says("usage", "empty"));
  });
}

test("readTwice is refused where there is no state", async () => {
  assert.throws(() => model.generate("Once", { readTwice: true }), says("usage", "no state", "readTwice"));
  assert.throws(() => model.generate([1, 2], { readTwice: true }), says("usage", "no state", "readTwice"));
  assert.equal((await model.generate([1, 2], { readTwice: false, maxTokens: 2 }).result()).prompt.tokens, 2);
});

// What callers do

test("pieces and result are the same text, in whatever order they are asked for", async () => {
  const options = { ...GREEDY, maxTokens: 15 };
  const want = await model.generate("One", options).result();

  const iterated = model.generate("One", options);
  let text = "";
  for await (const piece of iterated) {
    assert.notEqual(piece, "");
    text += piece;
  }
  assert.equal(text, want.text);
  assert.deepEqual((await iterated.result()).tokens, want.tokens);
  assert.deepEqual((await iterated.result()).tokens, want.tokens);
  for await (const piece of iterated) assert.fail(`it ran again: ${piece}`);

  const awaited = model.generate("One", options);
  assert.equal((await awaited.result()).text, want.text);
  for await (const piece of awaited) assert.fail(`it ran again: ${piece}`);
});

test("leaving the loop ends the generation, and the next is as it would have been", async () => {
  const options = { ...GREEDY, maxTokens: 15 };
  const want = await model.generate("Two", options).result();
  const left = model.generate("One", options);
  for await (const _ of left) break;
  assert.deepEqual((await model.generate("Two", options).result()).tokens, want.tokens);
  await assert.rejects(left.result(), says("aborted", "left before its end"));
  for await (const piece of left) assert.fail(`it went on: ${piece}`);
  assert.deepEqual((await model.generate("Two", options).result()).tokens, want.tokens);
});

test("a generation that failed leaves the model usable", async () => {
  const want = await model.generate("Two", { ...GREEDY, maxTokens: 5 }).result();
  const wrong: [GenerateOptions, string][] = [
    [{ temperature: -1 }, "temperature"],
    [{ temperature: Number.NaN }, "temperature"],
    [{ topP: 1.1 }, "topP"],
    [{ topK: 1.5 }, "topK"],
    [{ topK: -1 }, "topK"],
    [{ minP: 2 }, "minP"],
    [{ repeatPenalty: 0 }, "repeatPenalty"],
    [{ maxTokens: -1 }, "maxTokens"],
    [{ maxTokens: 0.5 }, "maxTokens"],
    [{ seed: -1 }, "seed"],
    [{ seed: 2 ** 60 }, "seed"],
  ];
  for (const [options, name] of wrong) {
    await assert.rejects(model.generate("Two", options).result(), says("usage", name), JSON.stringify(options));
    assert.deepEqual((await model.generate("Two", { ...GREEDY, maxTokens: 5 }).result()).tokens, want.tokens);
  }
});

test("a load that is stopped ends as stopped, and the pack loads again", async () => {
  const plan = pack.plan();
  let steps = 0;
  await pack.load(plan, { onProgress: () => steps++ });
  for (let stop = 0; stop < steps; stop++) {
    const controller = new AbortController();
    if (stop === 0) controller.abort();
    let seen = 0;
    const onProgress = () => {
      if (++seen === stop) controller.abort();
    };
    await assert.rejects(pack.load(plan, { signal: controller.signal, onProgress }), says("aborted"), `step ${stop}`);
    assert.ok(seen <= stop + 1, "it went on after it was stopped");
  }
  assert.equal((await (await pack.load(plan)).generate([1, 2], { maxTokens: 3 }).result()).tokens.length, 3);
});

test("a generation that is stopped ends as stopped, and the next is as it would have been", async () => {
  const options = { temperature: 0, maxTokens: 20 };
  const prompt = Array.from({ length: 100 }, (_, i) => i);
  const want = await model.generate(prompt, options).result();
  for (const pieces of [0, 1, 3]) {
    const controller = new AbortController();
    const generation = model.generate(prompt, { ...options, signal: controller.signal });
    if (pieces === 0) controller.abort();
    const run = async () => {
      let seen = 0;
      for await (const _ of generation) if (++seen === pieces) controller.abort();
    };
    await assert.rejects(run(), says("aborted"), `after ${pieces} pieces`);
    await assert.rejects(generation.result(), says("aborted"));
    assert.deepEqual((await model.generate(prompt, options).result()).tokens, want.tokens);
  }
});

test("the prompt's length is known however a generation ends", async () => {
  const one = model.generate("Once", { ...GREEDY, maxTokens: 3 });
  assert.equal(one.promptTokens, model.prompt("Once").length);
  assert.equal((await one.result()).prompt.tokens, one.promptTokens);
  const stopped = model.generate([1, 2, 3], { signal: AbortSignal.abort() });
  await assert.rejects(stopped.result(), says("aborted"));
  assert.equal(stopped.promptTokens, 3);
  const { context } = model.plan;
  const long = model.generate(Array.from({ length: context + 1 }, () => 1));
  await assert.rejects(long.result(), says("context"));
  assert.equal(long.promptTokens, context + 1);
});

test("prompts that cannot be are refused, and odd ones taken", async () => {
  const small = await pack.load(pack.plan({ context: 40 }));
  const { vocabulary } = small;
  const run = (prompt: string | number[]) => small.generate(prompt, { maxTokens: 2, seed: 1 }).result();
  await assert.rejects(run([]), says("usage", "empty"));
  await assert.rejects(run(Array.from({ length: 41 }, () => 1)), says("context", "41", "40"));
  await assert.rejects(run("word ".repeat(500)), says("context", "40"));
  for (const id of [-1, 1.5, vocabulary, 2 ** 31, 2 ** 32, 2 ** 32 + 1, NONE, Number.NaN, Number.POSITIVE_INFINITY]) {
    await assert.rejects(run([1, id]), says("usage", String(id)), `id ${id}`);
    await assert.rejects(small.score([1, id]), says("usage", String(id)), `id ${id}`);
    assert.throws(() => small.tokenBytes(id), says("usage", String(id)), `id ${id}`);
  }
  await assert.rejects(small.score([]), says("usage"));
  await assert.rejects(
    small.logits(new Uint32Array(41), () => {}),
    says("context", "41", "40"),
  );
  for (const text of ["", "\ud800", "a\udc00b", "\0", "\ufeff", "\u202e", "👩‍👩‍👧"]) await run(text);
  assert.equal((await run(Array.from({ length: 40 }, () => 1))).finishReason, "length");
  assert.deepEqual(small.encode("\ud800"), small.encode("\ufffd"));
  const long = small.encode("x".repeat(200000));
  assert.equal(small.decode(long), "x".repeat(200000));
});

test("scoring and generating share a model", async () => {
  const want = await model.generate("Two", { ...GREEDY, maxTokens: 5 }).result();
  const score = await model.score([1, 2, 3, 4, 5, 6]);
  assert.equal(score.tokens, 5);
  assert.ok(score.loss > 0 && score.topOne >= 0);
  assert.deepEqual((await model.generate("Two", { ...GREEDY, maxTokens: 5 }).result()).tokens, want.tokens);
  assert.deepEqual(await model.score([1, 2, 3, 4, 5, 6]), score);
});

test("the repetition penalty makes repeats rarer", async () => {
  const count = async (repeatPenalty: number) => {
    const { tokens } = await model.generate([3, 3, 3], { temperature: 0, repeatPenalty, maxTokens: 60 }).result();
    return new Set(tokens).size;
  };
  assert.ok((await count(5)) >= (await count(1)));
  assert.equal(await count(100), 60);
});

test("a disposed model says so, whatever is asked of it", async () => {
  const gone = await pack.load(pack.plan({ rows: 8 }));
  const running = gone.generate("One", { ...GREEDY, maxTokens: 5 });
  gone.dispose();
  gone.dispose();
  const disposed = says("usage", "disposed");
  await assert.rejects(running.result(), disposed);
  await assert.rejects((async () => gone.generate([1]).result())(), disposed);
  for (const use of [
    () => gone.generate("One"),
    () => gone.encode("One"),
    () => gone.decode([1]),
    () => gone.tokenBytes(1),
    () => gone.memoryBytes,
  ])
    assert.throws(use, disposed, String(use));
  await assert.rejects(gone.score([1, 2]), disposed);
  await assert.rejects(
    gone.logits([1], () => {}),
    disposed,
  );
});

test("a model without a tokenizer runs on ids, and says what it lacks", async (context) => {
  const { folder: bare } = writeCheckpoint(scratchFolder(context), {}, 6);
  const plain = await openBytes(await packCheckpoint(bare));
  const ids = await plain.load();
  const result = await ids.generate([1, 2, 3], { ...GREEDY, maxTokens: 4 }).result();
  assert.equal(result.tokens.length, 4);
  assert.equal(result.text, "");
  for (const use of [() => ids.generate("text"), () => ids.encode("text")])
    assert.throws(use, says("unsupported", "no tokenizer", "token ids"));
  assert.throws(() => ids.chat([{ role: "user", content: "hi" }]), says("unsupported", "chat template"));
  await assert.rejects((async () => ids.generate([]).result())(), (error) => error instanceof SnugError);
});

test("two generations at once: each says what it says alone", async () => {
  const options = { ...GREEDY, maxTokens: 8 };
  const prompts = ["There was", "Once"];
  const alone = [];
  for (const prompt of prompts) alone.push((await model.generate(prompt, options).result()).tokens);
  const together = await Promise.all(prompts.map((prompt) => model.generate(prompt, options).result()));
  assert.deepEqual(
    together.map(({ tokens }) => tokens),
    alone,
  );
});

test("a generation that rests makes room for another one, and goes on as if nothing had been", async (context) => {
  for (const config of [SMALL_CONFIGS.mamba2, SMALL_CONFIGS.llama]) {
    const { folder: own } = writeCheckpoint(scratchFolder(context), { ...config, vocab_size: 593 }, 9, {
      files: { "tokenizer.json": fixture() },
    });
    const one = await openBytes(await packCheckpoint(own));
    const shared = await one.load(one.plan({ rows: 8, context: 64 }));
    const long = Array.from({ length: 30 }, (_, i) => i * 19);
    const options = { ...GREEDY, maxTokens: 12 };
    const alone = await shared.generate(long, options).result();
    const once = await shared.generate("Once", options).result();
    const earlier = shared.generate("Once", options);
    const pieces = earlier[Symbol.asyncIterator]();
    assert.equal((await pieces.next()).done, false);
    const later = await shared.generate(long, options).result();
    assert.deepEqual(later.tokens, alone.tokens);
    while (!(await pieces.next()).done);
    assert.deepEqual((await earlier.result()).tokens, once.tokens);
  }
});
