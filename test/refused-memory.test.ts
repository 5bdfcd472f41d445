// An engine that refuses memory which a plan allows: the next smaller plan is tried, and the caller is told.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { SnugError } from "../runtime/errors";
import type { Plan } from "../runtime/plan";
import { watchModels } from "./all-returned";
import { says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const folder = scratchFolder({ after });
const Memory = WebAssembly.Memory;
let most = Number.POSITIVE_INFINITY;
let bytes: Uint8Array;

before(async () => {
  writeCheckpoint(folder, { hidden_size: 256, intermediate_size: 2048 }, 5);
  bytes = await packCheckpoint(folder);
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      if (descriptor.initial * 65536 > most) throw new RangeError("could not allocate memory");
      super(descriptor);
    }
  };
});
after(() => {
  WebAssembly.Memory = Memory;
});

test("a plan for a budget is made anew for less, until one fits", async () => {
  const pack = await openBytes(bytes);
  const plan = pack.plan({ memory: 1e9, context: 16 });
  most = plan.minimumBytes + (plan.totalBytes - plan.minimumBytes) * 0.3;
  const told: [Plan, SnugError][] = [];
  const model = await pack.load(plan, { onSmaller: (smaller, error) => told.push([smaller, error]) });
  assert.ok(told.length > 0);
  for (const [smaller, error] of told) {
    assert.ok(smaller.totalBytes < plan.totalBytes);
    assert.match(error.message, /refused .* of memory: plan with less/);
    assert.equal(error.code, "memory");
  }
  assert.equal(model.plan, told.at(-1)?.[0]);
  assert.ok(model.plan.totalBytes <= most && model.memoryBytes === model.plan.totalBytes);
  assert.equal(model.plan.context, 16);
  assert.equal((await model.generate([1, 2], { maxTokens: 3 }).result()).tokens.length, 3);
});

test("nothing smaller than the smallest cut is tried", async () => {
  const pack = await openBytes(bytes);
  const plan = pack.plan({ memory: 1e9, context: 16 });
  most = plan.minimumBytes - 65536;
  await assert.rejects(pack.load(plan), says("memory", "the engine refused"));
});

test("a plan that names its cut stays as it is, or fails", async () => {
  const pack = await openBytes(bytes);
  for (const options of [{}, { pruning: 0.1 }]) {
    const plan = pack.plan({ ...options, context: 16 });
    most = plan.totalBytes - 65536;
    await assert.rejects(
      pack.load(plan, { onSmaller: () => assert.fail("another plan was tried") }),
      says("memory", "the engine refused"),
    );
  }
});
