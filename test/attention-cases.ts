// The cases of attention, which test/cases.ts lists: head ratios, cut heads, several sequences, caches with a past.

import {
  ATTENTION_CONTEXT,
  ATTENTION_HEADS,
  ATTENTION_K,
  ATTENTION_K_CACHE,
  ATTENTION_KV_HEADS,
  ATTENTION_OUT,
  ATTENTION_Q,
  ATTENTION_QK_CHANNELS,
  ATTENTION_QK_UNITS,
  ATTENTION_SCALE,
  ATTENTION_SCORES,
  ATTENTION_V,
  ATTENTION_V_CACHE,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  OP_ATTENTION,
} from "../assembly/abi";
import {
  byHead,
  bytesOf,
  exactly,
  garbage,
  NOTHING,
  normals,
  type OpCase,
  type Row,
  row,
  TINY,
  toUnits,
  U,
} from "./case";
import type { Random } from "./harness";
import * as reference from "./reference";

export interface AttentionSpec {
  heads: number;
  kvHeads: number;
  qk: [units: number, channels: number];
  vo: [units: number, channels: number];
  /** Of each sequence: positions in the cache, and rows of this step. */
  sequences: [before: number, rows: number][];
  /** Of the queries; large ones make a softmax that is all but one-hot. Default 1. */
  size?: number;
}

export const ATTENTIONS: AttentionSpec[] = [
  { heads: 1, kvHeads: 1, qk: [1, 2], vo: [1, 1], sequences: [[0, 1]] },
  { heads: 4, kvHeads: 4, qk: [2, 4], vo: [2, 4], sequences: [[0, 5]] },
  { heads: 6, kvHeads: 2, qk: [3, 6], vo: [2, 5], sequences: [[7, 4]] },
  { heads: 8, kvHeads: 1, qk: [1, 16], vo: [4, 3], sequences: [[16, 1]] },
  { heads: 5, kvHeads: 5, qk: [0, 8], vo: [3, 7], sequences: [[3, 3]] },
  { heads: 3, kvHeads: 3, qk: [1, 10], vo: [1, 9], sequences: [[30, 9]], size: 300 },
  {
    ...{ heads: 4, kvHeads: 2, qk: [2, 2], vo: [1, 8] },
    sequences: [
      [4, 3],
      [0, 2],
      [9, 1],
    ],
  },
  { heads: 2, kvHeads: 1, qk: [2, 16], vo: [2, 16], sequences: [[64, 64]] },
];

