// The linear algebra module against slow f64 twins, at sizes round every tile, block and recursion edge.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { before, test } from "node:test";
import { Linalg, type Matrix } from "../packs/linalg";
import { SnugError } from "../runtime/errors";
import { diagonal, gram, identity, largest, multiply, shifted, solve, transpose } from "./dense";
import { close } from "./harness";
import { type Random, withRandom } from "./random";

const SEED = 20260101;
const SIZES = [1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 64, 100, 129];
const GUARD = 37; // values; odd, so that guarded matrices are aligned to 4 bytes only
const PATTERN = Math.fround(12345.678);
const EPSILON = 2 ** -24;

let linalg: Linalg;
before(async () => {
  linalg = await Linalg.load(resolve("dist/linalg.wasm"));
});

/** One test with random numbers and a stack of matrices of its own. */
function check(name: string, body: (random: Random) => void): void {
  test(name, () => withRandom(SEED, (random) => linalg.scope(() => body(random))));
}

/** Uniform in [−1, 1). */
function randoms(random: Random, count: number): Float32Array {
  return Float32Array.from({ length: count }, () => 2 * random.unit() - 1);
}

/** A matrix between guard bands; `intact` fails if anything was written outside. */
function guarded(values: Float32Array, rows: number, cols: number): { matrix: Matrix; intact: () => void } {
  const band = new Float32Array(values.length + 2 * GUARD).fill(PATTERN);
  band.set(values, GUARD);
  const whole = linalg.put(band, 1, band.length);
  const intact = () => {
    const now = linalg.get(whole);
    const outside = [...now.subarray(0, GUARD), ...now.subarray(GUARD + values.length)];
    assert.ok(
      outside.every((value) => value === PATTERN),
      "a guard band was overwritten",
    );
  };
  return { matrix: { ptr: whole.ptr + GUARD * Float32Array.BYTES_PER_ELEMENT, rows, cols }, intact };
}

/** Error bound of each f32 sum of A [m, k] · B [k, n]. */
function productBound(a: Float64Array, b: Float64Array, m: number, k: number, n: number): Float64Array {
  const magnitudes = multiply(a.map(Math.abs), b.map(Math.abs), m, k, n);
  return magnitudes.map((magnitude) => 4 * (Math.sqrt(k) + 1) * EPSILON * (magnitude + 1));
}

for (const [transposeA, transposeB] of [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
]) {
  const shapes = SIZES.map((m, i) => [m, SIZES[(i * 5 + 3) % SIZES.length], SIZES[(i * 3 + 1) % SIZES.length]]);
  for (const [m, n, k] of [...shapes, [130, 2056, 5], [9, 17, 700]]) {
    check(`multiply ${transposeA ? "Aᵀ" : "A"}·${transposeB ? "Bᵀ" : "B"} ${m}×${n}×${k}`, (random) => {
      const a = randoms(random, m * k);
      const b = randoms(random, k * n);
      const old = randoms(random, m * n);
      const plainA = transposeA ? transpose(a, m, k) : Float64Array.from(a);
      const plainB = transposeB ? transpose(b, k, n) : Float64Array.from(b);
      const want = multiply(plainA, plainB, m, k, n);
      const bound = productBound(plainA, plainB, m, k, n);
      const left = linalg.put(a, transposeA ? k : m, transposeA ? m : k);
      const right = linalg.put(b, transposeB ? n : k, transposeB ? k : n);
      for (const mode of ["set", "add", "subtract"] as const) {
        const { matrix, intact } = guarded(old, m, n);
        linalg.multiply(matrix, left, right, { mode, transposeA, transposeB });
        const sign = mode === "subtract" ? -1 : 1;
        const total = want.map((value, i) => sign * value + (mode === "set" ? 0 : old[i]));
        close(linalg.get(matrix), total, bound);
        intact();
      }
    });
  }
}

for (const cols of SIZES) {
  check(`gramAdd over calls, mirror, n=${cols}`, (random) => {
    const { matrix, intact } = guarded(new Float32Array(cols * cols), cols, cols);
    const parts = [1, 3, 300].map((rows) => randoms(random, rows * cols));
    for (const part of parts) linalg.gramAdd(matrix, part);
    linalg.mirror(matrix);
    const x = Float64Array.from(parts.flatMap((part) => [...part]));
    const rows = x.length / cols;
    close(linalg.get(matrix), gram(x, cols), productBound(transpose(x, cols, rows), x, cols, rows, cols));
    intact();
  });
}

check("gramAdd stays accurate over 100k rows", (random) => {
  const [calls, rows, cols] = [100, 1000, 8];
  const c = linalg.zeros(cols, cols);
  const want = new Float64Array(cols * cols);
  for (let call = 0; call < calls; call++) {
    const x = randoms(random, rows * cols).map((value) => value + 0.5);
    linalg.gramAdd(c, x);
    gram(x, cols).forEach((value, at) => {
      want[at] += value;
    });
  }
  linalg.mirror(c);
  close(
    linalg.get(c),
    want,
    want.map((value) => 2e-6 * Math.abs(value)),
  );
});

