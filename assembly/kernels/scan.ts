// The recurrence of an SSM (Mamba-2, arXiv 2405.21060), of every head: h ← e^(dt·A)·h + dt·x ⊗ B, out = h·C + D·x.
//
// A few rows go straight through it. A longer run of rows of one sequence is taken in chunks of SCAN_ROWS, as products
// of matrices: with G = C·Bᵀ of the chunk, and decay[i][j] = the product of e^(dt·A) of the rows j + 1 … i,
//   out[i] = Σ_{j ≤ i} G[i][j]·decay[i][j]·dt[j]·x[j] + (product up to i)·C[i]·h + D·x[i],
//   h      ← (product of all)·h + Σ_j decay[last][j]·dt[j]·x[j] ⊗ B[j].
// Decays are products of the rows' own, so that no differences of large exponents are taken. A thread does whole heads.

import {
  ROW_BYTES,
  ROW_POSITION,
  ROW_SEQUENCE,
  SCAN_A,
  SCAN_B,
  SCAN_BC_CHANNELS,
  SCAN_BC_UNITS,
  SCAN_C,
  SCAN_D,
  SCAN_DT,
  SCAN_GROUPS,
  SCAN_HEADS,
  SCAN_OUT,
  SCAN_SCRATCH,
  SCAN_STATE,
  SCAN_X,
  SCAN_XZ_CHANNELS,
  SCAN_XZ_UNITS,
} from "../abi";
import { exp1, exp4, madd4, sum4 } from "../math";
import { state_ptr } from "../state";
import { share_end, share_start, thread_index } from "../threads";

const SCAN_ROWS: u32 = 32; // of a chunk: with more, products with x cost more a row; with fewer, passes over h do
const SCAN_ROWS_LEAST: u32 = 4; // fewer are done one by one
const LINE: u32 = SCAN_ROWS * 4; // bytes of a line with a number for each row of a chunk

// A register tile of a product: TILE_LINES × TILE_COLS sums.
const TILE_LINES: u32 = 4;
const TILE_COLS: u32 = 8;
const TILE_STRIDE: u32 = TILE_COLS * 4;

// Scratch of a thread, in bytes
const TILE: u32 = 0; // [TILE_LINES][TILE_COLS]
const DECAYS: u32 = TILE + TILE_LINES * TILE_STRIDE; // e^(dt·A): [SCAN_ROWS]
const TOTALS: u32 = DECAYS + LINE; // of each row, the product of the decays up to its own: [SCAN_ROWS]
const TOTAL: u32 = TOTALS + LINE; // the last of them: [TILE_COLS]
const WEIGHTS: u32 = TOTAL + TILE_STRIDE; // decay[i][j]·dt[j] for i the last row so far: [SCAN_ROWS]
const PRODUCTS: u32 = WEIGHTS + LINE; // Gᵀ, valid where i ≥ j: [j][i]
const FACTORS: u32 = PRODUCTS + SCAN_ROWS * LINE; // G[i][j]·decay[i][j]·dt[j], and D where i = j: [j][i], zeros for i < j
const MATRICES: u32 = FACTORS + SCAN_ROWS * LINE; // x of a head, then B and Cᵀ of a group

/** f32 of scratch that each thread of a scan wants. */
export function scan_scratch_floats(headDim: u32, state: u32): u64 {
  return MATRICES / 4 + (SCAN_ROWS as u64) * ((padded(headDim) as u64) + 2 * (padded(state) as u64));
}

/** OP_SCAN over `count` rows. */
export function scan(op: usize, steps: usize, count: u32): void {
  const floats = load<u32>(op, SCAN_HEADS) * headDim(op) * stateDims(op);
  const state: usize = load<u32>(op, SCAN_STATE);
  for (let first: u32 = 0; first < count; ) {
    const sequence = load<u32>(steps + first * ROW_BYTES, ROW_SEQUENCE);
    const position = load<u32>(steps + first * ROW_BYTES, ROW_POSITION);
    let rows: u32 = 1;
    while (
      rows < SCAN_ROWS &&
      first + rows < count &&
      follows(steps + (first + rows) * ROW_BYTES, sequence, position + rows)
    )
      rows++;
    const h = state_ptr(state, sequence, floats);
    if (position == 0) clear(op, h);
    if (rows < SCAN_ROWS_LEAST) for (let i: u32 = 0; i < rows; i++) scan_row(op, h, first + i);
    else scan_chunk(op, h, first, rows);
    first += rows;
  }
}

