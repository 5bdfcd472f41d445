// A weight matrix in 4 bit times two rows of activations in 8 bit, where SIMD is relaxed: weights are taken apart in
// registers, as matvec.ts does it, and meet both rows there. Half a tile's rows at a time, so that V8 keeps all of it in
// registers.

import { ROW_TILE } from "../../packs/format";
import { add_half, NIBBLES, ONES } from "./lanes";
import { NARROW_COLS, PART_CODES_START, PARTS_START } from "./quantize";

const BLOCK_BYTES: u32 = 64; // 8 columns of a tile
const HALF_BYTES: u32 = 32; // of a block; of the f32 sums, and with f16 scales half as much

/** out[t][r] += Σ_c w[r, c] · x[t, c] for one tile and two rows t; arguments: tile_times_rows(). */
export function tile_times_pair(
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
  for (let g: u32 = 0; g < groups; g++) {
    const later = x + xBytes;
    const codes = w + ROW_TILE * 2;
    for (let half: u32 = 0; half < 2; half++) {
      const scales = w + half * (HALF_BYTES / 2);
      const own = out + half * HALF_BYTES;
      let q = codes + half * HALF_BYTES;
      const end = q + codesBytes;
      let y0 = x + PARTS_START;
      let y1 = later + PARTS_START;
      do {
        let a0 = v128.load32_splat(y0);
        let a1 = a0;
        let b0 = v128.load32_splat(y1);
        let b1 = b0;
        y0 += PART_CODES_START;
        y1 += PART_CODES_START;
        for (const partEnd = min(q + (NARROW_COLS / 8) * BLOCK_BYTES, end); q < partEnd; q += BLOCK_BYTES) {
          const q0 = v128.load(q);
          const q1 = v128.load(q, 16);
          const x0 = v128.load32_splat(y0);
          const x1 = v128.load32_splat(y0, 4);
          const l0 = v128.and(q0, low);
          const l1 = v128.and(q1, low);
          const h0 = v128.and(i16x8.shr_u(q0, 4), low);
          const h1 = v128.and(i16x8.shr_u(q1, 4), low);
          a0 = i16x8.add(a0, i16x8.relaxed_dot_i8x16_i7x16_s(x0, l0));
          a1 = i16x8.add(a1, i16x8.relaxed_dot_i8x16_i7x16_s(x0, l1));
          a0 = i16x8.add(a0, i16x8.relaxed_dot_i8x16_i7x16_s(x1, h0));
          a1 = i16x8.add(a1, i16x8.relaxed_dot_i8x16_i7x16_s(x1, h1));
          const z0 = v128.load32_splat(y1);
          const z1 = v128.load32_splat(y1, 4);
          b0 = i16x8.add(b0, i16x8.relaxed_dot_i8x16_i7x16_s(z0, l0));
          b1 = i16x8.add(b1, i16x8.relaxed_dot_i8x16_i7x16_s(z0, l1));
          b0 = i16x8.add(b0, i16x8.relaxed_dot_i8x16_i7x16_s(z1, h0));
          b1 = i16x8.add(b1, i16x8.relaxed_dot_i8x16_i7x16_s(z1, h1));
          y0 += 8;
          y1 += 8;
        }
        add_half(own, scales, x, i32x4.dot_i16x8_s(a0, ones), i32x4.dot_i16x8_s(a1, ones));
        add_half(own + outBytes, scales, later, i32x4.dot_i16x8_s(b0, ones), i32x4.dot_i16x8_s(b1, ones));
      } while (q < end);
    }
    w = codes + codesBytes;
    x += recordBytes;
  }
}
