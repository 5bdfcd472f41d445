// The reference against the goldens of transformers; its single ops against values worked out by hand; and what a cut
// model means, told as equalities between models.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { openCheckpoint } from "../packs/checkpoint";
import { openTensors } from "../packs/safetensors";
import { random } from "./random";
import { readReference } from "./read-reference";
import {
  add,
  argmax,
  attention,
  causalConv,
  embed,
  forward,
  gatedNorm,
  matmul,
  meanLoss,
  type ReferenceAttention,
  type ReferenceMamba,
  type ReferenceMlp,
  type ReferenceModel,
  rmsNorm,
  rope,
  scan,
  silu,
  softmax,
  squaredRelu,
  stepSize,
  swiglu,
} from "./reference";
import { scratchFolder, writeCheckpoint } from "./write-checkpoint";

const MODELS = "../shared/models";
const TINY = ["tiny-llama", "tiny-qwen2", "tiny-mamba2", "tiny-bamba", "tiny-nemotron-h"];
const TALES = ["tale-llama", "tale-qwen2", "tale-mamba2", "tale-bamba"];
const GOLDEN_BOUND = 1e-5; // largest difference over largest magnitude; the goldens are f32, and 1.2e-6 is what is seen
const GREEDY = 24; // tokens that are followed
const EQUAL_BOUND = 1e-12; // of two f64 computations of the same thing

// Goldens

for (const name of [...TINY.map((tiny) => `tiny/${tiny}`), ...TALES]) {
  const folder = `${MODELS}/${name}`;
  const skip = existsSync(folder) ? false : `${folder} is absent: no golden to compare with`;
  test(`reference equals transformers: ${name}`, { skip }, async (context) => {
    const checkpoint = await openCheckpoint(folder);
    const model = await readReference(checkpoint);
    await checkpoint.close();
    const { family } = checkpoint.config;
    if (family === "nemotron-h") raiseSteps(model, folder);
    const golden = JSON.parse(readFileSync(`${folder}/golden.json`, "utf8"));
    const { ids, greedy_prompt_tokens: prompt, ...rest } = golden.cases?.[0] ?? golden;
    const greedy: number[] = rest.greedy.slice(0, GREEDY);
    const { logits, hidden } = forward(model, ids);
    assert.equal(hidden.length, model.layers.length + 1);

    const tensors = await openTensors(folder, "golden.safetensors");
    context.after(() => tensors.close());
    for (const [layer, got] of hidden.entries()) {
      // Of Mamba-2, transformers gives the output of each layer instead of its input, and last the final norm's too.
      const at = family === "mamba2" && layer < model.layers.length ? layer - 1 : layer;
      if (at < 0) continue;
      const want = await tensors.read(`hidden.${at}`); // of the first positions
      same(got.subarray(0, want.length), want, GOLDEN_BOUND, `hidden.${at}`);
    }
    const want = await tensors.read("logits", [ids.length, model.vocabulary]);
    const off = same(logits, want, GOLDEN_BOUND, "logits");
    context.diagnostic(`largest difference ${off.toExponential(1)} of the largest logit`);

    // Each greedy token is the best guess after all before it: one pass over the whole text shows them all.
    const start = ids.slice(0, prompt ?? ids.length);
    const text = forward(model, [...start, ...greedy]);
    const guesses = greedy.map((_, i) => argmax(text.logits, model.vocabulary, start.length - 1 + i));
    assert.deepEqual(guesses, greedy);
  });
}

/**
 * transformers 5.17 raises the step sizes of Nemotron-H to "time_step_min", a key of initial values. NVIDIA's code for
 * the published models does not: https://github.com/huggingface/transformers/pull/48989
 */
