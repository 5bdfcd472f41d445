// States that are kept for prompts that begin alike: a beginning is read once, and what comes after it is what it was.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { CACHE_BLOCK } from "../assembly/abi";
import type { GenerateOptions } from "../runtime/generation";
import type { Model } from "../runtime/model";
import { Snapshots } from "../runtime/snapshots";
import { watchModels } from "./all-returned";
import { random } from "./random";
import { randomTokens } from "./small-models";
import { SMALL_CONFIGS, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const VOCABULARY = 300;
const CONTEXT = 256;
const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, seed: 1, maxTokens: 6 };
const FAMILIES = ["mamba2", "bamba", "nemotron-h"] as const;

async function packOf(name: keyof typeof SMALL_CONFIGS) {
  const config = { ...SMALL_CONFIGS[name], vocab_size: VOCABULARY, max_position_embeddings: CONTEXT };
  const { folder } = writeCheckpoint(scratchFolder({ after }), config, 4);
  return openBytes(await packCheckpoint(folder, { weights: name === "nemotron-h" ? "f32" : "q4" }));
}

/** The tokens that follow a prompt, and how many rows that took. */
async function follow(model: Model, prompt: readonly number[]): Promise<{ tokens: readonly number[]; rows: number }> {
  const before = model.engine.rows;
  const { tokens } = await model.generate(prompt, GREEDY).result();
  return { tokens, rows: model.engine.rows - before };
}

/** Rows that are read of a prompt from a position on, and of what follows. */
const rowsFrom = (prompt: readonly number[], from: number) => prompt.length - from + (GREEDY.maxTokens as number) - 1;

for (const name of FAMILIES) {
  test(`a prompt that comes again is read from its last whole block on: ${name}`, async () => {
    const pack = await packOf(name);
    const plain = await pack.load(pack.plan({ threads: 1, context: CONTEXT }));
    assert.equal(plain.plan.snapshots, 0);
    const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, snapshots: 2 }));
    for (const [length, kept] of [
      [32, 0],
      [33, 32],
      [96, 64],
      [97, 96],
      [150, 128],
    ] as const) {
      const prompt = randomTokens(length, VOCABULARY, length);
      const want = await follow(plain, prompt);
      assert.equal(want.rows, rowsFrom(prompt, 0));
      assert.deepEqual(await follow(model, prompt), want);
      for (let again = 0; again < 2; again++)
        assert.deepEqual(await follow(model, prompt), { ...want, rows: rowsFrom(prompt, kept) }, `${length} tokens`);
      // Another turn of it.
      const longer = [...prompt, ...want.tokens, ...randomTokens(20, VOCABULARY, 1)];
      const next = await follow(plain, longer);
      assert.deepEqual(await follow(model, longer), { ...next, rows: rowsFrom(longer, kept) }, `${length} tokens`);
    }
    assert.equal(model.engine.heldBlocks, 0);
    model.engine.forget();
    const prompt = randomTokens(97, VOCABULARY, 97);
    assert.equal((await follow(model, prompt)).rows, rowsFrom(prompt, 0), "what was forgotten was found");
  });

  test(`a beginning that prompts have in common is read twice, and from then on no more: ${name}`, async () => {
    const pack = await packOf(name);
    const plain = await pack.load(pack.plan({ threads: 1, context: CONTEXT }));
    const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, snapshots: 3 }));
    const common = randomTokens(80, VOCABULARY, 7);
    const prompts = Array.from({ length: 8 }, (_, i) => [...common, ...randomTokens(30 + 7 * i, VOCABULARY, 20 + i)]);
    for (const [i, prompt] of prompts.entries()) {
      const want = await follow(plain, prompt);
      const from = i < 2 ? 0 : 64;
      assert.deepEqual(await follow(model, prompt), { ...want, rows: rowsFrom(prompt, from) }, `request ${i}`);
    }
    assert.equal(model.engine.heldBlocks, 0);
  });

  test(`a state that was kept is that of a model that read everything, bit for bit: ${name}`, async () => {
    const pack = await packOf(name);
    const common = randomTokens(70, VOCABULARY, 7);
    const prompts = Array.from({ length: 4 }, (_, i) => [...common, ...randomTokens(90, VOCABULARY, 20 + i)]);
    const saved: Uint8Array[][] = [];
    const told: unknown[][] = [];
    for (const snapshots of [0, 3]) {
      const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, snapshots }));
      const { exports } = model.core;
      let stateBytes = 0;
      for (let part = 0; part < exports.state_parts(); part++) stateBytes += exports.state_part_bytes(part);
      const own: Uint8Array[] = [];
      const logprobs: unknown[] = [];
      for (const prompt of [...prompts, ...prompts]) {
        const sequence = model.engine.begin();
        model.engine.append(sequence, prompt);
        const choice = { sampling: { count: 1, repeatPenalty: 1 }, isGreedy: true, most: 3, logprobs: 20 };
        for (let i = 0; i < 3; i++) logprobs.push(await model.engine.next(sequence, choice));
        const kept = await model.engine.save(sequence);
        own.push((kept?.bytes ?? new Uint8Array()).slice(-stateBytes));
        await model.engine.end(sequence);
      }
      assert.equal(model.engine.heldBlocks, 0);
      saved.push(own);
      told.push(logprobs);
    }
    assert.deepEqual(told[1], told[0]);
    assert.deepEqual(saved[1], saved[0]);
  });

  test(`states take what the plan says: ${name}`, async () => {
    const pack = await packOf(name);
    const plan = (snapshots?: number, sequences = 2) =>
      pack.plan({ threads: 1, context: CONTEXT, sequences, ...(snapshots === undefined ? {} : { snapshots }) });
    for (const snapshots of [0, 1, 2, 7]) {
      assert.equal(plan(snapshots).snapshots, snapshots);
      assert.equal(plan(snapshots).stateBytes, plan(0, 2 + snapshots).stateBytes);
    }
    assert.equal(plan().snapshots, 2);
    assert.equal(plan(undefined, 1).snapshots, 0);
    const model = await pack.load(plan(7));
    assert.equal(model.memoryBytes, model.plan.totalBytes);
    assert.equal(pack.plan({ device: "gpu", sequences: 2, snapshots: 2 }).snapshots, 0);
  });
}

