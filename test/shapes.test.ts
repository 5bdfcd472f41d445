// Random checkpoints with awkward shapes, of every family: each is packed by the real packer, and its cuts are what they
// say and run; or it is refused, and the message has the numbers that are in the way. SNUG_SHAPES=N makes N of a family.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { openCheckpoint } from "../packs/checkpoint";
import type { ModelConfig, SublayerName } from "../packs/config";
import { FAMILIES, type FamilyName } from "../packs/families/index";
import { type PackFacts, type PackOptions, packCheckpoint, type WeightsName } from "../packs/index";
import type { JsonObject } from "../packs/safetensors";
import { Shards } from "../packs/shards";
import { SnugError } from "../runtime/errors";
import type { Pack } from "../runtime/pack";
import type { Plan, PlanOptions } from "../runtime/plan";
import { watchModels } from "./all-returned";
import { type Random, random } from "./random";
import { keptOf, readCut, readLayout } from "./read-pack";
import { readReference } from "./read-reference";
import { forward, type ReferenceModel } from "./reference";
import { says, scratchFolder, writeCheckpoint, writeSafetensors } from "./write-checkpoint";
import { openBytes, rateOf } from "./write-pack";

watchModels();

const SHAPES = 7; // of each family
const FIRST_SEED = 31_000_000; // one from which so few shapes have every feature
const COUNT = Number(process.env.SNUG_SHAPES ?? SHAPES);
// Largest differences over largest magnitudes: of a cut in the core, of a whole model whose values have another basis.
const BOUND = 2e-5;
const SORTED_BOUND = 1e-4;
const PROMPT = 20;
const MADE = 4; // tokens of a generation
const ROWS = [1, 7]; // of a step
const MOST_ROWS = Math.max(...ROWS);

interface Shape {
  readonly config: JsonObject;
  readonly weights: WeightsName;
}

// Drawing

/** What of a config.json is the family's own. */
const DRAW: Readonly<Record<FamilyName, (draw: Draw) => JsonObject>> = {
  llama: (draw) => ({
    ...drawTransformer(draw),
    ...{ attention_bias: draw.one(false, true), mlp_bias: draw.one(false, true) },
    rope_parameters: draw.one<JsonObject>(
      { rope_type: "default", rope_theta: 500 },
      { rope_type: "linear", factor: 4, rope_theta: 10000 },
      {
        ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, rope_theta: 500 },
        original_max_position_embeddings: 16,
      },
    ),
  }),
  qwen2: (draw) => drawTransformer(draw),
  mamba2: (draw) => {
    const { heads, headDim, groups, state } = drawSsm(draw);
    return {
      ...drawExpanded(draw, heads * headDim, "expand"),
      ...{ num_heads: heads, head_dim: headDim, n_groups: groups, state_size: state },
      ...{
        conv_kernel: draw.one(2, 3, 3, 4, 4, 4, 8, 8, 9),
        use_bias: draw.one(false, true),
        use_conv_bias: draw.one(false, true),
      },
      num_hidden_layers: draw.one(1, 2, 2, 3),
      time_step_limit: drawStepLimit(draw),
    };
  },
  bamba: (draw) => {
    const { heads, headDim, groups, state } = drawSsm(draw);
    const layers = draw.one(2, 3);
    const width = drawExpanded(draw, heads * headDim, "mamba_expand");
    return {
      ...width,
      ...drawAttention(draw, width.hidden_size),
      ...drawMlp(draw),
      ...{ mamba_n_heads: heads, mamba_d_head: draw.one<unknown>("auto", headDim), mamba_n_groups: groups },
      ...{ mamba_d_state: state, mamba_d_conv: draw.one(2, 3, 4, 4, 8) },
      ...{ mamba_proj_bias: draw.one(false, true), mamba_conv_bias: draw.one(false, true) },
      ...{ attention_bias: draw.one(false, true), mlp_bias: draw.one(false, true) },
      num_hidden_layers: layers,
      attn_layer_indices: Array.from({ length: layers }, (_, layer) => layer).filter(() => draw.one(false, true)),
      rope_parameters: {
        ...{ rope_type: "default", rope_theta: 10000 },
        partial_rotary_factor: draw.one(0.25, 0.5, 0.5, 0.5, 0.75, 1),
      },
      time_step_limit: drawStepLimit(draw),
    };
  },
  "nemotron-h": (draw) => {
    const { heads, headDim, groups, state } = drawSsm(draw);
    return {
      ...drawWidth(draw),
      ...drawAttention(draw),
      ...drawMlp(draw),
      ...{ mamba_num_heads: heads, mamba_head_dim: headDim, n_groups: groups, ssm_state_size: state },
      ...{
        conv_kernel: draw.one(2, 3, 4, 4, 8),
        use_bias: draw.one(false, true),
        use_conv_bias: draw.one(false, true),
      },
      ...{ attention_bias: draw.one(false, true), mlp_bias: draw.one(false, true) },
      layers_block_type: undefined,
      hybrid_override_pattern: Array.from({ length: draw.one(2, 3, 4) }, () => draw.one("M", "M", "*", "-")).join(""),
      time_step_limit: drawStepLimit(draw),
    };
  },
};

