// A weight matrix times several rows of activations in 8 bit: what reading a prompt does. A stretch of a tile is unpacked
// once, to lanes that are multiplied as they are, and then meets all rows, two at a time. Sums are i32 within a group,
// f32 from group to group, in the output.

import { DTYPE_Q4, ROW_TILE } from "../../packs/format";
import { group_bytes } from "../pack";
import { add_sums, NIBBLES, ONES, unpack_scales } from "./lanes";
import { CODES_START, codes_group_bytes, NARROW_COLS, PART_CODES_START, PARTS_START } from "./quantize";

const TILE_BYTES: u32 = ROW_TILE * 4; // of a tile's f32 sums, and of a step
/** Of a tile: 4 columns in i8, or 2 in i16, of its 16 rows. */
const STEP_BYTES: u32 = 64;
/** Of steps: a part of a record (quantize.ts). */
const PART_STEPS: u32 = (NARROW_COLS / 4) * STEP_BYTES;
/** A stretch that leaves the first cache, of 32 KB, room for the activations. */
const UNPACKED_BYTES: u32 = 16384;
/** Few rows leave little to do between one stretch and the next: short ones let weights come while products are made. */
const FEW_ROWS: u32 = 16;
const FEW_ROWS_BYTES: u32 = 1024;
/** One group's are 64 bytes, and a group has 8 columns of 16 bytes or more. */
const SCALES_BYTES: u32 = UNPACKED_BYTES / 2;

/** Of scratch: an unpacked stretch and its scales f32 [groups][ROW_TILE]. */
export const MATMUL_ROWS_SCRATCH_BYTES: u32 = UNPACKED_BYTES + SCALES_BYTES;

/**
 * out[t][r] += Σ_c w[r, c] · x[t, c] for one tile and `count` rows t, an even number. w: Q4 or Q8 tile of `groups` groups; x:
 * OP_QUANTIZE's records, the rows xBytes apart; out: rows of ROW_TILE f32, outBytes apart.
 */
export function tile_times_rows(
  dtype: u32,
  group: u32,
  w: usize,
  groups: u32,
  x: usize,
  xBytes: u32,
  out: usize,
  outBytes: u32,
  count: u32,
  scratch: usize,
): void {
  const scales = scratch + UNPACKED_BYTES;
  const narrow = ASC_FEATURE_RELAXED_SIMD && dtype == DTYPE_Q4;
  const bytes = count <= FEW_ROWS ? FEW_ROWS_BYTES : UNPACKED_BYTES;
  const most = max(1, bytes / (group * ROW_TILE * (narrow ? 1 : 2)));
  const recordBytes = codes_group_bytes(dtype, group);
  const groupBytes = group_bytes(dtype, group);
  for (let g: u32 = 0; g < groups; g += most) {
    const some = min(most, groups - g);
    if (narrow) {
      unpack_q4_narrow(w, some, groupBytes, scratch, scales);
      add_narrow(scratch, scales, some, group, x, xBytes, recordBytes, out, outBytes, count);
    } else {
      if (dtype == DTYPE_Q4) unpack_q4_wide(w, some, groupBytes, scratch, scales);
      else unpack_q8(w, some, groupBytes, scratch, scales);
      add_wide(scratch, scales, some, group, x, xBytes, recordBytes, out, outBytes, count);
    }
    w += some * groupBytes;
    x += some * recordBytes;
  }
}

/** To i8: four columns of 16 rows, then the next four. */
function unpack_q4_narrow(w: usize, groups: u32, groupBytes: u32, to: usize, scales: usize): void {
  const low = v128.load(NIBBLES);
  for (let g: u32 = 0; g < groups; g++) {
    const end = w + groupBytes;
    unpack_scales(w, scales);
    scales += TILE_BYTES;
    for (w += ROW_TILE * 2; w < end; w += 64) {
      for (let v: usize = 0; v < 64; v += 16) {
        const q = v128.load(w + v);
        v128.store(to + v, v128.and(q, low));
        v128.store(to + v, v128.and(i16x8.shr_u(q, 4), low), 64);
      }
      to += 2 * STEP_BYTES;
    }
  }
}