function raiseSteps(model: ReferenceModel, folder: string): void {
  const { time_step_min: least } = JSON.parse(readFileSync(`${folder}/config.json`, "utf8"));
  for (const { block } of model.layers.flat()) if (block.kind === "mamba") block.stepLeast = least;
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

test("silu, swiglu, squaredRelu", () => {
  same(silu(f64(0, 100, -1e4, Math.log(3))), f64(0, 100, 0, Math.log(3) * 0.75), EQUAL_BOUND);
  same(swiglu(f64(0, 100, -1e4, Math.log(3)), f64(5, 2, 2, 4)), f64(0, 200, 0, Math.log(3) * 3), EQUAL_BOUND);
  assert.deepEqual(squaredRelu(f64(-3, 0, 0.5, 3)), f64(0, 0, 0.25, 9));
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

test("causalConv: each channel with taps of its own, the last of them for the token itself", () => {
  const x = f64(1, 10, 2, 20, 3, 30); // [3][2]
  const weight = f64(1, 2, 4, 0, 0.1, 1); // [2][3]
  assert.deepEqual(causalConv(x, weight, null, 2, 3), f64(4, 10, 10, 21, 17, 32));
  assert.deepEqual(causalConv(x, weight, f64(100, 200), 2, 3), f64(104, 210, 110, 221, 117, 232));
  const [first, rest] = [x.subarray(0, 2), x.subarray(2)];
  assert.deepEqual(causalConv(rest, weight, null, 2, 3, f64(0, 0, ...first)), f64(10, 21, 17, 32));
  assert.deepEqual(causalConv(f64(1), weight, null, 1, 3, f64(100, 10)), f64(124));
  assert.deepEqual(causalConv(f64(), f64(), null, 0, 3), f64());
});

test("stepSize: softplus of the sum, clamped", () => {
  const softplus = stepSize(f64(1, 0, 800, -800), f64(-1, Math.log(3)), 0, Infinity); // [2][2]
  same(softplus, f64(Math.log(2), Math.log(4), 799, 0), EQUAL_BOUND);
  same(stepSize(f64(-40), f64(0), 0, Infinity), f64(Math.exp(-40)), EQUAL_BOUND); // as good as its power
  same(stepSize(f64(-9, 0, 9), f64(0), 0.5, 0.75), f64(0.5, Math.log(2), 0.75), EQUAL_BOUND);
});

test("scan: decay, input, output, and what goes past the state", () => {
  const half = f64(-Math.log(2)); // with a step of 1 the state is halved
  const one = { heads: 1, dims: 1, groups: 1, state: 1 };
  const h = f64(8);
  // h: 4 + 1, then 2.5 + 6
  same(scan(f64(1, 2), f64(1, 3), f64(1, 10), f64(1, 1), half, f64(5), one, h), f64(10, 95), EQUAL_BOUND);
  same(h, f64(8.5), EQUAL_BOUND);
  // A step of 2: a quarter is left, and the input counts twice. A step of 0: nothing happens.
  same(scan(f64(3, 9), f64(1, 1), f64(1, 1), f64(2, 0), half, f64(0), one, f64(8)), f64(8, 8), EQUAL_BOUND);
  // Two dims and two state dims: h = x ⊗ b.
  const wide = { heads: 1, dims: 2, groups: 1, state: 2 };
  const outer = f64(0, 0, 0, 0);
  same(scan(f64(1, 2), f64(3, 4), f64(1, 10), f64(1), half, f64(0), wide, outer), f64(43, 86), EQUAL_BOUND);
  same(outer, f64(3, 4, 6, 8), EQUAL_BOUND);
  // Four heads on two groups: heads 0 and 1 read the first; each head has a step and a d of its own.
  const grouped = { heads: 4, dims: 1, groups: 2, state: 1 };
  const [a, d] = [f64(-1, -1, -1, -1), f64(0, 0, 0, 7)];
  same(scan(f64(1, 1, 1, 1), f64(1, 10), f64(1, 1), f64(1, 2, 1, 2), a, d, grouped), f64(1, 2, 10, 27), EQUAL_BOUND);
  // No state: only what goes past it.
  const none = { heads: 2, dims: 1, groups: 1, state: 0 };
  same(scan(f64(3, 4), f64(), f64(), f64(1, 1), f64(-1, -1), f64(2, 3), none), f64(6, 12), EQUAL_BOUND);
});

test("gatedNorm: groups, a divisor that is not the channels' count", () => {
  const [y, z] = [f64(0.03, 0.04, -0.06, 0.08), f64(100, 100, 100, 100)]; // silu(100) = 100
  const weight = f64(1, 2, 3, 4);
  const whole = { channels: 4, groups: 1, divisor: 5, eps: 3 }; // √(125 / 5 + 3) = √28
  const root = Math.sqrt(28);
  same(gatedNorm(y, z, weight, whole), f64(3 / root, 8 / root, -18 / root, 32 / root), EQUAL_BOUND);
  const grouped = { channels: 4, groups: 2, divisor: 1, eps: 0 }; // 5 and 10
  same(gatedNorm(y, z, weight, grouped), f64(0.6, 1.6, -1.8, 3.2), EQUAL_BOUND);
  const rows = { channels: 2, groups: 1, divisor: 1, eps: 0 }; // each token by itself
  same(gatedNorm(y, z, f64(1, 10), rows), f64(0.6, 8, -0.6, 8), EQUAL_BOUND);
  assert.deepEqual(gatedNorm(f64(0), f64(1), f64(1), { ...rows, channels: 1, eps: 1 }), f64(0));
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

interface Changes {
  attention?: (block: ReferenceAttention) => Partial<ReferenceAttention>;
  mlp?: (block: ReferenceMlp) => Partial<ReferenceMlp>;
  mamba?: (block: ReferenceMamba) => Partial<ReferenceMamba>;
}

/** The logits after changing every block. */
function logits(model: ReferenceModel, changes: Changes = {}): Float64Array {
  const layers = model.layers.map((layer) =>
    layer.map(({ norm, block }) => {
      if (block.kind === "attention") return { norm, block: { ...block, ...changes.attention?.(block) } };
      if (block.kind === "mlp") return { norm, block: { ...block, ...changes.mlp?.(block) } };
      return { norm, block: { ...block, ...changes.mamba?.(block) } };
    }),
  );
  return forward({ ...model, layers }, TOKENS).logits;
}

/** Rows `keep` of every block of `size` rows of `width` numbers. */
function rows<T extends Float64Array | null>(x: T, size: number, keep: readonly number[], width: number): T {
  if (!x) return x;
  const out: number[] = [];
  for (let block = 0; block < x.length; block += size * width) {
    for (const row of keep) out.push(...x.subarray(block + row * width, block + (row + 1) * width));
  }
  return Float64Array.from(out) as T;
}

/** The same, with the other rows set to zero instead. */
function zeroed<T extends Float64Array | null>(x: T, size: number, keep: readonly number[], width: number): T {
  return x && (x.map((value, i) => (keep.includes(Math.floor(i / width) % size) ? value : 0)) as T);
}

/** Heads on two groups, all biases, two norm groups of two heads, between a squared ReLU and a gated MLP. */
function smallMamba(): ReferenceModel {
  const { normal } = random(11);
  const normals = (count: number, scale = 1) => Float64Array.from({ length: count }, () => scale * normal());
  const [width, heads, dims, groups, state, taps, vocabulary, channels] = [12, 4, 6, 2, 5, 3, 97, 9];
  const weights = (rows: number, cols = width) => normals(rows * cols, cols ** -0.5);
  const mamba = (): ReferenceMamba => ({
    ...{ kind: "mamba", heads, dims, groups, state, taps, normGroups: 2, normDivisor: 12, stepLeast: 0.2, stepMost: 3 },
    ...{ z: weights(heads * dims), x: weights(heads * dims), dt: weights(heads) },
    ...{ b: weights(groups * state), c: weights(groups * state) },
    ...{ zBias: normals(heads * dims), xBias: normals(heads * dims) },
    ...{ bBias: normals(groups * state), cBias: normals(groups * state) },
    ...{ xConv: normals(heads * dims * taps), xConvBias: normals(heads * dims) },
    ...{ bConv: normals(groups * state * taps), cConv: normals(groups * state * taps) },
    ...{ bConvBias: normals(groups * state), cConvBias: normals(groups * state) },
    ...{ dtBias: normals(heads), a: normals(heads).map((value) => -Math.exp(value)), d: normals(heads) },
    ...{ gatedNorm: normals(heads * dims), out: weights(width, heads * dims), outBias: normals(width) },
  });
  const mlp = (gated: boolean): ReferenceMlp => ({
    ...{ kind: "mlp", channels, gate: gated ? weights(channels) : null, gateBias: gated ? normals(channels) : null },
    ...{ up: weights(channels), down: weights(width, channels), upBias: normals(channels), downBias: normals(width) },
  });
  const layers = [[mamba()], [mlp(false)], [mamba(), mlp(true)]];
  return {
    ...{ width, vocabulary, normEps: 1e-5, head: null },
    ...{ embedding: normals(vocabulary * width), finalNorm: normals(width) },
    layers: layers.map((blocks) => blocks.map((block) => ({ norm: normals(width), block }))),
  };
}

test("a position sees nothing after it", async (t) => {
  for (const model of [await small(t), smallMamba()]) {
    const whole = forward(model, TOKENS);
    const part = forward(model, TOKENS.slice(0, 4));
    same(part.logits, whole.logits.subarray(0, part.logits.length), EQUAL_BOUND);
    assert.ok(whole.logits.every(Number.isFinite));
  }
});

test("an MLP without some channels is one whose channels are zero; order does not matter", async (t) => {
  for (const [model, keep] of [
    [await small(t), [79, 0, 3, 17, 40]],
    [smallMamba(), [8, 0, 3]],
  ] as const) {
    const cut = (pick: typeof rows) =>
      logits(model, {
        mlp: ({ channels, gate, up, down, gateBias, upBias }) => ({
          channels: pick === rows ? keep.length : channels,
          gate: pick(gate, channels, keep, model.width),
          up: pick(up, channels, keep, model.width),
          down: pick(down, channels, keep, 1),
          gateBias: pick(gateBias, channels, keep, 1),
          upBias: pick(upBias, channels, keep, 1),
        }),
      });
    same(cut(rows), cut(zeroed), EQUAL_BOUND);
  }
});

test("values without some dims are values whose dims are zero", async (t) => {
  const model = await small(t);
  const keep = [11, 2, 5];
  const cut = (pick: typeof rows) =>
    logits(model, {
      attention: ({ vDims, v, o, vBias }) => ({
        vDims: pick === rows ? keep.length : vDims,
        v: pick(v, vDims, keep, model.width),
        o: pick(o, vDims, keep, 1),
        vBias: pick(vBias, vDims, keep, 1),
      }),
    });
  same(cut(rows), cut(zeroed), EQUAL_BOUND);
});

test("queries and keys without some pairs are ones whose pairs are zero; angles move with their pairs", async (t) => {
  const model = await small(t);
  const pairs = [4, 0, 3];
  const keep = [...pairs, ...pairs.map((pair) => pair + 6)];
  const cut = (pick: typeof rows) =>
    logits(model, {
      attention: ({ dims, q, k, qBias, kBias, ropeAngles }) => ({
        dims: pick === rows ? keep.length : dims,
        q: pick(q, dims, keep, model.width),
        k: pick(k, dims, keep, model.width),
        qBias: pick(qBias, dims, keep, 1),
        kBias: pick(kBias, dims, keep, 1),
        ropeAngles: pick === rows ? rows(ropeAngles, 6, pairs, 1) : ropeAngles,
      }),
    });
  same(cut(rows), cut(zeroed), EQUAL_BOUND);
});

test("a mamba without some dims is one whose gates are zero there, for the norm's divisor stays", () => {
  const model = smallMamba();
  const keep = [5, 0, 2];
  const { width } = model;
  const cut = logits(model, {
    mamba: ({ dims, taps, z, x, zBias, xBias, xConv, xConvBias, gatedNorm, out }) => ({
      dims: keep.length,
      ...{ z: rows(z, dims, keep, width), x: rows(x, dims, keep, width) },
      ...{ zBias: rows(zBias, dims, keep, 1), xBias: rows(xBias, dims, keep, 1) },
      ...{ xConv: rows(xConv, dims, keep, taps), xConvBias: rows(xConvBias, dims, keep, 1) },
      ...{ gatedNorm: rows(gatedNorm, dims, keep, 1), out: rows(out, dims, keep, 1) },
    }),
  });
  const closed = logits(model, {
    mamba: ({ dims, z, zBias }) => ({ z: zeroed(z, dims, keep, width), zBias: zeroed(zBias, dims, keep, 1) }),
  });
  same(cut, closed, EQUAL_BOUND);
});

test("a mamba without some dimensions of the state is one that writes nothing there", () => {
  const model = smallMamba();
  const keep = [3, 1];
  const { width } = model;
  const cut = logits(model, {
    mamba: ({ state, taps, b, c, bBias, cBias, bConv, cConv, bConvBias, cConvBias }) => ({
      state: keep.length,
      ...{ b: rows(b, state, keep, width), c: rows(c, state, keep, width) },
      ...{ bBias: rows(bBias, state, keep, 1), cBias: rows(cBias, state, keep, 1) },
      ...{ bConv: rows(bConv, state, keep, taps), cConv: rows(cConv, state, keep, taps) },
      ...{ bConvBias: rows(bConvBias, state, keep, 1), cConvBias: rows(cConvBias, state, keep, 1) },
    }),
  });
  const silent = logits(model, {
    mamba: ({ state, taps, bConv, bConvBias }) => ({
      bConv: zeroed(bConv, state, keep, taps),
      bConvBias: zeroed(bConvBias, state, keep, 1),
    }),
  });
  same(cut, silent, EQUAL_BOUND);
});

test("without channels only the biases are left; without a block nothing is", async (t) => {
  const none = f64();
  for (const model of [await small(t), smallMamba()]) {
    const onlyBias = logits(model, {
      mlp: (block) => ({
        ...{ channels: 0, gate: block.gate && none, up: none, down: none, gateBias: none, upBias: none },
      }),
      attention: () => ({
        ...{ dims: 0, vDims: 0, q: none, k: none, v: none, o: none, ropeAngles: none },
        ...{ qBias: none, kBias: none, vBias: none },
      }),
      mamba: () => ({
        ...{ dims: 0, z: none, x: none, zBias: none, xBias: none, xConv: none, xConvBias: none },
        ...{ gatedNorm: none, out: none },
      }),
    });
    const nothing = forward({ ...model, layers: model.layers.map(() => []) }, TOKENS).logits;
    const { width, vocabulary } = model;
    const matrix = model.head ?? model.embedding;
    let x = embed(model.embedding, width, TOKENS);
    const head = () => matmul(rmsNorm(x, model.finalNorm, model.normEps), matrix, TOKENS.length, vocabulary, width);
    same(nothing, head(), EQUAL_BOUND);
    for (const { block } of model.layers.flat()) {
      const biases = { attention: "oBias", mlp: "downBias", mamba: "outBias" };
      const bias = (block as unknown as Record<string, Float64Array>)[biases[block.kind]];
      x = x.map((value, i) => value + bias[i % width]);
    }
    same(onlyBias, head(), EQUAL_BOUND);
  }
});

test("without a state a mamba's input goes past it, as where nothing is read from the state", () => {
  const model = smallMamba();
  const none = f64();
  const cut = logits(model, {
    mamba: () => ({
      ...{ state: 0, b: none, c: none, bBias: none, cBias: none },
      ...{ bConv: none, cConv: none, bConvBias: none, cConvBias: none },
    }),
  });
  const unread = logits(model, {
    mamba: ({ cConv, cConvBias }) => ({ cConv: cConv.map(() => 0), cConvBias: cConvBias?.map(() => 0) ?? null }),
  });
  same(cut, unread, EQUAL_BOUND);
});

test("the bias of v may be folded into that of o", async (t) => {
  const model = await small(t);
  const folded = logits(model, {
    attention: ({ heads, kvHeads, vDims, vBias, o, oBias }) => {
      if (!vBias) return {};
      const constant = Float64Array.from({ length: heads * vDims }, (_, i) => {
        const kvHead = Math.floor(Math.floor(i / vDims) / (heads / kvHeads));
        return vBias[kvHead * vDims + (i % vDims)];
      });
      return { vBias: null, oBias: matmul(constant, o, 1, model.width, heads * vDims, oBias) };
    },
  });
  same(folded, logits(model), EQUAL_BOUND);
});

/** [groups][size] → [heads][size]: each head gets a copy of its group's. */
function repeat<T extends Float64Array | null>(x: T, heads: number, groups: number, size: number): T {
  const from = (head: number) => Math.floor(head / (heads / groups)) * size;
  return x && (Float64Array.from({ length: heads * size }, (_, i) => x[from(Math.floor(i / size)) + (i % size)]) as T);
}

test("grouped heads are heads that share keys and values", async (t) => {
  const model = await small(t);
  const own = logits(model, {
    attention: ({ heads, kvHeads, dims, vDims, k, v, kBias, vBias, ropeAngles }) => ({
      kvHeads: heads,
      k: repeat(k, heads, kvHeads, dims * model.width),
      v: repeat(v, heads, kvHeads, vDims * model.width),
      kBias: repeat(kBias, heads, kvHeads, dims),
      vBias: repeat(vBias, heads, kvHeads, vDims),
      ropeAngles: repeat(ropeAngles, heads, kvHeads, dims / 2),
    }),
  });
  same(own, logits(model), EQUAL_BOUND);
});

test("groups of a mamba are heads that share b and c", () => {
  const model = smallMamba();
  const own = logits(model, {
    mamba: ({ heads, groups, state, taps, ...weights }) => {
      const { b, c, bBias, cBias, bConv, cConv, bConvBias, cConvBias } = weights;
      const copies = <T extends Float64Array | null>(x: T, size: number) => repeat(x, heads, groups, state * size);
      return {
        groups: heads,
        ...{ b: copies(b, model.width), c: copies(c, model.width), bBias: copies(bBias, 1), cBias: copies(cBias, 1) },
        ...{ bConv: copies(bConv, taps), cConv: copies(cConv, taps) },
        ...{ bConvBias: copies(bConvBias, 1), cConvBias: copies(cConvBias, 1) },
      };
    },
  });
  same(own, logits(model), EQUAL_BOUND);
});

test("a scan, and a convolution, in parts that go on from each other is the whole", () => {
  const { normal } = random(12);
  const normals = (count: number) => Float64Array.from({ length: count }, () => normal());
  const sizes = { heads: 4, dims: 3, groups: 2, state: 5 };
  const [tokens, inner, shared] = [9, 12, 10];
  const [x, b, c, d] = [normals(tokens * inner), normals(tokens * shared), normals(tokens * shared), normals(4)];
  const [dt, a] = [normals(tokens * 4).map(Math.exp), normals(4).map((value) => -Math.exp(value))];
  const h = new Float64Array(inner * 5);
  const whole = scan(x, b, c, dt, a, d, sizes, h);
  const carried = new Float64Array(h.length);
  const part = (from: number, to: number) => {
    const of = (values: Float64Array) => values.slice((from * values.length) / tokens, (to * values.length) / tokens);
    return scan(of(x), of(b), of(c), of(dt), a, d, sizes, carried);
  };
  same([...part(0, 4), ...part(4, 5), ...part(5, 9)], whole, EQUAL_BOUND);
  same(carried, h, EQUAL_BOUND);

  const weight = normals(inner * 4);
  const rowsOf = (from: number, to: number) => x.slice(from * inner, to * inner);
  const first = causalConv(rowsOf(0, 5), weight, null, inner, 4);
  const rest = causalConv(rowsOf(5, 9), weight, null, inner, 4, rowsOf(2, 5));
  same([...first, ...rest], causalConv(x, weight, null, inner, 4), EQUAL_BOUND);
});

test("a tied head is the embedding", async (t) => {
  const model = await small(t);
  const tied = forward({ ...model, head: null }, TOKENS).logits;
  assert.deepEqual(tied, forward({ ...model, head: model.embedding }, TOKENS).logits);
  assert.notDeepEqual(tied, logits(model));
});

/** Fails where the largest difference, over the largest magnitude wanted, is above the bound; returns it. */
function same(got: ArrayLike<number>, want: ArrayLike<number>, bound: number, what = "values"): number {
  assert.equal(got.length, want.length);
  let largest = 0;
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i]));
    if (!(Math.abs(got[i] - want[i]) <= Math.abs(got[worst] - want[worst]))) worst = i;
  }
  const off = Math.abs(got[worst] - want[worst]) / largest;
  assert.ok(off <= bound, `${what}: at ${worst} got ${got[worst]}, expected ${want[worst]} (${off} > ${bound})`);
  return off;
}