/** Is this row the one of its sequence at this position? */
function follows(row: usize, sequence: u32, position: u32): bool {
  return load<u32>(row, ROW_SEQUENCE) == sequence && load<u32>(row, ROW_POSITION) == position;
}

/** Zeros in this thread's heads of a state. */
function clear(op: usize, h: usize): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const blockBytes = load<u32>(op, SCAN_XZ_CHANNELS) * stateDims(op) * 4;
  const start = share_start(heads);
  const bytes = (share_end(heads) - start) * blockBytes;
  for (let u: u32 = 0; u < load<u32>(op, SCAN_XZ_UNITS); u++)
    memory.fill(h + (u * heads + start) * blockBytes, 0, bytes);
}

/** One row of a sequence; h: its state. */
function scan_row(op: usize, h: usize, row: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const share = heads / load<u32>(op, SCAN_GROUPS);
  const state = stateDims(op);
  const channels = load<u32>(op, SCAN_XZ_CHANNELS);
  const units = load<u32>(op, SCAN_XZ_UNITS);
  const x: usize = load<u32>(op, SCAN_X) + row * heads * headDim(op) * 4;
  const out: usize = load<u32>(op, SCAN_OUT) + row * heads * headDim(op) * 4;
  const dt: usize = load<u32>(op, SCAN_DT) + row * heads * 4;
  const b = scratch(op) + MATRICES;
  const c = b + padded(state) * 4;
  const start = share_start(heads);
  const end = share_end(heads);
  for (let u: u32 = 0; u < units; u++) {
    for (let head = start; head < end; head++) {
      if (head == start || head % share == 0) {
        gather(op, SCAN_B, head / share, row, b);
        gather(op, SCAN_C, head / share, row, c);
      }
      const step = load<f32>(dt + head * 4);
      const decay = exp1(step * load<f32>(load<u32>(op, SCAN_A) + head * 4));
      const d = load<f32>(load<u32>(op, SCAN_D) + head * 4);
      const block = (u * heads + head) * channels;
      recur(h + block * state * 4, x + block * 4, out + block * 4, b, c, channels, state, decay, step, d);
    }
  }
}

/** One row of one head: h[p] ← decay·h[p] + dt·x[p]·B, out[p] = h[p]·C + d·x[p]; h: [channels][state]. */
function recur(
  h: usize,
  x: usize,
  out: usize,
  b: usize,
  c: usize,
  channels: u32,
  state: u32,
  decay: f32,
  dt: f32,
  d: f32,
): void {
  const wide = (state & ~7) * 4;
  const bytes = state * 4;
  const decays = f32x4.splat(decay);
  for (let p: u32 = 0; p < channels; p++) {
    const value = load<f32>(x + p * 4);
    const inputs = f32x4.splat(dt * value);
    let left = f32x4.splat(0);
    let right = f32x4.splat(0);
    let n: u32 = 0;
    for (; n < wide; n += 32) {
      const next = madd4(inputs, v128.load(b + n), f32x4.mul(v128.load(h + n), decays));
      v128.store(h + n, next);
      left = madd4(next, v128.load(c + n), left);
      const second = madd4(inputs, v128.load(b + n, 16), f32x4.mul(v128.load(h + n, 16), decays));
      v128.store(h + n, second, 16);
      right = madd4(second, v128.load(c + n, 16), right);
    }
    let sum = sum4(f32x4.add(left, right));
    for (; n < bytes; n += 4) {
      const next = load<f32>(h + n) * decay + dt * value * load<f32>(b + n);
      store<f32>(h + n, next);
      sum += next * load<f32>(c + n);
    }
    store<f32>(out + p * 4, sum + d * value);
    h += bytes;
  }
}

/** Rows first … first + rows of one sequence, SCAN_ROWS of them at most; h: its state. */
function scan_chunk(op: usize, h: usize, first: u32, rows: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const share = heads / load<u32>(op, SCAN_GROUPS);
  const start = share_start(heads);
  const end = share_end(heads);
  for (let head = start; head < end; head++) {
    if (head == start || head % share == 0) chunk_group(op, head / share, first, rows);
    chunk_head(op, head, first, rows);
    chunk_factors(op, head, rows);
    chunk_out(op, head, h, first, rows);
    chunk_state(op, head, h, rows);
  }
}

