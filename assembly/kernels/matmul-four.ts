// A weight matrix in 4 bit times four rows of activations in 8 bit, where SIMD is relaxed and vectors are wide: weights are
// taken apart in registers, as matvec.ts does it, and meet all rows there. The sums of a tile are 16 vectors, or 8 when the
// engine has fused them to 256 bits; of 128 bits there are not enough registers for them.

import { ROW_TILE } from "../../packs/format";
import { add_scaled, NIBBLES, ONES } from "./lanes";
import { NARROW_COLS, PART_CODES_START, PARTS_START } from "./quantize";

const BLOCK_BYTES: u32 = 64; // 8 columns of a tile

/** out[t][r] += Σ_c w[r, c] · x[t, c] for one tile and four rows t; arguments: tile_times_rows(). */
export function tile_times_four(
  group: u32,
  w: usize,
  groups: u32,
  x: usize,
  xBytes: u32,
  recordBytes: u32,
  out: usize,
  outBytes: u32,
): void {
  const low = v128.load(NIBBLES);
  const ones = v128.load(ONES);
  const codesBytes = group * (ROW_TILE / 2);
  const out1 = out + outBytes;
  const out2 = out1 + outBytes;
  const out3 = out2 + outBytes;
  for (let g: u32 = 0; g < groups; g++) {
    const x1 = x + xBytes;
    const x2 = x1 + xBytes;
    const x3 = x2 + xBytes;
    const scales = w;
    w += ROW_TILE * 2;
    const end = w + codesBytes;
    let y0 = x + PARTS_START;
    let y1 = x1 + PARTS_START;
    let y2 = x2 + PARTS_START;
    let y3 = x3 + PARTS_START;
    do {
      let a0 = v128.load32_splat(y0);
      let a1 = a0;
      let a2 = a0;
      let a3 = a0;
      let b0 = v128.load32_splat(y1);
      let b1 = b0;
      let b2 = b0;
      let b3 = b0;
      let c0 = v128.load32_splat(y2);
      let c1 = c0;
      let c2 = c0;
      let c3 = c0;
      let d0 = v128.load32_splat(y3);
      let d1 = d0;
      let d2 = d0;
      let d3 = d0;
      y0 += PART_CODES_START;
      y1 += PART_CODES_START;
      y2 += PART_CODES_START;
      y3 += PART_CODES_START;
      for (const partEnd = min(w + (NARROW_COLS / 8) * BLOCK_BYTES, end); w < partEnd; w += BLOCK_BYTES) {
        const q0 = v128.load(w);
        const q1 = v128.load(w, 16);
        const q2 = v128.load(w, 32);
        const q3 = v128.load(w, 48);
        const l0 = v128.and(q0, low);
        const l1 = v128.and(q1, low);
        const l2 = v128.and(q2, low);
        const l3 = v128.and(q3, low);
        let y = v128.load32_splat(y0);
        a0 = i16x8.add(a0, i16x8.relaxed_dot_i8x16_i7x16_s(y, l0));
        a1 = i16x8.add(a1, i16x8.relaxed_dot_i8x16_i7x16_s(y, l1));
        a2 = i16x8.add(a2, i16x8.relaxed_dot_i8x16_i7x16_s(y, l2));
        a3 = i16x8.add(a3, i16x8.relaxed_dot_i8x16_i7x16_s(y, l3));
        y = v128.load32_splat(y1);
        b0 = i16x8.add(b0, i16x8.relaxed_dot_i8x16_i7x16_s(y, l0));
        b1 = i16x8.add(b1, i16x8.relaxed_dot_i8x16_i7x16_s(y, l1));
        b2 = i16x8.add(b2, i16x8.relaxed_dot_i8x16_i7x16_s(y, l2));
        b3 = i16x8.add(b3, i16x8.relaxed_dot_i8x16_i7x16_s(y, l3));
        y = v128.load32_splat(y2);
        c0 = i16x8.add(c0, i16x8.relaxed_dot_i8x16_i7x16_s(y, l0));
        c1 = i16x8.add(c1, i16x8.relaxed_dot_i8x16_i7x16_s(y, l1));
        c2 = i16x8.add(c2, i16x8.relaxed_dot_i8x16_i7x16_s(y, l2));
        c3 = i16x8.add(c3, i16x8.relaxed_dot_i8x16_i7x16_s(y, l3));
        y = v128.load32_splat(y3);
        d0 = i16x8.add(d0, i16x8.relaxed_dot_i8x16_i7x16_s(y, l0));
        d1 = i16x8.add(d1, i16x8.relaxed_dot_i8x16_i7x16_s(y, l1));
        d2 = i16x8.add(d2, i16x8.relaxed_dot_i8x16_i7x16_s(y, l2));
        d3 = i16x8.add(d3, i16x8.relaxed_dot_i8x16_i7x16_s(y, l3));
        const h0 = v128.and(i16x8.shr_u(q0, 4), low);
        const h1 = v128.and(i16x8.shr_u(q1, 4), low);
        const h2 = v128.and(i16x8.shr_u(q2, 4), low);
        const h3 = v128.and(i16x8.shr_u(q3, 4), low);
        y = v128.load32_splat(y0, 4);
        a0 = i16x8.add(a0, i16x8.relaxed_dot_i8x16_i7x16_s(y, h0));
        a1 = i16x8.add(a1, i16x8.relaxed_dot_i8x16_i7x16_s(y, h1));
        a2 = i16x8.add(a2, i16x8.relaxed_dot_i8x16_i7x16_s(y, h2));
        a3 = i16x8.add(a3, i16x8.relaxed_dot_i8x16_i7x16_s(y, h3));
        y = v128.load32_splat(y1, 4);
        b0 = i16x8.add(b0, i16x8.relaxed_dot_i8x16_i7x16_s(y, h0));
        b1 = i16x8.add(b1, i16x8.relaxed_dot_i8x16_i7x16_s(y, h1));
        b2 = i16x8.add(b2, i16x8.relaxed_dot_i8x16_i7x16_s(y, h2));
        b3 = i16x8.add(b3, i16x8.relaxed_dot_i8x16_i7x16_s(y, h3));
        y = v128.load32_splat(y2, 4);
        c0 = i16x8.add(c0, i16x8.relaxed_dot_i8x16_i7x16_s(y, h0));
        c1 = i16x8.add(c1, i16x8.relaxed_dot_i8x16_i7x16_s(y, h1));
        c2 = i16x8.add(c2, i16x8.relaxed_dot_i8x16_i7x16_s(y, h2));
        c3 = i16x8.add(c3, i16x8.relaxed_dot_i8x16_i7x16_s(y, h3));
        y = v128.load32_splat(y3, 4);
        d0 = i16x8.add(d0, i16x8.relaxed_dot_i8x16_i7x16_s(y, h0));
        d1 = i16x8.add(d1, i16x8.relaxed_dot_i8x16_i7x16_s(y, h1));
        d2 = i16x8.add(d2, i16x8.relaxed_dot_i8x16_i7x16_s(y, h2));
        d3 = i16x8.add(d3, i16x8.relaxed_dot_i8x16_i7x16_s(y, h3));
        y0 += 8;
        y1 += 8;
        y2 += 8;
        y3 += 8;
      }
      const s0 = i32x4.shl(v128.load16x4_u(scales), 13);
      const s1 = i32x4.shl(v128.load16x4_u(scales, 8), 13);
      const s2 = i32x4.shl(v128.load16x4_u(scales, 16), 13);
      const s3 = i32x4.shl(v128.load16x4_u(scales, 24), 13);
      a0 = i32x4.dot_i16x8_s(a0, ones);
      a1 = i32x4.dot_i16x8_s(a1, ones);
      a2 = i32x4.dot_i16x8_s(a2, ones);
      a3 = i32x4.dot_i16x8_s(a3, ones);
      add_scaled(out, x, s0, s1, s2, s3, a0, a1, a2, a3);
      b0 = i32x4.dot_i16x8_s(b0, ones);
      b1 = i32x4.dot_i16x8_s(b1, ones);
      b2 = i32x4.dot_i16x8_s(b2, ones);
      b3 = i32x4.dot_i16x8_s(b3, ones);
      add_scaled(out1, x1, s0, s1, s2, s3, b0, b1, b2, b3);
      c0 = i32x4.dot_i16x8_s(c0, ones);
      c1 = i32x4.dot_i16x8_s(c1, ones);
      c2 = i32x4.dot_i16x8_s(c2, ones);
      c3 = i32x4.dot_i16x8_s(c3, ones);
      add_scaled(out2, x2, s0, s1, s2, s3, c0, c1, c2, c3);
      d0 = i32x4.dot_i16x8_s(d0, ones);
      d1 = i32x4.dot_i16x8_s(d1, ones);
      d2 = i32x4.dot_i16x8_s(d2, ones);
      d3 = i32x4.dot_i16x8_s(d3, ones);
      add_scaled(out3, x3, s0, s1, s2, s3, d0, d1, d2, d3);
    } while (w < end);
    x += recordBytes;
  }
}
