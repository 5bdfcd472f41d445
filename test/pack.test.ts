// The packer from end to end, on checkpoints that are packed in a second or two: what it writes is the checkpoint, its
// cuts are what they say, and nothing is left behind when it fails. The figures of a real model: test/slow.

import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { openCheckpoint } from "../packs/checkpoint";
import { type PackOptions, packCheckpoint } from "../packs/index";
import { open } from "../runtime/index";
import { watchModels } from "./all-returned";
import { random } from "./random";
import { keptOf, readCut, readLayout } from "./read-pack";
import { readReference } from "./read-reference";
import { forward } from "./reference";
import { patchJson, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { rateOf } from "./write-pack";

watchModels();

const SHAPES: Record<string, Record<string, unknown>> = {
  "grouped heads, untied": {},
  "one KV head, tied, biases": {
    ...{ num_key_value_heads: 1, tie_word_embeddings: true, attention_bias: true, mlp_bias: true },
    rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 10000 },
  },
  "as many KV heads, MLP of three units": { num_key_value_heads: 6, intermediate_size: 300, head_dim: 8 },
};

function tokensOf(count: number, vocabulary: number): number[] {
  const { int } = random(5);
  return Array.from({ length: count }, () => int(vocabulary));
}

/** Largest difference over largest magnitude. */
function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  assert.equal(got.length, want.length);
  const most = Math.max(...Array.from(want, Math.abs));
  return Math.max(...Array.from(want, (value, i) => Math.abs(value - got[i]))) / most;
}

async function logitsOf(path: string, pruning: number, tokens: readonly number[]): Promise<Float32Array> {
  const pack = await open(path);
  const model = await pack.load(pack.plan({ pruning, rows: 16, outputs: 16, activations: "f32" }));
  const out = new Float32Array(tokens.length * model.vocabulary);
  await model.logits(tokens, (logits, position) => out.set(logits, position * model.vocabulary));
  await pack.close();
  return out;
}

const pack = (context: TestContext, checkpoint: string, options: Partial<PackOptions> = {}) => {
  const output = join(scratchFolder(context), "out.snug");
  return packCheckpoint({ checkpoint, output, threads: 2, ...options }).then((facts) => ({ output, facts }));
};

for (const [name, config] of Object.entries(SHAPES)) {
  test(`in f32 the sorted model is the checkpoint: ${name}`, async (context) => {
    const { folder } = writeCheckpoint(scratchFolder(context), config, 3);
    const { output } = await pack(context, folder, { weights: "f32" });
    const checkpoint = await openCheckpoint(folder);
    const tokens = tokensOf(40, checkpoint.config.vocabulary);
    const want = forward(await readReference(checkpoint), tokens).logits;
    await checkpoint.close();
    const off = distance(await logitsOf(output, 0, tokens), want);
    context.diagnostic(`largest difference ${off.toExponential(1)} of the largest logit`);
    assert.ok(off < 1e-4, String(off));
  });

  test(`in 4 bits every cut is the model that it says: ${name}`, async (context) => {
    const { folder } = writeCheckpoint(scratchFolder(context), config, 4);
    const { output, facts } = await pack(context, folder);
    const bytes = new Uint8Array(readFileSync(output));
    assert.equal(bytes.length, facts.bytes);
    const layout = readLayout(bytes);
    const lengths = layout.units.map(({ length }) => length);
    const tokens = tokensOf(40, 97);
    for (let units = facts.minimumUnits; units <= facts.units; units++) {
      const want = forward(readCut(bytes, layout, keptOf(layout, units)), tokens).logits;
      const off = distance(await logitsOf(output, rateOf(lengths, units), tokens), want);
      assert.ok(off < 2e-5, `${units} units: ${off}`);
    }
    const curve = facts.qualityCurve;
    assert.equal(curve.at(-1)?.units, facts.units);
    assert.equal(curve[0]?.units, facts.minimumUnits);
  });
}