/** B, Cᵀ and Gᵀ of one group's rows. */
function chunk_group(op: usize, group: u32, first: u32, rows: u32): void {
  const state = stateDims(op);
  const stride = padded(state) * 4;
  const b = chunk_b(op);
  const c = chunk_c(op);
  const products = scratch(op) + PRODUCTS;
  memory.fill(b, 0, rows * stride);
  memory.fill(c, 0, state * LINE);
  memory.fill(scratch(op) + FACTORS, 0, SCAN_ROWS * LINE);
  for (let i: u32 = 0; i < rows; i++) {
    const line = b + i * stride;
    gather(op, SCAN_C, group, first + i, line);
    for (let n: u32 = 0; n < state; n++) store<f32>(c + n * LINE + i * 4, load<f32>(line + n * 4));
    gather(op, SCAN_B, group, first + i, line);
  }
  for (let i: u32 = 0; i < rows; i += TILE_COLS) {
    for (let j: u32 = 0; j < min(rows, i + TILE_COLS); j += TILE_LINES) {
      const to = products + j * LINE + i * 4;
      multiply_tile(rows - j, state, b + j * stride, stride, 4, c + i * 4, LINE, to, LINE, 0);
    }
  }
}

/** x, dt and decays of one head's rows; dt goes into the weights, zeros where a four is not full. */
function chunk_head(op: usize, head: u32, first: u32, rows: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const dims = headDim(op);
  const channels = load<u32>(op, SCAN_XZ_CHANNELS);
  const stride = padded(dims) * 4;
  const weights = scratch(op) + WEIGHTS;
  const x = chunk_x(op);
  let dt: usize = load<u32>(op, SCAN_DT) + (first * heads + head) * 4;
  let from: usize = load<u32>(op, SCAN_X) + (first * heads * dims + head * channels) * 4;
  for (let i: u32 = 0; i < rows; i++) {
    store<f32>(weights + i * 4, load<f32>(dt));
    dt += heads * 4;
    for (let u: u32 = 0; u < dims; u += channels) {
      copy(from, x + i * stride + u * 4, channels * 4);
      from += heads * channels * 4;
    }
  }
  for (let i = rows; i % 4 != 0; i++) store<f32>(weights + i * 4, 0);
  const a = v128.load32_splat(load<u32>(op, SCAN_A) + head * 4);
  for (let i: u32 = 0; i < rows; i += 4)
    v128.store(scratch(op) + DECAYS + i * 4, exp4(f32x4.mul(v128.load(weights + i * 4), a)));
}

/** Factors, totals and weights of one head's rows, four at once. */
function chunk_factors(op: usize, head: u32, rows: u32): void {
  const decays = scratch(op) + DECAYS;
  const weights = scratch(op) + WEIGHTS;
  const d = load<f32>(load<u32>(op, SCAN_D) + head * 4);
  let total: f32 = 1;
  for (let i: u32 = 0; i < rows; i += 4) {
    const one = load<f32>(decays + i * 4);
    const two = one * load<f32>(decays + i * 4, 4);
    const three = two * load<f32>(decays + i * 4, 8);
    const four = three * load<f32>(decays + i * 4, 12);
    const running = f32x4(one, two, three, four);
    v128.store(scratch(op) + TOTALS + i * 4, f32x4.mul(f32x4.splat(total), running));
    total *= four;
    let products = scratch(op) + PRODUCTS + i * 4;
    let factors = scratch(op) + FACTORS + i * 4;
    for (let j: u32 = 0; j < i; j++) {
      const weight = load<f32>(weights + j * 4);
      v128.store(factors, f32x4.mul(f32x4.mul(f32x4.splat(weight), running), v128.load(products)));
      store<f32>(weights + j * 4, weight * four);
      products += LINE;
      factors += LINE;
    }
    // Among the four themselves only those that come later have a factor.
    for (let j: u32 = 0; j < 4; j++) {
      let weight = load<f32>(weights + (i + j) * 4);
      store<f32>(factors + j * 4, weight * load<f32>(products + j * 4) + d);
      for (let k = j + 1; k < 4; k++) {
        weight *= load<f32>(decays + (i + k) * 4);
        store<f32>(factors + k * 4, weight * load<f32>(products + k * 4));
      }
      store<f32>(weights + (i + j) * 4, weight);
      products += LINE;
      factors += LINE;
    }
  }
  for (let i: u32 = 0; i < TILE_COLS; i++) store<f32>(scratch(op) + TOTAL + i * 4, total);
}