type Draw = Random & { one<T>(...items: readonly T[]): T };

function drawShape(family: FamilyName, draw: Draw): Shape {
  const architectures = [FAMILIES.find(({ name }) => name === family)?.architecture];
  const config = {
    ...{ architectures, vocab_size: draw.one(2, 17, 33, 61, 97, 130, 250, 256), max_position_embeddings: 128 },
    ...DRAW[family](draw),
    tie_word_embeddings: draw.one(false, true),
  };
  return { config, weights: draw.one("q4", "q4", "q8", "f32", "f32") };
}

function drawWidth(draw: Draw): { hidden_size: number } {
  return { hidden_size: draw.one(8, 24, 40, 40, 48, 56, 72, 88, 100, 136) };
}

/** Without "head_dim" the heads share out the width. */
function drawAttention(draw: Draw, width?: number): JsonObject {
  const shares = [2, 3, 4, 5].filter((count) => width !== undefined && width % (2 * count) === 0);
  const isShared = shares.length > 0 && draw.int(4) === 0;
  const heads = isShared ? draw.one(...shares) : draw.one(1, 2, 3, 4, 5, 6, 7, 8);
  const dims = [2, 8, 8, 12, 16, 16, 20, 24, 32, 48, 56].filter((count) => heads * count <= 200);
  const headDim = isShared ? undefined : draw.one(...dims);
  const kvHeads = draw.one(1, heads, draw.one(...divisorsOf(heads)));
  return { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim };
}

function drawTransformer(draw: Draw): JsonObject {
  const width = drawWidth(draw);
  const layers = { num_hidden_layers: draw.one(1, 2, 2, 3) };
  return { ...width, ...layers, ...drawAttention(draw, width.hidden_size), ...drawMlp(draw) };
}

function drawMlp(draw: Draw): JsonObject {
  return { intermediate_size: draw.one(5, 8, 40, 100, 128, 129, 200, 250, 256, 300) };
}

function drawSsm(draw: Draw) {
  const heads = draw.one(1, 2, 3, 4, 5, 6, 8, 9, 12);
  return {
    heads,
    groups: draw.one(1, heads, draw.one(...divisorsOf(heads))),
    headDim: draw.one(...[4, 8, 12, 16, 16, 20, 24, 32].filter((dims) => heads * dims <= 160)),
    state: draw.one(4, 7, 16, 16, 20, 48, 128, 128),
  };
}

/** A width of which the inner one is a simple multiple. */
function drawExpanded(draw: Draw, inner: number, key: string): { hidden_size: number } {
  const factors = [1, 1.5, 2, 2, 3, 0.5].filter((expand) => Number.isInteger(inner / expand) && inner / expand <= 160);
  const expand = draw.one(...factors);
  return { [key]: expand, hidden_size: inner / expand };
}

function drawStepLimit(draw: Draw): unknown {
  return draw.one<unknown>([0, { __float__: "Infinity" }], [0.01, 0.2], undefined);
}

function divisorsOf(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i + 1).filter((count) => n % count === 0);
}

// What must have been among what was packed

const has = (c: ModelConfig, sublayer: SublayerName) => c.sublayers.flat().includes(sublayer);

