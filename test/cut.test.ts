// A cut is a smaller model, exactly: at every cut the core's logits are those of test/reference.ts on the weights that
// stand in the pack, the units beyond the cut left out.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import {
  CONV_CHANNELS,
  CONV_STATE,
  CONV_TAPS,
  CONV_UNITS,
  OP_BYTES,
  OP_CODE,
  OP_CONV,
  OP_SCAN,
  SCAN_BC_CHANNELS,
  SCAN_BC_UNITS,
  SCAN_HEADS,
  SCAN_STATE,
  SCAN_XZ_CHANNELS,
  SCAN_XZ_UNITS,
} from "../assembly/abi";
import { openCheckpoint } from "../packs/checkpoint";
import type { Model } from "../runtime/model";
import { Probe } from "../runtime/probe";
import { watchModels } from "./all-returned";
import { random } from "./random";
import { keptOf, readCut, readLayout } from "./read-pack";
import { readReference } from "./read-reference";
import { forward } from "./reference";
import { BOUND, distance, FAMILY_SHAPES, loadCut, logitsOf, ODD, randomTokens, SHAPES } from "./small-models";
import { scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const CUTS = 12;
const CHUNKS = [1, 7, 64]; // rows of a step: decoding, an awkward prefill, all at once
const TALE = "../shared/models/tale-llama";

/** All units, none, one, and seeded numbers between. */
function someCuts(units: number, seed: number): number[] {
  const { int } = random(seed);
  const cuts = new Set([units, 0, 1, units - 1]);
  while (cuts.size < Math.min(CUTS, units + 1)) cuts.add(int(units + 1));
  return [...cuts];
}

for (const [index, shape] of [...SHAPES, ...FAMILY_SHAPES, ODD].entries()) {
  const seed = index + 1;
  for (const weights of shape === ODD ? (["f32"] as const) : (["f32", "q8", "q4"] as const)) {
    test(`cuts of ${weights}: ${shape.name}`, async (context) => {
      const { folder } = writeCheckpoint(scratchFolder(context), shape.config, seed);
      const bytes = await packCheckpoint(folder, { weights, seed, sizes: shape.sizes });
      const layout = readLayout(bytes);
      const pack = await openBytes(bytes);
      const tokens = randomTokens(75, pack.shape.vocabulary, seed); // more than one step of the longest
      let worst = 0;
      for (const units of someCuts(layout.units.length, seed)) {
        const want = forward(readCut(bytes, layout, keptOf(layout, units)), tokens).logits;
        for (const rows of CHUNKS) {
          const model = await loadCut(pack, layout, units, { rows, outputs: rows });
          const off = distance(await logitsOf(model, tokens), want);
          assert.ok(off <= BOUND, `${units} of ${layout.units.length} units, ${rows} rows a step: ${off}`);
          worst = Math.max(worst, off);
          model.dispose();
        }
      }
      context.diagnostic(`largest difference ${worst.toExponential(1)} of the largest logit`);
    });
  }

  test(`any cut of a loaded model: ${shape.name}`, async (context) => {
    const { folder } = writeCheckpoint(scratchFolder(context), shape.config, seed);
    const bytes = await packCheckpoint(folder, { seed, sizes: shape.sizes });
    const layout = readLayout(bytes);
    const pack = await openBytes(bytes);
    const tokens = randomTokens(20, pack.shape.vocabulary, seed);
    const options = { rows: 8, outputs: 8 };
    const model = await loadCut(pack, layout, layout.units.length, options);
    const probe = new Probe(model);
    const { int } = random(seed);
    for (const units of someCuts(layout.units.length, seed + 50)) {
      probe.narrow(keptOf(layout, units));
      const loaded = await loadCut(pack, layout, units, options);
      assert.deepEqual(await logitsOf(model, tokens), await logitsOf(loaded, tokens), `narrowed to ${units} units`);
    }
    for (let cut = 0; cut < CUTS; cut++) {
      // Cuts that no order of the units has: whole stacks gone, others whole.
      const kept = layout.stacks.map((stack) => (int(3) === 0 ? 0 : int(stack.units + 1)));
      probe.narrow(kept);
      const off = distance(await logitsOf(model, tokens), forward(readCut(bytes, layout, kept), tokens).logits);
      assert.ok(off <= BOUND, `kept ${kept}: ${off}`);
    }
  });

  test(`a sorted model at full width is the same function: ${shape.name}`, async (context) => {
    const { folder } = writeCheckpoint(scratchFolder(context), shape.config, seed);
    const checkpoint = await openCheckpoint(folder);
    const reference = await readReference(checkpoint);
    await checkpoint.close();
    const tokens = randomTokens(30, reference.vocabulary, seed);
    const want = forward(reference, tokens).logits;
    for (const order of [undefined, seed]) {
      const pack = await openBytes(
        await packCheckpoint(folder, { ...(order !== undefined && { seed: order }), sizes: shape.sizes }),
      );
      const off = distance(
        await logitsOf(await pack.load(pack.plan({ outputs: 64, activations: "f32" })), tokens),
        want,
      );
      assert.ok(off <= BOUND, `${order === undefined ? "natural" : "random"} order: ${off}`);
    }
  });
}

/** What goes on from one step to the next: the states of all layers, as they lie behind the last step. */
function statesOf(model: Model): Float32Array[] {
  const { exports } = model.core;
  return Array.from({ length: exports.program_length() }, (_, index) => {
    const op = model.core.view((exports.program_ptr() >>> 0) + index * OP_BYTES, OP_BYTES);
    const at = (field: number) => op.getUint32(field, true);
    if (at(OP_CODE) === OP_CONV)
      return model.core.floats(at(CONV_STATE), (at(CONV_TAPS) - 1) * at(CONV_UNITS) * at(CONV_CHANNELS)).slice();
    if (at(OP_CODE) !== OP_SCAN) return new Float32Array();
    const inner = at(SCAN_HEADS) * at(SCAN_XZ_UNITS) * at(SCAN_XZ_CHANNELS);
    return model.core.floats(at(SCAN_STATE), inner * at(SCAN_BC_UNITS) * at(SCAN_BC_CHANNELS)).slice();
  }).filter(({ length }) => length > 0);
}

for (const [index, { name, config, sizes }] of FAMILY_SHAPES.entries()) {
  test(`chunks of a prompt: the same logits and the same state, ${name}`, async (context) => {
    const seed = 70 + index;
    const { folder } = writeCheckpoint(scratchFolder(context), config, seed);
    const bytes = await packCheckpoint(folder, { seed, sizes });
    const layout = readLayout(bytes);
    const pack = await openBytes(bytes);
    const tokens = randomTokens(100, pack.shape.vocabulary, seed);
    const run = async (rows: number) => {
      const model = await loadCut(pack, layout, Math.ceil(layout.units.length * 0.8), { rows, outputs: rows });
      await logitsOf(model, randomTokens(9, pack.shape.vocabulary, seed + 1)); // another text before it leaves nothing behind
      return { logits: await logitsOf(model, tokens), states: statesOf(model), plan: model.plan };
    };
    const whole = await run(tokens.length);
    assert.equal(whole.plan.stateBytes > 0, pack.shape.ssm !== null);
    assert.equal(whole.states.length > 0, pack.shape.ssm !== null);
    for (const rows of [1, 7, 64]) {
      const { logits, states } = await run(rows);
      assert.ok(distance(logits, whole.logits) <= BOUND, `${rows} rows a step`);
      states.forEach((state, i) => {
        const off = distance(state, whole.states[i]);
        assert.ok(off <= BOUND, `${rows} rows a step: state ${i} is ${off} off`);
      });
    }
  });
}

test("greedy decoding follows the reference", async (context) => {
  const { folder } = writeCheckpoint(scratchFolder(context), {}, 9);
  const bytes = await packCheckpoint(folder, { weights: "q4", seed: 9, sizes: SHAPES[0].sizes });
  const layout = readLayout(bytes);
  const pack = await openBytes(bytes);
  const model = await loadCut(pack, layout, Math.floor(layout.units.length / 2), { rows: 7 });
  const prompt = randomTokens(17, pack.shape.vocabulary, 9);
  const result = await model
    .generate(prompt, { temperature: 0, repeatPenalty: 1, maxTokens: 40 })
    .result()
    .catch((error: Error) => assert.fail(error.message));
  const kept = keptOf(layout, model.plan.keptUnits);
  const { logits } = forward(readCut(bytes, layout, kept), [...prompt, ...result.tokens]);
  for (const [i, token] of result.tokens.entries()) {
    const at = (prompt.length - 1 + i) * pack.shape.vocabulary;
    const row = logits.subarray(at, at + pack.shape.vocabulary);
    const most = Math.max(...row);
    assert.ok(row[token] >= most - BOUND * Math.abs(most), `token ${i} is ${token}, which is not the likeliest`);
  }
});

const skip = existsSync(TALE) ? false : `${TALE} is absent`;
test("cuts of q4: tale-llama", { skip }, async (context) => {
  const bytes = await packCheckpoint(TALE, { weights: "q4", seed: 1 });
  const layout = readLayout(bytes);
  const pack = await openBytes(bytes);
  const tokens = randomTokens(8, pack.shape.vocabulary, 3);
  let worst = 0;
  for (const units of someCuts(layout.units.length, 3)) {
    const want = forward(readCut(bytes, layout, keptOf(layout, units)), tokens).logits;
    for (const rows of CHUNKS) {
      const model = await loadCut(pack, layout, units, { context: 64, rows, outputs: rows });
      const off = distance(await logitsOf(model, tokens), want);
      assert.ok(off <= BOUND, `${units} of ${layout.units.length} units, ${rows} rows a step: ${off}`);
      worst = Math.max(worst, off);
    }
  }
  context.diagnostic(`largest difference ${worst.toExponential(1)} of the largest logit`);
});
