// Synthetic packs: of every family, as the packer lays them out, with activations of ordinary size.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { decodeMatrix, matrixBytes } from "../packs/encode";
import { DTYPE_Q4, DTYPE_Q8, KIND_QK, ROLE_ROPE } from "../packs/format";
import { SHAPES, type SyntheticOptions, type SyntheticShape, writeSyntheticPack } from "../packs/index";
import { randomFrom, randomMatrix } from "../packs/random";
import { syntheticSource } from "../packs/synthetic-source";
import { open, type Source } from "../runtime/index";
import { watchModels } from "./all-returned";
import { keptOf, readCut, readLayout } from "./read-pack";
import { forward } from "./reference";
import { SMALL_CONFIGS, says, scratchFolder } from "./write-checkpoint";
import { openBytes, rateOf } from "./write-pack";

watchModels();

const TOKENS = [3, 1, 4, 15, 92, 65, 35, 89, 79, 32];
const BOUND = 2e-5; // as in shapes.test.ts
/** With heads that can be cut in 4 bits. */
const CONFIGS = { ...SMALL_CONFIGS, "nemotron-h": { ...SMALL_CONFIGS["nemotron-h"], num_attention_heads: 4 } };

async function write(
  context: { after(action: () => void): void },
  shape: SyntheticShape,
  options?: SyntheticOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const path = join(scratchFolder(context), "synthetic.snug");
  const bytes = await writeSyntheticPack(path, shape, options);
  const written = new Uint8Array(readFileSync(path));
  assert.equal(written.length, bytes);
  return written;
}

function deviation(values: ArrayLike<number>): number {
  const list = Array.from(values);
  const mean = list.reduce((a, b) => a + b, 0) / list.length;
  return Math.sqrt(list.reduce((a, b) => a + (b - mean) ** 2, 0) / list.length);
}

for (const [name, shape] of Object.entries(CONFIGS)) {
  for (const weights of ["q4", "q8"] as const) {
    test(`${name} in ${weights}: every cut is what the reference makes of it`, async (context) => {
      const bytes = await write(context, shape, { weights });
      const layout = readLayout(bytes);
      const pack = await openBytes(bytes);
      assert.equal(pack.shape.weights, weights);
      for (const units of [pack.units, Math.ceil(pack.units * 0.8)]) {
        const lengths = layout.units.map(({ length }) => length);
        const plan = pack.plan({ pruning: rateOf(lengths, units), outputs: 16, activations: "f32" });
        const want = forward(readCut(bytes, layout, keptOf(layout, plan.keptUnits)), TOKENS).logits;
        const most = want.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        const model = await pack.load(plan);
        await model.logits(TOKENS, (logits, position) => {
          for (const [i, value] of logits.entries()) {
            const expected = want[position * logits.length + i] as number;
            assert.ok(Math.abs(value - expected) <= BOUND * most, `${value} ≠ ${expected} at ${position}, ${i}`);
          }
        });
        model.dispose();
      }
    });
  }
}

for (const [name, shape] of Object.entries(SHAPES)) {
  test(`${name}: activations of ordinary size, and cuts of up to 45 %`, async (context) => {
    const bytes = await write(context, { ...shape, num_hidden_layers: 2, vocab_size: 500 });
    const pack = await openBytes(bytes);
    const model = await pack.load(pack.plan({ outputs: 16, context: 64 }));
    await model.logits(TOKENS, (logits) => {
      const size = deviation(logits);
      assert.ok(size > 0.8 && size < 1.25, `logits have a deviation of ${size}`);
    });
    model.dispose();
    const lengths = readLayout(bytes).units.map(({ length }) => length);
    const step = Math.max(...lengths) / lengths.reduce((a, b) => a + b, 0);
    for (const rate of [0, 0.15, 0.25, 0.35, 0.45]) {
      const { pruningRate } = pack.plan({ pruning: rate });
      assert.ok(pruningRate <= rate && pruningRate > rate - step, `${rate}: ${pruningRate}`);
    }
    const { pruningRate, layers } = pack.plan({ pruning: 1 });
    assert.ok(pruningRate <= 0.45, `${pruningRate}`);
    for (const { keptUnits } of layers.flatMap(({ stacks }) => stacks)) assert.ok(keptUnits > 0);
  });
}

