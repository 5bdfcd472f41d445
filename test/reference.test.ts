// The reference against the goldens of transformers; its single ops against values worked out by hand; and what a cut
// model means, told as equalities between models.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { type Checkpoint, openCheckpoint, parseConfig } from "../packs/checkpoint";
import { openTensors } from "../packs/safetensors";
import {
  add,
  argmax,
  attention,
  embed,
  forward,
  matmul,
  meanLoss,
  type ReferenceLayer,
  type ReferenceModel,
  readReference,
  rmsNorm,
  rope,
  softmax,
  swiglu,
} from "./reference";
import { scratchFolder, writeCheckpoint } from "./write-checkpoint";

const MODELS = "../shared/models";
const skip = existsSync(MODELS) ? false : `${MODELS} is absent: no goldens to compare with`;
const GOLDEN_BOUND = 1e-5; // largest difference over largest magnitude; the goldens are f32, and 7e-7 is what is seen
const GREEDY = 24; // tokens that are followed
const EQUAL_BOUND = 1e-12; // of two f64 computations of the same thing

// Goldens

for (const name of ["tiny/tiny-llama", "tiny/tiny-qwen2", "tale-llama", "tale-qwen2"]) {
  test(`reference equals transformers: ${name}`, { skip }, async () => {
    const folder = `${MODELS}/${name}`;
    const checkpoint = await (name.endsWith("qwen2") ? openQwen2(folder) : openCheckpoint(folder));
    const model = await readReference(checkpoint);
    await checkpoint.close();
    const golden = JSON.parse(readFileSync(`${folder}/golden.json`, "utf8"));
    const { ids, greedy_prompt_tokens: prompt, ...rest } = golden.cases?.[0] ?? golden;
    const greedy: number[] = rest.greedy.slice(0, GREEDY);
    const { logits, hidden } = forward(model, ids);
    assert.equal(hidden.length, model.layers.length + 1);

    const tensors = await openTensors(folder, "golden.safetensors");
    same(logits, await tensors.read("logits", [ids.length, model.vocabulary]), GOLDEN_BOUND, "logits");
    for (const [layer, got] of hidden.entries()) {
      const want = await tensors.read(`hidden.${layer}`); // of the first positions
      same(got.subarray(0, want.length), want, GOLDEN_BOUND, `hidden.${layer}`);
    }
    await tensors.close();

    // Each greedy token is the best guess after all before it: one pass over the whole text shows them all.
    const start = ids.slice(0, prompt ?? ids.length);
    const text = forward(model, [...start, ...greedy]);
    const guesses = greedy.map((_, i) => argmax(text.logits, model.vocabulary, start.length - 1 + i));
    assert.deepEqual(guesses, greedy);
  });
}

/** Qwen2 is a Llama with biases on q, k and v only: its goldens check biases before the family is supported. */
async function openQwen2(folder: string): Promise<Checkpoint> {
  const raw = JSON.parse(readFileSync(`${folder}/config.json`, "utf8"));
  const changes = { architectures: ["LlamaForCausalLM"], model_type: "llama", attention_bias: true };
  const config = { ...parseConfig({ ...raw, ...changes }), oBias: false };
  const tensors = await openTensors(folder);
  const files = { tokenizer: null, tokenizerConfig: null, generationConfig: null, chatTemplate: null };
  return { folder, config, tensors, ...files, close: () => tensors.close() };
}

// Ops, by hand

const f64 = (...values: number[]) => Float64Array.from(values);

test("embed, add, argmax", () => {
  assert.deepEqual(embed(f64(1, 2, 3, 4, 5, 6), 2, [2, 0, 2]), f64(5, 6, 1, 2, 5, 6));
  assert.deepEqual(add(f64(1, 2), f64(3, 5)), f64(4, 7));
  assert.equal(argmax([9, 9, 1, 2, 7, 7], 3, 1), 1);
  assert.equal(argmax([-9, -8, -8], 3, 0), 1);
});