const FEATURES: Readonly<Record<string, (c: ModelConfig) => boolean>> = {
  "heads in an odd number": ({ heads }) => heads > 1 && heads % 2 === 1,
  "one KV head of several heads": ({ heads, kvHeads }) => heads > 1 && kvHeads === 1,
  "as many KV heads as heads": ({ heads, kvHeads }) => heads > 1 && kvHeads === heads,
  "fewer KV heads than heads, and several": ({ heads, kvHeads }) => kvHeads > 1 && kvHeads < heads,
  "heads × head dimension ≠ width": ({ heads, headDim, width }) => heads > 0 && heads * headDim !== width,
  "a head dimension that is no multiple of 16": ({ headDim }) => headDim % 16 !== 0,
  "RoPE of a part of each head": (c) =>
    c.ropeInverseFrequencies.length > 0 && 2 * c.ropeInverseFrequencies.length < c.headDim,
  "attention without RoPE": (c) => has(c, "attention") && c.ropeInverseFrequencies.length === 0,
  "biases of an attention, o included": ({ attentionBias, oBias }) => attentionBias && oBias,
  "biases of q, k and v alone": ({ attentionBias, oBias }) => attentionBias && !oBias,
  "biases of an MLP": ({ mlpBias, gatedMlp }) => mlpBias && gatedMlp,
  "biases of an MLP without a gate": ({ mlpBias, gatedMlp }) => mlpBias && !gatedMlp,
  "an MLP width that is no multiple of 8": (c) => c.mlpWidth % 8 !== 0,
  "an MLP of several units, the last not whole": (c) => c.mlpWidth > 128 && c.mlpWidth % 128 !== 0,
  "SSM heads in an odd number": ({ ssm }) => ssm !== null && ssm.heads > 1 && ssm.heads % 2 === 1,
  "one SSM head": ({ ssm }) => ssm?.heads === 1,
  "one group of several SSM heads": ({ ssm }) => ssm !== null && ssm.heads > 1 && ssm.groups === 1,
  "several SSM groups of several heads": ({ ssm }) => ssm !== null && ssm.groups > 1 && ssm.groups < ssm.heads,
  "as many SSM groups as heads": ({ ssm }) => ssm !== null && ssm.heads > 1 && ssm.groups === ssm.heads,
  "several groups of the gated norm": ({ ssm }) => ssm !== null && ssm.normGroups > 1,
  "a state of 16": ({ ssm }) => ssm?.state === 16,
  "a state of 128": ({ ssm }) => ssm?.state === 128,
  "an odd state": ({ ssm }) => ssm !== null && ssm.state % 2 === 1,
  "biases of an SSM's projections": ({ ssm }) => ssm?.projectionBias === true,
  "a convolution without a bias": ({ ssm }) => ssm?.convBias === false,
  "a convolution of 2 taps": ({ ssm }) => ssm?.taps === 2,
  "a convolution of 8 taps": ({ ssm }) => ssm?.taps === 8,
  "clamped steps": ({ ssm }) => ssm !== null && ssm.stepMost < Infinity,
  "an attention, an SSM and an MLP": (c) => new Set(c.sublayers.flat()).size === 3,
  "a hybrid without attention": (c) => c.family === "bamba" && !has(c, "attention"),
  "a hybrid without an SSM": (c) => c.family === "bamba" && !has(c, "mamba"),
  "a tied head": ({ tiedHead }) => tiedHead,
  "an untied head": ({ tiedHead }) => !tiedHead,
  "a vocabulary that is no multiple of 32": ({ vocabulary }) => vocabulary % 32 !== 0,
  "a width that is no multiple of 32": ({ width }) => width % 32 !== 0,
  "a width that is no multiple of 8": ({ width }) => width % 8 !== 0,
};

// Packing, cutting, running

const met = new Set<string>();
const refused: string[] = [];
let packed = 0;

for (const [index, { name }] of FAMILIES.entries()) {
  for (let i = 0; i < COUNT; i++) {
    const seed = FIRST_SEED + 1000 * index + i;
    test(`${name}, shape ${i}`, async (context) => {
      const shape = drawShape(name, drawing(seed));
      try {
        await checkShape(context, shape, seed);
      } catch (error) {
        if (error instanceof Error)
          error.message += `\n(seed ${seed}, ${shape.weights}: ${JSON.stringify(shape.config)})`;
        throw error;
      }
    });
  }
}

test("most were packed, and every feature was among them", { skip: COUNT < SHAPES }, (context) => {
  context.diagnostic(`${packed} packed, ${refused.length} refused`);
  for (const message of new Set(refused)) context.diagnostic(message);
  assert.ok(refused.length < packed / 2, refused.join("\n"));
  assert.ok(refused.length > 0);
  assert.deepEqual(
    Object.keys(FEATURES).filter((feature) => !met.has(feature)),
    [],
  );
});

/** Seeds that are neighbours make numbers that are not. */
function drawing(seed: number): Draw {
  const draw = random(Math.imul(seed + 1, 2654435761));
  for (let i = 0; i < 8; i++) draw.unit();
  return { ...draw, one: (...items) => draw.pick(items) };
}

