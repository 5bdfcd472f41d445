// Weight quantization with error feedback (GPTQ). With the Hessian's factor H = R·Rᵀ (R upper, see cholesky.ts) the
// error of row w is Σ_i ((d·R)_i)², d = w − q, and (d·R)_i depends on columns 0 … i only: so column i is rounded from
// w_i + Σ_{j<i} d_j·R_ji / R_ii, which is GPTQ's compensated weight, and no inverse of H is needed. It is a triangular
// solve with a rounding in each step, recursive over the columns so that nearly all work is large products. Without a
// factor the same code rounds to nearest.

import { lanes_peak, nearest_level, round_f16, rounding_loss, SHRINK_CANDIDATES, shrunk } from "./codec";
import { ADD, ALL, element, multiply, PLAIN } from "./gemm";
import { lanes_add, lanes_load, lanes_store } from "./lanes";
import { lanes_scratch } from "./workspace";

/** How a group's scale follows from its weights; 8-bit groups read both MAX rules as peak / 127. */
const RULE_MAX_7_5: u32 = 0; // the largest weight lies half a level outside
const RULE_MAX_7: u32 = 1; // the largest weight is a level
const RULE_SEARCH: u32 = 2; // least weighted rounding error of the group, of shrunk scales
// RULE_TRIAL = 3: least error after feedback inside the group, of shrunk scales

const BLOCK_COLS: u32 = 64; // feedback inside a block is by rows, between blocks by products

// The job at hand; one at a time.
let wPtr: usize = 0;
let rows: u32 = 0;
let cols: u32 = 0;
let group: u32 = 0;
let rPtr: usize = 0;
let weightsPtr: usize = 0;
let sumsPtr: usize = 0;
let levelsPtr: usize = 0;
let scalesPtr: usize = 0;
let rule: u32 = 0;
let lowest: f32 = 0;
let highest: f32 = 0;
let lossTotal: f64 = 0;

/**
 * Quantizes W f32 [rows, cols] to levels i8 [rows, cols] and scales f32 [rows, cols / group]; W becomes W − Q. Returns
 * the loss: Σ weights[i]·(what was rounded − what came out)², which with weights[i] = R_ii² is ‖(W − Q)·R‖².
 * bits: 4 (levels −8 … 7) or 8 (−127 … 127). r: factor f32 [cols, cols], or 0 for rounding to nearest; weights: f32
 * [cols]; sums: f32 scratch [rows, cols], not read without a factor. cols % group = 0, group ≤ GROUP_MAX.
 */
export function quantize_matrix(
  w: usize,
  rowCount: u32,
  colCount: u32,
  groupCols: u32,
  bits: u32,
  scaleRule: u32,
  r: usize,
  weights: usize,
  sums: usize,
  levels: usize,
  scales: usize,
): f64 {
  wPtr = w;
  rows = rowCount;
  cols = colCount;
  group = groupCols;
  rPtr = r;
  weightsPtr = weights;
  sumsPtr = sums;
  levelsPtr = levels;
  scalesPtr = scales;
  rule = scaleRule;
  lowest = bits === 4 ? -8 : -127;
  highest = bits === 4 ? 7 : 127;
  lossTotal = 0;
  if (r) memory.fill(sums, 0, ((rowCount as usize) * colCount) << 2);
  quantize_range(0, colCount);
  return lossTotal;
}

function quantize_range(from: u32, end: u32): void {
  const block = group * max<u32>(1, BLOCK_COLS / group);
  const count = end - from;
  if (count <= block) {
    quantize_block(from, count);
    return;
  }
  const middle = from + ((count / 2 + block - 1) / block) * block;
  quantize_range(from, middle);
  if (rPtr) {
    const d = element(wPtr, cols, 0, from);
    const r = element(rPtr, cols, from, middle);
    multiply(
      ADD,
      ALL,
      rows,
      end - middle,
      middle - from,
      d,
      cols,
      PLAIN,
      r,
      cols,
      PLAIN,
      element(sumsPtr, cols, 0, middle),
      cols,
    );
  }
  quantize_range(middle, end);
}

/** Lanes of a block: the target w (later d), the sums Σ d_j·R_ji, a copy of a group's sums, its compensated weights. */
function quantize_block(from: u32, count: u32): void {
  const w = lanes_scratch(0);
  const sums = lanes_scratch(1);
  const target = lanes_scratch(3);
  for (let row: u32 = 0; row < rows; row += 4) {
    const there = min<u32>(4, rows - row);
    lanes_load(element(wPtr, cols, row, from), cols, there, count, w);
    if (rPtr) lanes_load(element(sumsPtr, cols, row, from), cols, there, count, sums);
    let loss = f32x4.splat(0);
    for (let g: u32 = 0; g < count; g += group) {
      compensate(from + g, w + (g << 4), sums + (g << 4), target);
      const scale = choose_scale(from + g, w + (g << 4), sums + (g << 4), target);
      store_scales(row, there, (from + g) / group, scale);
      for (let j = g; j < g + group; j++) {
        const col = from + j;
        const at = w + (j << 4);
        const weight = v128.load(at);
        const wanted = compensated(weight, sums + (j << 4), col);
        const level = nearest_level(wanted, scale, lowest, highest);
        const value = f32x4.mul(level, scale);
        store_levels(row, there, col, level);
        loss = f32x4.add(loss, weighted_square(f32x4.sub(wanted, value), col));
        const d = f32x4.sub(weight, value);
        v128.store(at, d);
        if (rPtr) lanes_add(sums + ((j + 1) << 4), d, element(rPtr, cols, col, col + 1), count - 1 - j);
      }
    }
    lanes_store(w, there, count, element(wPtr, cols, row, from), cols);
    lossTotal += f32x4.extract_lane(loss, 0) as f64;
    if (there > 1) lossTotal += f32x4.extract_lane(loss, 1) as f64;
    if (there > 2) lossTotal += f32x4.extract_lane(loss, 2) as f64;
    if (there > 3) lossTotal += f32x4.extract_lane(loss, 3) as f64;
  }
}