test("rmsNorm", () => {
  const root = Math.sqrt(12.5);
  same(rmsNorm(f64(3, 4), f64(1, 2), 0), f64(3 / root, 8 / root), EQUAL_BOUND);
  same(rmsNorm(f64(0, 0, 6, 8), f64(1, 2), 50), f64(0, 0, 0.6, 1.6), EQUAL_BOUND); // √(50 + 50) = 10
});

test("matmul", () => {
  const w = f64(1, 2, 3, 4, 5, 6); // [3][2]
  assert.deepEqual(matmul(f64(1, 10, 2, 0), w, 2, 3, 2), f64(21, 43, 65, 2, 6, 10));
  assert.deepEqual(matmul(f64(1, 10), w, 1, 3, 2, f64(100, 200, 300)), f64(121, 243, 365));
  assert.deepEqual(matmul(f64(), f64(), 2, 2, 0, f64(7, 8)), f64(7, 8, 7, 8));
  assert.deepEqual(matmul(f64(1, 2), f64(), 1, 0, 2), f64());
});

test("rope turns (i, i + dims / 2) by position × angle of the head's kvHead", () => {
  const x = f64(1, 2, 3, 4);
  same(rope(x, [1], f64(Math.PI / 2, Math.PI), 1, 1, 4), f64(-3, -2, 1, -4), EQUAL_BOUND);
  same(rope(x, [0], f64(1, 2), 1, 1, 4), x, EQUAL_BOUND);
  same(rope(x, [2], f64(Math.PI / 4, 0), 1, 1, 4), f64(-3, 2, 1, 4), EQUAL_BOUND);
  // Four heads of one pair on two kvHeads: the first two turn by the first angle.
  const heads = rope(f64(1, 0, 1, 0, 1, 0, 1, 0), [1], f64(Math.PI / 2, Math.PI), 4, 2, 2);
  same(heads, f64(0, 1, 0, 1, -1, 0, -1, 0), EQUAL_BOUND);
  // k has kvHeads heads; two tokens at positions of their own.
  same(rope(f64(1, 0, 1, 0), [3, 1], f64(Math.PI / 2), 1, 1, 2), f64(0, -1, 0, 1), EQUAL_BOUND);
  assert.deepEqual(rope(f64(), [0, 1], f64(), 4, 2, 0), f64());
});

test("softmax", () => {
  same(softmax(f64(0, Math.log(3))), f64(0.25, 0.75), EQUAL_BOUND);
  same(softmax(f64(1e6, 1e6 + Math.log(3))), f64(0.25, 0.75), 1e-9);
  assert.deepEqual(softmax(f64(-1e308)), f64(1));
});

test("swiglu", () => {
  same(swiglu(f64(0, 100, -1e4, Math.log(3)), f64(5, 2, 2, 4)), f64(0, 200, 0, Math.log(3) * 3), EQUAL_BOUND);
});

test("attention: causal, grouped, scaled, with dims of its own for values", () => {
  const one = { heads: 1, kvHeads: 1, dims: 1, vDims: 2, scale: 1 };
  const v = f64(1, 10, 3, 30, 5, 50);
  // Equal scores: the mean of what has been seen.
  const even = attention(f64(0, 0, 0), f64(1, 2, 3), v, { ...one, queries: 3, keys: 3 });
  same(even, f64(1, 10, 2, 20, 3, 30), EQUAL_BOUND);
  // One query at the end of three keys; scores 0, 0, ln 2 after the scale.
  const last = attention(f64(Math.log(2)), f64(0, 0, 2), v, { ...one, queries: 1, keys: 3, scale: 0.5 });
  same(last, f64((1 + 3 + 10) / 4, (10 + 30 + 100) / 4), EQUAL_BOUND);
  // Four heads on two kvHeads, no dims at all: heads 0 and 1 read the first, 2 and 3 the second.
  const groups = { queries: 1, keys: 2, heads: 4, kvHeads: 2, dims: 0, vDims: 1, scale: 1 };
  same(attention(f64(), f64(), f64(1, 10, 3, 30), groups), f64(2, 2, 20, 20), EQUAL_BOUND);
});

