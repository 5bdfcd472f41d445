// Rounds matrices to 4 or 8 bits, to nearest or with error feedback (GPTQ). A matrix is quantized whole and encoded panel
// by panel (encode.ts), so that feedback crosses units. Which weights, which Hessian and which group size are the caller's
// business.

import { SnugError } from "../runtime/index";
import type { Quantized } from "./encode";
import { BLOCK_COLS, GROUP_MAX, GROUP_MIN, ROW_TILE } from "./format";
import type { Linalg, Matrix } from "./linalg";

const DEFAULT_DAMP = 0.01;
const DAMP_RETRIES = 4; // each with ten times as much
const CHUNK_VALUES = 1 << 24; // of a matrix's rows inside the module at a time

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

/** A damped Hessian, factored for `quantizeWithFeedback`. Lives in the module, like any Matrix. */
export interface HessianFactor {
  readonly factor: Matrix;
  /** Columns without any input: they are quantized as zeros. */
  readonly dead: readonly number[];
  /** What was added to the diagonal, as a share of its mean. */
  readonly damp: number;
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
