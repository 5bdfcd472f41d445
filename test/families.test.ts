// A family is known to all who must know it, in one place each: what assembly/models/README.md says about adding one.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { FAMILIES } from "../packs/families/index";
import * as format from "../packs/format";
import { watchModels } from "./all-returned";
import { SMALL_CONFIGS, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const NUMBERS = Object.entries(format).filter(([name]) => name.startsWith("FAMILY_"));

test("every family has a number, a builder, a row of tensor names, a name and a small checkpoint", async (context) => {
  assert.ok(NUMBERS.length >= 5);
  const ids = NUMBERS.map(([, id]) => id);
  assert.equal(new Set(ids).size, ids.length, "a number is used twice");
  assert.deepEqual(FAMILIES.map(({ id }) => id).toSorted(), ids.toSorted());
  const builders = readFileSync("assembly/models/index.ts", "utf8");
  for (const { name, id } of FAMILIES) {
    const constant = NUMBERS.find(([, number]) => number === id)?.[0] ?? assert.fail(name);
    assert.ok(existsSync(`assembly/models/${name}.ts`), `no builder of ${name}`);
    assert.ok(builders.includes(`family == ${constant}`), `nobody calls the builder of ${name}`);
    assert.ok(existsSync(`packs/families/${name}.ts`), `no tensor names of ${name}`);
    const { folder } = writeCheckpoint(scratchFolder(context), SMALL_CONFIGS[name], 1);
    const pack = await openBytes(await packCheckpoint(folder));
    assert.equal(pack.shape.family, name);
    assert.equal((await (await pack.load()).generate([1, 2, 3], { maxTokens: 2 }).result()).tokens.length, 2);
  }
});
