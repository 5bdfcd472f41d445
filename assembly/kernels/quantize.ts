// Activations in 8 bit, as the matrices that follow want them: each group of columns of a row (the matrix's groups) has
// its own scale, the largest magnitude / 127, and is one record of bytes. It begins with what the codes' sums of products
// with unsigned weights start from, since Q4 stores a weight + 8: that is −8 × the codes' sum, 0 for Q8. Codes x0 x1 …:
//   i16, 8 columns at a time (SIMD as it always is):
//     f32  scale of a product of codes, × HALF_SCALE, since the matrix's f16 scales are read without it
//     i32  what sums start from
//     8 bytes that mean nothing
//     Q8:  x0 x2 x1 x3 x4 x6 x5 x7
//     Q4:  256·x0 256·x2 16·x4 16·x6 x1 x3 256·x5 256·x7; times the nibbles where they lie in the i16 lanes of a block,
//          each product is 256 × the product of the codes
//   i8, for Q4 where SIMD is relaxed:
//     f32  scale as above
//     then for every NARROW_COLS columns, or what is left of them:
//       2 × i16  what the sums of even and of odd i16 lanes start from: of columns 0 1 4 5 …, and of 2 3 6 7 …
//       x0 x1 x2 x3 …

import { BLOCK_COLS, DTYPE_Q4 } from "../../packs/format";
import { QUANTIZE_COLS, QUANTIZE_DTYPE, QUANTIZE_GROUP, QUANTIZE_IN, QUANTIZE_OUT } from "../abi";
import { HALF_SCALE } from "../math";
import { share_end, share_start } from "../threads";

/** Where the codes of a record begin, where they are i16. */
export const CODES_START: u32 = 16;
/** Where the parts of a record begin, where codes are i8; and where a part's codes do. */
export const PARTS_START: u32 = 4;
export const PART_CODES_START: u32 = 4;
/**
 * Columns of a part: no more than an i16 can sum, which has the products of half of them. Sums may run over on their way,
 * but end as those of codes with weights from −8 to 7 do: 64 / 2 × 8 × 127 < 2^15.
 */
export const NARROW_COLS: u32 = 64;
/** Of a record of Q4's codes, where SIMD is not relaxed. */
const NIBBLE_SCALE: i32 = 256;
const CODE_MAX: f32 = 127;

const CONSTANTS = memory.data<u32>(
  [
    0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff, 0x4b400000, 0x4b400000, 0x4b400000, 0x4b400000, 0x01000100,
    0x00100010, 0x00010001, 0x01000100,
  ],
  16,
);
const MAGNITUDE: usize = 0; // all bits but the sign
const ROUND: usize = 16; // f32 1.5 × 2^23
const PLACES: usize = 32; // i16 256 256 16 16 1 1 256 256

/** Are the codes for a matrix of this dtype i8? Otherwise they are i16. */
function narrow(dtype: u32): bool {
  return ASC_FEATURE_RELAXED_SIMD && dtype == DTYPE_Q4;
}

/** Bytes of a group's record. */
export function codes_group_bytes(dtype: u32, group: u32): u32 {
  if (!narrow(dtype)) return CODES_START + group * 2;
  return PARTS_START + ((group + (NARROW_COLS - 1)) / NARROW_COLS) * PART_CODES_START + group;
}

/** Most bytes of the codes of one row of `cols` columns, whatever the build. */
export function codes_row_bytes(cols: u32, group: u32): u32 {
  return (cols / group) * (CODES_START + group * 2);
}

/** OP_QUANTIZE over `count` rows. */
export function quantize(op: usize, count: u32): void {
  const input: usize = load<u32>(op, QUANTIZE_IN);
  const out: usize = load<u32>(op, QUANTIZE_OUT);
  const group = load<u32>(op, QUANTIZE_GROUP);
  const dtype = load<u32>(op, QUANTIZE_DTYPE);
  const bytes = codes_group_bytes(dtype, group);
  const groups = count * (load<u32>(op, QUANTIZE_COLS) / group);
  const end = share_end(groups);
  for (let g = share_start(groups); g < end; g++) quantize_group(input + g * group * 4, out + g * bytes, group, dtype);
}

