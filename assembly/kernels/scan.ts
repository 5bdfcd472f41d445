// The recurrence of an SSM (Mamba-2, arXiv 2405.21060), of every head: h ← e^(dt·A)·h + dt·x ⊗ B, out = h·C + D·x.
//
// One row goes straight through it. A run of rows of one sequence is taken in chunks of SCAN_ROWS: with G = C·Bᵀ of the
// chunk, and decay[i][j] = the product of e^(dt·A) of the rows j + 1 … i,
//   out[i] = Σ_{j ≤ i} G[i][j]·decay[i][j]·dt[j]·x[j] + (product up to i)·C[i]·h + D·x[i],
//   h      ← (product of all)·h + Σ_j decay[last][j]·dt[j]·x[j] ⊗ B[j].
// Row i of decay is row i − 1 times e^(dt[i]·A), so that no differences of large exponents are taken.

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
import { exp1, sum4 } from "../math";
import { state_ptr } from "../state";

const SCAN_ROWS: u32 = 64; // of a chunk

/** f32 of scratch that a scan with this many state dimensions wants. */
export function scan_scratch_floats(state: u32): u64 {
  return ((2 * SCAN_ROWS) as u64) * padded(state) + SCAN_ROWS * SCAN_ROWS + 2 * SCAN_ROWS;
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
    if (position == 0) memory.fill(h, 0, floats * 4);
    scan_chunk(op, h, first, rows);
    first += rows;
  }
}

/** Is this row the one of its sequence at this position? */
function follows(row: usize, sequence: u32, position: u32): bool {
  return load<u32>(row, ROW_SEQUENCE) == sequence && load<u32>(row, ROW_POSITION) == position;
}

