// What a step is made of, and which blocks of the cache are shared: numbers only, no model.

import assert from "node:assert/strict";
import { test } from "node:test";
import { KvPool } from "../runtime/kv-pool";
import { shareStep, type Waiting } from "../runtime/scheduler";
import { StepTimes } from "../runtime/step-times";
import { random } from "./random";

const prompt = (tokens: number, isBackground = false): Waiting => ({ tokens, isRunning: false, isBackground });
const running = (isBackground = false): Waiting => ({ tokens: 1, isRunning: true, isBackground });
const LIMITS = { rows: 64, outputs: 4 };

/** One row takes 10 ms, each further one 2 ms. */
function measured(): StepTimes {
  const times = new StepTimes();
  for (const rows of [1, 2, 16]) times.add(rows, 0.008 + rows * 0.002);
  return times;
}

test("a prompt alone fills a step; beside running sequences it gets three quarters of their time", () => {
  const times = measured();
  assert.deepEqual(shareStep([prompt(200)], LIMITS, times), [64]);
  assert.deepEqual(shareStep([prompt(20), prompt(200)], LIMITS, times), [20, 44]);
  assert.deepEqual(shareStep([prompt(200), running()], LIMITS, times), [3, 1]);
  assert.deepEqual(shareStep([running(), prompt(2), prompt(200)], LIMITS, times), [1, 2, 1]);
});

test("who takes fewer tokens at a time leaves the rest of a step to others", () => {
  const times = measured();
  assert.deepEqual(shareStep([{ ...prompt(200), most: 32 }], LIMITS, times), [32]);
  assert.deepEqual(shareStep([{ ...prompt(200), most: 10 }, prompt(200)], LIMITS, times), [10, 54]);
  assert.deepEqual(shareStep([{ ...prompt(5), most: Number.POSITIVE_INFINITY }], LIMITS, times), [5]);
  const outputs = { rows: 64, outputs: 1 };
  assert.deepEqual(shareStep([{ ...prompt(9), most: 4 }, prompt(9)], outputs, times), [4, 9], "it wants no logits yet");
});

test("interactive ones come first, then those that came first", () => {
  const times = measured();
  assert.deepEqual(shareStep([prompt(100, true), prompt(60)], LIMITS, times), [4, 60]);
  const outputs = { rows: 64, outputs: 2 };
  assert.deepEqual(shareStep([running(true), running(), running()], outputs, times), [0, 1, 1]);
  assert.deepEqual(shareStep([running(), running(), running()], { rows: 2, outputs: 4 }, times), [1, 1, 0]);
});

test("the last token of a prompt waits for a row of logits", () => {
  const times = measured();
  assert.deepEqual(shareStep([prompt(3), prompt(3)], { rows: 64, outputs: 1 }, times), [3, 2]);
  assert.deepEqual(shareStep([prompt(1), prompt(1)], { rows: 64, outputs: 1 }, times), [1, 0]);
});

test("whatever waits: no more rows and outputs than there are, and somebody moves on", () => {
  const { int, seed } = { ...random(81), seed: 81 };
  for (let round = 0; round < 3000; round++) {
    const limits = { rows: 1 + int(40), outputs: 1 + int(6) };
    const waiting = Array.from({ length: 1 + int(12) }, () =>
      int(2) === 0 ? running(int(2) === 0) : prompt(1 + int(50), int(2) === 0),
    );
    const times = int(2) === 0 ? measured() : new StepTimes();
    const shares = shareStep(waiting, limits, times);
    const what = `seed ${seed}, round ${round}: ${JSON.stringify({ limits, waiting, shares })}`;
    const sum = shares.reduce((all, share) => all + share, 0);
    assert.ok(sum > 0 && sum <= limits.rows, what);
    assert.ok(
      shares.every((share, i) => share >= 0 && share <= (waiting[i]?.tokens ?? 0)),
      what,
    );
    assert.ok(shares.filter((share, i) => share === waiting[i]?.tokens).length <= limits.outputs, what);
  }
});

