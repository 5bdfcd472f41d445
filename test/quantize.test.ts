// Rounding and its bytes: the tiles bit by bit, f16 exhaustively, feedback against a textbook GPTQ in f64.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { before, test } from "node:test";
import {
  decodeMatrix,
  dequantize,
  encodeF32,
  encodeQuantized,
  f16FromF32,
  f32FromF16,
  matrixBytes,
  type Quantized,
} from "../packs/encode";
import { DTYPE_F32, DTYPE_Q4, DTYPE_Q8 } from "../packs/format";
import { Linalg } from "../packs/linalg";
import { factorHessian, quantizeToNearest, quantizeWithFeedback, SCALE_RULES } from "../packs/quantize";
import { SnugError } from "../runtime/errors";
import { diagonal, gram, identity, multiply, shifted, solve } from "./dense";
import { type Random, withRandom } from "./random";

const SEED = 77;
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

/** Gram matrix of strongly correlated inputs. */
function correlated(random: Random, cols: number, rows = 2 * cols): Float32Array {
  let drift = 0;
  const x = Float32Array.from({ length: rows * cols }, (_, at) => {
    drift = 0.8 * drift + random.normal();
    return drift * (1 + (at % 5));
  });
  return Float32Array.from(gram(x, cols));
}

/** H with the damping that the packer adds. */
function damped(h: Float32Array, cols: number, damp: number): Float64Array {
  return shifted(h, cols, (damp * diagonal(h, cols).reduce((sum, value) => sum + value, 0)) / cols);
}

/** Σ over rows of d·H·dᵀ, d = w − q. */
function quadraticLoss(w: Float32Array, q: ArrayLike<number>, h: Float64Array, cols: number): number {
  const d = Float64Array.from(w, (value, at) => value - q[at]);
  return multiply(d, h, w.length / cols, cols, cols).reduce((sum, value, at) => sum + value * d[at], 0);
}

test("f16: every bit pattern survives, and rounding is to nearest even", () => {
  for (let bits = 0; bits < 0x10000; bits++) {
    const value = f32FromF16(bits);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(f32FromF16(f16FromF32(value))));
    else assert.equal(f16FromF32(value), bits, `bits ${bits.toString(16)}`);
  }
  for (let bits = 0; bits < 0x7bff; bits++) {
    const low = f32FromF16(bits);
    const high = f32FromF16(bits + 1);
    const middle = (low + high) / 2;
    assert.equal(f16FromF32(middle), bits % 2 === 0 ? bits : bits + 1, `middle above ${bits.toString(16)}`);
    assert.equal(f16FromF32(-middle), (bits % 2 === 0 ? bits : bits + 1) | 0x8000);
    assert.equal(f16FromF32(Math.fround(low + (high - low) * 0.49)), bits);
    assert.equal(f16FromF32(Math.fround(low + (high - low) * 0.51)), bits + 1);
  }
  assert.equal(f16FromF32(65504), 0x7bff);
  assert.equal(f16FromF32(65519.996), 0x7bff);
  assert.equal(f16FromF32(65520), 0x7c00);
  assert.equal(f16FromF32(-1e30), 0xfc00);
  assert.equal(f16FromF32(2 ** -25), 0);
  assert.equal(f16FromF32(1e-44), 0);
  assert.equal(f16FromF32(-0), 0x8000);
});