/** To i16, in the order and at the place in which nibbles lie: columns 0 2, 4 6, 1 3, 5 7 of 16 rows, then the next. */
function unpack_q4_wide(w: usize, groups: u32, groupBytes: u32, to: usize, scales: usize): void {
  const m0 = i16x8.splat(0x000f);
  const m1 = i16x8.splat(0x00f0);
  const m2 = i16x8.splat(0x0f00);
  for (let g: u32 = 0; g < groups; g++) {
    const end = w + groupBytes;
    unpack_scales(w, scales);
    scales += TILE_BYTES;
    for (w += ROW_TILE * 2; w < end; w += 64) {
      for (let v: usize = 0; v < 64; v += 16) {
        const q = v128.load(w + v);
        v128.store(to + v, v128.and(q, m0));
        v128.store(to + v, v128.and(q, m1), 64);
        v128.store(to + v, v128.and(q, m2), 128);
        v128.store(to + v, i16x8.shr_u(q, 12), 192);
      }
      to += 4 * STEP_BYTES;
    }
  }
}

/** To i16: columns 0 2, 1 3 of 16 rows, then the next four. */
function unpack_q8(w: usize, groups: u32, groupBytes: u32, to: usize, scales: usize): void {
  for (let g: u32 = 0; g < groups; g++) {
    const end = w + groupBytes;
    unpack_scales(w, scales);
    scales += TILE_BYTES;
    for (w += ROW_TILE * 2; w < end; w += 64) {
      for (let v: usize = 0; v < 64; v += 16) {
        const q = v128.load(w + v);
        v128.store(to + v, i16x8.shr_s(i16x8.shl(q, 8), 8));
        v128.store(to + v, i16x8.shr_s(q, 8), 64);
      }
      to += 2 * STEP_BYTES;
    }
  }
}

/** out[t][r] += the products of unpacked groups in i16 with the codes of `count` rows, an even number. */
function add_wide(
  unpacked: usize,
  scales: usize,
  groups: u32,
  group: u32,
  x: usize,
  xBytes: u32,
  recordBytes: u32,
  out: usize,
  outBytes: u32,
  count: u32,
): void {
  const groupSteps = (group / 2) * STEP_BYTES;
  const end = unpacked + groups * groupSteps;
  for (let t: u32 = 0; t < count; t += 2) {
    let x0 = x + t * xBytes;
    let x1 = x0 + xBytes;
    const out0 = out + t * outBytes;
    const out1 = out0 + outBytes;
    let s = scales;
    for (let w = unpacked; w < end; s += TILE_BYTES) {
      let codes0 = x0 + CODES_START;
      let codes1 = x1 + CODES_START;
      let a0 = v128.load32_splat(x0, 4);
      let a1 = a0;
      let a2 = a0;
      let a3 = a0;
      let b0 = v128.load32_splat(x1, 4);
      let b1 = b0;
      let b2 = b0;
      let b3 = b0;
      for (const groupEnd = w + groupSteps; w < groupEnd; w += STEP_BYTES) {
        const w0 = v128.load(w);
        const w1 = v128.load(w, 16);
        const w2 = v128.load(w, 32);
        const w3 = v128.load(w, 48);
        const y0 = v128.load32_splat(codes0);
        a0 = i32x4.add(a0, i32x4.dot_i16x8_s(w0, y0));
        a1 = i32x4.add(a1, i32x4.dot_i16x8_s(w1, y0));
        a2 = i32x4.add(a2, i32x4.dot_i16x8_s(w2, y0));
        a3 = i32x4.add(a3, i32x4.dot_i16x8_s(w3, y0));
        const y1 = v128.load32_splat(codes1);
        b0 = i32x4.add(b0, i32x4.dot_i16x8_s(w0, y1));
        b1 = i32x4.add(b1, i32x4.dot_i16x8_s(w1, y1));
        b2 = i32x4.add(b2, i32x4.dot_i16x8_s(w2, y1));
        b3 = i32x4.add(b3, i32x4.dot_i16x8_s(w3, y1));
        codes0 += 4;
        codes1 += 4;
      }
      add_sums(out0, s, x0, a0, a1, a2, a3);
      add_sums(out1, s, x1, b0, b1, b2, b3);
      x0 += recordBytes;
      x1 += recordBytes;
    }
  }
}