test("units of queries and keys hold pairs in natural order", async (context) => {
  const bytes = await write(context, SMALL_CONFIGS.llama);
  const { stacks, units } = readLayout(bytes);
  const view = new DataView(bytes.buffer);
  for (const { stack, index, offset } of units) {
    const { kind, channels, tensors } = stacks[stack];
    const rope = tensors.find(({ role }) => role === ROLE_ROPE);
    if (kind !== KIND_QK || rope === undefined) continue;
    for (let at = 0; at < rope.rows * rope.cols; at++) {
      const pair = (index * channels) / 2 + (at % rope.cols);
      const angle = view.getFloat32(offset + rope.offset + at * 4, true);
      assert.ok(Math.abs(angle / 10000 ** ((-2 * pair) / 12) - 1) < 1e-6, `unit ${index}, ${at}: ${angle}`);
    }
  }
});

test("a seed makes one pack, another seed another", async (context) => {
  const [a, b, c] = [
    await write(context, SMALL_CONFIGS.bamba, { seed: 7 }),
    await write(context, SMALL_CONFIGS.bamba, { seed: 7 }),
    await write(context, SMALL_CONFIGS.bamba, { seed: 8 }),
  ];
  assert.deepEqual(a, b);
  assert.notDeepEqual(a, c);
});

for (const [name, shape] of Object.entries(CONFIGS))
  test(`${name} as a source: the bytes that are written`, async (context) => {
    const options = { weights: "q8", group: 16, seed: 3 } as const;
    const written = await write(context, shape, options);
    const source = await syntheticSource(shape, options);
    assert.equal(source.size, written.length);
    const whole = new Uint8Array(source.size);
    await source.read(0, whole);
    assert.ok(Buffer.compare(whole, written) === 0);
    const random = randomFrom(1);
    const reads = Array.from({ length: 50 }, async () => {
      const [a, b] = [random(), random()].map((share) => Math.floor(share * (source.size + 1)));
      const part = new Uint8Array(Math.abs(b - a));
      await source.read(Math.min(a, b), part);
      assert.ok(Buffer.compare(part, written.subarray(Math.min(a, b), Math.max(a, b))) === 0, `${a} … ${b}`);
    });
    await Promise.all(reads);
    await source.read(source.size, new Uint8Array(0));
    await assert.rejects(source.read(source.size - 3, new Uint8Array(4)), says("source", `${source.size}`));
  });

test("a pack that is made as it is read runs", async (context) => {
  const shape = SMALL_CONFIGS.qwen2;
  const logits = async (source: Source | Blob) => {
    const pack = await open(source);
    const model = await pack.load(pack.plan({ outputs: 16 }));
    const all: number[] = [];
    await model.logits(TOKENS, (row) => all.push(...row));
    model.dispose();
    return all;
  };
  const made = await logits(await syntheticSource(shape));
  assert.equal(made.length, TOKENS.length * (shape.vocab_size as number));
  assert.deepEqual(made, await logits(new Blob([await write(context, shape)])));
});

for (const dtype of [DTYPE_Q4, DTYPE_Q8])
  for (const group of [8, 32, 256])
    test(`a random matrix of dtype ${dtype}, group ${group}: its deviation, its rows, its padding`, () => {
      const [rows, cols] = [37, 512];
      const bytes = randomMatrix(dtype, rows, cols, group, cols, randomFrom(group));
      assert.equal(bytes.length, matrixBytes(dtype, rows, cols, group));
      const values = decodeMatrix(bytes, dtype, rows, cols, group);
      assert.ok(Math.abs(deviation(values) * Math.sqrt(cols) - 1) < 0.05);
      const distinct = new Set(Array.from({ length: rows }, (_, i) => values.slice(i * cols, (i + 1) * cols).join()));
      assert.equal(distinct.size, rows);
      const padded = decodeMatrix(bytes, dtype, 48, cols, group);
      assert.ok(padded.subarray(rows * cols).every((value) => value === 0));
    });

test("what the packer refuses is refused", async (context) => {
  const path = join(scratchFolder(context), "synthetic.snug");
  const llama = SMALL_CONFIGS.llama;
  await assert.rejects(writeSyntheticPack(path, { ...llama, hidden_size: 46 }), says("unsupported", "46"));
  await assert.rejects(writeSyntheticPack(path, { ...llama, model_type: "gpt9" }), says("unsupported", "gpt9"));
  await assert.rejects(open(path), says("source", path));
});
