// The sampler against a plain one in f64: every mix of settings, the random numbers, and logits that are not numbers.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { STATUS_ARGUMENT, STATUS_OK } from "../assembly/abi";
import { loadTestModule, type ModuleKind, type TestModule } from "./harness";
import { type Random, withRandom } from "./random";

interface Settings {
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  penalty: number;
}

const PLAIN: Settings = { temperature: 1, topK: 0, topP: 1, minP: 0, penalty: 1 };
const SEED = 0x0123456789abcdefn;

/** The core's sampler over logits that stay where they are. */
class Sampler {
  readonly module: TestModule;
  #configure: number[] = [];

  constructor(kind: ModuleKind = "release") {
    this.module = loadTestModule(kind);
  }

  configure({ temperature, topK, topP, minP, penalty }: Settings, seed = SEED): number {
    const halves = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
    this.#configure = [temperature, topK, topP, minP, penalty, ...halves];
    return this.module.exports.sampler_configure(...this.#configure);
  }

  choose(logits: Float32Array, history: number[] = []): number {
    const { exports } = this.module;
    this.module.reset();
    const scratch = this.module.guarded(exports.sampler_scratch_bytes(logits.length));
    const ids = this.module.put(Uint32Array.from(history));
    const ptr = this.module.put(logits);
    const id = exports.sampler_choose(ptr, logits.length, ids, history.length, scratch.ptr);
    scratch.check();
    assert.deepEqual(this.module.get(Float32Array, ptr, logits.length), logits, "logits changed");
    assert.ok(id >= 0 && id < logits.length);
    return id;
  }
}

/** xoshiro128** seeded by SplitMix64, from their papers, in BigInt. */
class Numbers {
  #state: bigint[];

  constructor(seed: bigint) {
    const mask = (1n << 64n) - 1n;
    const words = [1n, 2n].map((i) => {
      let z = (seed + i * 0x9e3779b97f4a7c15n) & mask;
      z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
      z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
      return z ^ (z >> 31n);
    });
    this.#state = words.flatMap((word) => [word & 0xffffffffn, word >> 32n]);
  }

