// Several texts at once on one model: each is what it is alone, whatever the others do, and everything is given back.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { CACHE_BLOCK } from "../assembly/abi";
import type { SnugError } from "../runtime/errors";
import type { GenerateOptions } from "../runtime/generation";
import type { Pack } from "../runtime/pack";
import type { PlanOptions } from "../runtime/plan";
import { watchModels } from "./all-returned";
import { askAlone, askAmongOthers, drawRequests, rowsOf, type Said } from "./mixed-requests";
import { random } from "./random";
import { randomTokens } from "./small-models";
import { fixture } from "./tokenizer-cases";
import { SMALL_CONFIGS, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint, testHost } from "./write-pack";

const VOCABULARY = 300;
const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, seed: 1 };

watchModels();

async function packOf(name: keyof typeof SMALL_CONFIGS, context: number, weights: "q4" | "f32" = "q4") {
  const config = { ...SMALL_CONFIGS[name], vocab_size: VOCABULARY, max_position_embeddings: context };
  const { folder } = writeCheckpoint(scratchFolder({ after }), config, 4);
  return openBytes(await packCheckpoint(folder, { weights }));
}

for (const [index, name] of (["llama", "qwen2", "mamba2", "bamba", "nemotron-h"] as const).entries()) {
  test(`32 requests together, sessions that branch among them, are what each is alone: ${name}`, async () => {
    const draw = random(7000 + index);
    const context = 128;
    const config = { ...SMALL_CONFIGS[name], vocab_size: 593, max_position_embeddings: context };
    const files = { "tokenizer.json": fixture() };
    const { folder } = writeCheckpoint(scratchFolder({ after }), config, 4, { files });
    // The heads of this nemotron-h are too few for groups of 4 bit.
    const bytes = await packCheckpoint(folder, { weights: name === "nemotron-h" ? "f32" : "q4" });
    const pack = await openBytes(bytes, name, { ...testHost, pause: () => setImmediate() });
    const requests = drawRequests(32, context, 593, draw);
    const alone = await pack.load(pack.plan({ threads: 1 }));
    const hasState = alone.plan.stateBytes > 0;
    const want: Said[] = [];
    for (const { turn } of requests) want.push(await askAlone(alone, turn));
    const together = async (options: PlanOptions) => {
      const model = await pack.load(pack.plan(options));
      const got = await Promise.all(requests.map((request) => askAmongOthers(model, request)));
      const what = `SNUG_TEST_SEED=${draw.seed}, ${JSON.stringify(options)}`;
      for (const [i, said] of got.entries()) {
        const wanted = want[i] as Said;
        const isStopped = requests[i]?.stopsAfter !== Number.POSITIVE_INFINITY;
        const came = isStopped ? [wanted[0]?.slice(0, said[0]?.length)] : wanted;
        assert.deepEqual(said, came, `${what}, request ${i}`);
      }
      const { rows, sentAway } = model.engine;
      model.dispose();
      return { rows, sentAway, what };
    };
    const [{ rows, sentAway, what }, ...crowded] = await Promise.all([
      together({ sequences: 64, rows: 16 }),
      together({ sequences: 4, rows: 16 }),
      together({ sequences: 3, rows: 5, threads: 2 }),
      together({ sequences: 1 }),
    ]);
    for (const run of crowded) assert.ok(run.sentAway > 0, `${run.what}: nobody made room for another one`);
    assert.equal(sentAway, 0, what);
    const most = requests.reduce((sum, request, i) => sum + rowsOf(request, want[i] as Said, hasState), 0);
    assert.ok(rows <= most, `${what}: ${rows} rows, ${most} are enough where forks share`);
    alone.dispose();
  });
}

async function sameRows(pack: Pack, vocabulary: number): Promise<void> {
  const rows: Float32Array[][] = [];
  const tokens = randomTokens(37, vocabulary, 8);
  for (const options of [{ rows: 1 }, { rows: 2 }, { rows: 5 }, { rows: 37 }, { rows: 64, threads: 2 }]) {
    const model = await pack.load(pack.plan({ context: 64, threads: 1, outputs: options.rows, ...options }));
    const own: Float32Array[] = [];
    await model.logits(tokens, (logits) => own.push(logits.slice()));
    rows.push(own);
    model.dispose();
  }
  for (const own of rows) assert.deepEqual(own, rows[0]);
}

const SAME = "a row is the same number for number, alone and among others";

test(`${SAME}: the demo pack, whose groups are wide`, async () => {
  await sameRows(await openBytes(readFileSync(resolve("packs/demo/tale.snug"))), 4000);
});

for (const name of ["llama", "qwen2", "mamba2", "bamba", "nemotron-h"] as const)
  test(`${SAME}: ${name}`, async () => {
    await sameRows(await packOf(name, 128, name === "nemotron-h" ? "f32" : "q4"), VOCABULARY);
  });

