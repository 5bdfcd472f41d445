// What a plan makes room for, as plan_shape() was told: for those who lay out and emit. Kernels do not look here.

import { THREADS_MAX } from "./threads";

const CONTEXT_DEFAULT: u32 = 2048;
const ROWS_DEFAULT: u32 = 64;
const DEVICE_ROWS_DEFAULT: u32 = 512;
const ROWS_MAX: u32 = 4096;
const SEQUENCES_MAX: u32 = 4096;
const SNAPSHOTS_MAX: u32 = 4096;

let context: u32 = 0;
let sequences: u32 = 0;
let snapshots: u32 = 0;
let rows: u32 = 0;
let rowsFewest: u32 = 0;
let rowsMost: u32 = 0;
let outputs: u32 = 0;
let threads: u32 = 0;
let exact = false;
let device = false;
let coded = false;

/** Sets the shape, 0 meaning the default of each but the snapshots; returns 1 + the index of a number that is too large, or 0. */
export function shape_set(
  positions: u32,
  modelPositions: u32,
  sequenceCount: u32,
  rowCount: u32,
  outputCount: u32,
  threadCount: u32,
  exactly: bool,
  inDevice: bool,
  cacheCoded: bool,
  snapshotCount: u32,
): u32 {
  if (sequenceCount > SEQUENCES_MAX) return 2;
  if (rowCount > ROWS_MAX) return 3;
  if (outputCount > ROWS_MAX) return 4;
  if (threadCount > THREADS_MAX) return 5;
  if (snapshotCount > SNAPSHOTS_MAX) return 8;
  context = positions == 0 ? min(modelPositions, CONTEXT_DEFAULT) : positions;
  sequences = max(sequenceCount, 1);
  device = inDevice;
  rowsMost = rowCount == 0 ? (device ? DEVICE_ROWS_DEFAULT : ROWS_DEFAULT) : rowCount;
  outputs = min(outputCount == 0 ? sequences : outputCount, rowsMost);
  rowsFewest = rowCount == 0 ? max(ROWS_DEFAULT, outputs) : rowCount;
  rows = rowsMost;
  threads = device ? 1 : max(threadCount, 1);
  exact = exactly;
  coded = cacheCoded && !inDevice;
  snapshots = device ? 0 : snapshotCount;
  return 0;
}

/** Positions of a sequence; 0 before a shape is set. */
export function shape_context(): u32 {
  return context;
}

export function shape_sequences(): u32 {
  return sequences;
}

/** States that are kept beside those of the sequences, and counted on behind them. */
export function shape_snapshots(): u32 {
  return snapshots;
}

/** Most rows of a step. */
export function shape_rows(): u32 {
  return rows;
}

/** Of the most rows of a step, how few a plan may come to: fewer than shape_rows_most() in a device, if nobody asked. */
export function shape_rows_fewest(): u32 {
  return rowsFewest;
}

export function shape_rows_most(): u32 {
  return rowsMost;
}

/** Takes a number between the two as the most rows of a step. */
export function shape_use_rows(count: u32): void {
  rows = count;
}

/** Most rows of a step that want logits. */
export function shape_outputs(): u32 {
  return outputs;
}

/** Most threads of a step. */
export function shape_threads(): u32 {
  return threads;
}

/** Do activations stay f32 where they could be 8 bit? */
export function shape_exact(): bool {
  return exact;
}

/** Does the KV cache hold codes of 8 bit, not f32? */
export function shape_coded(): bool {
  return coded;
}

/** Do weights, caches, states and scratch lie in a device's memory, which the core cannot address? */
export function shape_device(): bool {
  return device;
}
