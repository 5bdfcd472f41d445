// Weights to bytes and back, in the tiles of format.ts; and f16.

import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, DTYPE_Q8, ROW_TILE } from "./format";

const Q4_ZERO = 8; // a Q4 code is level + 8
const LANE_BYTES = 4; // codes of a row in a block
const BLOCK_BYTES = ROW_TILE * LANE_BYTES;
const F16_BYTES = 2;
const F32_BYTES = 4;

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

/** Part of a matrix that is stored by itself. */
export interface Panel {
  readonly row: number;
  readonly rows: number;
  /** A multiple of the group, as is `cols`. */
  readonly col: number;
  readonly cols: number;
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
    throw new RangeError(`a panel of columns ${panel.col} … +${panel.cols} cuts a group of ${group}`);
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
