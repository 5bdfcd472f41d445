// What the matrix kernels are made of, inlined where it is used: passed as arguments, vectors would cost more than the
// work (and V8's fusing to 256 bits breaks on them). In a file of its own because the formatter cannot read @inline.

// V8 builds a vector constant anew at every use; a load it keeps.
/** u8 0x0f in each lane. */
export const NIBBLES: usize = memory.data<u32>([0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f], 16);
/** i16 1 in each lane. */
export const ONES: usize = memory.data<u32>([0x00010001, 0x00010001, 0x00010001, 0x00010001], 16);

/** sums + the sums of products × scales, rounded once or twice. */
@inline
function add_products(sums: v128, products: v128, scales: v128): v128 {
  const some = f32x4.convert_i32x4_s(products);
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(some, scales, sums) : f32x4.add(sums, f32x4.mul(some, scales));
}

/**
 * out[0 … 8) += the sums × the f16 scales, read without HALF_SCALE, × the record's scale. Two vectors at a time are loaded,
 * then stored: V8 can make one of 256 bits of such a pair.
 */
@inline
export function add_half(out: usize, scales: usize, record: usize, c0: v128, c1: v128): void {
  const scale = v128.load32_splat(record);
  const f0 = f32x4.mul(i32x4.shl(v128.load16x4_u(scales), 13), scale);
  const f1 = f32x4.mul(i32x4.shl(v128.load16x4_u(scales, 8), 13), scale);
  const s0 = add_products(v128.load(out), c0, f0);
  const s1 = add_products(v128.load(out, 16), c1, f1);
  v128.store(out, s0);
  v128.store(out, s1, 16);
}

/** The same of all 16 rows of a tile. */
@inline
export function add_group(out: usize, scales: usize, record: usize, c0: v128, c1: v128, c2: v128, c3: v128): void {
  add_half(out, scales, record, c0, c1);
  add_half(out + 32, scales + 16, record, c2, c3);
}

@inline
export function dot_block(q: v128, m0: v128, m1: v128, m2: v128, x0: v128, x1: v128, x2: v128, x3: v128): v128 {
  return i32x4.add(
    i32x4.add(i32x4.dot_i16x8_s(v128.and(q, m0), x0), i32x4.dot_i16x8_s(v128.and(q, m1), x1)),
    i32x4.add(i32x4.dot_i16x8_s(v128.and(q, m2), x2), i32x4.dot_i16x8_s(i16x8.shr_u(q, 12), x3)),
  );
}

/** A nibble is never above 127, so that every engine gives the same (relaxed SIMD, i16x8.relaxed_dot_i8x16_i7x16_s). */
@inline
export function relaxed_dot_block(q: v128, low: v128, x0: v128, x1: v128): v128 {
  return i16x8.add(
    i16x8.relaxed_dot_i8x16_i7x16_s(x0, v128.and(q, low)),
    i16x8.relaxed_dot_i8x16_i7x16_s(x1, v128.and(i16x8.shr_u(q, 4), low)),
  );
}

@inline
export function dot_bytes(q: v128, x0: v128, x1: v128): v128 {
  return i32x4.add(
    i32x4.dot_i16x8_s(i16x8.shr_s(i16x8.shl(q, 8), 8), x0),
    i32x4.dot_i16x8_s(i16x8.shr_s(q, 8), x1),
  );
}

/** scales[0 … 16) = a group's f16 scales, without HALF_SCALE. */
@inline
export function unpack_scales(group: usize, scales: usize): void {
  v128.store(scales, i32x4.shl(v128.load16x4_u(group), 13));
  v128.store(scales, i32x4.shl(v128.load16x4_u(group, 8), 13), 16);
  v128.store(scales, i32x4.shl(v128.load16x4_u(group, 16), 13), 32);
  v128.store(scales, i32x4.shl(v128.load16x4_u(group, 24), 13), 48);
}

/** As add_group(), of f32 scales: unpack_scales(). */
@inline
export function add_sums(out: usize, scales: usize, record: usize, c0: v128, c1: v128, c2: v128, c3: v128): void {
  const s0 = v128.load(scales);
  const s1 = v128.load(scales, 16);
  const s2 = v128.load(scales, 32);
  const s3 = v128.load(scales, 48);
  add_scaled(out, record, s0, s1, s2, s3, c0, c1, c2, c3);
}

/** As add_sums(), of scales that have been read. */
@inline
export function add_scaled(
  out: usize,
  record: usize,
  s0: v128,
  s1: v128,
  s2: v128,
  s3: v128,
  c0: v128,
  c1: v128,
  c2: v128,
  c3: v128,
): void {
  const scale = v128.load32_splat(record);
  const t0 = add_products(v128.load(out), c0, f32x4.mul(s0, scale));
  const t1 = add_products(v128.load(out, 16), c1, f32x4.mul(s1, scale));
  v128.store(out, t0);
  v128.store(out, t1, 16);
  const t2 = add_products(v128.load(out, 32), c2, f32x4.mul(s2, scale));
  const t3 = add_products(v128.load(out, 48), c3, f32x4.mul(s3, scale));
  v128.store(out, t2, 32);
  v128.store(out, t3, 48);
}
