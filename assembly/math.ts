// Vector arithmetic that the kernels share.

/** 2^112: what an f16's bits, shifted left by 13 and read as f32, must be multiplied with. */
export const HALF_SCALE: f32 = 5.192296858534828e33;

/** Four non-negative finite f16 as f32x4. ptr: 8 bytes. */
export function load_half4(ptr: usize): v128 {
  return f32x4.mul(i32x4.shl(v128.load16x4_u(ptr), 13), f32x4.splat(HALF_SCALE));
}

/** One non-negative finite f16 as f32. */
export function load_half(ptr: usize): f32 {
  return reinterpret<f32>((load<u16>(ptr) as u32) << 13) * HALF_SCALE;
}

/** a × b + c in each lane, rounded once or twice. */
export function madd4(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

export function sum4(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/**
 * e^x in each lane, within 2 units in the last place (1.2 seen); 0 below −87.3 and for NaN, e^88.3 above 88.3.
 * x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r = 1 + r + r²·p(r), where p goes through (e^r − 1 − r)/r² at the five Chebyshev
 * nodes. The Taylor series of that length is 3 units off.
 */
export function exp4(x: v128): v128 {
  const clamped = f32x4.min(f32x4.max(x, f32x4.splat(-87.3)), f32x4.splat(88.3));
  const n = f32x4.nearest(f32x4.mul(clamped, f32x4.splat(1.4426950408889634)));
  let r = f32x4.sub(clamped, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(n, f32x4.splat(-2.1219444005469057e-4)));
  let p = f32x4.splat(1.392617750110624e-3);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.363174180109543e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.166655465375631e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666577018959428e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(0.5));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.0));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.0));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return v128.and(f32x4.mul(p, power), f32x4.ge(x, f32x4.splat(-87.3)));
}

/** e^x of one number: lane 0 of exp4. */
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

/** x / (1 + e^−x) in each lane. */
export function silu4(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

export function silu1(x: f32): f32 {
  return x / (1 + exp1(-x));
}
