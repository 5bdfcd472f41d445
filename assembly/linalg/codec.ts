// One group of four rows (a lane is a row, see lanes.ts): which scale it gets, and which levels. A weight is stored as
// level × scale; scales are values that f16 can hold, for the levels are chosen against what a reader will multiply by.

const F16_MAX: f32 = 65504;
const F16_NORMAL_MIN: f32 = 0.00006103515625; // 2⁻¹⁴
const F16_STEP_MIN: f32 = 0.000000059604644775390625; // 2⁻²⁴
const F16_DROPPED_BITS: i32 = 13;

/** Candidates of a search: 1, 1 − STEP, … of the scale that holds the group's largest weight. */
export const SHRINK_CANDIDATES: u32 = 25;
const SHRINK_STEP: f32 = 0.025;

/** Nearest value of f16, ties to even, for 0 ≤ x; at most F16_MAX. */
export function round_f16(x: v128): v128 {
  const odd = v128.and(i32x4.shr_u(x, F16_DROPPED_BITS), i32x4.splat(1));
  const raised = i32x4.add(i32x4.add(x, i32x4.splat((1 << (F16_DROPPED_BITS - 1)) - 1)), odd);
  const normal = v128.and(raised, i32x4.splat(-1 << F16_DROPPED_BITS));
  const steps = f32x4.nearest(f32x4.mul(x, f32x4.splat(1 / F16_STEP_MIN)));
  const subnormal = f32x4.mul(steps, f32x4.splat(F16_STEP_MIN));
  const rounded = v128.bitselect(subnormal, normal, f32x4.lt(x, f32x4.splat(F16_NORMAL_MIN)));
  return f32x4.min(rounded, f32x4.splat(F16_MAX));
}

/** Levels of four weights, as f32; 0 where the scale is 0. */
export function nearest_level(x: v128, scale: v128, lowest: f32, highest: f32): v128 {
  const level = f32x4.nearest(f32x4.div(x, scale));
  const held = f32x4.max(f32x4.min(level, f32x4.splat(highest)), f32x4.splat(lowest));
  return v128.andnot(held, f32x4.eq(scale, f32x4.splat(0)));
}

/** Largest magnitude of lanes x [count][4]. */
export function lanes_peak(xPtr: usize, count: u32): v128 {
  let peak = f32x4.splat(0);
  for (let j: u32 = 0; j < count; j++) peak = f32x4.max(peak, f32x4.abs(v128.load(xPtr + (j << 4))));
  return peak;
}

/** Candidate `index` of a search that starts at `top`. */
export function shrunk(top: v128, index: u32): v128 {
  return round_f16(f32x4.mul(top, f32x4.splat(1 - SHRINK_STEP * (index as f32))));
}

/** Σ_j weights[j]·(x[j] − level·scale)² of lanes x [count][4]; weights f32 [count]. */
export function rounding_loss(
  xPtr: usize,
  weightsPtr: usize,
  count: u32,
  scale: v128,
  lowest: f32,
  highest: f32,
): v128 {
  let loss = f32x4.splat(0);
  for (let j: u32 = 0; j < count; j++) {
    const x = v128.load(xPtr + (j << 4));
    const miss = f32x4.sub(x, f32x4.mul(nearest_level(x, scale, lowest, highest), scale));
    loss = f32x4.add(loss, f32x4.mul(f32x4.mul(miss, miss), v128.load32_splat(weightsPtr + (j << 2))));
  }
  return loss;
}