/** As add_wide(), of groups in i8, whose parts are added one by one. */
function add_narrow(
  unpacked: usize,
  scales: usize,
  groups: u32,
  group: u32,
  x: usize,
  xBytes: u32,
  recordBytes: u32,
  out: usize,
  outBytes: u32,
  count: u32,
): void {
  const ones = v128.load(ONES);
  const groupSteps = (group / 4) * STEP_BYTES;
  const end = unpacked + groups * groupSteps;
  for (let t: u32 = 0; t < count; t += 2) {
    let x0 = x + t * xBytes;
    let x1 = x0 + xBytes;
    const out0 = out + t * outBytes;
    const out1 = out0 + outBytes;
    let s = scales;
    for (let w = unpacked; w < end; s += TILE_BYTES) {
      const groupEnd = w + groupSteps;
      let codes0 = x0 + PARTS_START;
      let codes1 = x1 + PARTS_START;
      do {
        let a0 = v128.load32_splat(codes0);
        let a1 = a0;
        let a2 = a0;
        let a3 = a0;
        codes0 += PART_CODES_START;
        let b0 = v128.load32_splat(codes1);
        let b1 = b0;
        let b2 = b0;
        let b3 = b0;
        codes1 += PART_CODES_START;
        for (const partEnd = min(w + PART_STEPS, groupEnd); w < partEnd; w += STEP_BYTES) {
          const w0 = v128.load(w);
          const w1 = v128.load(w, 16);
          const w2 = v128.load(w, 32);
          const w3 = v128.load(w, 48);
          const y0 = v128.load32_splat(codes0);
          a0 = i16x8.add(a0, i16x8.relaxed_dot_i8x16_i7x16_s(y0, w0));
          a1 = i16x8.add(a1, i16x8.relaxed_dot_i8x16_i7x16_s(y0, w1));
          a2 = i16x8.add(a2, i16x8.relaxed_dot_i8x16_i7x16_s(y0, w2));
          a3 = i16x8.add(a3, i16x8.relaxed_dot_i8x16_i7x16_s(y0, w3));
          const y1 = v128.load32_splat(codes1);
          b0 = i16x8.add(b0, i16x8.relaxed_dot_i8x16_i7x16_s(y1, w0));
          b1 = i16x8.add(b1, i16x8.relaxed_dot_i8x16_i7x16_s(y1, w1));
          b2 = i16x8.add(b2, i16x8.relaxed_dot_i8x16_i7x16_s(y1, w2));
          b3 = i16x8.add(b3, i16x8.relaxed_dot_i8x16_i7x16_s(y1, w3));
          codes0 += 4;
          codes1 += 4;
        }
        const c0 = i32x4.dot_i16x8_s(a0, ones);
        const c1 = i32x4.dot_i16x8_s(a1, ones);
        const c2 = i32x4.dot_i16x8_s(a2, ones);
        const c3 = i32x4.dot_i16x8_s(a3, ones);
        add_sums(out0, s, x0, c0, c1, c2, c3);
        const d0 = i32x4.dot_i16x8_s(b0, ones);
        const d1 = i32x4.dot_i16x8_s(b1, ones);
        const d2 = i32x4.dot_i16x8_s(b2, ones);
        const d3 = i32x4.dot_i16x8_s(b3, ones);
        add_sums(out1, s, x1, d0, d1, d2, d3);
      } while (w < groupEnd);
      x0 += recordBytes;
      x1 += recordBytes;
    }
  }
}
