// Weights to bytes and back: rounds matrices to 4 or 8 bits, to nearest or with error feedback (GPTQ), and lays them in
// the tiles of format.ts. A matrix is quantized whole and encoded panel by panel, so that feedback crosses units. Which
// weights, which Hessian and which group size are the caller's business.

import { SnugError } from "../runtime/index";
import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, DTYPE_Q8, GROUP_MAX, GROUP_MIN, ROW_TILE } from "./format";
import type { Linalg, Matrix } from "./linalg";

const DEFAULT_DAMP = 0.01;
const DAMP_RETRIES = 4; // each with ten times as much
const CHUNK_VALUES = 1 << 24; // of a matrix's rows inside the module at a time
const Q4_ZERO = 8; // a Q4 code is level + 8
const LANE_BYTES = 4; // codes of a row in a block
const BLOCK_BYTES = ROW_TILE * LANE_BYTES;
const F16_BYTES = 2;
const F32_BYTES = 4;

/** The index is the code in assembly/linalg/gptq.ts, which says what each does. */
export const SCALE_RULES = ["max/7.5", "max/7", "search", "trial"] as const;
export type ScaleRule = (typeof SCALE_RULES)[number];

export interface QuantizeOptions {
  readonly bits: 4 | 8;
  /** Columns that share a scale: divides the columns, a multiple of 8, GROUP_MIN … GROUP_MAX. */
  readonly group: number;
  /** Default "search". "trial" counts error feedback inside the group: slower, and better in 4 bits. */
  readonly rule?: ScaleRule;
}

/** A matrix [rows, cols] as level × scale. */
export interface Quantized {
  readonly bits: 4 | 8;
  readonly rows: number;
  readonly cols: number;
  readonly group: number;
  /** [rows, cols]: −8 … 7 or −127 … 127. */
  readonly levels: Int8Array;
  /** [rows, cols / group]: finite, not negative, exact in f16. */
  readonly scales: Float32Array;
  /** Σ weight·error² to nearest; ‖(W − Q)·R‖² of the damped Hessian R·Rᵀ with feedback. */
  readonly loss: number;
}

/** A damped Hessian, factored for `quantizeWithFeedback`. Lives in the module, like any Matrix. */
export interface HessianFactor {
  readonly factor: Matrix;
  /** Columns without any input: they are quantized as zeros. */
  readonly dead: readonly number[];
  /** What was added to the diagonal, as a share of its mean. */
  readonly damp: number;
}

/** Part of a matrix that is stored by itself. */
export interface Panel {
  readonly row: number;
  readonly rows: number;
  /** A multiple of the group, as is `cols`. */
  readonly col: number;
  readonly cols: number;
}

// Quantizing

/** Rounds W [rows, cols] to nearest. `weights`: importance of each column for the search of scales, default 1. */
export function quantizeToNearest(
  linalg: Linalg,
  w: Float32Array,
  rows: number,
  cols: number,
  options: QuantizeOptions,
  weights = new Float32Array(cols).fill(1),
): Quantized {
  return linalg.scope(() => quantize(linalg, w, rows, cols, options, linalg.put(weights, 1, cols), null));
}

/**
 * Rounds W [rows, cols] column by column in the given order, each rounding error passed on to the columns to its right
 * as the Hessian says: minimises ‖(W − Q)·R‖² greedily.
 */
export function quantizeWithFeedback(
  linalg: Linalg,
  w: Float32Array,
  rows: number,
  cols: number,
  hessian: HessianFactor,
  options: QuantizeOptions,
): Quantized {
  const { factor, dead } = hessian;
  if (factor.cols !== cols) {
    throw new SnugError("internal", `a Hessian of ${factor.cols} columns cannot serve a matrix of ${cols}`);
  }
  const target = dead.length > 0 ? clearColumns(w, rows, cols, dead) : w;
  return linalg.scope(() => {
    const r = linalg.view(factor);
    const weights = Float32Array.from({ length: cols }, (_, i) => r[i * cols + i] ** 2);
    return quantize(linalg, target, rows, cols, options, linalg.put(weights, 1, cols), factor);
  });
}

/**
 * Factors H [n, n] (upper triangle read, H kept) after adding damp × mean(diagonal) to its diagonal, more if it is
 * not positive definite even so. One factor serves all matrices that read the same input.
 */
