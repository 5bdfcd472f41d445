// Packs of every version stay readable: one of each is checked in, with the logits that it gave when it was made.
// `SNUG_WRITE_VERSION=1 node --test build/test/versions.test.js` makes the files for a new version.

import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { PACK_VERSION } from "../packs/format";
import { packCheckpoint } from "../packs/index";
import { open } from "../runtime/index";
import { watchModels } from "./all-returned";
import { SMALL_CONFIGS, scratchFolder, writeCheckpoint } from "./write-checkpoint";

watchModels();

const TOKENS = [3, 1, 4, 15, 92, 65, 35, 89, 79, 32];
const PRUNING = 0.25;
const file = (version: number, end: string) => `test/fixtures/version-${version}.${end}`;

/** The last position's logits of the pack, cut. */
async function lastLogits(path: string): Promise<number[]> {
  const pack = await open(path);
  const model = await pack.load(pack.plan({ pruning: PRUNING, outputs: 16, rows: 16, activations: "f32" }));
  let last: number[] = [];
  await model.logits(TOKENS, (logits) => {
    last = [...logits];
  });
  await pack.close();
  return last;
}

if (process.env.SNUG_WRITE_VERSION && !existsSync(file(PACK_VERSION, "snug")))
  test("writes the files of this version", async (context) => {
    const { folder } = writeCheckpoint(scratchFolder(context), SMALL_CONFIGS.bamba, 11);
    await packCheckpoint({ checkpoint: folder, output: file(PACK_VERSION, "snug"), threads: 1 });
    writeFileSync(file(PACK_VERSION, "json"), `${JSON.stringify(await lastLogits(file(PACK_VERSION, "snug")))}\n`);
  });

for (let version = 1; version <= PACK_VERSION; version++)
  test(`a pack of version ${version} loads and computes what it did`, async () => {
    const want = JSON.parse(readFileSync(file(version, "json"), "utf8")) as number[];
    const got = await lastLogits(file(version, "snug"));
    const most = Math.max(...want.map(Math.abs));
    want.forEach((value, i) => {
      assert.ok(Math.abs(value - got[i]) < 1e-5 * most, `logit ${i}: ${got[i]}, not ${value}`);
    });
  });