test("a model without a state keeps none; what is no number of them is refused", async () => {
  const pack = await packOf("llama");
  assert.equal(pack.plan({ sequences: 4 }).snapshots, 0);
  assert.equal(pack.plan({ snapshots: 4 }).totalBytes, pack.plan().totalBytes);
  const bamba = await packOf("bamba");
  for (const snapshots of [-1, 0.5, Number.NaN, 5000])
    assert.throws(() => bamba.plan({ snapshots }), says("usage", String(snapshots)));
});

for (const name of ["mamba2", "bamba"] as const) {
  test(`of more prompts than there are places, the last ones are found: ${name}`, async () => {
    const pack = await packOf(name);
    const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, sequences: 1, snapshots: 2 }));
    const plain = await pack.load(pack.plan({ threads: 1, context: CONTEXT }));
    const [a, b, c] = [1, 2, 3].map((seed) => randomTokens(70, VOCABULARY, seed)) as [number[], number[], number[]];
    const [wantA, wantB] = [await follow(plain, a), await follow(plain, b)];
    for (const prompt of [a, b, a, c]) await follow(model, prompt);
    assert.deepEqual(await follow(model, a), { ...wantA, rows: rowsFrom(a, 64) });
    assert.deepEqual(await follow(model, b), wantB, "it was found longer ago than the others");
    assert.equal(model.engine.heldBlocks, 0);
  });
}

