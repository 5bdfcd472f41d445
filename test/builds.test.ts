// Every build of the core, on one thread and on several, in chunks of every kind, computes the same; and a build that does
// not is not used.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { chooseBuild } from "../runtime/build";
import type { Host } from "../runtime/host";
import type { Model } from "../runtime/model";
import { nodeHost } from "../runtime/node";
import { startThread } from "../runtime/node-threads";
import { watchModels } from "./all-returned";
import { keptOf, readCut, readLayout } from "./read-pack";
import { forward } from "./reference";
import { BOUND, distance, FAMILY_SHAPES, loadCut, logitsOf, randomTokens, SHAPES } from "./small-models";
import { scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint, testHost } from "./write-pack";

watchModels();

/** What 8-bit activations may change, of the largest logit, in models of random weights; 1 % is what is seen. */
const INT8_BOUND = 0.04;
const THREADS = [1, 2, 3];
const CHUNKS = [1, 7, 64];

nodeHost.enable?.("relaxed");
const relaxed: Host = { ...testHost, startThread };
const plain: Host = {
  ...relaxed,
  loadModule: (file) =>
    file.includes("relaxed")
      ? Promise.reject(new WebAssembly.CompileError("no relaxed SIMD"))
      : testHost.loadModule(file),
};
const HOSTS = { relaxed, simd128: plain };

for (const [index, { name, config, sizes }] of [...SHAPES.slice(0, 2), ...FAMILY_SHAPES].entries()) {
  for (const weights of ["f32", "q8", "q4"] as const) {
    test(`builds, threads and chunks agree on ${weights}: ${name}`, async (context) => {
      const seed = 400 + index;
      const { folder } = writeCheckpoint(scratchFolder(context), config, seed);
      const bytes = await packCheckpoint(folder, { weights, seed, sizes });
      const layout = readLayout(bytes);
      const units = Math.ceil(layout.units.length * 0.7);
      let worst = 0;
      let tokens: number[] = [];
      let want = new Float64Array();
      for (const [simd, host] of Object.entries(HOSTS)) {
        const pack = await openBytes(bytes, simd, host);
        assert.equal(pack.build.simd, simd);
        if (tokens.length === 0) {
          tokens = randomTokens(75, pack.shape.vocabulary, seed);
          want = Float64Array.from(forward(readCut(bytes, layout, keptOf(layout, units)), tokens).logits);
        }
        for (const activations of weights === "f32" ? (["int8"] as const) : (["f32", "int8"] as const)) {
          for (const rows of CHUNKS) {
            const of = async (threads: number) => {
              const model = await loadCut(pack, layout, units, { rows, outputs: rows, threads, activations });
              await allThere(model, threads);
              const logits = await logitsOf(model, tokens);
              model.dispose();
              return logits;
            };
            const alone = await of(1);
            const what = `${simd}, ${activations} activations, ${rows} rows a step`;
            const bound = weights === "f32" || activations === "f32" ? BOUND : INT8_BOUND;
            const off = distance(alone, want);
            assert.ok(off <= bound, `${what}: ${off}`);
            worst = Math.max(worst, off / bound);
            for (const threads of THREADS.slice(1))
              assert.deepEqual(await of(threads), alone, `${what}: ${threads} threads`);
          }
        }
      }
      context.diagnostic(`${worst.toFixed(3)} of the bound at most`);
    });
  }
}

/** Waits until all threads take part in steps: one step with fewer is no test of many. */
async function allThere(model: Model, threads: number): Promise<void> {
  const { exports } = model.core;
  for (let tries = 0; exports.threads_ready() < threads; tries++) {
    assert.ok(tries < 1000, `${exports.threads_ready()} of ${threads} threads came`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The module with every relaxed dot product turned into another operation of the same shape: a sum. */
function spoiled(file: string): Promise<WebAssembly.Module> {
  const bytes = new Uint8Array(readFileSync(`dist/${file}`));
  let found = 0;
  for (let i = 0; i + 2 < bytes.length; i++) {
    // i16x8.relaxed_dot_i8x16_i7x16_s is fd 92 02, i16x8.add fd 8e 01.
    if (bytes[i] !== 0xfd || bytes[i + 1] !== 0x92 || bytes[i + 2] !== 0x02) continue;
    bytes.set([0xfd, 0x8e, 0x01], i);
    found++;
  }
  assert.ok(found > 0, `${file} has no relaxed dot product`);
  return WebAssembly.compile(bytes);
}

test("a build that computes wrongly is passed over, and the pack says so", async () => {
  const wrong: Host = {
    ...testHost,
    loadModule: (file) => (file.includes("relaxed") ? spoiled(file) : testHost.loadModule(file)),
  };
  const build = await chooseBuild(wrong, { shared: false, turbo: false });
  assert.equal(build.simd, "simd128");
  assert.match(build.passedOver ?? "", /relaxed: wrong result/);
});

test("an engine that has nothing but SIMD gets the build for it", async () => {
  const build = await chooseBuild(plain, { shared: false, turbo: false });
  assert.equal(build.simd, "simd128");
  assert.match(build.passedOver ?? "", /no relaxed SIMD/);
});

test("when every build computes wrongly, nothing is loaded", async () => {
  const broken: Host = { ...testHost, loadModule: () => spoiled("core.relaxed.wasm") };
  await assert.rejects(chooseBuild(broken, { shared: false, turbo: false }), /computes wrongly/);
});

test("a thread that traps is an error, not a wait", async (context) => {
  const { folder } = writeCheckpoint(scratchFolder(context), {}, 3);
  const bytes = await packCheckpoint(folder, { seed: 3 });
  const pack = await openBytes(bytes, "traps", relaxed);
  const model = await pack.load(pack.plan({ threads: 2 }));
  await allThere(model, 2);
  model.core.exports.threads_trapped();
  await assert.rejects(model.generate([1, 2, 3], { maxTokens: 2 }).result(), /threads trapped/);
  model.dispose();
});