  #next(): bigint {
    const rotate = (x: bigint, by: bigint) => ((x << by) | (x >> (32n - by))) & 0xffffffffn;
    const s = this.#state;
    const result = (rotate((s[1] * 5n) & 0xffffffffn, 7n) * 9n) & 0xffffffffn;
    const t = (s[1] << 9n) & 0xffffffffn;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 11n);
    return result;
  }

  unit(): number {
    const high = this.#next() >> 5n;
    return Number((high << 26n) | (this.#next() >> 6n)) / 2 ** 53;
  }
}

/** What remains after every step, as [id, probability], best first. */
function distribution(logits: ArrayLike<number>, history: number[], settings: Settings): [number, number][] {
  const scores = Array.from(logits, (logit) => (Number.isNaN(logit) ? -Infinity : logit));
  for (const id of new Set(history)) {
    if (id >= scores.length) continue;
    scores[id] = Math.fround(scores[id] > 0 ? scores[id] / settings.penalty : scores[id] * settings.penalty);
  }
  let rows = scores.map((score, id) => ({ id, score: Math.min(score, 3.4028234663852886e38) / settings.temperature }));
  rows = rows.filter(({ score }) => score > -Infinity).sort((a, b) => b.score - a.score || a.id - b.id);
  if (settings.topK) rows = rows.slice(0, settings.topK);
  let shares = rows.map(({ id, score }) => ({ id, share: Math.exp(score - rows[0].score) }));
  const total = shares.reduce((sum, { share }) => sum + share, 0);
  let before = 0;
  shares = shares.filter(({ share }) => {
    const kept = before < settings.topP * total;
    before += share;
    return kept;
  });
  shares = shares.filter(({ share }) => share >= settings.minP);
  const rest = shares.reduce((sum, { share }) => sum + share, 0);
  return shares.map(({ id, share }) => [id, share / rest]);
}

function reference(rows: [number, number][], byId: boolean, unit: number): number {
  const order = byId ? [...rows].sort((a, b) => a[0] - b[0]) : rows;
  let rest = unit;
  for (const [id, probability] of order) {
    if (rest < probability) return id;
    rest -= probability;
  }
  return order[order.length - 1][0];
}

const randomLogits = (seeded: Random, length: number, scale: number) =>
  Float32Array.from({ length }, () => seeded.normal() * scale);

for (const kind of ["debug", "release"] as const)
  describe(`sampler (${kind})`, () => {
    test("chooses as the plain sampler does, for every mix of settings", () =>
      withRandom(41, (seeded) => {
        const sampler = new Sampler(kind);
        for (const temperature of [0.3, 1, 1.7])
          for (const topK of [0, 1, 5, 40, 1000])
            for (const topP of [1, 0.95, 0.5, 0.01])
              for (const minP of [0, 0.05, 0.5, 1])
                for (const penalty of [1, 1.3, 0.8]) {
                  const settings = { temperature, topK, topP, minP, penalty };
                  const length = seeded.pick([1, 2, 3, 17, 64, 257]);
                  const logits = randomLogits(seeded, length, seeded.pick([0.5, 2, 8]));
                  const history = Array.from({ length: seeded.int(6) }, () => seeded.int(length + 2));
                  const seed = BigInt(seeded.int(2 ** 32)) * 0x100000001n;
                  assert.equal(sampler.configure(settings, seed), STATUS_OK);
                  const numbers = new Numbers(seed);
                  const f32 = { ...settings, temperature: Math.fround(temperature), topP: Math.fround(topP) };
                  const rows = distribution(logits, history, {
                    ...f32,
                    penalty: Math.fround(penalty),
                    minP: Math.fround(minP),
                  });
                  const byId = topP === 1 && (topK === 0 || topK >= length);
                  for (let draw = 0; draw < 3; draw++) {
                    const want = reference(rows, byId, numbers.unit());
                    assert.equal(
                      sampler.choose(logits, history),
                      want,
                      JSON.stringify({ settings, length, history, draw }),
                    );
                  }
                }
      }));

    test("temperature 0 takes the best, the lowest id of equals, and no random number", () => {
      const sampler = new Sampler(kind);
      const logits = Float32Array.from([1, 3, 3, -1, 3]);
      sampler.configure({ ...PLAIN, temperature: 0, topK: 3, topP: 0.1 });
      const before = sampler.module.get(Uint8Array, sampler.module.exports.sampler_state(), 40);
      assert.equal(sampler.choose(logits), 1);
      assert.equal(sampler.choose(logits, [1]), 1);
      sampler.configure({ ...PLAIN, temperature: 0, penalty: 2 });
      assert.equal(sampler.choose(logits, [1, 1, 1, 4]), 2);
      assert.equal(sampler.choose(Float32Array.from([-1, -3]), [0, 0, 0, 0]), 0); // -2: once for each id
      assert.equal(sampler.choose(Float32Array.from([-1, -1.5]), [0]), 1);
      sampler.configure({ ...PLAIN, temperature: 0, topK: 3, topP: 0.1 });
      assert.deepEqual(sampler.module.get(Uint8Array, sampler.module.exports.sampler_state(), 40), before);
    });

    test("equal logits: top-k keeps the lower ids", () => {
      const sampler = new Sampler(kind);
      sampler.configure({ ...PLAIN, topK: 3 });
      const seen = new Set(Array.from({ length: 200 }, () => sampler.choose(new Float32Array(50).fill(2))));
      assert.deepEqual([...seen].sort(), [0, 1, 2]);
    });

    test("many draws have the probabilities", () =>
      withRandom(42, (seeded) => {
        const sampler = new Sampler(kind);
        const logits = randomLogits(seeded, 40, 2);
        const draws = 10000;
        for (const settings of [PLAIN, { ...PLAIN, temperature: 0.7, topK: 12 }, { ...PLAIN, topP: 0.8, minP: 0.02 }]) {
          sampler.configure(settings, 7n);
          const counts = new Array<number>(logits.length).fill(0);
          for (let i = 0; i < draws; i++) counts[sampler.choose(logits)]++;
          const rows = distribution(logits, [], settings);
          assert.equal(
            rows.reduce((sum, [id]) => sum + counts[id], 0),
            draws,
            "chose what was cut",
          );
          for (const [id, probability] of rows) {
            const bound = 5 * Math.sqrt(draws * probability * (1 - probability)) + 1; // five deviations
            assert.ok(Math.abs(counts[id] - draws * probability) <= bound, `${id}: ${counts[id]}, p = ${probability}`);
          }
        }
      }));

    test("NaN and infinite logits are no trap and no choice", () => {
      const sampler = new Sampler(kind);
      const bad = [NaN, -Infinity];
      for (const temperature of [0, 1e-30, 1, 1e30])
        for (const topK of [0, 2])
          for (const topP of [1, 0.5])
            for (const penalty of [1, 2]) {
              assert.equal(sampler.configure({ ...PLAIN, temperature, topK, topP, penalty }), STATUS_OK);
              for (const value of bad) {
                assert.equal(sampler.choose(new Float32Array(9).fill(value), [0, 1]), 0);
                const one = new Float32Array(9).fill(value);
                one[5] = -3e38;
                assert.equal(sampler.choose(one, [4]), 5);
                one[7] = Infinity;
                assert.equal(sampler.choose(one, [4]), 7);
              }
              assert.ok([2, 3].includes(sampler.choose(Float32Array.from([0, -1, Infinity, Infinity, NaN]))));
              assert.equal(sampler.choose(Float32Array.from([NaN])), 0);
            }
    });

    test("a vocabulary of 50000, flat and steep", () =>
      withRandom(43, (seeded) => {
        const sampler = new Sampler(kind);
        for (const scale of [0, 3]) {
          const logits = randomLogits(seeded, 50000, scale);
          for (const settings of [PLAIN, { ...PLAIN, topK: 40 }, { ...PLAIN, topP: 0.9 }, { ...PLAIN, minP: 0.1 }]) {
            sampler.configure(settings);
            const kept = new Map(distribution(logits, [], { ...settings, topP: Math.fround(settings.topP) + 1e-9 }));
            assert.ok(kept.has(sampler.choose(logits)), JSON.stringify(settings));
          }
        }
      }));

    test("a sampler that is copied out and in goes on as it would have", () => {
      const sampler = new Sampler(kind);
      const logits = new Float32Array(1000);
      const { exports, memory } = sampler.module;
      sampler.configure(PLAIN, 5n);
      sampler.choose(logits);
      const state = sampler.module.get(Uint8Array, exports.sampler_state(), 40);
      const want = Array.from({ length: 20 }, () => sampler.choose(logits));
      sampler.configure({ ...PLAIN, topK: 1 }, 6n);
      sampler.choose(logits);
      new Uint8Array(memory.buffer).set(state, exports.sampler_state());
      assert.deepEqual(
        Array.from({ length: 20 }, () => sampler.choose(logits)),
        want,
      );
    });

    test("settings out of range are refused, by index, and change nothing", () => {
      const sampler = new Sampler(kind);
      const logits = Float32Array.from([0, 5, 1]);
      sampler.configure({ ...PLAIN, temperature: 0 });
      const wrong: [index: number, settings: Partial<Settings>][] = [
        ...[-1, NaN, Infinity].map((temperature): [number, Partial<Settings>] => [0, { temperature }]),
        ...[0, -0.1, 1.1, NaN].map((topP): [number, Partial<Settings>] => [2, { topP }]),
        ...[-0.1, 1.1, NaN].map((minP): [number, Partial<Settings>] => [3, { minP }]),
        ...[0, -1, NaN, Infinity].map((penalty): [number, Partial<Settings>] => [4, { penalty }]),
      ];
      for (const [index, settings] of wrong) {
        assert.equal(sampler.configure({ ...PLAIN, ...settings }), STATUS_ARGUMENT);
        const [argument, value] = sampler.module.get(Float64Array, sampler.module.exports.status_detail_ptr(), 2);
        assert.equal(argument, index);
        assert.ok(Object.is(value, Math.fround(Object.values(settings)[0])) || Number.isNaN(value));
        assert.equal(sampler.choose(logits), 1);
      }
    });
  });
