// What a step is made of, and which blocks of the cache are shared: numbers only, no model.

import assert from "node:assert/strict";
import { test } from "node:test";
import { KvPool } from "../runtime/kv-pool";
import { StepClock, shareStep, type Waiting } from "../runtime/scheduler";
import { random } from "./random";

const prompt = (tokens: number, isBackground = false): Waiting => ({ tokens, isRunning: false, isBackground });
const running = (isBackground = false): Waiting => ({ tokens: 1, isRunning: true, isBackground });
const LIMITS = { rows: 64, outputs: 4 };

/** One row of running sequences takes 10 ms, a row of a prompt 2 ms. */
function measured(): StepClock {
  const clock = new StepClock();
  for (let i = 0; i < 20; i++) {
    clock.note(1, 0, 0.01);
    clock.note(0, 50, 0.1);
  }
  return clock;
}

test("a prompt alone fills a step; beside running sequences it gets three quarters of their time", () => {
  const clock = measured();
  assert.deepEqual(shareStep([prompt(200)], LIMITS, clock), [64]);
  assert.deepEqual(shareStep([prompt(20), prompt(200)], LIMITS, clock), [20, 44]);
  assert.deepEqual(shareStep([prompt(200), running()], LIMITS, clock), [3, 1]);
  assert.deepEqual(shareStep([running(), prompt(2), prompt(200)], LIMITS, clock), [1, 2, 1]);
});

test("who takes fewer tokens at a time leaves the rest of a step to others", () => {
  const clock = measured();
  assert.deepEqual(shareStep([{ ...prompt(200), most: 32 }], LIMITS, clock), [32]);
  assert.deepEqual(shareStep([{ ...prompt(200), most: 10 }, prompt(200)], LIMITS, clock), [10, 54]);
  assert.deepEqual(shareStep([{ ...prompt(5), most: Number.POSITIVE_INFINITY }], LIMITS, clock), [5]);
  const outputs = { rows: 64, outputs: 1 };
  assert.deepEqual(shareStep([{ ...prompt(9), most: 4 }, prompt(9)], outputs, clock), [4, 9], "it wants no logits yet");
});

test("interactive ones come first, then those that came first", () => {
  const clock = measured();
  assert.deepEqual(shareStep([prompt(100, true), prompt(60)], LIMITS, clock), [4, 60]);
  const outputs = { rows: 64, outputs: 2 };
  assert.deepEqual(shareStep([running(true), running(), running()], outputs, clock), [0, 1, 1]);
  assert.deepEqual(shareStep([running(), running(), running()], { rows: 2, outputs: 4 }, clock), [1, 1, 0]);
});

test("the last token of a prompt waits for a row of logits", () => {
  const clock = measured();
  assert.deepEqual(shareStep([prompt(3), prompt(3)], { rows: 64, outputs: 1 }, clock), [3, 2]);
  assert.deepEqual(shareStep([prompt(1), prompt(1)], { rows: 64, outputs: 1 }, clock), [1, 0]);
});

test("whatever waits: no more rows and outputs than there are, and somebody moves on", () => {
  const { int, seed } = { ...random(81), seed: 81 };
  for (let round = 0; round < 3000; round++) {
    const limits = { rows: 1 + int(40), outputs: 1 + int(6) };
    const waiting = Array.from({ length: 1 + int(12) }, () =>
      int(2) === 0 ? running(int(2) === 0) : prompt(1 + int(50), int(2) === 0),
    );
    const clock = int(2) === 0 ? measured() : new StepClock();
    const shares = shareStep(waiting, limits, clock);
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

test("the clock learns what a row costs, and forgets what no longer holds", () => {
  const clock = new StepClock();
  assert.equal(clock.spareRows(1), 8);
  for (let i = 0; i < 5; i++) clock.note(1, 0, 0.02);
  clock.note(0, 64, 0.64);
  assert.equal(clock.spareRows(1), 1);
  assert.equal(clock.spareRows(3), 1, "the nearest that is known");
  for (let i = 0; i < 60; i++) clock.note(1, 4, 0.02 + 4 * 0.001);
  assert.ok(clock.spareRows(1) >= 11 && clock.spareRows(1) <= 15, String(clock.spareRows(1)));
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