/** out of one head's rows; h: the state before them. */
function chunk_out(op: usize, head: u32, h: usize, first: u32, rows: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const state = stateDims(op);
  const dims = headDim(op);
  const channels = load<u32>(op, SCAN_XZ_CHANNELS);
  const rowBytes = heads * dims * 4;
  const stride = padded(dims) * 4;
  const tile = scratch(op) + TILE;
  const totals = scratch(op) + TOTALS;
  const factors = scratch(op) + FACTORS;
  const c = chunk_c(op);
  const out: usize = load<u32>(op, SCAN_OUT) + first * rowBytes;
  for (let u: u32 = 0; u < dims; u += channels) {
    for (let p: u32 = 0; p < channels; p += TILE_LINES) {
      const channel = u * heads + head * channels + p;
      const lines = min(TILE_LINES, channels - p);
      const x = chunk_x(op) + (u + p) * 4;
      for (let i: u32 = 0; i < rows; i += TILE_COLS) {
        const own = i * 4;
        multiply_tile(lines, state, h + channel * state * 4, state * 4, 4, c + own, LINE, tile, TILE_STRIDE, 0);
        const depth = min(rows, i + TILE_COLS);
        multiply_tile(lines, depth, x, 4, stride, factors + own, LINE, tile, TILE_STRIDE, totals + own);
        store_across(tile, out + i * rowBytes + channel * 4, rowBytes, lines, depth - i);
      }
    }
  }
}

/** The state of one head behind its rows, from h, the one before them; x is used up. */
function chunk_state(op: usize, head: u32, h: usize, rows: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const state = stateDims(op);
  const dims = headDim(op);
  const channels = load<u32>(op, SCAN_XZ_CHANNELS);
  const stride = padded(dims) * 4;
  const bStride = padded(state) * 4;
  const tile = scratch(op) + TILE;
  const total = scratch(op) + TOTAL;
  const b = chunk_b(op);
  for (let j: u32 = 0; j < rows; j++) {
    const weight = v128.load32_splat(scratch(op) + WEIGHTS + j * 4);
    const line = chunk_x(op) + j * stride;
    for (let p: u32 = 0; p < stride; p += 16) v128.store(line + p, f32x4.mul(v128.load(line + p), weight));
  }
  for (let u: u32 = 0; u < dims; u += channels) {
    for (let p: u32 = 0; p < channels; p += TILE_LINES) {
      const lines = min(TILE_LINES, channels - p);
      const x = chunk_x(op) + (u + p) * 4;
      const own = h + (u * heads + head * channels + p) * state * 4;
      let n: u32 = 0;
      for (; n + TILE_COLS <= state; n += TILE_COLS)
        multiply_tile(lines, rows, x, 4, stride, b + n * 4, bStride, own + n * 4, state * 4, total);
      if (n == state) continue;
      const bytes = (state - n) * 4;
      for (let q: u32 = 0; q < lines; q++) copy(own + (q * state + n) * 4, tile + q * TILE_STRIDE, bytes);
      multiply_tile(lines, rows, x, 4, stride, b + n * 4, bStride, tile, TILE_STRIDE, total);
      for (let q: u32 = 0; q < lines; q++) copy(tile + q * TILE_STRIDE, own + (q * state + n) * 4, bytes);
    }
  }
}

/**
 * t[q][0 … 7] = factors[0 … 7]·t[q][0 … 7] + Σ_k a[q][k]·b[k][0 … 7] for `depth` of k, where t is only written if factors
 * is 0. Of a, lines are aLine and columns aStep bytes apart; lines of b, t: bLine, tLine. Past the last of `lines`, the
 * last is done again.
 */
