// Orders, bases and refits against their definitions, computed plainly in f64.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { before, test } from "node:test";
import { Linalg } from "../packs/linalg";
import {
  descending,
  eliminationOrder,
  jointBasis,
  nestedRefit,
  outputGram,
  rankPairs,
  type ValueBasis,
} from "../packs/sort";
import { SnugError } from "../runtime/errors";
import { diagonal, gram, identity, largest, multiply, shifted, solve, transpose } from "./dense";
import { close } from "./harness";
import { type Random, withRandom } from "./random";

const SEED = 4242;
let linalg: Linalg;
before(async () => {
  linalg = await Linalg.load(resolve("dist/linalg.wasm"));
});

/** One test with random numbers and a stack of matrices of its own. */
function check(name: string, body: (random: Random) => void): void {
  test(name, () => withRandom(SEED, (random) => linalg.scope(() => body(random))));
}

function randoms(random: Random, count: number): Float32Array {
  return Float32Array.from({ length: count }, random.normal);
}

/** Correlated inputs [rows, n] with a mean. */
function inputs(random: Random, rows: number, n: number): Float32Array {
  let drift = 0;
  return Float32Array.from({ length: rows * n }, (_, at) => {
    drift = 0.7 * drift + random.normal();
    return drift * (0.3 + (at % 4)) + 0.2 * (at % 3);
  });
}

/** XᵀX / rows, rounded to f32. */
function moments(x: Float32Array, n: number): Float32Array {
  return Float32Array.from(gram(x, n), (value) => (value * n) / x.length);
}

/** `close` with a bound relative to the largest value wanted. */
function near(got: ArrayLike<number>, want: ArrayLike<number>, share: number): void {
  close(got, want, share * largest(want));
}

test("descending keeps ties in order", () => {
  assert.deepEqual([...descending([1, 3, 2, 3, -1])], [1, 3, 2, 0, 4]);
  assert.deepEqual([...descending([])], []);
});

for (const [n, width] of [
  [1, 3],
  [2, 2],
  [31, 20],
  [64, 48],
]) {
  check(`eliminationOrder n=${n}`, (random) => {
    const c = moments(inputs(random, 2 * n, n), n);
    const down = randoms(random, width * n);
    const loss = gram(down, n).map((value, at) => value * c[at]);
    const order = [...eliminationOrder(linalg, linalg.put(c, n, n), down, width)];
    assert.deepEqual(
      order.toSorted((i, j) => i - j),
      [...order.keys()],
    );
    const dropped: number[] = [];
    const lossWith = (extra: number) => {
      let sum = 0;
      for (const i of [...dropped, extra]) for (const j of [...dropped, extra]) sum += loss[i * n + j];
      return sum;
    };
    for (let place = n - 1; place >= 0; place--) {
      const chosen = lossWith(order[place]);
      const best = Math.min(...order.slice(0, place + 1).map(lossWith));
      assert.ok(chosen <= best + 1e-5 * (1 + Math.abs(best)), `place ${place}: ${chosen}, possible ${best}`);
      dropped.push(order[place]);
    }
  });
}