check("tiles have the bytes that format.ts draws", (random) => {
  const rows = 18;
  const cols = 32;
  const group = 16;
  const levels4 = Int8Array.from({ length: rows * cols }, () => Math.floor((2 * random.unit() - 1) * 8));
  const levels8 = Int8Array.from({ length: rows * cols }, () => Math.round((2 * random.unit() - 1) * 127));
  const scales = Float32Array.from({ length: (rows * cols) / group }, (_, i) => i + 1);

  const q4 = encodeQuantized({ bits: 4, rows, cols, group, levels: levels4, scales, loss: 0 });
  const groupBytes4 = 32 + 64 * (group / 8);
  assert.equal(q4.length, 2 * 2 * groupBytes4);
  assert.equal(q4.length, matrixBytes(DTYPE_Q4, rows, cols, group));
  const q8 = encodeQuantized({ bits: 8, rows, cols, group, levels: levels8, scales, loss: 0 });
  const groupBytes8 = 32 + 64 * (group / 4);
  assert.equal(q8.length, matrixBytes(DTYPE_Q8, rows, cols, group));
  for (let row = 0; row < 32; row++) {
    const [v, r] = [Math.floor((row % 16) / 4), row % 4];
    for (let col = 0; col < cols; col++) {
      const g = Math.floor(col / group);
      const [tile, inGroup] = [Math.floor(row / 16), col % group];
      const start4 = (tile * 2 + g) * groupBytes4;
      const start8 = (tile * 2 + g) * groupBytes8;
      const scaleBits = row < rows ? f16FromF32(scales[row * 2 + g]) : 0;
      assert.equal(q4[start4 + 2 * (row % 16)] | (q4[start4 + 2 * (row % 16) + 1] << 8), scaleBits);
      assert.equal(q8[start8 + 2 * (row % 16)] | (q8[start8 + 2 * (row % 16) + 1] << 8), scaleBits);
      const byte4 = q4[start4 + 32 + 64 * Math.floor(inGroup / 8) + 16 * v + 4 * r + (inGroup % 4)];
      assert.equal((inGroup % 8 < 4 ? byte4 & 15 : byte4 >> 4) - 8, row < rows ? levels4[row * cols + col] : 0);
      const byte8 = q8[start8 + 32 + 64 * Math.floor(inGroup / 4) + 16 * v + 4 * r + (inGroup % 4)];
      assert.equal((byte8 << 24) >> 24, row < rows ? levels8[row * cols + col] : 0);
    }
  }

  const values = randoms(random, rows * cols);
  const f32 = encodeF32(values, rows, cols);
  assert.equal(f32.length, matrixBytes(DTYPE_F32, rows, cols, 0));
  const stored = new Float32Array(f32.buffer);
  for (let row = 0; row < 32; row++) {
    for (let col = 0; col < cols; col++) {
      const want = row < rows ? values[row * cols + col] : 0;
      assert.equal(stored[Math.floor(row / 16) * 16 * cols + col * 16 + (row % 16)], want);
    }
  }
});

check("encode and decode are inverse, whole and by panels", (random) => {
  for (const rows of [1, 2, 15, 16, 17, 33]) {
    for (const [cols, group] of [
      [8, 8],
      [48, 16],
      [96, 32],
      [256, 256],
    ]) {
      const values = randoms(random, rows * cols);
      assert.deepEqual(decodeMatrix(encodeF32(values, rows, cols), DTYPE_F32, rows, cols, 0), values);
      for (const bits of [4, 8] as const) {
        const q = quantizeToNearest(linalg, values, rows, cols, { bits, group });
        const dtype = bits === 4 ? DTYPE_Q4 : DTYPE_Q8;
        const want = dequantize(q);
        assert.deepEqual(decodeMatrix(encodeQuantized(q), dtype, rows, cols, group), want);
        // Panels of rows and of columns, each cut somewhere inside.
        const half = Math.ceil(rows / 2);
        for (const panel of [
          { row: 0, rows: half, col: 0, cols },
          { row: rows - half, rows: half, col: 0, cols },
          { row: 0, rows, col: cols - group, cols: group },
        ]) {
          const part = decodeMatrix(encodeQuantized(q, panel), dtype, panel.rows, panel.cols, group);
          const plain = decodeMatrix(encodeF32(want, rows, cols, panel), DTYPE_F32, panel.rows, panel.cols, 0);
          assert.deepEqual(part, plain);
          assert.equal(plain[0], want[panel.row * cols + panel.col]);
        }
      }
    }
  }
  const q = quantizeToNearest(linalg, randoms(random, 64), 1, 64, { bits: 4, group: 32 });
  assert.throws(() => encodeQuantized(q, { row: 0, rows: 1, col: 16, cols: 32 }), RangeError);
});

check("to nearest: every level is the nearest one under the stored scale", (random) => {
  for (const rows of [1, 2, 3, 4, 5, 7, 17]) {
    for (const [cols, group] of [
      [8, 8],
      [96, 24],
      [128, 128],
      [512, 256],
    ]) {
      const w = randoms(random, rows * cols);
      for (const bits of [4, 8] as const) {
        for (const rule of SCALE_RULES) {
          const q = quantizeToNearest(linalg, w, rows, cols, { bits, group, rule });
          const [lowest, highest] = bits === 4 ? [-8, 7] : [-127, 127];
          let loss = 0;
          for (let i = 0; i < w.length; i++) {
            const scale = q.scales[Math.floor(i / group)];
            assert.equal(f32FromF16(f16FromF32(scale)), scale);
            assert.ok(scale > 0);
            const exact = Math.min(Math.max(w[i] / scale, lowest), highest);
            assert.ok(Math.abs(q.levels[i] - exact) <= 0.500001, `level ${q.levels[i]} of ${exact}`);
            loss += (w[i] - q.levels[i] * scale) ** 2;
          }
          assert.ok(Math.abs(q.loss - loss) <= 1e-4 * loss + 1e-12);
          if (rule.startsWith("max")) {
            const divisor = bits === 8 ? 127 : rule === "max/7" ? 7 : 7.5;
            for (let g = 0; g < q.scales.length; g++) {
              const peak = w.subarray(g * group, g * group + group).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
              assert.equal(f16FromF32(q.scales[g]), f16FromF32(Math.fround(peak / divisor)));
            }
          }
        }
      }
    }
  }
});