async function checkShape(context: TestContext, { config, weights }: Shape, seed: number): Promise<void> {
  const folder = scratchFolder(context);
  const folders = { checkpoint: join(folder, "checkpoint"), output: join(folder, "out.snug") };
  let facts: PackFacts;
  try {
    writeCheckpoint(folders.checkpoint, config, seed + 1);
    facts = await packCheckpoint({ ...folders, weights, threads: 1 });
  } catch (error) {
    checkRefusal(error, config);
    for (const name of readdirSync(folder)) assert.equal(name, "checkpoint");
    refused.push((error as SnugError).message);
    return;
  }
  const checkpoint = await openCheckpoint(folders.checkpoint);
  const original = await readReference(checkpoint);
  await checkpoint.close();
  packed++;
  for (const [feature, isMet] of Object.entries(FEATURES)) if (isMet(checkpoint.config)) met.add(feature);
  for (const { perplexity, topOne } of facts.qualityCurve)
    assert.ok(perplexity >= 1 && perplexity < Infinity && topOne >= 0 && topOne <= 1, `${perplexity}, ${topOne}`);

  const bytes = new Uint8Array(readFileSync(folders.output));
  const layout = readLayout(bytes);
  const cutOf = (units: number) => readCut(bytes, layout, keptOf(layout, units));
  const { int } = drawing(seed + 500);
  const ids = Array.from({ length: PROMPT }, () => int(original.vocabulary));
  if (weights === "f32") {
    const off = distance(forward(cutOf(facts.units), ids).logits, forward(original, ids).logits);
    assert.ok(off <= SORTED_BOUND, `the sorted model is ${off} off the checkpoint`);
  }

  const pack = await openBytes(bytes);
  const { minimumBytes, maximumBytes } = pack.plan({ rows: MOST_ROWS, outputs: MOST_ROWS, activations: "f32" });
  const some = facts.minimumUnits + int(facts.units - facts.minimumUnits + 1);
  const lengths = layout.units.map(({ length }) => length);
  const choices: PlanOptions[] = [
    ...[...new Set([facts.units, some, facts.minimumUnits])].map((units) => ({ pruning: rateOf(lengths, units) })),
    { memory: minimumBytes + int(maximumBytes - minimumBytes + 1) },
  ];
  for (const choice of choices) {
    for (const rows of ROWS) {
      const plan = pack.plan({ ...choice, rows, outputs: rows, activations: "f32" });
      const what = `${JSON.stringify(plan.options)}, ${plan.keptUnits} of ${plan.units} units`;
      checkPlan(plan, pack, what);
      await checkRun(pack, plan, cutOf(plan.keptUnits), ids, what);
    }
  }
}

/** It must be one that a person can do something about: with the numbers of config.json that are in the way. */
function checkRefusal(error: unknown, config: JsonObject): void {
  if (!(error instanceof SnugError)) throw error;
  assert.equal(error.code, "unsupported", error.message);
  const { vocab_size, max_position_embeddings, ...shape } = config;
  const { hidden_size, num_attention_heads } = shape as Record<string, number>;
  const numbers = [...Object.values(shape), hidden_size / num_attention_heads].map(String);
  assert.ok(
    (error.message.match(/\d+/g) ?? []).some((number) => numbers.includes(number)),
    error.message,
  );
}

function checkPlan(plan: Plan, pack: Pack, what: string): void {
  const { coreBytes, weightsBytes, kvBytes, stateBytes, scratchBytes } = plan;
  for (const part of [coreBytes, weightsBytes, kvBytes, stateBytes, scratchBytes]) assert.ok(part >= 0, what);
  assert.equal(coreBytes + weightsBytes + kvBytes + stateBytes + scratchBytes, plan.totalBytes, what);
  if (plan.options.memory !== undefined) assert.ok(plan.totalBytes <= (plan.options.memory as number), what);
  assert.ok(plan.minimumBytes <= plan.totalBytes && plan.totalBytes <= plan.maximumBytes, what);
  const stacks = plan.layers.flatMap((layer) => layer.stacks);
  for (const { kind, keptUnits, units } of stacks) assert.ok(keptUnits >= 1 && keptUnits <= units, `${what}: ${kind}`);
  assert.equal(
    kvBytes > 0,
    stacks.some(({ kind }) => kind === "vo"),
    `${what}: KV cache`,
  );
  assert.equal(
    stateBytes > 0,
    stacks.some(({ kind }) => kind === "xz"),
    `${what}: state`,
  );
  assert.equal(stateBytes > 0, pack.shape.ssm !== null, `${what}: state`);
}

