// Activations in 8 bit, as the matrices that follow want them: each group of columns of a row (the matrix's groups) has
// its own scale, the largest magnitude / 127, and is one record:
//   f32  scale of a product of codes, × HALF_SCALE, since the matrix's f16 scales are read without it
//   i32  what a sum of products of codes is to be lessened by: for Q4, whose codes are weights + 8, 8 × the codes' sum
//   8 bytes that mean nothing
//   the codes x of eight columns after eight columns:
//     i16 for Q8:                x0 x2 x1 x3 x4 x6 x5 x7
//     i16 for Q4:                256·x0 256·x2 16·x4 16·x6 x1 x3 256·x5 256·x7; times the nibbles where they lie in the
//                                i16 lanes of a block, each product is 256 × the product of the codes
//     i8 for Q4, relaxed SIMD:   x0 … x7

import { BLOCK_COLS, DTYPE_Q4 } from "../../packs/format";
import { QUANTIZE_COLS, QUANTIZE_DTYPE, QUANTIZE_GROUP, QUANTIZE_IN, QUANTIZE_OUT } from "../abi";
import { HALF_SCALE } from "../math";
import { share_end, share_start } from "../threads";

/** Where the codes of a record begin. */
export const CODES_START: u32 = 16;
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
  return CODES_START + (narrow(dtype) ? (group + 15) & ~15 : group * 2);
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
  const round = v128.load(CONSTANTS, ROUND);
  const places = v128.load(CONSTANTS, PLACES);
  let to = record + CODES_START;
  let sums = i16x8.splat(0);
  for (let x = input; x < end; x += BLOCK_COLS * 4) {
    // A sum this large has no fraction: it is rounded, and its low bits are the code.
    const a = f32x4.add(f32x4.mul(v128.load(x), inverse), round);
    const b = f32x4.add(f32x4.mul(v128.load(x, 16), inverse), round);
    if (narrow(dtype)) {
      const codes = v128.shuffle<i16>(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
      sums = i16x8.add(sums, codes);
      v128.store64_lane(to, i8x16.narrow_i16x8_s(codes, codes), 0);
      to += BLOCK_COLS;
    } else if (dtype == DTYPE_Q4) {
      const codes = v128.shuffle<i16>(a, b, 0, 4, 8, 12, 2, 6, 10, 14);
      sums = i16x8.add(sums, codes);
      v128.store(to, i16x8.mul(codes, places));
      to += BLOCK_COLS * 2;
    } else {
      v128.store(to, v128.shuffle<i16>(a, b, 0, 4, 2, 6, 8, 12, 10, 14));
      to += BLOCK_COLS * 2;
    }
  }
  const pairs = i32x4.extadd_pairwise_i16x8_s(sums);
  let sum =
    i32x4.extract_lane(pairs, 0) +
    i32x4.extract_lane(pairs, 1) +
    i32x4.extract_lane(pairs, 2) +
    i32x4.extract_lane(pairs, 3);
  let scale: f32 = (most / CODE_MAX) * HALF_SCALE;
  if (dtype == DTYPE_Q4 && !narrow(dtype)) {
    sum *= NIBBLE_SCALE;
    scale /= NIBBLE_SCALE as f32;
  }
  store<f32>(record, scale);
  store<i32>(record, dtype == DTYPE_Q4 ? sum * 8 : 0, 4);
}