export function attentionCase(spec: AttentionSpec, r: Random): OpCase {
  const { heads, kvHeads, qk, vo, sequences, size = 1 } = spec;
  const [kFloats, vFloats] = [kvHeads * qk[0] * qk[1], kvHeads * vo[0] * vo[1]];
  const [qFloats, outFloats] = [heads * qk[0] * qk[1], heads * vo[0] * vo[1]];
  const context = Math.max(...sequences.map(([before, rows]) => before + rows)) + 2;
  const scale = Math.fround(1 / Math.sqrt(Math.max(1, qk[0] * qk[1]) + 3)); // as if the head had been cut
  // The rows of the sequences take turns, each in its own order.
  const rows: Row[] = [];
  for (let turn = 0; turn < Math.max(...sequences.map(([, count]) => count)); turn++)
    for (const [sequence, [before, count]] of sequences.entries())
      if (turn < count) rows.push(row({ sequence, position: before + turn }));
  const q = normals(rows.length * qFloats, r).map((value) => size * value);
  const k = normals(rows.length * kFloats, r);
  const v = normals(rows.length * vFloats, r);
  // What no row may see is NaN.
  const filled = (floats: number) =>
    Float32Array.from({ length: sequences.length * context * floats }, (_, i) => {
      const position = Math.floor(i / floats) % context;
      return position < sequences[Math.floor(i / floats / context)][0] ? r.normal() : Number.NaN;
    });
  const caches = { k: filled(kFloats), v: filled(vFloats) };
  const [kAfter, vAfter] = [caches.k.slice(), caches.v.slice()];
  for (const [t, { sequence, position }] of rows.entries()) {
    kAfter.set(k.subarray(t * kFloats, (t + 1) * kFloats), (sequence * context + position) * kFloats);
    vAfter.set(v.subarray(t * vFloats, (t + 1) * vFloats), (sequence * context + position) * vFloats);
  }

  const values = new Float64Array(rows.length * outFloats);
  const bound = new Float64Array(values.length);
  for (const [t, { sequence, position }] of rows.entries()) {
    const keys = position + 1;
    const start = sequence * context;
    const sizes = { queries: 1, keys, heads, kvHeads, dims: qk[0] * qk[1], vDims: vo[0] * vo[1], scale };
    const query = byHead(q.subarray(t * qFloats, (t + 1) * qFloats), 1, heads, qk);
    const ks = byHead(kAfter.subarray(start * kFloats, (start + keys) * kFloats), keys, kvHeads, qk);
    const vs = byHead(vAfter.subarray(start * vFloats, (start + keys) * vFloats), keys, kvHeads, vo);
    const out = reference.attention(query, ks, vs, sizes);
    const loose = reference.attention(query, ks, vs.map(Math.abs), sizes);
    const error = attentionError(query, ks, sizes);
    toUnits(out, heads, vo).forEach((value, i) => {
      values[t * outFloats + i] = value;
    });
    toUnits(loose, heads, vo).forEach((value, i) => {
      bound[t * outFloats + i] = error * value + keys * TINY;
    });
  }
  return {
    ...NOTHING,
    op: OP_ATTENTION,
    rows,
    fields: [
      { at: ATTENTION_Q, buffer: "q" },
      { at: ATTENTION_K, buffer: "k" },
      { at: ATTENTION_V, buffer: "v" },
      { at: ATTENTION_OUT, buffer: "out" },
      { at: ATTENTION_QK_UNITS, word: qk[0] },
      { at: ATTENTION_QK_CHANNELS, word: qk[1] },
      { at: ATTENTION_VO_UNITS, word: vo[0] },
      { at: ATTENTION_VO_CHANNELS, word: vo[1] },
      { at: ATTENTION_K_CACHE, buffer: "kCache" },
      { at: ATTENTION_V_CACHE, buffer: "vCache" },
      { at: ATTENTION_SCORES, buffer: "scores" },
      { at: ATTENTION_CONTEXT, word: context },
      { at: ATTENTION_SCALE, float: scale },
      { at: ATTENTION_HEADS, word: heads },
      { at: ATTENTION_KV_HEADS, word: kvHeads },
    ],
    buffers: {
      ...{ q: bytesOf(q), k: bytesOf(k), v: bytesOf(v), out: garbage(values.length, r) },
      ...{ kCache: bytesOf(caches.k), vCache: bytesOf(caches.v), scores: garbage(context, r) },
    },
    scratch: ["scores"],
    want: {
      out: { values, bound },
      kCache: exactly(Float64Array.from(kAfter)),
      vCache: exactly(Float64Array.from(vAfter)),
    },
  };
}

/** Relative error of a softmax's sums: twice that of a power, and the roundings of as many terms as there are keys. */
function attentionError(q: Float64Array, k: Float64Array, sizes: reference.AttentionSizes): number {
  const { keys, heads, kvHeads, dims, scale } = sizes;
  let most = 0; // of Σ|q||k|
  for (let head = 0; head < heads; head++)
    for (let s = 0; s < keys; s++) {
      const from = (s * kvHeads + Math.floor(head / (heads / kvHeads))) * dims;
      let sum = 0;
      for (let d = 0; d < dims; d++) sum += Math.abs(q[head * dims + d] * k[from + d]);
      most = Math.max(most, sum);
    }
  const power = 2 * (dims + 4) * U * most * scale + 4 * U;
  return Math.expm1(2 * power) + (2 * keys + 10) * U;
}