test("what a step has time for follows from what steps took, the shortest of each", () => {
  const times = new StepTimes();
  assert.equal(times.spareRows(1), 1, "nothing is known");
  times.add(1, 0.03);
  times.add(1, 0.01);
  times.add(1, 0.02);
  assert.equal(times.spareRows(1), 1, "a row like the first");
  times.add(2, 0.011);
  assert.equal(times.spareRows(1), 7, "17.5 ms: 10, and 1 for each further one");
  times.add(4, 0.011);
  times.add(8, 0.019);
  assert.equal(times.spareRows(1), 6, "11 up to 4 rows, then 2 for each");
  assert.equal(times.spareRows(8), 7, "beyond what was measured: 19 + 2 for each up to 33.25");
  times.add(16, 0.019);
  assert.ok(times.spareRows(1) > 0 && times.spareRows(16) === 4096, "more rows for nothing");
});

test("blocks are found by what they hold and what comes before, and never while somebody else writes", () => {
  const pool = new KvPool(4, 2);
  const a = pool.take() as number;
  const b = pool.take() as number;
  assert.equal(pool.name(a, undefined, [1, 2]), a);
  assert.equal(pool.name(b, a, [3, 4]), b);
  assert.equal(pool.find(undefined, [3, 4]), undefined);
  assert.equal(pool.find(undefined, [1, 2]), a);
  assert.equal(pool.find(a, [3, 4]), b);
  const c = pool.take() as number;
  assert.equal(pool.name(c, undefined, [1, 2]), a, "the first one has the name");
  pool.release([c]);
  pool.release([a, b]);
  assert.equal(pool.held, 2);
  pool.release([a, b]);
  assert.equal(pool.held, 0);
  assert.throws(() => pool.release([a]), /twice/);
});

test("what was let go longest ago goes first, and what comes after it before it", () => {
  const pool = new KvPool(3, 1);
  const [a, b] = [pool.take() as number, pool.take() as number];
  pool.name(a, undefined, [1]);
  pool.name(b, a, [2]);
  pool.release([a, b]);
  const c = pool.take() as number;
  const d = pool.take() as number;
  assert.equal(d, b, "the end of a chain goes before its start");
  assert.equal(pool.find(undefined, [1]), a);
  assert.equal(pool.take(), undefined);
  pool.release([a]);
  assert.equal(pool.take(), a);
  pool.release([a, c, d]);
  assert.equal(pool.free, 3);
});

test("a pool under any use: no block has two owners, and all come back", () => {
  const seed = 82;
  const { int } = random(seed);
  for (let round = 0; round < 200; round++) {
    const size = 2 + int(10);
    const pool = new KvPool(size, 2);
    const chains: { blocks: number[]; tokens: number[] }[] = [];
    const content = new Map<number, string>();
    for (let i = 0; i < 80; i++) {
      const chain = chains[int(chains.length + 1)];
      const what = `seed ${seed}, round ${round}, use ${i}`;
      if (chain === undefined) chains.push({ blocks: [], tokens: [] });
      else if (int(3) === 0) {
        pool.release(chain.blocks);
        chains.splice(chains.indexOf(chain), 1);
      } else {
        const next = [int(2), int(2)];
        const tokens = [...chain.tokens, ...next];
        const found = pool.find(chain.blocks.at(-1), next);
        let block = found ?? pool.take();
        if (block === undefined) continue;
        if (found !== undefined) assert.equal(content.get(found), tokens.join(), what);
        else {
          assert.ok(!chains.some(({ blocks }) => blocks.includes(block as number)), what);
          content.set(block, tokens.join());
          const canonical = pool.name(block, chain.blocks.at(-1), next);
          assert.equal(content.get(canonical), tokens.join(), what);
          block = canonical;
        }
        chain.blocks.push(block);
        chain.tokens.push(...next);
      }
      const held = new Set(chains.flatMap(({ blocks }) => blocks));
      assert.equal(pool.held, held.size, what);
      pool.check(chains.map(({ blocks }) => blocks));
    }
    for (const { blocks } of chains) pool.release(blocks);
    assert.equal(pool.held, 0);
    pool.clear();
    assert.equal(pool.free, size);
    pool.check([]);
  }
});

test("a pool that is told of other holders than it knows says which block", () => {
  const pool = new KvPool(4, 2);
  const [a, b] = [pool.take() as number, pool.take() as number];
  pool.name(a, undefined, [1, 2]);
  pool.hold(a);
  pool.check([[a, b], [a]]);
  for (const [chains, block] of [
    [[[a, b]], a],
    [[[a], [a]], b],
    [[[a, b, 2], [a]], 2],
  ] as const)
    assert.throws(() => pool.check(chains), new RegExp(`block ${block} are wrong: holders`));
});