for (const biased of [false, true]) {
  for (const rotated of [4, 3, 0]) {
    check(
      `rankPairs ${biased ? "with" : "without"} biases, ${rotated} of 4 pairs rotated, whatever the positions`,
      (random) => {
        const [heads, kvHeads, headDim, width, rows] = [4, 2, 8, 24, 200];
        const x = inputs(random, rows, width);
        const q = randoms(random, heads * headDim * width);
        const k = randoms(random, kvHeads * headDim * width);
        const mean = Float32Array.from(multiply(new Float64Array(rows).fill(1 / rows), x, 1, rows, width));
        const biases = { q: randoms(random, heads * headDim), k: randoms(random, kvHeads * headDim), mean };
        const rotary = Array.from({ length: rotated }, (_, i) => [i, i + rotated] as const);

        /** Mean squares of what the layer computes, each row rotated by its position. */
        const energies = (w: Float32Array, bias: Float32Array, count: number) => {
          const out = multiply(x, transpose(w, width, count), rows, width, count);
          const sums = new Float64Array(count);
          for (let r = 0; r < rows; r++)
            for (let head = 0; head < count; head += headDim) {
              const at = (dim: number) => out[r * count + head + dim] + (biased ? bias[head + dim] : 0);
              for (let dim = 2 * rotated; dim < headDim; dim++) sums[head + dim] += at(dim) ** 2 / rows;
              for (const [a, b] of rotary) {
                const angle = r / 10 ** a;
                sums[head + a] += (at(a) * Math.cos(angle) - at(b) * Math.sin(angle)) ** 2 / rows;
                sums[head + b] += (at(a) * Math.sin(angle) + at(b) * Math.cos(angle)) ** 2 / rows;
              }
            }
          return sums;
        };
        const queries = energies(q, biases.q, heads * headDim);
        const keys = energies(k, biases.k, kvHeads * headDim);
        const score = (kv: number, dims: readonly number[]) => {
          const sum = (values: Float64Array, head: number) =>
            dims.reduce((total, dim) => total + values[head * headDim + dim], 0);
          return Math.sqrt((sum(queries, 2 * kv) + sum(queries, 2 * kv + 1)) * sum(keys, kv));
        };
        const c = linalg.put(moments(x, width), width, width);
        const shape = { heads, kvHeads, headDim, q, k };
        rankPairs(linalg, c, biased ? { ...shape, biases } : shape, rotary).forEach((dims, kv) => {
          assert.deepEqual(
            dims.toSorted((a, b) => a - b),
            Array.from({ length: headDim }, (_, i) => i),
          );
          const pairs = Array.from({ length: headDim / 2 }, (_, i) => dims.slice(2 * i, 2 * i + 2));
          const scores = pairs.map((pair) => score(kv, pair));
          scores.slice(1).forEach((value, i) => {
            assert.ok(
              value <= scores[i] * (1 + 1e-5),
              `pair ${i + 1} of head ${kv} is worth more than the one before it`,
            );
          });
          // Rotary pairs stay together; plain dims stand as they rank.
          for (const [a, b] of pairs) if (a < 2 * rotated || b < 2 * rotated) assert.equal(b, a + rotated);
          const plain = dims.filter((dim) => dim >= 2 * rotated).map((dim) => score(kv, [dim]));
          plain.slice(1).forEach((value, i) => {
            assert.ok(value <= plain[i] * (1 + 1e-5), `plain dim ${i + 1} of head ${kv}`);
          });
        });
      },
    );
  }
}

check("bases of the values: exact when whole, worth what they say, the joint one best", (random) => {
  const [headDim, width, group, allHeads, firstHead] = [16, 40, 3, 6, 3];
  const square = (a: ArrayLike<number>, b: ArrayLike<number>) => multiply(a, b, headDim, headDim, headDim);
  const wv = randoms(random, headDim * width);
  const wo = randoms(random, width * allHeads * headDim).map((value, at) => value * (1 + 3 * ((at % headDim) % 5)));
  const c = moments(inputs(random, 300, width), width);
  const values = multiply(wv, c, headDim, width, width);
  const covariance = multiply(values, transpose(wv, width, headDim), headDim, width, headDim);

  // The group's heads under each other: [group × width, headDim].
  const stacked = Float64Array.from({ length: group * width * headDim }, (_, at) => {
    const [row, i] = [Math.floor(at / headDim), at % headDim];
    return wo[(row % width) * allHeads * headDim + (firstHead + Math.floor(row / width)) * headDim + i];
  });
  const output = outputGram(linalg, wo, width, headDim, firstHead, group);
  near(output, gram(stacked, headDim), 1e-5);

  /** Mean square of what the group's heads lose together when channels from k on are dropped. */
  const lost = (basis: ValueBasis, k: number) => {
    const kept = square(
      basis.o.map((value, at) => (at % headDim < k ? value : 0)),
      basis.v,
    );
    const missing = identity(headDim).map((value, at) => value - kept[at]);
    const error = multiply(stacked, missing, group * width, headDim, headDim);
    const through = multiply(error, covariance, group * width, headDim, headDim);
    return through.reduce((sum, value, at) => sum + value * error[at], 0);
  };
  const from = (worth: Float64Array, k: number) => worth.subarray(k).reduce((sum, value) => sum + value, 0);
  // Beside it the principal axes of the values, which know nothing of o.
  const { values: worth, vectors } = linalg.eigen(covariance, headDim);
  const own: ValueBasis = { v: vectors, o: transpose(vectors, headDim, headDim), worth };
  const joint = jointBasis(linalg, covariance, output, headDim);
  for (const basis of [own, joint]) near(square(basis.o, basis.v), identity(headDim), 1e-9);
  const all = lost(joint, 0);
  for (let k = 0; k <= headDim; k++) {
    assert.ok(Math.abs(lost(joint, k) - from(joint.worth, k)) <= 1e-6 * all, `k = ${k}`);
    assert.ok(lost(joint, k) <= lost(own, k) + 1e-6 * all, `k = ${k}`);
  }
  assert.ok(lost(joint, headDim / 2) < 0.9 * lost(own, headDim / 2));
  // Every column of o has the same norm over the group: what a shared scale wants.
  const rotated = multiply(stacked, joint.o, group * width, headDim, headDim);
  near(diagonal(gram(rotated, headDim), headDim), new Float64Array(headDim).fill(1), 1e-6);
});

