// A weight matrix times one row of activations in 8 bit: what decoding does. Tiles of ROW_TILE rows go by once, in the
// order in which they lie; sums are i32 within a group, f32 from group to group, in `out`.

import { DTYPE_Q4, ROW_TILE } from "../../packs/format";
import { add_group, dot_block, dot_bytes, NIBBLES, ONES, relaxed_dot_block } from "./lanes";
import { CODES_START, NARROW_COLS, PART_CODES_START, PARTS_START } from "./quantize";

const TILE_BYTES: u32 = ROW_TILE * 4; // of a tile's f32 sums

// Of each i16; see NIBBLES.
const CONSTANTS = memory.data<u32>(
  [
    0x000f000f, 0x000f000f, 0x000f000f, 0x000f000f, 0x00f000f0, 0x00f000f0, 0x00f000f0, 0x00f000f0, 0x0f000f00,
    0x0f000f00, 0x0f000f00, 0x0f000f00,
  ],
  16,
);
const NIBBLES_0: usize = 0;
const NIBBLES_1: usize = 16;
const NIBBLES_2: usize = 32;

/**
 * out[r] += Σ_c w[r, c] · x[c] for `tiles` tiles. w: Q4 or Q8, `groups` groups a tile; x: OP_QUANTIZE's records, one
 * for each group, recordBytes apart; out: f32 [tiles × ROW_TILE].
 */
export function matvec(
  dtype: u32,
  group: u32,
  w: usize,
  tiles: u32,
  groups: u32,
  x: usize,
  recordBytes: u32,
  out: usize,
): void {
  const xEnd = x + groups * recordBytes;
  if (dtype != DTYPE_Q4) matvec_q8(w, tiles, x, xEnd, recordBytes, group, out);
  else if (ASC_FEATURE_RELAXED_SIMD) matvec_q4_relaxed(w, tiles, x, xEnd, recordBytes, group, out);
  else matvec_q4(w, tiles, x, xEnd, recordBytes, group, out);
}

/** Nibbles stay where they lie in i16 lanes: the codes of x make up for the place (quantize.ts). */
function matvec_q4(w: usize, tiles: u32, x: usize, xEnd: usize, recordBytes: u32, group: u32, out: usize): void {
  const m0 = v128.load(CONSTANTS, NIBBLES_0);
  const m1 = v128.load(CONSTANTS, NIBBLES_1);
  const m2 = v128.load(CONSTANTS, NIBBLES_2);
  const end = out + tiles * TILE_BYTES;
  for (; out < end; out += TILE_BYTES) {
    for (let record = x; record < xEnd; record += recordBytes) {
      const scales = w;
      w += ROW_TILE * 2;
      let c0 = v128.load32_splat(record, 4);
      let c1 = c0;
      let c2 = c0;
      let c3 = c0;
      let codes = record + CODES_START;
      for (const codesEnd = codes + group * 2; codes < codesEnd; codes += 16) {
        const x0 = v128.load32_splat(codes);
        const x1 = v128.load32_splat(codes, 4);
        const x2 = v128.load32_splat(codes, 8);
        const x3 = v128.load32_splat(codes, 12);
        c0 = i32x4.add(c0, dot_block(v128.load(w), m0, m1, m2, x0, x1, x2, x3));
        c1 = i32x4.add(c1, dot_block(v128.load(w, 16), m0, m1, m2, x0, x1, x2, x3));
        c2 = i32x4.add(c2, dot_block(v128.load(w, 32), m0, m1, m2, x0, x1, x2, x3));
        c3 = i32x4.add(c3, dot_block(v128.load(w, 48), m0, m1, m2, x0, x1, x2, x3));
        w += 64;
      }
      add_group(out, scales, record, c0, c1, c2, c3);
    }
  }
}

function matvec_q4_relaxed(
  w: usize,
  tiles: u32,
  x: usize,
  xEnd: usize,
  recordBytes: u32,
  group: u32,
  out: usize,
): void {
  const low = v128.load(NIBBLES);
  const ones = v128.load(ONES);
  const end = out + tiles * TILE_BYTES;
  for (; out < end; out += TILE_BYTES) {
    for (let record = x; record < xEnd; record += recordBytes) {
      const scales = w;
      w += ROW_TILE * 2;
      const groupEnd = w + group * (ROW_TILE / 2);
      let codes = record + PARTS_START;
      do {
        let a0 = v128.load32_splat(codes);
        let a1 = a0;
        let a2 = a0;
        let a3 = a0;
        codes += PART_CODES_START;
        for (const partEnd = min(w + NARROW_COLS * (ROW_TILE / 2), groupEnd); w < partEnd; w += 64) {
          const x0 = v128.load32_splat(codes);
          const x1 = v128.load32_splat(codes, 4);
          a0 = i16x8.add(a0, relaxed_dot_block(v128.load(w), low, x0, x1));
          a1 = i16x8.add(a1, relaxed_dot_block(v128.load(w, 16), low, x0, x1));
          a2 = i16x8.add(a2, relaxed_dot_block(v128.load(w, 32), low, x0, x1));
          a3 = i16x8.add(a3, relaxed_dot_block(v128.load(w, 48), low, x0, x1));
          codes += 8;
        }
        const c0 = i32x4.dot_i16x8_s(a0, ones);
        const c1 = i32x4.dot_i16x8_s(a1, ones);
        const c2 = i32x4.dot_i16x8_s(a2, ones);
        const c3 = i32x4.dot_i16x8_s(a3, ones);
        add_group(out, scales, record, c0, c1, c2, c3);
      } while (w < groupEnd);
    }
  }
}

function matvec_q8(w: usize, tiles: u32, x: usize, xEnd: usize, recordBytes: u32, group: u32, out: usize): void {
  const end = out + tiles * TILE_BYTES;
  for (; out < end; out += TILE_BYTES) {
    for (let record = x; record < xEnd; record += recordBytes) {
      const scales = w;
      w += ROW_TILE * 2;
      let c0 = v128.load32_splat(record, 4);
      let c1 = c0;
      let c2 = c0;
      let c3 = c0;
      let codes = record + CODES_START;
      for (const codesEnd = codes + group * 2; codes < codesEnd; codes += 8) {
        const x0 = v128.load32_splat(codes);
        const x1 = v128.load32_splat(codes, 4);
        c0 = i32x4.add(c0, dot_bytes(v128.load(w), x0, x1));
        c1 = i32x4.add(c1, dot_bytes(v128.load(w, 16), x0, x1));
        c2 = i32x4.add(c2, dot_bytes(v128.load(w, 32), x0, x1));
        c3 = i32x4.add(c3, dot_bytes(v128.load(w, 48), x0, x1));
        w += 64;
      }
      add_group(out, scales, record, c0, c1, c2, c3);
    }
  }
}