test("a prompt that several begin with is read once", async () => {
  const pack = await packOf("llama", 2048);
  const model = await pack.load(pack.plan({ sequences: 8, threads: 1 }));
  const prompt = randomTokens(1024, VOCABULARY, 5);
  const options = { ...GREEDY, maxTokens: 6 };
  const all = await Promise.all(Array.from({ length: 8 }, () => model.generate(prompt, options).result()));
  // Of each branch: the prompt's last token, and all that were made but the last.
  const branches = 8 * (1 + 5) - 1;
  assert.equal(model.engine.rows, prompt.length + branches);
  assert.equal(new Set(all.map(({ tokens }) => tokens.join())).size, 1);

  const before = model.engine.rows;
  const longer = [...prompt, ...randomTokens(10, VOCABULARY, 6)];
  await model.generate(longer, { ...GREEDY, maxTokens: 1 }).result();
  assert.equal(model.engine.rows - before, 10, "what was read before was read again");
});

test("branches of a prompt hold the shared blocks once", async () => {
  const pack = await packOf("llama", 2048);
  const model = await pack.load(pack.plan({ sequences: 8, threads: 1 }));
  const prompt = randomTokens(20 * CACHE_BLOCK, VOCABULARY, 9);
  let most = 0;
  const onToken = () => {
    most = Math.max(most, model.engine.heldBlocks);
  };
  const drawn = { temperature: 2, topK: 0, topP: 1, minP: 0, maxTokens: 8, onToken };
  const all = await Promise.all(
    Array.from({ length: 8 }, (_, seed) => model.generate(prompt, { ...drawn, seed }).result()),
  );
  assert.ok(new Set(all.map(({ tokens }) => tokens.join())).size > 4, "branches are alike");
  assert.equal(most, 20 + 8);
  assert.equal(model.engine.heldBlocks, 0);
});

test("what was read is forgotten when its place is needed, and read again", async () => {
  const pack = await packOf("llama", 256);
  const model = await pack.load(pack.plan({ sequences: 1, threads: 1 }));
  const [one, other] = [randomTokens(200, VOCABULARY, 1), randomTokens(200, VOCABULARY, 2)];
  const options = { ...GREEDY, maxTokens: 4 };
  const first = await model.generate(one, options).result();
  await model.generate(other, options).result();
  const before = model.engine.rows;
  assert.deepEqual((await model.generate(one, options).result()).tokens, first.tokens);
  assert.ok(model.engine.rows - before > 100, "there was no room for both");
});

test("what does not fit is told with the sequences that it was planned for", async () => {
  const pack = await packOf("llama", 64);
  const { minimumBytes } = pack.plan({ sequences: 3 });
  assert.throws(() => pack.plan({ sequences: 3, memory: minimumBytes - 1 }), says("budget", "64", "for 3 sequences"));
});

test("more than can wait are refused, and the others are served", async () => {
  const pack = await packOf("llama", 64);
  const model = await pack.load(pack.plan({ sequences: 1, threads: 1 }));
  const asked = Array.from({ length: 80 }, (_, i) =>
    model
      .generate([i + 1], { ...GREEDY, maxTokens: 2 })
      .result()
      .catch((error) => error),
  );
  const answers = await Promise.all(asked);
  const refused = answers.filter((answer) => answer instanceof Error);
  assert.ok(refused.length > 0 && refused.length <= 16, `${refused.length} were refused`);
  for (const error of refused) says("busy", "try again")(error as SnugError);
  assert.equal(answers.filter((answer) => answer.tokens?.length === 2).length, 80 - refused.length);
});

test("logprobs are the model's, whatever the sampling; one that is wrong harms nobody else", async () => {
  const pack = await packOf("qwen2", 64, "f32");
  const model = await pack.load(pack.plan({ sequences: 2, threads: 1 }));
  const told: { id: number; logprob: number | null; top: readonly { id: number; logprob: number }[] }[] = [];
  const prompt = [5, 6, 7];
  const [result, wrong] = await Promise.all([
    model
      .generate(prompt, { temperature: 1.5, seed: 3, maxTokens: 6, logprobs: 4, onToken: (token) => told.push(token) })
      .result(),
    model
      .generate([5, VOCABULARY], GREEDY)
      .result()
      .catch((error) => error),
  ]);
  says("usage", String(VOCABULARY))(wrong as SnugError);
  assert.deepEqual(
    told.map(({ id }) => id),
    result.tokens,
  );
  const all = [...prompt, ...result.tokens];
  await model.logits(all, (logits, position) => {
    const token = told[position - prompt.length + 1];
    if (position < prompt.length - 1 || token === undefined) return;
    const most = Math.max(...logits);
    const total = most + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
    assert.ok(Math.abs((token.logprob as number) - ((logits[token.id] as number) - total)) < 1e-4);
    const order = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number) || a - b);
    assert.deepEqual(
      token.top.map(({ id }) => id),
      order.slice(0, 4),
    );
    for (const { id, logprob } of token.top) assert.ok(Math.abs(logprob - ((logits[id] as number) - total)) < 1e-4);
  });
  for (const logprobs of [-1, 21, 1.5])
    await assert.rejects(model.generate(prompt, { logprobs }).result(), says("usage", "logprobs"));
});