test("meanLoss", () => {
  const logits = f64(0, Math.log(3), 0, 0, 99, 99);
  assert.ok(Math.abs(meanLoss(logits, [0, 1, 0], 2) - (Math.log(4 / 3) + Math.log(2)) / 2) < EQUAL_BOUND);
});

// What a cut means

const TOKENS = [3, 96, 0, 41, 41, 7, 58];

async function small(t: TestContext): Promise<ReferenceModel> {
  const { folder } = writeCheckpoint(scratchFolder(t), { attention_bias: true, mlp_bias: true }, 3);
  const checkpoint = await openCheckpoint(folder);
  t.after(() => checkpoint.close());
  return readReference(checkpoint);
}

/** The logits after changing every layer. */
function logits(model: ReferenceModel, change = (layer: ReferenceLayer): Partial<ReferenceLayer> => layer) {
  const layers = model.layers.map((layer) => ({ ...layer, ...change(layer) }));
  return forward({ ...model, layers }, TOKENS).logits;
}

/** Rows `keep` of every block of `size` rows of `width` numbers. */
function rows<T extends Float64Array | null>(x: T, size: number, keep: number[], width: number): T {
  if (!x) return x;
  const out: number[] = [];
  for (let block = 0; block < x.length; block += size * width) {
    for (const row of keep) out.push(...x.subarray(block + row * width, block + (row + 1) * width));
  }
  return Float64Array.from(out) as T;
}

/** The same, with the other rows set to zero instead. */
function zeroed<T extends Float64Array | null>(x: T, size: number, keep: number[], width: number): T {
  return x && (x.map((value, i) => (keep.includes(Math.floor(i / width) % size) ? value : 0)) as T);
}

test("a position sees nothing after it", async (t) => {
  const model = await small(t);
  const whole = forward(model, TOKENS);
  const part = forward(model, TOKENS.slice(0, 4));
  same(part.logits, whole.logits.subarray(0, part.logits.length), EQUAL_BOUND);
  assert.ok(whole.logits.every(Number.isFinite));
});

test("an MLP without some channels is one whose channels are zero; order does not matter", async (t) => {
  const model = await small(t);
  const keep = [79, 0, 3, 17, 40];
  const cut = (pick: typeof rows) =>
    logits(model, ({ mlp }) => ({
      mlp: mlp && {
        channels: pick === rows ? keep.length : mlp.channels,
        gate: pick(mlp.gate, mlp.channels, keep, model.width),
        up: pick(mlp.up, mlp.channels, keep, model.width),
        down: pick(mlp.down, mlp.channels, keep, 1),
        gateBias: pick(mlp.gateBias, mlp.channels, keep, 1),
        upBias: pick(mlp.upBias, mlp.channels, keep, 1),
        downBias: mlp.downBias,
      },
    }));
  same(cut(rows), cut(zeroed), EQUAL_BOUND);
});

test("values without some dims are values whose dims are zero", async (t) => {
  const model = await small(t);
  const keep = [11, 2, 5];
  const cut = (pick: typeof rows) =>
    logits(model, ({ attention }) => ({
      attention: attention && {
        ...attention,
        vDims: pick === rows ? keep.length : attention.vDims,
        v: pick(attention.v, attention.vDims, keep, model.width),
        o: pick(attention.o, attention.vDims, keep, 1),
        vBias: pick(attention.vBias, attention.vDims, keep, 1),
      },
    }));
  same(cut(rows), cut(zeroed), EQUAL_BOUND);
});

test("queries and keys without some pairs are ones whose pairs are zero; angles move with their pairs", async (t) => {
  const model = await small(t);
  const pairs = [4, 0, 3];
  const keep = [...pairs, ...pairs.map((pair) => pair + 6)];
  const cut = (pick: typeof rows) =>
    logits(model, ({ attention }) => ({
      attention: attention && {
        ...attention,
        dims: pick === rows ? keep.length : attention.dims,
        q: pick(attention.q, attention.dims, keep, model.width),
        k: pick(attention.k, attention.dims, keep, model.width),
        qBias: pick(attention.qBias, attention.dims, keep, 1),
        kBias: pick(attention.kBias, attention.dims, keep, 1),
        ropeAngles: pick === rows ? rows(attention.ropeAngles, 6, pairs, 1) : attention.ropeAngles,
      },
    }));
  same(cut(rows), cut(zeroed), EQUAL_BOUND);
});