check("bases of values that lie in a subspace, or nowhere, stay finite and inverse", (random) => {
  const n = 12;
  const flat = gram(randoms(random, 3 * n), n);
  const zeros = new Float64Array(n * n);
  for (const [covariance, output] of [
    [flat, identity(n)],
    [flat, flat],
    [identity(n), zeros],
    [zeros, zeros],
  ]) {
    const basis = jointBasis(linalg, covariance, output, n);
    near(multiply(basis.o, basis.v, n, n, n), identity(n), 1e-6);
  }
});

for (const [n, m] of [
  [1, 1],
  [7, 3],
  [40, 5],
  [65, 17],
]) {
  check(`nestedRefit ${m}×${n}`, (random) => {
    const damp = 0.01;
    const c = moments(inputs(random, 3 * n + 3, n), n);
    const w = randoms(random, m * n);
    const refit = (tail: ArrayLike<number>) => nestedRefit(linalg, linalg.put(c, n, n), tail, w, m, damp);
    const damped = shifted(c, n, (damp * diagonal(c, n).reduce((sum, value) => sum + value, 0)) / n);

    const plain = refit(new Float32Array(n).fill(1));
    assert.deepEqual(plain.weights, w);
    near(linalg.get(plain.hessian), damped, 1e-6);

    const tail = Float64Array.from({ length: n }, (_, i) => (i < n / 2 ? 1 : 0.9 * 0.8 ** (i - n / 2)));
    const { weights, hessian } = refit(tail);
    const wantHessian = damped.map((value, at) => value * tail[Math.max(Math.floor(at / n), at % n)]);
    near(linalg.get(hessian), wantHessian, 1e-6);
    const right = multiply(damped, transpose(w, n, m), n, n, m).map((value, at) => value * tail[Math.floor(at / m)]);
    const want = transpose(solve(wantHessian, right, n, m), m, n);
    near(weights, want, 2e-4);

    /** Σ_k P(k)·‖(W − W*·P_k)·C^½‖² */
    const expectedLoss = (candidate: ArrayLike<number>) => {
      let sum = 0;
      for (let k = 1; k <= n; k++) {
        const chance = tail[k - 1] - (k < n ? tail[k] : 0);
        const d = Float64Array.from(w, (value, at) => value - (at % n < k ? candidate[at] : 0));
        sum += chance * multiply(d, damped, m, n, n).reduce((total, value, at) => total + value * d[at], 0);
      }
      return sum;
    };
    const least = expectedLoss(weights);
    assert.ok(least <= expectedLoss(w));
    for (let trial = 0; trial < 3; trial++) {
      assert.ok(least <= expectedLoss(weights.map((value) => value * (1 + 0.02 * random.normal()))));
    }

    const never = refit(tail.map((share, i) => (i > n / 2 ? 0 : share)));
    assert.ok(never.weights.every(Number.isFinite));
  });
}

check("nestedRefit refuses shares that rise, or are none", () => {
  const c = linalg.zeros(2, 2);
  for (const tail of [[1], [0.5, 0.6], [1.2, 1], [1, Number.NaN], [1, -0.1]]) {
    assert.throws(() => nestedRefit(linalg, c, tail, new Float32Array(2), 1, 0.01), SnugError);
  }
});