/** Rows first … first + rows of one sequence; h: its state. */
function scan_chunk(op: usize, h: usize, first: u32, rows: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const groups = load<u32>(op, SCAN_GROUPS);
  const share = heads / groups;
  const state = stateDims(op);
  const stride = padded(state) * 4;
  const channels = load<u32>(op, SCAN_XZ_CHANNELS);
  const units = load<u32>(op, SCAN_XZ_UNITS);
  const rowBytes = heads * headDim(op) * 4;
  const blockBytes = channels * state * 4;
  const b: usize = load<u32>(op, SCAN_SCRATCH); // [SCAN_ROWS][padded state]
  const c: usize = b + SCAN_ROWS * stride; // the same
  const products: usize = c + SCAN_ROWS * stride; // G: [SCAN_ROWS][SCAN_ROWS]
  const weights: usize = products + SCAN_ROWS * SCAN_ROWS * 4; // decay[i][j]·dt[j]: [SCAN_ROWS]
  const factors: usize = weights + SCAN_ROWS * 4; // G[i][j]·weights[j]: [SCAN_ROWS]
  const x: usize = load<u32>(op, SCAN_X) + first * rowBytes;
  const out: usize = load<u32>(op, SCAN_OUT) + first * rowBytes;
  const dt: usize = load<u32>(op, SCAN_DT) + first * heads * 4;
  for (let g: u32 = 0; g < groups; g++) {
    gather(op, SCAN_B, g, first, rows, b, stride);
    gather(op, SCAN_C, g, first, rows, c, stride);
    if (rows > 1) multiply(c, b, products, rows, stride);
    for (let head = g * share; head < (g + 1) * share; head++) {
      const a = load<f32>(load<u32>(op, SCAN_A) + head * 4);
      const d = load<f32>(load<u32>(op, SCAN_D) + head * 4);
      if (rows == 1) {
        const step = load<f32>(dt + head * 4);
        const decay = exp1(step * a);
        for (let u: u32 = 0; u < units; u++) {
          const block = u * heads + head;
          const at = block * channels * 4;
          recur(h + block * blockBytes, x + at, out + at, b, c, channels, state, decay, step, d);
        }
        continue;
      }
      let total: f32 = 1;
      for (let i: u32 = 0; i < rows; i++) {
        const step = load<f32>(dt + (i * heads + head) * 4);
        const decay = exp1(step * a);
        total *= decay;
        const row = products + i * SCAN_ROWS * 4;
        for (let j: u32 = 0; j < i; j++) {
          const weight = load<f32>(weights + j * 4) * decay;
          store<f32>(weights + j * 4, weight);
          store<f32>(factors + j * 4, load<f32>(row + j * 4) * weight);
        }
        store<f32>(weights + i * 4, step);
        store<f32>(factors + i * 4, load<f32>(row + i * 4) * step + d);
        for (let u: u32 = 0; u < units; u++) {
          const block = u * heads + head;
          const at = block * channels * 4;
          const to = out + i * rowBytes + at;
          from_state(h + block * blockBytes, c + i * stride, to, channels, state, total);
          add_rows(x + at, rowBytes, factors, i + 1, to, channels);
        }
      }
      for (let u: u32 = 0; u < units; u++) {
        const block = u * heads + head;
        advance(
          h + block * blockBytes,
          x + block * channels * 4,
          rowBytes,
          weights,
          factors,
          b,
          stride,
          rows,
          channels,
          state,
          total,
        );
      }
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
  const wide = (state & ~3) * 4;
  const bytes = state * 4;
  const decays = f32x4.splat(decay);
  for (let p: u32 = 0; p < channels; p++) {
    const value = load<f32>(x + p * 4);
    const inputs = f32x4.splat(dt * value);
    let sums = f32x4.splat(0);
    let n: u32 = 0;
    for (; n < wide; n += 16) {
      const next = f32x4.add(f32x4.mul(v128.load(h + n), decays), f32x4.mul(inputs, v128.load(b + n)));
      v128.store(h + n, next);
      sums = f32x4.add(sums, f32x4.mul(next, v128.load(c + n)));
    }
    let sum = sum4(sums);
    for (; n < bytes; n += 4) {
      const next = load<f32>(h + n) * decay + dt * value * load<f32>(b + n);
      store<f32>(h + n, next);
      sum += next * load<f32>(c + n);
    }
    store<f32>(out + p * 4, sum + d * value);
    h += bytes;
  }
}

/** out[p] = factor × h[p]·C; h: [channels][state]. */
function from_state(h: usize, c: usize, out: usize, channels: u32, state: u32, factor: f32): void {
  const bytes = state * 4;
  let p: u32 = 0;
  if (state % 4 == 0) {
    // Four dims at once: their four sums are added up crosswise.
    const factors = f32x4.splat(factor);
    for (; p + 4 <= channels; p += 4) {
      let s0 = f32x4.splat(0);
      let s1 = f32x4.splat(0);
      let s2 = f32x4.splat(0);
      let s3 = f32x4.splat(0);
      let h1 = h + bytes;
      let h2 = h1 + bytes;
      let h3 = h2 + bytes;
      for (let n: u32 = 0; n < bytes; n += 16) {
        const value = v128.load(c + n);
        s0 = f32x4.add(s0, f32x4.mul(v128.load(h), value));
        s1 = f32x4.add(s1, f32x4.mul(v128.load(h1), value));
        s2 = f32x4.add(s2, f32x4.mul(v128.load(h2), value));
        s3 = f32x4.add(s3, f32x4.mul(v128.load(h3), value));
        h += 16;
        h1 += 16;
        h2 += 16;
        h3 += 16;
      }
      h = h3;
      const even = f32x4.add(v128.shuffle<f32>(s0, s1, 0, 4, 1, 5), v128.shuffle<f32>(s0, s1, 2, 6, 3, 7));
      const odd = f32x4.add(v128.shuffle<f32>(s2, s3, 0, 4, 1, 5), v128.shuffle<f32>(s2, s3, 2, 6, 3, 7));
      const sums = f32x4.add(v128.shuffle<f32>(even, odd, 0, 1, 4, 5), v128.shuffle<f32>(even, odd, 2, 3, 6, 7));
      v128.store(out + p * 4, f32x4.mul(sums, factors));
    }
  }
  const wide = (state & ~3) * 4;
  for (; p < channels; p++) {
    let sums = f32x4.splat(0);
    let n: u32 = 0;
    for (; n < wide; n += 16) sums = f32x4.add(sums, f32x4.mul(v128.load(h + n), v128.load(c + n)));
    let sum = sum4(sums);
    for (; n < bytes; n += 4) sum += load<f32>(h + n) * load<f32>(c + n);
    store<f32>(out + p * 4, sum * factor);
    h += bytes;
  }
}

/** out[i] += Σ_j factors[j]·x[j][i]; x's rows are `stride` bytes apart. Sixteen sums at once, then four, then one. */
function add_rows(x: usize, stride: u32, factors: usize, rows: u32, out: usize, floats: u32): void {
  const bytes = floats * 4;
  let i: u32 = 0;
  for (; i + 64 <= bytes; i += 64) {
    let s0 = v128.load(out + i);
    let s1 = v128.load(out + i, 16);
    let s2 = v128.load(out + i, 32);
    let s3 = v128.load(out + i, 48);
    let from = x + i;
    for (let j: u32 = 0; j < rows; j++) {
      const factor = v128.load32_splat(factors + j * 4);
      s0 = f32x4.add(s0, f32x4.mul(factor, v128.load(from)));
      s1 = f32x4.add(s1, f32x4.mul(factor, v128.load(from, 16)));
      s2 = f32x4.add(s2, f32x4.mul(factor, v128.load(from, 32)));
      s3 = f32x4.add(s3, f32x4.mul(factor, v128.load(from, 48)));
      from += stride;
    }
    v128.store(out + i, s0);
    v128.store(out + i, s1, 16);
    v128.store(out + i, s2, 32);
    v128.store(out + i, s3, 48);
  }
  for (; i + 16 <= bytes; i += 16) {
    let sums = v128.load(out + i);
    let from = x + i;
    for (let j: u32 = 0; j < rows; j++) {
      sums = f32x4.add(sums, f32x4.mul(v128.load32_splat(factors + j * 4), v128.load(from)));
      from += stride;
    }
    v128.store(out + i, sums);
  }
  for (; i < bytes; i += 4) {
    let sum = load<f32>(out + i);
    for (let j: u32 = 0; j < rows; j++) sum += load<f32>(factors + j * 4) * load<f32>(x + j * stride + i);
    store<f32>(out + i, sum);
  }
}

/** h[p] ← total·h[p] + Σ_j weights[j]·x[j][p]·B[j]; h: [channels][state]; factors: f32 [rows] of scratch. */
function advance(
  h: usize,
  x: usize,
  xStride: u32,
  weights: usize,
  factors: usize,
  b: usize,
  bStride: u32,
  rows: u32,
  channels: u32,
  state: u32,
  total: f32,
): void {
  for (let p: u32 = 0; p < channels; p++) {
    for (let j: u32 = 0; j < rows; j++)
      store<f32>(factors + j * 4, load<f32>(weights + j * 4) * load<f32>(x + j * xStride + p * 4));
    for (let n: u32 = 0; n < state; n++) store<f32>(h + n * 4, load<f32>(h + n * 4) * total);
    add_rows(b, bStride, factors, rows, h, state);
    h += state * 4;
  }
}

/** Rows of B or C of one group, its units side by side: to[row][state], `stride` bytes apart, filled up with zeros. */
function gather(op: usize, field: usize, group: u32, first: u32, rows: u32, to: usize, stride: u32): void {
  const units = load<u32>(op, SCAN_BC_UNITS);
  const channels = load<u32>(op, SCAN_BC_CHANNELS);
  const groups = load<u32>(op, SCAN_GROUPS);
  const unitBytes = groups * channels * 4;
  let from: usize = load<u32>(op + field) + first * units * unitBytes + group * channels * 4;
  for (let i: u32 = 0; i < rows; i++) {
    for (let u: u32 = 0; u < units; u++) memory.copy(to + u * channels * 4, from + u * unitBytes, channels * 4);
    for (let n = units * channels * 4; n < stride; n += 4) store<f32>(to + n, 0);
    from += units * unitBytes;
    to += stride;
  }
}

/** products[i][j] = C[i]·B[j] for j ≤ i; rows of both are `stride` bytes apart, a multiple of 16. */
function multiply(c: usize, b: usize, products: usize, rows: u32, stride: u32): void {
  for (let i: u32 = 0; i < rows; i++) {
    const left = c + i * stride;
    for (let j: u32 = 0; j <= i; j++) {
      const right = b + j * stride;
      let sums = f32x4.splat(0);
      for (let n: u32 = 0; n < stride; n += 16)
        sums = f32x4.add(sums, f32x4.mul(v128.load(left + n), v128.load(right + n)));
      store<f32>(products + (i * SCAN_ROWS + j) * 4, sum4(sums));
    }
  }
}

function headDim(op: usize): u32 {
  return load<u32>(op, SCAN_XZ_UNITS) * load<u32>(op, SCAN_XZ_CHANNELS);
}

function stateDims(op: usize): u32 {
  return load<u32>(op, SCAN_BC_UNITS) * load<u32>(op, SCAN_BC_CHANNELS);
}

/** A multiple of four floats. */
function padded(state: u32): u32 {
  return (state + 3) & ~3;
}
