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

// The constants of exp4, from least to 1: V8 builds a constant anew at every use, and a load is cheaper.
const EXP = memory.data<f32>(
  [
    -87.3, 88.3, 12582912, 1.4426950408889634, -0.693359375, 2.1219444005469057e-4, 1.392617750110624e-3,
    8.363174180109543e-3, 4.166655465375631e-2, 1.6666577018959428e-1, 0.5, 1.0,
  ],
  16,
);

/**
 * e^x in each lane, within 2 units in the last place (1.2 seen); 0 below −87.3 and for NaN, e^88.3 above 88.3.
 * x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r = 1 + r + r²·p(r), where p goes through (e^r − 1 − r)/r² at the five Chebyshev
 * nodes. The Taylor series of that length is 3 units off.
 */
export function exp4(x: v128): v128 {
  const clamped = f32x4.pmin(f32x4.pmax(x, v128.load32_splat(EXP)), v128.load32_splat(EXP, 4));
  // A sum this large has no fraction: it is rounded, and its low bits are n.
  const round = v128.load32_splat(EXP, 8);
  const shifted = madd4(clamped, v128.load32_splat(EXP, 12), round);
  const n = f32x4.sub(shifted, round);
  let r = madd4(n, v128.load32_splat(EXP, 16), clamped);
  r = madd4(n, v128.load32_splat(EXP, 20), r);
  let p = madd4(v128.load32_splat(EXP, 24), r, v128.load32_splat(EXP, 28));
  p = madd4(p, r, v128.load32_splat(EXP, 32));
  p = madd4(p, r, v128.load32_splat(EXP, 36));
  p = madd4(p, r, v128.load32_splat(EXP, 40));
  const one = v128.load32_splat(EXP, 44);
  p = madd4(p, r, one);
  p = madd4(p, r, one);
  // Times 2^n: n is added to the exponent.
  return v128.and(i32x4.add(p, i32x4.shl(shifted, 23)), f32x4.ge(x, v128.load32_splat(EXP)));
}

/** e^x of one number: lane 0 of exp4. */
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

/** 2^x in each lane, as exp4 does it, for x ≤ 0, within 2 units in the last place; 0 below −126.5. */
export function power4(x: v128): v128 {
  const clamped = f32x4.pmax(f32x4.splat(-127), x);
  // n + 127 are the exponent's bits of 2^n, and none of them is set for the least n.
  const shifted = f32x4.add(clamped, f32x4.splat(12582912 + 127));
  const r = f32x4.sub(clamped, f32x4.sub(shifted, f32x4.splat(12582912 + 127)));
  let p = f32x4.splat(1.544488548e-4);
  p = madd4(p, r, f32x4.splat(1.338130431e-3));
  p = madd4(p, r, f32x4.splat(9.618103251e-3));
  p = madd4(p, r, f32x4.splat(5.550381012e-2));
  p = madd4(p, r, f32x4.splat(2.40226507e-1));
  p = madd4(p, r, f32x4.splat(6.931471806e-1));
  p = madd4(p, r, f32x4.splat(1.0));
  return f32x4.mul(p, i32x4.shl(shifted, 23));
}

/** x / (1 + e^−x) in each lane. */
export function silu4(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

export function silu1(x: f32): f32 {
  return x / (1 + exp1(-x));
}