/** Logits of the ids and of what is made of them, against the reference. */
async function checkRun(pack: Pack, plan: Plan, cut: ReferenceModel, ids: number[], what: string) {
  const model = await pack.load(plan);
  assert.equal(model.memoryBytes, plan.totalBytes, what);
  const { tokens } = await model.generate(ids, { temperature: 0, repeatPenalty: 1, maxTokens: MADE }).result();
  const all = [...ids, ...tokens];
  const want = forward(cut, all).logits;
  const got = new Float32Array(want.length);
  await model.logits(all, (logits, position) => got.set(logits, position * model.vocabulary));
  const off = distance(got, want);
  assert.ok(off <= BOUND, `${what}: ${off} off`);
  const slack = 2 * BOUND * Math.max(...want.map(Math.abs));
  for (const [i, token] of tokens.entries()) {
    const row = want.subarray((PROMPT - 1 + i) * model.vocabulary, (PROMPT + i) * model.vocabulary);
    assert.ok(row[token] >= Math.max(...row) - slack, `${what}: token ${i} is ${token}, which is not the likeliest`);
  }
  model.dispose();
}

/** Largest difference over largest magnitude. */
function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let most = 0;
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    most = Math.max(most, Math.abs(want[i]));
    const difference = Math.abs(got[i] - want[i]);
    worst = Number.isNaN(difference) ? Infinity : Math.max(worst, difference);
  }
  return worst / most;
}

// Other ways to be awkward

const HYBRID = FAMILIES.find(({ name }) => name === "bamba")?.architecture;

/** Packs what was written, and compares the whole of it and its least cut with the reference. */
async function checkPacked(folder: string, options: Partial<PackOptions>): Promise<PackFacts> {
  const output = join(folder, "out.snug");
  const facts = await packCheckpoint({ checkpoint: join(folder, "checkpoint"), output, threads: 1, ...options });
  const bytes = new Uint8Array(readFileSync(output));
  const layout = readLayout(bytes);
  const pack = await openBytes(bytes);
  for (const units of [facts.units, facts.minimumUnits]) {
    const plan = pack.plan({
      activations: "f32",
      pruning: rateOf(
        layout.units.map(({ length }) => length),
        units,
      ),
      outputs: PROMPT + MADE,
    });
    const ids = Array.from({ length: Math.min(PROMPT, plan.context) }, (_, i) => i);
    const cut = readCut(bytes, layout, keptOf(layout, units));
    const model = await pack.load(plan);
    const got = new Float32Array(ids.length * model.vocabulary);
    await model.logits(ids, (logits, position) => got.set(logits, position * model.vocabulary));
    const off = distance(got, forward(cut, ids).logits);
    assert.ok(off <= BOUND, `${units} units: ${off} off`);
  }
  return facts;
}

test("sublayers that are always silent", async (context) => {
  const folder = scratchFolder(context);
  const { tensors } = writeCheckpoint(join(folder, "checkpoint"), { architectures: [HYBRID], num_hidden_layers: 4 }, 1);
  for (const [name, { values }] of tensors)
    if (/0\.mamba\.conv1d|2\.mamba\.out_proj|1\..*v_proj|3\..*gate_proj|2\..*down_proj/.test(name)) values.fill(0);
  writeSafetensors(join(folder, "checkpoint", "model.safetensors"), tensors);
  for (const weights of ["q4", "f32"] as const) await checkPacked(folder, { weights });
});

test("a context of one position, and of two", async (context) => {
  for (const positions of [1, 2]) {
    const folder = scratchFolder(context);
    writeCheckpoint(join(folder, "checkpoint"), { architectures: [HYBRID], max_position_embeddings: positions });
    const { qualityCurve } = await checkPacked(folder, {});
    assert.equal(qualityCurve.length > 0, positions > 1); // with one position nothing is ever predicted
  }
});

test("more threads than there are windows of text", async (context) => {
  const folder = scratchFolder(context);
  writeCheckpoint(join(folder, "checkpoint"), { architectures: [HYBRID] });
  await checkPacked(folder, { threads: 26, weights: "f32" });
});

test("perplexities past what an f32 holds", async (context) => {
  const folder = scratchFolder(context);
  writeCheckpoint(join(folder, "checkpoint"), { hidden_size: 400, num_hidden_layers: 1, tie_word_embeddings: true });
  const { qualityCurve } = await checkPacked(folder, { weights: "f32" });
  assert.ok(qualityCurve.every(({ perplexity }) => perplexity > 1e38 && perplexity < Infinity));
});

test("what a thread refuses is refused with its code", async (context) => {
  const shards = new Shards(1);
  context.after(() => shards.close());
  await shards.begin({ tokens: 1, levels: [0], original: new Float32Array(8), packed: new Float32Array(8) });
  await assert.rejects(shards.load("original", new Uint8Array(100), []), says("pack", "is not a snug pack"));
  await assert.rejects(shards.statistics(), (error) => error instanceof Error && !(error instanceof SnugError));
});