function quantize_group(input: usize, record: usize, group: u32, dtype: u32): void {
  const end = input + group * 4;
  const magnitude = v128.load(CONSTANTS, MAGNITUDE);
  // As integers, magnitudes have the same order, and what is not a number is above all of them.
  let most4 = i32x4.splat(0);
  for (let x = input; x < end; x += 16) most4 = i32x4.max_s(most4, v128.and(v128.load(x), magnitude));
  most4 = i32x4.max_s(most4, v128.shuffle<i32>(most4, most4, 2, 3, 0, 1));
  most4 = i32x4.max_s(most4, v128.shuffle<i32>(most4, most4, 1, 0, 3, 2));
  const most = f32x4.extract_lane(most4, 0);
  const inverse = f32x4.splat(most == 0 ? 0 : CODE_MAX / most);
  const scale: f32 = (most / CODE_MAX) * HALF_SCALE;
  if (narrow(dtype)) {
    store<f32>(record, scale);
    for (let part = record + PARTS_START; input < end; input += NARROW_COLS * 4) {
      const cols = min(NARROW_COLS, ((end - input) / 4) as u32);
      narrow_codes(input, cols, inverse, part);
      part += PART_CODES_START + cols;
    }
    return;
  }
  const sum = wide_codes(input, group, inverse, dtype, record + CODES_START);
  store<f32>(record, dtype == DTYPE_Q4 ? scale / (NIBBLE_SCALE as f32) : scale);
  store<i32>(record, dtype == DTYPE_Q4 ? -8 * NIBBLE_SCALE * sum : 0, 4);
}

/** A part of a record of i8 codes. */
function narrow_codes(input: usize, cols: u32, inverse: v128, part: usize): void {
  const round = v128.load(CONSTANTS, ROUND);
  const end = input + cols * 4;
  let to = part + PART_CODES_START;
  let sums = i16x8.splat(0);
  for (; input < end; input += BLOCK_COLS * 4) {
    // A sum this large has no fraction: it is rounded, and its low bits are the code.
    const a = f32x4.add(f32x4.mul(v128.load(input), inverse), round);
    const b = f32x4.add(f32x4.mul(v128.load(input, 16), inverse), round);
    const codes = v128.shuffle<i16>(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    sums = i16x8.add(sums, codes);
    v128.store64_lane(to, i8x16.narrow_i16x8_s(codes, codes), 0);
    to += BLOCK_COLS;
  }
  const pairs = i32x4.extadd_pairwise_i16x8_s(sums);
  store<i16>(part, (-8 * (i32x4.extract_lane(pairs, 0) + i32x4.extract_lane(pairs, 2))) as i16);
  store<i16>(part, (-8 * (i32x4.extract_lane(pairs, 1) + i32x4.extract_lane(pairs, 3))) as i16, 2);
}

/** The i16 codes of a record; their sum. */
function wide_codes(input: usize, cols: u32, inverse: v128, dtype: u32, to: usize): i32 {
  const round = v128.load(CONSTANTS, ROUND);
  const places = v128.load(CONSTANTS, PLACES);
  const end = input + cols * 4;
  let sums = i16x8.splat(0);
  for (; input < end; input += BLOCK_COLS * 4) {
    const a = f32x4.add(f32x4.mul(v128.load(input), inverse), round);
    const b = f32x4.add(f32x4.mul(v128.load(input, 16), inverse), round);
    if (dtype == DTYPE_Q4) {
      const codes = v128.shuffle<i16>(a, b, 0, 4, 8, 12, 2, 6, 10, 14);
      sums = i16x8.add(sums, codes);
      v128.store(to, i16x8.mul(codes, places));
    } else {
      v128.store(to, v128.shuffle<i16>(a, b, 0, 4, 2, 6, 8, 12, 10, 14));
    }
    to += BLOCK_COLS * 2;
  }
  const pairs = i32x4.extadd_pairwise_i16x8_s(sums);
  return (
    i32x4.extract_lane(pairs, 0) +
    i32x4.extract_lane(pairs, 1) +
    i32x4.extract_lane(pairs, 2) +
    i32x4.extract_lane(pairs, 3)
  );
}