function multiply_tile(
  lines: u32,
  depth: u32,
  a: usize,
  aLine: u32,
  aStep: u32,
  b: usize,
  bLine: u32,
  t: usize,
  tLine: u32,
  factors: usize,
): void {
  const last = lines - 1;
  const t1 = t + min<u32>(1, last) * tLine;
  const t2 = t + min<u32>(2, last) * tLine;
  const t3 = t + min<u32>(3, last) * tLine;
  let a0 = a;
  let a1 = a + min<u32>(1, last) * aLine;
  let a2 = a + min<u32>(2, last) * aLine;
  let a3 = a + min<u32>(3, last) * aLine;
  let c00 = f32x4.splat(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  if (factors != 0) {
    const left = v128.load(factors);
    const right = v128.load(factors, 16);
    c00 = f32x4.mul(v128.load(t), left);
    c01 = f32x4.mul(v128.load(t, 16), right);
    c10 = f32x4.mul(v128.load(t1), left);
    c11 = f32x4.mul(v128.load(t1, 16), right);
    c20 = f32x4.mul(v128.load(t2), left);
    c21 = f32x4.mul(v128.load(t2, 16), right);
    c30 = f32x4.mul(v128.load(t3), left);
    c31 = f32x4.mul(v128.load(t3, 16), right);
  }
  const end = b + depth * bLine;
  while (b != end) {
    const left = v128.load(b);
    const right = v128.load(b, 16);
    const v0 = v128.load32_splat(a0);
    c00 = madd4(v0, left, c00);
    c01 = madd4(v0, right, c01);
    const v1 = v128.load32_splat(a1);
    c10 = madd4(v1, left, c10);
    c11 = madd4(v1, right, c11);
    const v2 = v128.load32_splat(a2);
    c20 = madd4(v2, left, c20);
    c21 = madd4(v2, right, c21);
    const v3 = v128.load32_splat(a3);
    c30 = madd4(v3, left, c30);
    c31 = madd4(v3, right, c31);
    a0 += aStep;
    a1 += aStep;
    a2 += aStep;
    a3 += aStep;
    b += bLine;
  }
  v128.store(t, c00);
  v128.store(t, c01, 16);
  v128.store(t1, c10);
  v128.store(t1, c11, 16);
  v128.store(t2, c20);
  v128.store(t2, c21, 16);
  v128.store(t3, c30);
  v128.store(t3, c31, 16);
}

/** out[i][q] = tile[q][i] for `lines` of q, `rows` of i; rows of out are `stride` bytes apart. */
function store_across(tile: usize, out: usize, stride: u32, lines: u32, rows: u32): void {
  let i: u32 = 0;
  if (lines == 4) {
    for (; i + 4 <= rows; i += 4) {
      const t0 = v128.load(tile + i * 4);
      const t1 = v128.load(tile + i * 4, TILE_STRIDE);
      const t2 = v128.load(tile + i * 4, 2 * TILE_STRIDE);
      const t3 = v128.load(tile + i * 4, 3 * TILE_STRIDE);
      const low = v128.shuffle<f32>(t0, t1, 0, 4, 1, 5);
      const high = v128.shuffle<f32>(t0, t1, 2, 6, 3, 7);
      const nextLow = v128.shuffle<f32>(t2, t3, 0, 4, 1, 5);
      const nextHigh = v128.shuffle<f32>(t2, t3, 2, 6, 3, 7);
      v128.store(out, v128.shuffle<f64>(low, nextLow, 0, 2));
      v128.store(out + stride, v128.shuffle<f64>(low, nextLow, 1, 3));
      v128.store(out + 2 * stride, v128.shuffle<f64>(high, nextHigh, 0, 2));
      v128.store(out + 3 * stride, v128.shuffle<f64>(high, nextHigh, 1, 3));
      out += 4 * stride;
    }
  }
  for (; i < rows; i++) {
    for (let q: u32 = 0; q < lines; q++) store<f32>(out + q * 4, load<f32>(tile + q * TILE_STRIDE + i * 4));
    out += stride;
  }
}

/** A row of B or C of one group: its units one behind the other. */
function gather(op: usize, field: usize, group: u32, row: u32, to: usize): void {
  const units = load<u32>(op, SCAN_BC_UNITS);
  const bytes = load<u32>(op, SCAN_BC_CHANNELS) * 4;
  const groups = load<u32>(op, SCAN_GROUPS);
  const from: usize = load<u32>(op + field) + (row * units * groups + group) * bytes;
  for (let u: u32 = 0; u < units; u++) copy(from + u * groups * bytes, to + u * bytes, bytes);
}

function copy(from: usize, to: usize, bytes: u32): void {
  let i: u32 = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(to + i, v128.load(from + i));
  for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(from + i));
}

function scratch(op: usize): usize {
  return load<u32>(op, SCAN_SCRATCH) + thread_index() * ((scan_scratch_floats(headDim(op), stateDims(op)) as u32) * 4);
}

/** x of a head: [SCAN_ROWS][padded head dim]. */
function chunk_x(op: usize): usize {
  return scratch(op) + MATRICES;
}

/** B of a group: [SCAN_ROWS][padded state], with zeros in what is too much. */
function chunk_b(op: usize): usize {
  return chunk_x(op) + padded(headDim(op)) * LINE;
}

/** Cᵀ of a group: [state][SCAN_ROWS], with zeros in the rows that are not there. */
function chunk_c(op: usize): usize {
  return chunk_b(op) + padded(stateDims(op)) * LINE;
}

function headDim(op: usize): u32 {
  return load<u32>(op, SCAN_XZ_UNITS) * load<u32>(op, SCAN_XZ_CHANNELS);
}

function stateDims(op: usize): u32 {
  return load<u32>(op, SCAN_BC_UNITS) * load<u32>(op, SCAN_BC_CHANNELS);
}

/** Whole tiles. */
function padded(dims: u32): u32 {
  return (dims + (TILE_COLS - 1)) & ~(TILE_COLS - 1);
}