check("searched scales are never worse than max/7, by column weights too", (random) => {
  const [rows, cols, group] = [9, 256, 64];
  const w = randoms(random, rows * cols);
  const weights = Float32Array.from({ length: cols }, () => (2 * random.unit() - 1) ** 2);
  for (const bits of [4, 8] as const) {
    const plain = quantizeToNearest(linalg, w, rows, cols, { bits, group, rule: "max/7" }, weights);
    const searched = quantizeToNearest(linalg, w, rows, cols, { bits, group, rule: "search" }, weights);
    assert.ok(searched.loss <= plain.loss * 1.000001);
    if (bits === 4) assert.ok(searched.loss < 0.95 * plain.loss);
  }
});

check("zeros, tiny and huge weights, and what is not finite", (random) => {
  const cols = 32;
  const options = { bits: 4, group: 16 } as const;
  const zero = quantizeToNearest(linalg, new Float32Array(cols), 1, cols, options);
  assert.deepEqual([...zero.scales], [0, 0]);
  assert.ok(zero.levels.every((level) => level === 0));
  assert.ok(encodeQuantized(zero).every((byte, i) => byte === (i % 160 < 32 ? 0 : 0x88)));
  for (const size of [1e-45, 1e-38, 1e-8, 3e-7, 1e-5, 1, 1e4, 4e5, 1e9, 3e38]) {
    for (const rule of SCALE_RULES) {
      const w = Float32Array.from({ length: cols }, () => (2 * random.unit() - 1) * size);
      const q = quantizeToNearest(linalg, w, 1, cols, { ...options, rule });
      assert.ok(q.scales.every((scale) => scale >= 0 && scale <= 65504 && f32FromF16(f16FromF32(scale)) === scale));
      assert.ok(dequantize(q).every(Number.isFinite));
      if (size < 1e-8) assert.ok(dequantize(q).every((value) => value === 0));
    }
  }
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const w = randoms(random, cols);
    w[17] = bad;
    assert.throws(
      () => quantizeToNearest(linalg, w, 1, cols, options),
      (error) => error instanceof SnugError && error.code === "checkpoint",
    );
  }
  for (const group of [4, 12, 24, 512]) {
    assert.throws(() => quantizeToNearest(linalg, randoms(random, cols), 1, cols, { bits: 4, group }), SnugError);
  }
});

/** GPTQ as it is usually told: inverse Hessian, its upper Cholesky factor, updates to the right; scales peak / 7.5. */
function textbookGptq(weights: Float32Array, h: Float64Array, cols: number, group: number): Float64Array {
  const w = Float64Array.from(weights);
  const inverse = solve(h, identity(cols), cols, cols);
  const u = new Float64Array(cols * cols); // H⁻¹ = UᵀU
  for (let i = 0; i < cols; i++) {
    for (let j = i; j < cols; j++) {
      let sum = inverse[i * cols + j];
      for (let k = 0; k < i; k++) sum -= u[k * cols + i] * u[k * cols + j];
      u[i * cols + j] = j === i ? Math.sqrt(sum) : sum / u[i * cols + i];
    }
  }
  for (let from = 0; from < w.length; from += cols) {
    let scale = 0;
    for (let i = 0; i < cols; i++) {
      if (i % group === 0) {
        let peak = 0;
        for (let j = i; j < i + group; j++) peak = Math.max(peak, Math.abs(w[from + j]));
        scale = f32FromF16(f16FromF32(peak / 7.5));
      }
      const value = Math.min(Math.max(Math.round(w[from + i] / scale), -8), 7) * scale;
      const error = (w[from + i] - value) / u[i * cols + i];
      for (let j = i + 1; j < cols; j++) w[from + j] -= error * u[i * cols + j];
      w[from + i] = value;
    }
  }
  return w;
}