/** A well-conditioned symmetric positive definite matrix. */
function definite(random: Random, n: number): Float32Array {
  return Float32Array.from(shifted(gram(randoms(random, 2 * n * n), n), n, 0.1 * n));
}

for (const n of [...SIZES, 200]) {
  check(`factor, solve, inverseDiagonal, invertFactor n=${n}`, (random) => {
    const m = definite(random, n);
    const inverse = solve(m, identity(n), n, n);
    const tolerance = 1e-4 * largest(inverse);
    const { matrix: r, intact } = guarded(m, n, n);
    assert.ok(linalg.factor(r));
    intact();
    const upper = linalg.get(r).map((value, at) => (at % n < Math.floor(at / n) ? 0 : value));
    close(gram(transpose(upper, n, n), n), m, 4e-6 * n);
    for (const rows of [1, 2, 3, 4, 7]) {
      const b = randoms(random, rows * n);
      const side = guarded(b, rows, n);
      linalg.solve(r, side.matrix);
      close(linalg.get(side.matrix), multiply(b, inverse, rows, n, n), tolerance * Math.sqrt(n));
      side.intact();
    }
    close(linalg.inverseDiagonal(r), diagonal(inverse, n), tolerance);
    linalg.invertFactor(r);
    intact();
    const u = linalg.get(r);
    close(gram(u, n), inverse, tolerance);
    assert.ok(u.every((value, at) => at % n >= Math.floor(at / n) || value === 0));
  });
}

for (const n of [1, 5, 33, 100]) {
  check(`factor refuses what is not positive definite n=${n}`, (random) => {
    for (const at of [0, n * n - 1]) {
      for (const bad of [-1, Number.NaN]) {
        const m = definite(random, n);
        m[at] = bad;
        assert.equal(linalg.factor(linalg.put(m, n, n)), false);
      }
    }
  });
}

for (const n of SIZES) {
  check(`eigen n=${n}`, (random) => {
    const half = randoms(random, n * n);
    const a = transpose(half, n, n).map((value, at) => value + half[at]);
    const { values, vectors } = linalg.eigen(a, n);
    assert.ok(values.every((value, i) => i === 0 || value <= values[i - 1]));
    close(
      multiply(vectors, a, n, n, n),
      vectors.map((x, at) => x * values[Math.floor(at / n)]),
      1e-13 * n,
    );
    close(gram(transpose(vectors, n, n), n), identity(n), 1e-13 * n);
  });
}

test("eigen of nothing and of what is not finite", () => {
  assert.deepEqual([...linalg.eigen(new Float64Array(9), 3).values], [0, 0, 0]);
  assert.throws(() => linalg.eigen(new Float64Array(4).fill(Number.NaN), 2), SnugError);
});

test("xxh64 agrees with the published vectors", () => {
  const vectors: [string, bigint][] = [
    ["", 0xef46db3751d8e999n],
    ["a", 0xd24ec4f1a98c6e5bn],
    ["as", 0x1c330fb2d66be179n],
    ["asd", 0x631c37ce72a97393n],
    ["asdf", 0x415872f599cea71en],
    ["abc", 0x44bc2cf5ad770999n],
    ["Call me Ishmael. Some years ago--never mind how long precisely-", 0x02a2e85470d6fd96n],
  ];
  for (const [text, want] of vectors) {
    assert.equal(linalg.xxh64(new TextEncoder().encode(text)), want, JSON.stringify(text));
  }
});

check("a released matrix's place is used again, and too much is refused with a reason", (random) => {
  const mark = linalg.mark();
  const first = linalg.put(randoms(random, 15), 3, 5);
  linalg.release(mark);
  const second = linalg.zeros(5, 3);
  assert.equal(second.ptr, first.ptr);
  assert.ok(linalg.get(second).every((value) => value === 0));
  linalg.release(mark);
  assert.throws(
    () => linalg.zeros(40000, 40000),
    (error) => error instanceof SnugError && error.code === "memory" && /6\d\d\d MB/.test(error.message),
  );
  assert.equal(linalg.mark(), mark);
});

check("shapes that do not fit are refused", () => {
  const [a, b] = [linalg.zeros(2, 3), linalg.zeros(4, 5)];
  assert.throws(() => linalg.multiply(linalg.zeros(2, 5), a, b), SnugError);
  assert.throws(() => linalg.multiply(a, a, linalg.zeros(3, 4)), SnugError);
  assert.throws(() => linalg.factor(a), SnugError);
  assert.throws(() => linalg.put(new Float32Array(3), 2, 2), SnugError);
});

test("load says what is missing", async () => {
  const refused = (error: unknown) => error instanceof SnugError && error.code === "source";
  await assert.rejects(Linalg.load("/nowhere/linalg.wasm"), refused);
});