function compensated(weight: v128, sumPtr: usize, col: u32): v128 {
  if (!rPtr) return weight;
  return f32x4.add(weight, f32x4.div(v128.load(sumPtr), v128.load32_splat(element(rPtr, cols, col, col))));
}

function weighted_square(miss: v128, col: u32): v128 {
  return f32x4.mul(f32x4.mul(miss, miss), v128.load32_splat(weightsPtr + ((col as usize) << 2)));
}

/** target [group][4] = the weights that would undo all errors so far if none of the group were rounded. */
function compensate(col: u32, w: usize, sums: usize, target: usize): void {
  const bytes = (group as usize) << 4;
  if (!rPtr) {
    memory.copy(target, w, bytes);
    return;
  }
  const left = lanes_scratch(2);
  memory.copy(left, sums, bytes);
  for (let j: u32 = 0; j < group; j++) {
    const weight = v128.load(w + (j << 4));
    const wanted = compensated(weight, left + (j << 4), col + j);
    v128.store(target + (j << 4), wanted);
    const r = element(rPtr, cols, col + j, col + j + 1);
    lanes_add(left + ((j + 1) << 4), f32x4.sub(weight, wanted), r, group - 1 - j);
  }
}

function choose_scale(col: u32, w: usize, sums: usize, target: usize): v128 {
  const peak = lanes_peak(target, group);
  if (rule === RULE_MAX_7_5) return round_f16(f32x4.div(peak, f32x4.splat(highest === 7 ? 7.5 : highest)));
  const top = f32x4.div(peak, f32x4.splat(highest));
  let best = round_f16(top);
  if (rule === RULE_MAX_7) return best;
  let least = f32x4.splat(f32.MAX_VALUE);
  for (let index: u32 = 0; index < SHRINK_CANDIDATES; index++) {
    const scale = shrunk(top, index);
    const loss =
      rule === RULE_SEARCH || !rPtr
        ? rounding_loss(target, weightsPtr + ((col as usize) << 2), group, scale, lowest, highest)
        : feedback_loss(col, w, sums, scale);
    const better = f32x4.lt(loss, least);
    best = v128.bitselect(scale, best, better);
    least = f32x4.min(loss, least);
  }
  return best;
}

/** What the group would add to the loss with this scale, feedback included. */
function feedback_loss(col: u32, w: usize, sums: usize, scale: v128): v128 {
  const left = lanes_scratch(2);
  memory.copy(left, sums, (group as usize) << 4);
  let loss = f32x4.splat(0);
  for (let j: u32 = 0; j < group; j++) {
    const weight = v128.load(w + (j << 4));
    const wanted = compensated(weight, left + (j << 4), col + j);
    const value = f32x4.mul(nearest_level(wanted, scale, lowest, highest), scale);
    loss = f32x4.add(loss, weighted_square(f32x4.sub(wanted, value), col + j));
    const r = element(rPtr, cols, col + j, col + j + 1);
    lanes_add(left + ((j + 1) << 4), f32x4.sub(weight, value), r, group - 1 - j);
  }
  return loss;
}

function store_scales(row: u32, there: u32, index: u32, scale: v128): void {
  const ld = cols / group;
  store<f32>(element(scalesPtr, ld, row, index), f32x4.extract_lane(scale, 0));
  if (there > 1) store<f32>(element(scalesPtr, ld, row + 1, index), f32x4.extract_lane(scale, 1));
  if (there > 2) store<f32>(element(scalesPtr, ld, row + 2, index), f32x4.extract_lane(scale, 2));
  if (there > 3) store<f32>(element(scalesPtr, ld, row + 3, index), f32x4.extract_lane(scale, 3));
}

function store_levels(row: u32, there: u32, col: u32, level: v128): void {
  const whole = i32x4.trunc_sat_f32x4_s(level);
  const at = levelsPtr + (row as usize) * cols + col;
  store<u8>(at, i32x4.extract_lane(whole, 0) as u8);
  if (there > 1) store<u8>(at + cols, i32x4.extract_lane(whole, 1) as u8);
  if (there > 2) store<u8>(at + 2 * (cols as usize), i32x4.extract_lane(whole, 2) as u8);
  if (there > 3) store<u8>(at + 3 * (cols as usize), i32x4.extract_lane(whole, 3) as u8);
}