test("a text calibrates, and the pack reads and writes with the checkpoint's tokenizer", async (context) => {
  const tokenizer = readFileSync("test/fixtures/tokenizer.json", "utf8");
  const most = Math.max(
    ...Object.values((JSON.parse(tokenizer) as { model: { vocab: Record<string, number> } }).model.vocab),
  );
  const { folder } = writeCheckpoint(
    scratchFolder(context),
    { vocab_size: most + 64, hidden_size: 32, num_hidden_layers: 1 },
    6,
    {
      files: { "tokenizer.json": tokenizer, "tokenizer_config.json": { chat_template: "{{ messages[0].content }}!" } },
    },
  );
  const calibration = join(folder, "text.txt");
  writeFileSync(calibration, "The fox said to the old man that it was a very long way home.\n".repeat(400));
  const { output } = await pack(context, folder, { calibration, weights: "q8", licence: "CC0" });
  const opened = await open(output);
  assert.equal(opened.info.licence, "CC0");
  const model = await opened.load(opened.plan({ pruning: 0.2 }));
  const text = "The fox said: héllo 🦊";
  assert.equal(model.decode(model.encode(text)), text);
  assert.equal(
    (await model.chat([{ role: "user", content: "Hi" }], { maxTokens: 3, seed: 1 }).result()).tokens.length,
    3,
  );
  await opened.close();
});

test("the same checkpoint and text make the same pack", async (context) => {
  const { folder } = writeCheckpoint(scratchFolder(context), {}, 7);
  const [a, b] = [await pack(context, folder), await pack(context, folder)];
  assert.deepEqual(readFileSync(a.output), readFileSync(b.output));
});

test("what cannot be packed is refused, and nothing is left behind", async (context) => {
  const folder = scratchFolder(context);
  const output = join(folder, "out.snug");
  const good = join(folder, "good");
  writeCheckpoint(good, {}, 1);
  const missing = join(folder, "missing");
  writeCheckpoint(missing, {}, 1);
  patchJson(missing, "config.json", { num_hidden_layers: 3 });
  const texts = join(folder, "texts");
  writeCheckpoint(texts, { vocab_size: 1000 }, 1, {
    files: { "tokenizer.json": readFileSync("test/fixtures/tokenizer.json", "utf8") },
  });
  const short = join(folder, "short.txt");
  writeFileSync(short, "Too short.");
  mkdirSync(join(folder, "taken.snug"));
  const refused = (options: Partial<PackOptions>, ...expected: Parameters<typeof says>): Promise<void> =>
    assert.rejects(packCheckpoint({ checkpoint: good, output, threads: 1, ...options }), says(...expected));
  const before = readdirSync(folder).sort();

  await refused({ checkpoint: join(folder, "nowhere") }, "source", "nowhere");
  await refused({ checkpoint: folder }, "checkpoint", "config.json");
  await refused({ checkpoint: missing }, "checkpoint", "model.layers.2");
  await refused({ checkpoint: texts }, "usage", "--calibration");
  await refused({ checkpoint: texts, calibration: join(folder, "no.txt") }, "source", "no.txt");
  await refused({ checkpoint: texts, calibration: short }, "usage", "too short");
  await refused({ output: join(folder, "no", "out.snug") }, "usage", "no folder");
  await refused({ output: join(folder, "taken.snug") }, "usage", "not a file");
  await refused({ weights: "q3" as "q4" }, "usage", "q3");
  assert.deepEqual(readdirSync(folder).sort(), before);
});

test("stopping leaves nothing, at whatever stage", async (context) => {
  const folder = scratchFolder(context);
  const checkpoint = join(folder, "checkpoint");
  writeCheckpoint(checkpoint, {}, 2);
  const stages = new Set<string>();
  await packCheckpoint({
    ...{ checkpoint, output: join(folder, "whole.snug"), threads: 1 },
    onProgress: ({ stage, done }) => {
      assert.ok(done >= 0 && done <= 1);
      stages.add(stage);
    },
  });
  for (const wanted of stages) {
    if (wanted === "done") continue;
    const controller = new AbortController();
    const output = join(folder, "stopped.snug");
    const packing = packCheckpoint({
      ...{ checkpoint, output, threads: 1, signal: controller.signal },
      onProgress: ({ stage }) => {
        if (stage === wanted) controller.abort();
      },
    });
    await assert.rejects(packing, says("aborted", "stopped"), wanted);
  }
  assert.deepEqual(readdirSync(folder).sort(), ["checkpoint", "whole.snug"]);
});
