// What a host asks of a build before it trusts it: the matrix kernels over small numbers, against plain arithmetic.
// Engines differ in what relaxed SIMD and wider vectors do, and one that does it wrong says nothing.

import { BLOCK_COLS, DTYPE_Q4, DTYPE_Q8, ROW_TILE } from "../packs/format";
import {
  AXIS_ROWS,
  MATMUL_AXIS,
  MATMUL_CODES,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_IN,
  MATMUL_IN_STRIDE,
  MATMUL_OUT,
  MATMUL_OUT_STRIDE,
  MATMUL_PANELS,
  MATMUL_ROWS,
  MATMUL_SCRATCH,
  MATMUL_WEIGHT,
  MATMUL_WIDE,
  OP_BYTES,
  QUANTIZE_COLS,
  QUANTIZE_DTYPE,
  QUANTIZE_GROUP,
  QUANTIZE_IN,
  QUANTIZE_OUT,
} from "./abi";
import { matmul } from "./kernels/matmul";
import { codes_row_bytes, quantize } from "./kernels/quantize";
import { arena_base, memory_reach } from "./memory";
import { group_bytes } from "./pack";

const TILES: u32 = 2;
const ROWS: u32 = TILES * ROW_TILE;
const COLS: u32 = 128;
const COUNT: u32 = 7; // rows of activations: where vectors are wide four, a pair and a single one; elsewhere many and one
const SCALE_BITS: u32 = 0x2c00; // f16 1/16, of every group
const SCALE: f32 = 0.0625;
const ERROR: f32 = 1e-4; // of the largest number that can come out: sums in another order

let base: usize = 0;

/**
 * Multiplies matrices of 4 and 8 bit `rounds` times in each way, for the engine's compilers to get to their last tier. To be
 * called before a pack is opened: it takes the arena's first pages. Returns 0, or what went wrong: 1 no memory, else 2 +
 * the number of the product.
 */
export function self_test(rounds: u32): u32 {
  base = arena_base();
  if (!memory_reach((base as u64) + 4 * 65536)) return 1;
  if (!product_is_right(DTYPE_Q4, 32, rounds)) return 2;
  if (!product_is_right(DTYPE_Q4, COLS, rounds)) return 3;
  if (!product_is_right(DTYPE_Q8, 32, rounds)) return 4;
  return 0;
}

function product_is_right(dtype: u32, group: u32, rounds: u32): bool {
  const x = base + 2 * OP_BYTES;
  const codes = x + COUNT * COLS * 4;
  const weights = codes + COUNT * codes_row_bytes(COLS, group);
  const groupBytes = group_bytes(dtype, group);
  const out = weights + TILES * (COLS / group) * groupBytes;
  const first = out + COUNT * ROWS * 4;
  const scratch = first + COUNT * ROWS * 4;
  let seed: u32 = 2463534242;
  for (let at = x; at < out; at += 4) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    store<u32>(at, seed);
  }
  for (let i: u32 = 0; i < COUNT * COLS; i++) store<f32>(x + i * 4, (load<i8>(x + i * 4) as f32) / 32);
  for (let at = weights; at < out; at += groupBytes)
    for (let r: u32 = 0; r < ROW_TILE; r++) store<u16>(at + r * 2, SCALE_BITS as u16);

  const op = base + OP_BYTES;
  memory.fill(base, 0, 2 * OP_BYTES);
  store<u32>(base, x as u32, QUANTIZE_IN);
  store<u32>(base, codes as u32, QUANTIZE_OUT);
  store<u32>(base, COLS, QUANTIZE_COLS);
  store<u32>(base, group, QUANTIZE_GROUP);
  store<u32>(base, dtype, QUANTIZE_DTYPE);
  store<u32>(op, x as u32, MATMUL_IN);
  store<u32>(op, COLS, MATMUL_IN_STRIDE);
  store<u32>(op, out as u32, MATMUL_OUT);
  store<u32>(op, ROWS, MATMUL_OUT_STRIDE);
  store<u32>(op, weights as u32, MATMUL_WEIGHT);
  store<u32>(op, dtype, MATMUL_DTYPE);
  store<u32>(op, group, MATMUL_GROUP);
  store<u32>(op, ROWS, MATMUL_ROWS);
  store<u32>(op, COLS, MATMUL_COLS);
  store<u32>(op, 1, MATMUL_PANELS);
  store<u32>(op, AXIS_ROWS, MATMUL_AXIS);
  store<u32>(op, codes as u32, MATMUL_CODES);
  store<u32>(op, scratch as u32, MATMUL_SCRATCH);

  quantize(base, COUNT);
  matmul(op, COUNT);
  for (let t: u32 = 0; t < COUNT; t++) {
    for (let r: u32 = 0; r < ROWS; r++) {
      const want = plain(dtype, group, weights, x + t * COLS * 4, r);
      const most: f32 = SCALE * 8 * 4 * (COLS as f32) * (dtype == DTYPE_Q4 ? 1 : 16);
      if (!(abs<f32>(load<f32>(out + (t * ROWS + r) * 4) - want) <= ERROR * most)) return false;
    }
  }
  memory.copy(first, out, COUNT * ROWS * 4);
  for (let i: u32 = 0; i < rounds * 2; i++) {
    store<u32>(op, i & 1 ? 0 : 1, MATMUL_WIDE);
    quantize(base, COUNT);
    matmul(op, COUNT);
    if (memory.compare(first, out, COUNT * ROWS * 4) != 0) return false;
  }
  return true;
}

/** Σ_c w[r, c] · x[c], x rounded to 8 bit group by group. */
function plain(dtype: u32, group: u32, weights: usize, x: usize, r: u32): f32 {
  const groupBytes = group_bytes(dtype, group);
  const blockCols = dtype == DTYPE_Q4 ? BLOCK_COLS : BLOCK_COLS / 2;
  let w = weights + (r / ROW_TILE) * (COLS / group) * groupBytes + ROW_TILE * 2 + (r % ROW_TILE) * 4;
  let total: f32 = 0;
  for (let col: u32 = 0; col < COLS; col += group) {
    let most: f32 = 0;
    for (let c: u32 = 0; c < group; c++) most = max<f32>(most, abs<f32>(load<f32>(x + (col + c) * 4)));
    const inverse: f32 = 127 / most;
    let sum: i32 = 0;
    for (let c: u32 = 0; c < group; c++) {
      const byte = w + (c / blockCols) * 64 + (c % 4);
      let code: i32 = load<i8>(byte);
      if (dtype == DTYPE_Q4) code = (((load<u8>(byte) as i32) >> (c % BLOCK_COLS < 4 ? 0 : 4)) & 15) - 8;
      sum += code * (nearest<f32>(load<f32>(x + (col + c) * 4) * inverse) as i32);
    }
    total += (sum as f32) * (most / 127) * SCALE;
    w += groupBytes;
  }
  return total;
}