export function factorHessian(linalg: Linalg, h: Matrix, damp = DEFAULT_DAMP): HessianFactor {
  const n = h.rows;
  const factor = linalg.copy(h);
  for (let retry = 0; ; retry++) {
    const share = damp * 10 ** retry;
    const dead = dampDiagonal(linalg.view(factor), n, share);
    if (linalg.factor(factor)) return { factor, dead, damp: share };
    if (retry === DAMP_RETRIES || damp === 0) {
      throw new SnugError("internal", `a Hessian of ${n} columns is not positive definite with ${share} damping`);
    }
    linalg.view(factor).set(linalg.view(h));
  }
}

/** What a reader of the bytes will see: f32 [rows, cols]. */
export function dequantize(q: Quantized): Float32Array {
  const { rows, cols, group, levels, scales } = q;
  const out = new Float32Array(rows * cols);
  for (let from = 0, g = 0; from < out.length; from += group, g++) {
    const scale = scales[g];
    for (let i = from; i < from + group; i++) out[i] = levels[i] * scale;
  }
  return out;
}

function quantize(
  linalg: Linalg,
  w: Float32Array,
  rows: number,
  cols: number,
  { bits, group, rule = "search" }: QuantizeOptions,
  weights: Matrix,
  factor: Matrix | null,
): Quantized {
  requireGroup(group, cols);
  requireFinite(w);
  const levels = new Int8Array(rows * cols);
  const scales = new Float32Array((rows * cols) / group);
  const chunkRows = Math.max(ROW_TILE, Math.floor(CHUNK_VALUES / cols / ROW_TILE) * ROW_TILE);
  let loss = 0;
  for (let row = 0; row < rows; row += chunkRows) {
    const count = Math.min(chunkRows, rows - row);
    linalg.scope(() => {
      const part = linalg.put(w.subarray(row * cols, (row + count) * cols), count, cols);
      const done = linalg.quantize({ w: part, group, bits, rule: SCALE_RULES.indexOf(rule), factor, weights });
      levels.set(done.levels, row * cols);
      scales.set(done.scales, (row * cols) / group);
      loss += done.loss;
    });
  }
  if (!scales.every(Number.isFinite)) {
    throw new SnugError(
      "internal",
      `error feedback over ${cols} columns overflowed: the Hessian is too ill-conditioned`,
    );
  }
  return { bits, rows, cols, group, levels, scales, loss };
}

function dampDiagonal(h: Float32Array, n: number, share: number): number[] {
  const dead: number[] = [];
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const at = i * (n + 1);
    if (!(h[at] > 0)) dead.push(i);
    else sum += h[at];
  }
  const live = n - dead.length;
  const mean = live > 0 ? sum / live : 1;
  for (const i of dead) h[i * (n + 1)] = mean;
  for (let i = 0; i < n; i++) h[i * (n + 1)] += share * mean;
  return dead;
}

function clearColumns(w: Float32Array, rows: number, cols: number, columns: readonly number[]): Float32Array {
  const copy = w.slice();
  for (let row = 0; row < rows; row++) for (const col of columns) copy[row * cols + col] = 0;
  return copy;
}

function requireGroup(group: number, cols: number): void {
  if (group < GROUP_MIN || group > GROUP_MAX || group % BLOCK_COLS !== 0 || cols % group !== 0) {
    throw new SnugError(
      "internal",
      `a group must be ${GROUP_MIN} … ${GROUP_MAX}, a multiple of ${BLOCK_COLS} and divide the ${cols} columns; it is ${group}`,
    );
  }
}

function requireFinite(w: Float32Array): void {
  let zero = 0;
  for (let i = 0; i < w.length; i++) zero += w[i] * 0;
  if (zero !== 0) throw new SnugError("checkpoint", "a weight is not a finite number; nothing can be packed from that");
}

// Tiles

/** Bytes of a stored matrix, without padding at its end. `group` is ignored for F32. */
export function matrixBytes(dtype: number, rows: number, cols: number, group: number): number {
  return Math.ceil(rows / ROW_TILE) * tileBytes(dtype, cols, group);
}

/** Bytes of f32 values [rows, cols], or of a part of them. */
export function encodeF32(values: Float32Array, rows: number, cols: number, panel = whole(rows, cols)): Uint8Array {
  const out = new Float32Array(matrixBytes(DTYPE_F32, panel.rows, panel.cols, 0) / F32_BYTES);
  for (let i = 0; i < panel.rows; i++) {
    const from = (panel.row + i) * cols + panel.col;
    const to = Math.floor(i / ROW_TILE) * ROW_TILE * panel.cols + (i % ROW_TILE);
    for (let j = 0; j < panel.cols; j++) out[to + j * ROW_TILE] = values[from + j];
  }
  return new Uint8Array(out.buffer);
}