test("without channels only the biases are left; without a block nothing is", async (t) => {
  const model = await small(t);
  const none = f64();
  const onlyBias = logits(model, ({ mlp, attention }) => ({
    mlp: mlp && { ...mlp, channels: 0, gate: none, up: none, down: none, gateBias: none, upBias: none },
    attention: attention && {
      ...{ ...attention, dims: 0, vDims: 0, q: none, k: none, v: none, o: none, ropeAngles: none },
      ...{ qBias: none, kBias: none, vBias: none },
    },
  }));
  const nothing = logits(model, () => ({ mlp: null, attention: null }));
  const { width, vocabulary } = model;
  let x = embed(model.embedding, width, TOKENS);
  const head = () => matmul(rmsNorm(x, model.finalNorm, model.normEps), model.head ?? none, 7, vocabulary, width);
  same(nothing, head(), EQUAL_BOUND);
  for (const { attention, mlp } of model.layers) {
    x = x.map((value, i) => value + (attention?.oBias?.[i % width] ?? 0) + (mlp?.downBias?.[i % width] ?? 0));
  }
  same(onlyBias, head(), EQUAL_BOUND);
});

test("the bias of v may be folded into that of o", async (t) => {
  const model = await small(t);
  const { heads, kvHeads, width } = model;
  const folded = logits(model, ({ attention }) => {
    if (!attention?.vBias || !attention.oBias) return {};
    const { vBias, vDims } = attention;
    const constant = Float64Array.from({ length: heads * vDims }, (_, i) => {
      const kvHead = Math.floor(Math.floor(i / vDims) / (heads / kvHeads));
      return vBias[kvHead * vDims + (i % vDims)];
    });
    const oBias = matmul(constant, attention.o, 1, width, heads * vDims, attention.oBias);
    return { attention: { ...attention, vBias: null, oBias } };
  });
  same(folded, logits(model), EQUAL_BOUND);
});

test("grouped heads are heads that share keys and values", async (t) => {
  const model = await small(t);
  const { heads, kvHeads, width } = model;
  const repeat = <T extends Float64Array | null>(x: T, size: number): T => {
    const group = (head: number) => Math.floor(head / (heads / kvHeads)) * size;
    return (
      x && (Float64Array.from({ length: heads * size }, (_, i) => x[group(Math.floor(i / size)) + (i % size)]) as T)
    );
  };
  const layers = model.layers.map((layer): ReferenceLayer => {
    if (!layer.attention) return layer;
    const { dims, vDims, k, v, kBias, vBias, ropeAngles } = layer.attention;
    const own = {
      ...{ k: repeat(k, dims * width), v: repeat(v, vDims * width), ropeAngles: repeat(ropeAngles, dims / 2) },
      ...{ kBias: repeat(kBias, dims), vBias: repeat(vBias, vDims) },
    };
    return { ...layer, attention: { ...layer.attention, ...own } };
  });
  same(forward({ ...model, kvHeads: heads, layers }, TOKENS).logits, logits(model), EQUAL_BOUND);
});

test("a tied head is the embedding", async (t) => {
  const model = await small(t);
  const tied = forward({ ...model, head: null }, TOKENS).logits;
  assert.deepEqual(tied, forward({ ...model, head: model.embedding }, TOKENS).logits);
  assert.notDeepEqual(tied, logits(model));
});

/** Fails where the largest difference, over the largest magnitude wanted, is above the bound. */
function same(got: ArrayLike<number>, want: ArrayLike<number>, bound: number, what = "values"): void {
  assert.equal(got.length, want.length);
  let largest = 0;
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i]));
    if (!(Math.abs(got[i] - want[i]) <= Math.abs(got[worst] - want[worst]))) worst = i;
  }
  const off = Math.abs(got[worst] - want[worst]) / largest;
  assert.ok(off <= bound, `${what}: at ${worst} got ${got[worst]}, expected ${want[worst]} (${off} > ${bound})`);
}