for (const [rows, cols, group] of [
  [1, 8, 8],
  [3, 64, 16],
  [5, 128, 32],
  [7, 160, 32],
  [18, 264, 24],
  [4, 256, 256],
]) {
  check(`feedback is GPTQ ${rows}×${cols}, group ${group}`, (random) => {
    const h = correlated(random, cols);
    const w = randoms(random, rows * cols);
    const hessian = factorHessian(linalg, linalg.put(h, cols, cols), 0.01);
    assert.deepEqual([hessian.dead.length, hessian.damp], [0, 0.01]);
    const q = quantizeWithFeedback(linalg, w, rows, cols, hessian, { bits: 4, group, rule: "max/7.5" });
    const got = dequantize(q);
    const exact = damped(h, cols, 0.01);
    const want = textbookGptq(w, exact, cols, group);
    // f32 rounds a few weights to the other side, and what follows in that row then differs: compare the whole.
    const same = want.filter((value, i) => Math.abs(value - got[i]) <= 1e-6 * Math.abs(value)).length;
    const loss = quadraticLoss(w, got, exact, cols);
    const wantLoss = quadraticLoss(w, want, exact, cols);
    assert.ok(same >= 0.6 * want.length, `only ${same} of ${want.length} weights agree`);
    assert.ok(Math.abs(loss / wantLoss - 1) < 0.05, `loss ${loss}, textbook ${wantLoss}`);
    assert.ok(Math.abs(q.loss / loss - 1) < 1e-3, `reported loss ${q.loss}, found ${loss}`);
  });
}

check("feedback beats rounding to nearest, searching beats not searching, 8 bits beat 4", (random) => {
  const [rows, cols, group] = [24, 256, 32];
  const h = correlated(random, cols);
  const w = randoms(random, rows * cols);
  linalg.scope(() => {
    const hessian = factorHessian(linalg, linalg.put(h, cols, cols));
    const loss = (q: Quantized) => quadraticLoss(w, dequantize(q), damped(h, cols, 0.01), cols);
    const nearest = loss(quantizeToNearest(linalg, w, rows, cols, { bits: 4, group }));
    const at = (bits: 4 | 8, rule: (typeof SCALE_RULES)[number]) =>
      loss(quantizeWithFeedback(linalg, w, rows, cols, hessian, { bits, group, rule }));
    const [plain, searched, tried] = [at(4, "max/7"), at(4, "search"), at(4, "trial")];
    assert.ok(plain < nearest && searched < plain && tried < searched, `${nearest} ${plain} ${searched} ${tried}`);
    assert.ok(at(8, "search") < 0.02 * searched);
  });
});

check("an exact matrix stays exact, and rows do not depend on their neighbours", (random) => {
  const [rows, cols, group] = [6, 64, 32];
  const h = correlated(random, cols);
  linalg.scope(() => {
    const hessian = factorHessian(linalg, linalg.put(h, cols, cols));
    const exact = Float32Array.from(
      { length: rows * cols },
      (_, i) => (i % group === 0 ? 7 : Math.round((2 * random.unit() - 1) * 7)) * 0.25 || 0,
    );
    const q = quantizeWithFeedback(linalg, exact, rows, cols, hessian, { bits: 4, group, rule: "max/7" });
    assert.deepEqual(dequantize(q), exact);
    const w = randoms(random, rows * cols);
    const all = quantizeWithFeedback(linalg, w, rows, cols, hessian, { bits: 4, group });
    for (let row = 0; row < rows; row++) {
      const one = quantizeWithFeedback(linalg, w.slice(row * cols, row * cols + cols), 1, cols, hessian, {
        bits: 4,
        group,
      });
      assert.deepEqual(one.levels, all.levels.slice(row * cols, row * cols + cols));
    }
  });
});

check("Hessians with dead columns, without rank, and hopeless ones", (random) => {
  const [rows, cols] = [3, 64];
  const options = { bits: 4, group: 32 } as const;
  linalg.scope(() => {
    const h = correlated(random, cols);
    for (const dead of [0, 40]) for (let i = 0; i < cols; i++) h[dead * cols + i] = h[i * cols + dead] = 0;
    const hessian = factorHessian(linalg, linalg.put(h, cols, cols));
    assert.deepEqual(hessian.dead, [0, 40]);
    const w = randoms(random, rows * cols);
    const kept = w.slice();
    const got = dequantize(quantizeWithFeedback(linalg, w, rows, cols, hessian, options));
    assert.deepEqual(w, kept);
    for (let row = 0; row < rows; row++) assert.deepEqual([got[row * cols], got[row * cols + 40]], [0, 0]);

    const low = correlated(random, cols, 5);
    assert.ok(quantizeWithFeedback(linalg, w, rows, cols, factorHessian(linalg, linalg.put(low, cols, cols)), options));
    const nothing = factorHessian(linalg, linalg.zeros(cols, cols));
    assert.equal(nothing.dead.length, cols);
    const indefinite = Float32Array.from(correlated(random, cols), (value, i) =>
      i % (cols + 1) === 0 ? value : 40 * value,
    );
    const rescued = linalg.put(indefinite, cols, cols);
    assert.ok(factorHessian(linalg, rescued, 0.01).damp > 0.01);
    assert.deepEqual(linalg.get(rescued), indefinite);
    assert.throws(() => factorHessian(linalg, rescued, 0), SnugError);
    assert.throws(() => quantizeWithFeedback(linalg, randoms(random, 32), 1, 32, hessian, options), SnugError);
  });
});
