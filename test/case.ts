// A case of an op: its record, its buffers, what they must hold afterwards, and how far off rounding may bring it. Also
// what cases are made of. No executor is known here.

import { dequantize, encodeF32, encodeQuantized, f16FromF32, f32FromF16, type Quantized } from "../packs/encode";
import { ALIGN, DTYPE_F32, DTYPE_Q4, NONE, ROW_TILE } from "../packs/format";
import type { Random } from "./random";

/** Half the distance from 1 to the next f32: the relative error of one rounding. */
export const U = 2 ** -24;
export const TINY = 1e-37; // below it f32 loses digits, and exp4 is 0

/** What a field of an op record holds. */
export type Field =
  | { at: number; word: number }
  | { at: number; float: number }
  | { at: number; buffer: string; offset?: number };

export interface Row {
  token: number;
  position: number;
  sequence: number;
  output: boolean;
}

export interface OpCase {
  /** An op that has been run before, over the same rows. */
  before?: { op: number; fields: Field[] };
  op: number;
  flags: number;
  /** Rows of the step. */
  rows: Row[];
  fields: Field[];
  /** What they hold before. Those that are not in `want`, `wantBytes` or `scratch` must hold it afterwards. */
  buffers: Record<string, Uint8Array>;
  /** May hold anything afterwards. */
  scratch: string[];
  /** By buffer, all of it: |got − want| ≤ bound. */
  want: Record<string, { values: Float64Array; bound: Float64Array }>;
  /** What other buffers hold afterwards, byte for byte. */
  wantBytes?: Record<string, Uint8Array>;
}

export interface CaseSpec {
  name: string;
  make(): OpCase;
}

export const NOTHING = { flags: 0, scratch: [] };

export function row(fields: Partial<Row>): Row {
  return { token: NONE, position: 0, sequence: 0, output: false, ...fields };
}

/**
 * A matrix as it is stored, its values, and for the bound what each term may reach on its way to them. The rows that
 * fill up a panel's last tile are no zeros: who computes with them, and lets it be seen, is found out.
 */
export function randomMatrix(dtype: number, rows: number, cols: number, group: number, r: Random) {
  const filled = (count: number) => Math.ceil(count / ROW_TILE) * ROW_TILE;
  if (dtype === DTYPE_F32) {
    const values = normals(rows * cols, r);
    return {
      values: Float64Array.from(values),
      sizes: Float64Array.from(values, Math.abs),
      encode: (row: number, count: number, col: number, width: number) => {
        const panel = new Float32Array(filled(count) * width).fill(1e20);
        for (let i = 0; i < count; i++) {
          const from = (row + i) * cols + col;
          panel.set(values.subarray(from, from + width), i * width);
        }
        return encodeF32(panel, filled(count), width);
      },
    };
  }
  const bits = dtype === DTYPE_Q4 ? 4 : 8;
  const levels = Int8Array.from({ length: rows * cols }, () => (bits === 4 ? r.int(16) - 8 : r.int(255) - 127));
  // Some scales are 0, some subnormal.
  const scales = Float32Array.from({ length: (rows * cols) / group }, () =>
    f32FromF16(f16FromF32(r.int(16) === 0 ? 0 : r.int(16) === 0 ? 1e-6 : 0.2 * r.unit())),
  );
  // An executor may sum code × x and 8 × x apart: the weight of 4 bits is (code − 8) × scale.
  const sizes = Float64Array.from(levels, (level, i) =>
    bits === 4 ? (level + 16) * scales[Math.floor(i / group)] : Math.abs(level) * scales[Math.floor(i / group)],
  );
  return {
    values: Float64Array.from(dequantize({ bits, rows, cols, group, levels, scales, loss: 0 })),
    sizes,
    encode: (row: number, count: number, col: number, width: number) => {
      const panel: Quantized = {
        ...{ bits, rows: filled(count), cols: width, group, loss: 0 },
        levels: new Int8Array(filled(count) * width).fill(7),
        scales: new Float32Array((filled(count) * width) / group).fill(60000),
      };
      for (let i = 0; i < count; i++) {
        const from = (row + i) * cols + col;
        panel.levels.set(levels.subarray(from, from + width), i * width);
        panel.scales.set(scales.subarray(from / group, (from + width) / group), (i * width) / group);
      }
      return encodeQuantized(panel);
    },
  };
}

export function exactly(values: Float64Array) {
  return { values, bound: new Float64Array(values.length) };
}

export function normals(count: number, r: Random): Float32Array {
  return Float32Array.from({ length: count }, () => r.normal());
}

/** [rows][units][heads][channels] → [rows][heads][units × channels], as the reference has it. */
export function byHead(
  from: Float32Array,
  rows: number,
  heads: number,
  [units, channels]: [number, number],
): Float64Array {
  return Float64Array.from({ length: rows * heads * units * channels }, (_, i) => {
    const channel = i % channels;
    const unit = Math.floor(i / channels) % units;
    const head = Math.floor(i / channels / units) % heads;
    const t = Math.floor(i / channels / units / heads);
    return from[((t * units + unit) * heads + head) * channels + channel];
  });
}

/** [heads][units × channels] → [units][heads][channels]. */
export function toUnits(from: Float64Array, heads: number, [units, channels]: [number, number]): Float64Array {
  return from.map((_, i) => {
    const head = Math.floor(i / channels) % heads;
    const unit = Math.floor(i / channels / heads);
    return from[(head * units + unit) * channels + (i % channels)];
  });
}

/** What an output holds before: numbers that would be noticed. */
export function garbage(floats: number, r: Random): Uint8Array {
  return bytesOf(Float32Array.from({ length: floats }, () => 1e30 * (r.unit() - 0.5)));
}

export function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.slice().buffer);
}

export function align(bytes: number): number {
  return Math.ceil(bytes / ALIGN) * ALIGN;
}