test("a state whose blocks are gone is of no use, until they are read again", async () => {
  const pack = await packOf("bamba");
  const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, sequences: 1, snapshots: 3 }));
  const plain = await pack.load(pack.plan({ threads: 1, context: CONTEXT }));
  const [one, other] = [randomTokens(200, VOCABULARY, 1), randomTokens(240, VOCABULARY, 2)];
  const want = await follow(plain, one);
  await follow(model, one);
  await follow(model, other); // takes all blocks
  assert.deepEqual(await follow(model, one), want);
  assert.deepEqual(await follow(model, one), { ...want, rows: rowsFrom(one, 192) });
  assert.equal(model.engine.heldBlocks, 0);
});

test("many at once that begin alike, in few places: each is what it is alone", async () => {
  for (const name of FAMILIES) {
    const seed = 4100;
    const { int } = random(seed);
    const pack = await packOf(name);
    const plain = await pack.load(pack.plan({ threads: 1, context: CONTEXT }));
    const starts = Array.from({ length: 3 }, (_, i) => randomTokens(150, VOCABULARY, i + 1));
    const prompts = Array.from({ length: 24 }, (_, i) => [
      ...(starts[int(3)] as number[]).slice(0, int(150)),
      ...randomTokens(1 + int(40), VOCABULARY, 100 + i),
    ]);
    const want: (readonly number[])[] = [];
    for (const prompt of prompts) want.push((await follow(plain, prompt)).tokens);
    const all = prompts.reduce((sum, prompt) => sum + rowsFrom(prompt, 0), 0);
    for (const options of [
      { sequences: 4, rows: 64 },
      { sequences: 3, rows: 40, snapshots: 9 },
      { sequences: 1, rows: 32, snapshots: 1 },
    ]) {
      const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, ...options }));
      for (let round = 0; round < 2; round++) {
        const got = await Promise.all(prompts.map((prompt) => model.generate(prompt, GREEDY).result()));
        for (const [i, { tokens }] of got.entries())
          assert.deepEqual(tokens, want[i], `seed ${seed}, ${name}, ${JSON.stringify(options)}, prompt ${i}`);
      }
      assert.ok(model.engine.rows < 2 * all, "nothing was shared");
      assert.equal(model.engine.heldBlocks, 0);
      model.dispose();
    }
  }
});

test("a conversation that was sent away goes on behind what it was told last", async () => {
  for (const name of FAMILIES) {
    const pack = await packOf(name);
    const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, sequences: 1, snapshots: 4 }));
    const plain = await pack.load(pack.plan({ threads: 1, context: CONTEXT }));
    const session = model.session();
    session.append(randomTokens(100, VOCABULARY, 1));
    await session.generate(GREEDY).result();
    await new Promise((resolve) => setTimeout(resolve, 110));
    await follow(model, [5, 6, 7]);
    session.append(randomTokens(10, VOCABULARY, 2));
    const want = await follow(plain, session.tokens);
    const before = model.engine.rows;
    const length = session.tokens.length;
    assert.deepEqual((await session.generate(GREEDY).result()).tokens, want.tokens);
    assert.equal(model.engine.rows - before, length - 96 + 5, name);
    await session.dispose();
    assert.equal(model.engine.heldBlocks, 0);
  }
});

test("a session that was brought back damaged harms nobody", async () => {
  for (const name of FAMILIES) {
    const pack = await packOf(name);
    const plain = await pack.load(pack.plan({ threads: 1, context: CONTEXT }));
    const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, snapshots: 4 }));
    const session = plain.session();
    session.append(randomTokens(100, VOCABULARY, 1));
    await session.generate({ ...GREEDY, maxTokens: 1 }).result();
    const saved = await session.save();
    const again = await model.restore(saved.fill(0x3f, saved.length >> 1));
    again.append(randomTokens(60, VOCABULARY, 2));
    const prompt = [...again.tokens];
    await again.generate(GREEDY).result();
    await again.dispose();
    const want = await follow(plain, prompt);
    assert.deepEqual(await follow(model, prompt), want, name);
    assert.equal(model.engine.heldBlocks, 0);
  }
});