/** Bytes of a quantized matrix, or of a part of it. Padding rows are those of a matrix of zeros: scale 0, level 0. */
export function encodeQuantized(q: Quantized, panel = whole(q.rows, q.cols)): Uint8Array {
  const { group, levels, scales, cols } = q;
  if (panel.col % group !== 0 || panel.cols % group !== 0) {
    throw new SnugError("internal", `a panel of columns ${panel.col} … +${panel.cols} cuts a group of ${group}`);
  }
  const dtype = q.bits === 4 ? DTYPE_Q4 : DTYPE_Q8;
  const bytes = new Uint8Array(matrixBytes(dtype, panel.rows, panel.cols, group));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (let tile = 0; tile < panel.rows; tile += ROW_TILE) {
    for (let g = 0; g < panel.cols; g += group, at += groupBytes(dtype, group)) {
      for (let lane = 0; lane < ROW_TILE; lane++) {
        const there = tile + lane < panel.rows;
        const from = (panel.row + tile + lane) * cols + panel.col + g;
        view.setUint16(at + lane * F16_BYTES, there ? f16FromF32(scales[from / group]) : 0, true);
        for (let j = 0; j < group; j += blockCols(dtype)) {
          const to = codeOffset(dtype, j, lane) + at;
          for (let i = 0; i < LANE_BYTES; i++) {
            const low = there ? levels[from + j + i] : 0;
            if (dtype === DTYPE_Q8) bytes[to + i] = low;
            else bytes[to + i] = (low + Q4_ZERO) | (((there ? levels[from + j + i + LANE_BYTES] : 0) + Q4_ZERO) << 4);
          }
        }
      }
    }
  }
  return bytes;
}

/** Values [rows, cols] of a stored matrix. */
export function decodeMatrix(
  bytes: Uint8Array,
  dtype: number,
  rows: number,
  cols: number,
  group: number,
): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    const lane = row % ROW_TILE;
    const tile = Math.floor(row / ROW_TILE) * tileBytes(dtype, cols, group);
    if (dtype === DTYPE_F32) {
      for (let j = 0; j < cols; j++)
        out[row * cols + j] = view.getFloat32(tile + (j * ROW_TILE + lane) * F32_BYTES, true);
      continue;
    }
    for (let g = 0; g < cols; g += group) {
      const at = tile + (g / group) * groupBytes(dtype, group);
      const scale = f32FromF16(view.getUint16(at + lane * F16_BYTES, true));
      for (let j = 0; j < group; j += blockCols(dtype)) {
        const from = codeOffset(dtype, j, lane) + at;
        const to = row * cols + g + j;
        for (let i = 0; i < LANE_BYTES; i++) {
          if (dtype === DTYPE_Q8) {
            out[to + i] = view.getInt8(from + i) * scale;
          } else {
            out[to + i] = ((bytes[from + i] & 0xf) - Q4_ZERO) * scale;
            out[to + i + LANE_BYTES] = ((bytes[from + i] >> 4) - Q4_ZERO) * scale;
          }
        }
      }
    }
  }
  return out;
}

function whole(rows: number, cols: number): Panel {
  return { row: 0, rows, col: 0, cols };
}

function tileBytes(dtype: number, cols: number, group: number): number {
  return dtype === DTYPE_F32 ? ROW_TILE * cols * F32_BYTES : (cols / group) * groupBytes(dtype, group);
}

function groupBytes(dtype: number, group: number): number {
  return ROW_TILE * F16_BYTES + (group / blockCols(dtype)) * BLOCK_BYTES;
}

function blockCols(dtype: number): number {
  return dtype === DTYPE_Q4 ? BLOCK_COLS : BLOCK_COLS / 2;
}

/** Where the codes of a row begin in the block of the group's column j, from the start of the group. */
function codeOffset(dtype: number, j: number, lane: number): number {
  return ROW_TILE * F16_BYTES + (j / blockCols(dtype)) * BLOCK_BYTES + lane * LANE_BYTES;
}

// f16

const bits32 = new Uint32Array(1);
const value32 = new Float32Array(bits32.buffer);

/** Bits of the f16 nearest to `value`, ties to even; infinity past 65519. */
export function f16FromF32(value: number): number {
  value32[0] = value;
  const bits = bits32[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // Below 2⁻¹⁴ an f16 counts steps of 2⁻²⁴; adding 0.5 to the value puts those steps in the last bits of an f32.
  if (magnitude < 0x38800000) {
    value32[0] = Math.abs(value32[0]) + 0.5;
    return sign | (bits32[0] - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** The value of an f16's bits. */
export function f32FromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
