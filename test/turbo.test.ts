// With vectors wider than 128 bits, where this engine has them, models compute what they do without. In a file, and so a
// process, of its own: the engine keeps what it has compiled.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Host } from "../runtime/host";
import { nodeHost } from "../runtime/node";
import { Pack } from "../runtime/pack";
import { watchModels } from "./all-returned";
import { keptOf, readCut, readLayout } from "./read-pack";
import { forward } from "./reference";
import { BOUND, distance, FAMILY_SHAPES, loadCut, logitsOf, randomTokens, SHAPES } from "./small-models";
import { scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { memorySource, packCheckpoint, testHost } from "./write-pack";

watchModels();

const INT8_BOUND = 0.04;
const PASSES = 6; // for the engine's last compiler to have taken over

const turbo = nodeHost.enable?.("turbo") ?? false;
const skip = turbo ? false : `Node ${process.versions.node} has no wider vectors that compute rightly`;
const host: Host = { ...testHost, enable: (feature) => (feature === "turbo" ? turbo : true) };

for (const [index, { name, config, sizes }] of [...SHAPES.slice(0, 1), ...FAMILY_SHAPES].entries()) {
  test(`turbo: ${name}`, { skip }, async (context) => {
    const seed = 700 + index;
    const { folder } = writeCheckpoint(scratchFolder(context), config, seed);
    const bytes = await packCheckpoint(folder, { weights: "q4", seed, sizes });
    const layout = readLayout(bytes);
    const pack = await Pack.open(memorySource(bytes), host, { turbo: true });
    assert.ok(pack.build.turbo);
    const tokens = randomTokens(75, pack.shape.vocabulary, seed);
    const want = forward(readCut(bytes, layout, keptOf(layout, layout.units.length)), tokens).logits;
    for (const activations of ["f32", "int8"] as const) {
      for (const rows of [1, 7, 23, 64]) {
        const model = await loadCut(pack, layout, layout.units.length, { rows, outputs: rows, activations });
        for (let pass = 0; pass < PASSES; pass++) {
          const off = distance(await logitsOf(model, tokens), want);
          assert.ok(off <= (activations === "f32" ? BOUND : INT8_BOUND), `${activations}, ${rows} rows a step: ${off}`);
        }
        model.dispose();
      }
    }
  });
}