test("after a step that failed everything is read, and nothing stays behind", async () => {
  const pack = await packOf("bamba");
  const model = await pack.load(pack.plan({ threads: 1, context: CONTEXT, snapshots: 2 }));
  const session = model.session();
  session.append(randomTokens(100, VOCABULARY, 1));
  const want = await follow(model, session.tokens);
  model.engine.forget();
  const executor = model.executor as { run: unknown };
  const { run } = executor;
  executor.run = () => Promise.reject(new Error("no step"));
  await assert.rejects(session.generate(GREEDY).result(), /no step/);
  executor.run = run;
  const length = session.tokens.length;
  const before = model.engine.rows;
  assert.deepEqual((await session.generate(GREEDY).result()).tokens, want.tokens);
  assert.equal(model.engine.rows - before, length + 5);
  await session.dispose();
  assert.equal(model.engine.heldBlocks, 0);
});

test("the longest beginning is found, and the one that was found longest ago goes first", () => {
  const snapshots = new Snapshots(2);
  const tokens = randomTokens(4 * CACHE_BLOCK, 1000, 3);
  const upTo = (length: number) => tokens.slice(0, length);
  assert.equal(snapshots.find(tokens, 100), undefined);
  assert.equal(snapshots.take(upTo(32)), 0);
  assert.equal(snapshots.take(upTo(32)), undefined, "it is kept already");
  assert.equal(snapshots.take(upTo(64)), 1);
  assert.deepEqual(snapshots.find(tokens, 128), { place: 1, length: 64 });
  assert.deepEqual(snapshots.find(tokens, 63), { place: 0, length: 32 });
  assert.equal(snapshots.find([...upTo(31), 1000, ...tokens], 128), undefined);
  assert.equal(snapshots.take(upTo(96)), 1, "the other one was found since");
  assert.deepEqual(snapshots.find(tokens, 95), { place: 0, length: 32 });
  snapshots.clear();
  assert.equal(snapshots.find(tokens, 128), undefined);
  assert.equal(snapshots.take(upTo(32)), 0);
});

test("of prompts the last ones are remembered, each with its owner", () => {
  const snapshots = new Snapshots(1);
  assert.equal(snapshots.compare(0, [1, 2, 3, 4]), 0);
  assert.equal(snapshots.compare(0, [1, 2, 3, 4, 5]), 0, "a prompt is no other than itself");
  assert.equal(snapshots.compare(1, [1, 2, 3, 9]), 3);
  assert.equal(snapshots.compare(2, [1, 2, 3, 4, 5, 6]), 5);
  for (let owner = 3; owner < 19; owner++) snapshots.compare(owner, [7]);
  assert.equal(snapshots.compare(19, [1, 2, 3, 4, 5, 6]), 0);
});

test("snapshots under any use: what is found is what was put there last", () => {
  const seed = 83;
  const { int } = random(seed);
  for (let round = 0; round < 200; round++) {
    const places = 1 + int(6);
    const snapshots = new Snapshots(places);
    /** Of each place that is in use, what it is behind. */
    const held = new Map<number, string>();
    for (let use = 0; use < 100; use++) {
      const what = `seed ${seed}, round ${round}, use ${use}`;
      const tokens = Array.from({ length: 1 + int(6) }, () => int(2));
      const beginnings = [...held].filter(([, kept]) => tokens.join("").startsWith(kept));
      const kind = int(20);
      if (kind === 0) {
        snapshots.clear();
        held.clear();
      } else if (kind < 10) {
        const most = int(8);
        const longest = Math.max(0, ...beginnings.map(([, { length }]) => length).filter((length) => length <= most));
        const found = snapshots.find(tokens, most);
        assert.equal(found?.length ?? 0, longest, what);
        if (found !== undefined) assert.equal(held.get(found.place), tokens.slice(0, longest).join(""), what);
      } else {
        const place = snapshots.take(tokens);
        const isKept = beginnings.some(([, { length }]) => length === tokens.length);
        assert.equal(place === undefined, isKept, what);
        if (place === undefined) continue;
        assert.ok(place >= 0 && place < places, what);
        assert.ok(held.size === places || !held.has(place), `${what}: a place was taken beside free ones`);
        held.set(place, tokens.join(""));
      }
    }
  }
});
