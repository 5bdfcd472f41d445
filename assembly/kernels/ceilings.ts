// What this machine can do at most, for those who measure: reading memory, and multiplying codes of 8 bit, with nothing
// around it. The sums mean nothing; they are stored so that the work is done.

import { CEILING_FROM, CEILING_ITEMS, CEILING_SUM } from "../abi";
import { share_end, share_start } from "../threads";

/** Bytes that an item of OP_CEILING_READ is. */
const READ_BYTES: u32 = 256;
/** Bytes that an item of OP_CEILING_PRODUCTS reads, again and again: a corner of the first cache. */
const CODES_BYTES: u32 = 4096;

/** OP_CEILING_READ: reads CEILING_ITEMS × 256 bytes. */
export function ceiling_read(op: usize): void {
  const items = load<u32>(op, CEILING_ITEMS);
  const from: usize = load<u32>(op, CEILING_FROM);
  const end = from + share_end(items) * READ_BYTES;
  let a = i32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  for (let p = from + share_start(items) * READ_BYTES; p < end; p += READ_BYTES) {
    for (let q = p; q < p + READ_BYTES; q += 64) {
      a = i32x4.add(a, v128.load(q));
      b = i32x4.add(b, v128.load(q, 16));
      c = i32x4.add(c, v128.load(q, 32));
      d = i32x4.add(d, v128.load(q, 48));
    }
  }
  store<i32>(op, i32x4.extract_lane(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)), 0), CEILING_SUM);
}

/** OP_CEILING_PRODUCTS: CEILING_ITEMS × ceiling_products() products, as a tile of 4 × 2 vectors. */
export function ceiling_multiply(op: usize): void {
  const items = load<u32>(op, CEILING_ITEMS);
  const from: usize = load<u32>(op, CEILING_FROM);
  let a0 = i32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let b0 = a0;
  let b1 = a0;
  let b2 = a0;
  let b3 = a0;
  const end = share_end(items);
  for (let i = share_start(items); i < end; i++) {
    for (let w = from; w < from + CODES_BYTES; w += 64) {
      const x = v128.load(w, CODES_BYTES);
      const y = v128.load(w, CODES_BYTES + 16);
      a0 = add_products(a0, v128.load(w), x);
      a1 = add_products(a1, v128.load(w, 16), x);
      a2 = add_products(a2, v128.load(w, 32), x);
      a3 = add_products(a3, v128.load(w, 48), x);
      b0 = add_products(b0, v128.load(w), y);
      b1 = add_products(b1, v128.load(w, 16), y);
      b2 = add_products(b2, v128.load(w, 32), y);
      b3 = add_products(b3, v128.load(w, 48), y);
    }
  }
  const sum = i32x4.add(
    i32x4.add(i32x4.add(a0, a1), i32x4.add(a2, a3)),
    i32x4.add(i32x4.add(b0, b1), i32x4.add(b2, b3)),
  );
  store<i32>(op, i32x4.extract_lane(sum, 0), CEILING_SUM);
}

/** Products of one item of OP_CEILING_PRODUCTS. */
export function ceiling_products(): u32 {
  return (CODES_BYTES / 64) * 8 * (ASC_FEATURE_RELAXED_SIMD ? 16 : 8);
}

function add_products(sum: v128, w: v128, x: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD
    ? i16x8.add(sum, i16x8.relaxed_dot_i8x16_i7x16_s(w, x))
    : i32x4.add(sum, i32x4.dot_i16x8_s(w, x));
}
