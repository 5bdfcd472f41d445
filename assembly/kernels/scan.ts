// The recurrence of an SSM (Mamba-2, arXiv 2405.21060), of every head: h ← e^(dt·A)·h + dt·x ⊗ B, out = h·C + D·x.
//
// Rows of one sequence that follow each other are taken together, head by head and channel by channel, so that a
// channel's state stays in the first cache while the rows pass over it, two at a time. What is computed for a row is the
// same, bit for bit, whatever rows it comes with: a text does not depend on how its prompt was cut. (As products of
// matrices over chunks of rows, which is how GPUs do it, the sums would be others.) A thread does whole heads.

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
import { exp1, madd4, sum4 } from "../math";
import { state_ptr } from "../state";
import { share_end, share_start, thread_index } from "../threads";

/** Most rows that are taken together: their B and C of a group lie in the first cache beside a channel's state. */
const SCAN_ROWS: u32 = 16;

// Scratch of a thread, in bytes
const DECAYS: u32 = 0; // e^(dt·A) of one head: [SCAN_ROWS]
const STEPS: u32 = DECAYS + SCAN_ROWS * 4; // dt of it
const MATRICES: u32 = STEPS + SCAN_ROWS * 4; // B, then C, of one group: [SCAN_ROWS][state]

/** f32 of scratch that each thread of a scan wants. */
export function scan_scratch_floats(state: u32): u64 {
  return MATRICES / 4 + 2 * (SCAN_ROWS as u64) * state;
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
    scan_rows(op, h, first, rows);
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

/** Rows first … first + rows of one sequence, SCAN_ROWS of them at most; h: its state. */
function scan_rows(op: usize, h: usize, first: u32, rows: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const share = heads / load<u32>(op, SCAN_GROUPS);
  const state = stateDims(op);
  const channels = load<u32>(op, SCAN_XZ_CHANNELS);
  const units = load<u32>(op, SCAN_XZ_UNITS);
  const rowBytes = heads * headDim(op) * 4;
  const x: usize = load<u32>(op, SCAN_X) + first * rowBytes;
  const out: usize = load<u32>(op, SCAN_OUT) + first * rowBytes;
  const b = scratch(op) + MATRICES;
  const c = b + SCAN_ROWS * state * 4;
  const start = share_start(heads);
  const end = share_end(heads);
  for (let head = start; head < end; head++) {
    if (head == start || head % share == 0) {
      for (let i: u32 = 0; i < rows; i++) {
        gather(op, SCAN_B, head / share, first + i, b + i * state * 4);
        gather(op, SCAN_C, head / share, first + i, c + i * state * 4);
      }
    }
    take_steps(op, head, first, rows);
    const d = load<f32>(load<u32>(op, SCAN_D) + head * 4);
    for (let u: u32 = 0; u < units; u++) {
      const block = (u * heads + head) * channels;
      for (let p = block; p < block + channels; p++) {
        const own = h + p * state * 4;
        let i: u32 = 0;
        for (; i + 2 <= rows; i += 2) two_rows(op, own, x + p * 4, out + p * 4, rowBytes, i, state, d);
        if (i < rows) one_row(op, own, x + p * 4, out + p * 4, rowBytes, i, state, d);
      }
    }
  }
}

/** dt and decays of one head's rows. */
function take_steps(op: usize, head: u32, first: u32, rows: u32): void {
  const heads = load<u32>(op, SCAN_HEADS);
  const a = load<f32>(load<u32>(op, SCAN_A) + head * 4);
  const own = scratch(op);
  for (let i: u32 = 0; i < rows; i++) {
    const step = load<f32>(load<u32>(op, SCAN_DT) + ((first + i) * heads + head) * 4);
    store<f32>(own + STEPS + i * 4, step);
    store<f32>(own + DECAYS + i * 4, exp1(step * a));
  }
}

/** The i-th row of one channel: h ← decay·h + dt·x·B, out = h·C + d·x; h: [state]. x, out: of row 0. */
function one_row(op: usize, h: usize, x: usize, out: usize, rowBytes: u32, i: u32, state: u32, d: f32): void {
  const own = scratch(op);
  const decay = load<f32>(own + DECAYS + i * 4);
  const value = load<f32>(x + i * rowBytes);
  const input = load<f32>(own + STEPS + i * 4) * value;
  let b = own + MATRICES + i * state * 4;
  let c = b + SCAN_ROWS * state * 4;
  const decays = f32x4.splat(decay);
  const inputs = f32x4.splat(input);
  let left = f32x4.splat(0);
  let right = f32x4.splat(0);
  const end = h + state * 4;
  for (const wide = h + (state & ~7) * 4; h < wide; h += 32) {
    const next = madd4(inputs, v128.load(b), f32x4.mul(v128.load(h), decays));
    v128.store(h, next);
    left = madd4(next, v128.load(c), left);
    const second = madd4(inputs, v128.load(b, 16), f32x4.mul(v128.load(h, 16), decays));
    v128.store(h, second, 16);
    right = madd4(second, v128.load(c, 16), right);
    b += 32;
    c += 32;
  }
  let sum = sum4(f32x4.add(left, right));
  for (; h < end; h += 4) {
    const next = load<f32>(h) * decay + input * load<f32>(b);
    store<f32>(h, next);
    sum += next * load<f32>(c);
    b += 4;
    c += 4;
  }
  store<f32>(out + i * rowBytes, sum + d * value);
}

/** As one_row(), of the i-th and the one after it. */
function two_rows(op: usize, h: usize, x: usize, out: usize, rowBytes: u32, i: u32, state: u32, d: f32): void {
  const own = scratch(op);
  const decay = load<f32>(own + DECAYS + i * 4);
  const laterDecay = load<f32>(own + DECAYS + i * 4, 4);
  const value = load<f32>(x + i * rowBytes);
  const laterValue = load<f32>(x + (i + 1) * rowBytes);
  const input = load<f32>(own + STEPS + i * 4) * value;
  const laterInput = load<f32>(own + STEPS + i * 4, 4) * laterValue;
  const bytes = state * 4;
  let b = own + MATRICES + i * bytes;
  let laterB = b + bytes;
  let c = b + SCAN_ROWS * bytes;
  let laterC = c + bytes;
  const decays = f32x4.splat(decay);
  const laterDecays = f32x4.splat(laterDecay);
  const inputs = f32x4.splat(input);
  const laterInputs = f32x4.splat(laterInput);
  let left = f32x4.splat(0);
  let right = f32x4.splat(0);
  let laterLeft = f32x4.splat(0);
  let laterRight = f32x4.splat(0);
  const end = h + bytes;
  for (const wide = h + (state & ~7) * 4; h < wide; h += 32) {
    const next = madd4(inputs, v128.load(b), f32x4.mul(v128.load(h), decays));
    left = madd4(next, v128.load(c), left);
    const later = madd4(laterInputs, v128.load(laterB), f32x4.mul(next, laterDecays));
    laterLeft = madd4(later, v128.load(laterC), laterLeft);
    v128.store(h, later);
    const second = madd4(inputs, v128.load(b, 16), f32x4.mul(v128.load(h, 16), decays));
    right = madd4(second, v128.load(c, 16), right);
    const laterSecond = madd4(laterInputs, v128.load(laterB, 16), f32x4.mul(second, laterDecays));
    laterRight = madd4(laterSecond, v128.load(laterC, 16), laterRight);
    v128.store(h, laterSecond, 16);
    b += 32;
    laterB += 32;
    c += 32;
    laterC += 32;
  }
  let sum = sum4(f32x4.add(left, right));
  let laterSum = sum4(f32x4.add(laterLeft, laterRight));
  for (; h < end; h += 4) {
    const next = load<f32>(h) * decay + input * load<f32>(b);
    sum += next * load<f32>(c);
    const later = next * laterDecay + laterInput * load<f32>(laterB);
    laterSum += later * load<f32>(laterC);
    store<f32>(h, later);
    b += 4;
    laterB += 4;
    c += 4;
    laterC += 4;
  }
  store<f32>(out + i * rowBytes, sum + d * value);
  store<f32>(out + (i + 1) * rowBytes, laterSum + d * laterValue);
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
  return load<u32>(op, SCAN_SCRATCH) + thread_index() * ((scan_scratch_floats(stateDims(op)) as u32) * 4);
}

function headDim(op: usize): u32 {
  return load<u32>(op, SCAN_XZ_UNITS) * load<u32>(op, SCAN_XZ_CHANNELS);
}

function stateDims(op: usize): u32 {
  return load<u32>(op, SCAN_BC_UNITS) * load<u32>(op, SCAN_BC_CHANNELS);
}
