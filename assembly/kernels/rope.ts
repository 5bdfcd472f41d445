// Rotary positions: pairs of channels of q and k are turned by position × angle.

import {
  ROPE_ANGLES,
  ROPE_CHANNELS,
  ROPE_HEADS,
  ROPE_K,
  ROPE_KV_HEADS,
  ROPE_Q,
  ROPE_UNIT_BYTES,
  ROPE_UNITS,
  ROW_BYTES,
  ROW_POSITION,
} from "../abi";
import { share_end, share_start } from "../threads";

/** OP_ROPE over `count` rows: (a, b) ← (a·cos − b·sin, b·cos + a·sin); a's are a head's first half, b's the second. */
export function rope(op: usize, steps: usize, count: u32): void {
  const units = load<u32>(op, ROPE_UNITS);
  const kvHeads = load<u32>(op, ROPE_KV_HEADS);
  const share = load<u32>(op, ROPE_HEADS) / kvHeads;
  const headBytes = load<u32>(op, ROPE_CHANNELS) * 4;
  const half = headBytes / 2;
  const unitBytes = load<u32>(op, ROPE_UNIT_BYTES);
  // Of each row and unit, the heads that have the same angles: a kv head and those that attend to it.
  const end = share_end(count * units * kvHeads);
  for (let i = share_start(count * units * kvHeads); i < end; i++) {
    const unit = (i / kvHeads) % units;
    const position = load<u32>(steps + (i / (kvHeads * units)) * ROW_BYTES, ROW_POSITION) as f32;
    const angles = load<u32>(op, ROPE_ANGLES) + unit * unitBytes + (i % kvHeads) * half;
    const k = load<u32>(op, ROPE_K) + i * headBytes;
    const q = load<u32>(op, ROPE_Q) + i * share * headBytes;
    const qEnd = q + share * headBytes;
    let p: u32 = 0;
    for (; p + 16 <= half; p += 16) {
      const radians = f32x4.mul(f32x4.splat(position), v128.load(angles + p));
      const sine = sine4(radians, 0);
      const cosine = sine4(radians, 1);
      rotate4(k + p, half, sine, cosine);
      for (let head = q + p; head < qEnd; head += headBytes) rotate4(head, half, sine, cosine);
    }
    for (; p < half; p += 4) {
      const radians = f32x4.splat(position * load<f32>(angles + p));
      const sine = f32x4.extract_lane(sine4(radians, 0), 0);
      const cosine = f32x4.extract_lane(sine4(radians, 1), 0);
      rotate1(k + p, half, sine, cosine);
      for (let head = q + p; head < qEnd; head += headBytes) rotate1(head, half, sine, cosine);
    }
  }
}

/** Turns four pairs; the b's lie `half` bytes behind the a's. */
function rotate4(pairs: usize, half: u32, sine: v128, cosine: v128): void {
  const a = v128.load(pairs);
  const b = v128.load(pairs + half);
  v128.store(pairs, f32x4.sub(f32x4.mul(a, cosine), f32x4.mul(b, sine)));
  v128.store(pairs + half, f32x4.add(f32x4.mul(b, cosine), f32x4.mul(a, sine)));
}

function rotate1(pair: usize, half: u32, sine: f32, cosine: f32): void {
  const a = load<f32>(pair);
  const b = load<f32>(pair + half);
  store<f32>(pair, a * cosine - b * sine);
  store<f32>(pair + half, b * cosine + a * sine);
}

/**
 * sin(x + quarters × π/2) in each lane, within 2^-23 for |x| < 2^30. x = n·π/2 + r with |r| ≤ π/4, in f64; then n +
 * quarters says whether it is the sine or the cosine of r, and its sign.
 */
function sine4(x: v128, quarters: i32): v128 {
  const low = f64x2.promote_low_f32x4(x);
  const high = f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
  const nLow = f64x2.nearest(f64x2.mul(low, f64x2.splat(2 / Math.PI)));
  const nHigh = f64x2.nearest(f64x2.mul(high, f64x2.splat(2 / Math.PI)));
  const rLow = f32x4.demote_f64x2_zero(f64x2.sub(low, f64x2.mul(nLow, f64x2.splat(Math.PI / 2))));
  const rHigh = f32x4.demote_f64x2_zero(f64x2.sub(high, f64x2.mul(nHigh, f64x2.splat(Math.PI / 2))));
  const r = v128.shuffle<f32>(rLow, rHigh, 0, 1, 4, 5);
  const nInts = v128.shuffle<i32>(i32x4.trunc_sat_f64x2_s_zero(nLow), i32x4.trunc_sat_f64x2_s_zero(nHigh), 0, 1, 4, 5);
  const n = i32x4.add(nInts, i32x4.splat(quarters));
  const r2 = f32x4.mul(r, r);
  // Taylor series; what they leave out is below 2^-29.
  let sine = f32x4.splat(2.7557319e-6);
  sine = f32x4.add(f32x4.mul(sine, r2), f32x4.splat(-1.984127e-4));
  sine = f32x4.add(f32x4.mul(sine, r2), f32x4.splat(8.3333333e-3));
  sine = f32x4.add(f32x4.mul(sine, r2), f32x4.splat(-1.6666667e-1));
  sine = f32x4.add(f32x4.mul(f32x4.mul(sine, r2), r), r);
  let cosine = f32x4.splat(-2.7557319e-7);
  cosine = f32x4.add(f32x4.mul(cosine, r2), f32x4.splat(2.4801587e-5));
  cosine = f32x4.add(f32x4.mul(cosine, r2), f32x4.splat(-1.3888889e-3));
  cosine = f32x4.add(f32x4.mul(cosine, r2), f32x4.splat(4.1666667e-2));
  cosine = f32x4.add(f32x4.mul(cosine, r2), f32x4.splat(-0.5));
  cosine = f32x4.add(f32x4.mul(cosine, r2), f32x4.splat(1));
  const odd = i32x4.eq(v128.and(n, i32x4.splat(1)), i32x4.splat(1));
  const sign = i32x4.shl(v128.and(n, i32x4.splat(2)), 30);
  return v128.xor(v128.bitselect(cosine, sine, odd), sign);
}
