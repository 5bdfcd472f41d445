// The cases of attention, which test/cases.ts lists: head ratios, cut heads, several sequences, caches with a past, and
// positions round the blocks in which the cache lies.

import {
  ATTENTION_CODED,
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
  ATTENTION_SCRATCH,
  ATTENTION_TABLE,
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
import type { Random } from "./random";
import * as reference from "./reference";

export interface AttentionSpec {
  heads: number;
  kvHeads: number;
  qk: [units: number, channels: number];
  vo: [units: number, channels: number];
  /** Of each sequence: positions in the cache, and rows of this step. */
  sequences: [before: number, rows: number][];
  /** The rows of a sequence follow each other; otherwise the sequences take turns. */
  runs?: boolean;
  /** The blocks of a sequence lie anywhere in the pool. */
  scattered?: boolean;
  /** Sequences begin with the same positions, so many, in the same blocks. */
  shared?: number;
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
  ...[31, 32, 33, 62, 63, 64, 199].map((before): AttentionSpec => {
    return { heads: 14, kvHeads: 2, qk: [4, 16], vo: [4, 16], sequences: [[before, 1]] };
  }),
  { heads: 7, kvHeads: 1, qk: [3, 4], vo: [3, 4], sequences: [[0, 65]] },
  { heads: 8, kvHeads: 2, qk: [5, 2], vo: [1, 17], sequences: [[190, 11]] },
  { heads: 3, kvHeads: 3, qk: [1, 8], vo: [1, 6], sequences: [[20, 50]], size: 30 },
  {
    ...{ heads: 4, kvHeads: 2, qk: [1, 6], vo: [2, 4], runs: true },
    sequences: [
      [30, 5],
      [0, 40],
      [63, 1],
      [95, 3],
    ],
  },
  { heads: 4, kvHeads: 2, qk: [2, 4], vo: [3, 3], sequences: [[100, 40]], scattered: true },
  {
    ...{ heads: 6, kvHeads: 2, qk: [1, 6], vo: [2, 4], scattered: true },
    sequences: [
      [31, 5],
      [130, 1],
      [64, 3],
    ],
  },
  ...[1, 5, 7].map((share): AttentionSpec => {
    return {
      ...{ heads: 2 * share, kvHeads: 2, qk: [2, 8], vo: [1, 13], shared: 64, scattered: share > 1 },
      sequences: [
        [64, 1],
        [70, 1],
        [64, 3],
        [95, 2],
        [130, 1],
      ],
    };
  }),
];

/** f32 of scratch of a thread. */
export function attentionScratch({ qk, vo }: AttentionSpec, coded = false): number {
  const [dims, vDims] = [qk[0] * qk[1], filledUp(vo[0] * vo[1], 8)];
  return 16 * (dims + 32 + vDims + 4) + (coded ? 32 * Math.max(dims, vDims) : 0);
}

/** coded: the caches hold codes of 8 bit. */
export function attentionCase(spec: AttentionSpec, r: Random, coded = false): OpCase {
  const { heads, kvHeads, qk, vo, sequences, runs = false, size = 1, shared = 0 } = spec;
  const [dims, vDims] = [qk[0] * qk[1], vo[0] * vo[1]];
  const [kFloats, vFloats, qFloats, outFloats] = [kvHeads * dims, kvHeads * vDims, heads * dims, heads * vDims];
  const context = Math.max(...sequences.map(([before, count]) => before + count)) + 2;
  const scale = Math.fround(1 / Math.sqrt(Math.max(1, dims) + 3)); // as if the head had been cut
  const rows: Row[] = sequences.flatMap(([before, count], sequence) =>
    Array.from({ length: count }, (_, turn) => row({ sequence, position: before + turn })),
  );
  const turnOf = ({ sequence, position }: Row) => position - sequences[sequence][0];
  if (!runs) rows.sort((a, b) => turnOf(a) - turnOf(b) || a.sequence - b.sequence);
  const q = normals(rows.length * qFloats, r).map((value) => size * value);
  // Of each sequence: [positions, kvHeads, dims].
  const keys = sequences.map(([before, count]) => normals((before + count) * kFloats, r));
  const values = sequences.map(([before, count]) => normals((before + count) * vFloats, r));
  for (const own of keys) own.set((keys[0] as Float32Array).subarray(0, shared * kFloats));
  for (const own of values) own.set((values[0] as Float32Array).subarray(0, shared * vFloats));
  const k = new Float32Array(rows.length * kFloats);
  const v = new Float32Array(rows.length * vFloats);
  const want = new Float64Array(rows.length * outFloats);
  const bound = new Float64Array(want.length);
  const cached = (numbers: Float32Array, width: number) => (coded ? expanded(codesOf(numbers, width)) : numbers);
  const cachedKeys = keys.map((numbers) => cached(numbers, dims));
  const cachedValues = values.map((numbers) => cached(numbers, vDims));
  for (const [t, { sequence, position }] of rows.entries()) {
    const seen = position + 1;
    const ks = Float64Array.from(cachedKeys[sequence].subarray(0, seen * kFloats));
    const vs = Float64Array.from(cachedValues[sequence].subarray(0, seen * vFloats));
    k.set(
      toUnits(Float64Array.from(keys[sequence].subarray(position * kFloats, seen * kFloats)), kvHeads, qk),
      t * kFloats,
    );
    v.set(
      toUnits(Float64Array.from(values[sequence].subarray(position * vFloats, seen * vFloats)), kvHeads, vo),
      t * vFloats,
    );
    const sizes = { queries: 1, keys: seen, heads, kvHeads, dims, vDims, scale };
    const query = byHead(q.subarray(t * qFloats, (t + 1) * qFloats), 1, heads, qk);
    want.set(toUnits(reference.attention(query, ks, vs, sizes), heads, vo), t * outFloats);
    const loose = reference.attention(query, ks, vs.map(Math.abs), sizes);
    const error = attentionError(query, ks, sizes);
    bound.set(
      toUnits(loose, heads, vo).map((value) => error * value + seen * TINY),
      t * outFloats,
    );
  }
  const before = (of: Float32Array[], floats: number) =>
    of.map((numbers, sequence) => numbers.subarray(0, sequences[sequence][0] * floats));
  const shape = { kvHeads, context, pool: poolOf(spec, filledUp(context, 32) / 32, r) };
  const cacheOf = (lay: typeof keyCache, numbers: Float32Array[], width: number) =>
    coded ? codedCache(lay, numbers, width, shape) : bytesOf(lay(numbers, width, shape));
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
      { at: ATTENTION_SCRATCH, buffer: "scratch" },
      { at: ATTENTION_TABLE, buffer: "table" },
      { at: ATTENTION_CODED, word: Number(coded) },
      { at: ATTENTION_CONTEXT, word: context },
      { at: ATTENTION_SCALE, float: scale },
      { at: ATTENTION_HEADS, word: heads },
      { at: ATTENTION_KV_HEADS, word: kvHeads },
    ],
    buffers: {
      ...{ q: bytesOf(q), k: bytesOf(k), v: bytesOf(v), out: garbage(want.length, r) },
      kCache: cacheOf(keyCache, before(keys, kFloats), dims),
      vCache: cacheOf(valueCache, before(values, vFloats), vDims),
      scratch: garbage(attentionScratch(spec, coded), r),
      table: new Uint8Array(tableOf(shape).buffer),
    },
    scratch: ["scratch"],
    want: {
      out: { values: want, bound },
      ...(!coded && {
        kCache: exactly(Float64Array.from(keyCache(keys, dims, shape))),
        vCache: exactly(Float64Array.from(valueCache(values, vDims, shape))),
      }),
    },
    ...(coded && {
      wantBytes: { kCache: cacheOf(keyCache, keys, dims), vCache: cacheOf(valueCache, values, vDims) },
    }),
  };
}

/** Of heads' keys or values, each `width` numbers. */
interface Codes {
  readonly width: number;
  readonly codes: Float32Array;
  readonly scales: Float32Array;
}

function codesOf(numbers: Float32Array, width: number): Codes {
  const codes = new Float32Array(numbers.length);
  const scales = new Float32Array(width === 0 ? 0 : numbers.length / width);
  for (const i of scales.keys()) {
    const own = numbers.subarray(i * width, (i + 1) * width);
    const most = Math.max(...own.map(Math.abs));
    scales[i] = most / 127;
    const inverse = most > 0 ? Math.fround(127 / most) : 0;
    // To the nearest whole number, or the even one of two.
    const rounded = (value: number) => Math.fround(Math.fround(value * inverse) + 12582912) - 12582912;
    codes.set(own.map(rounded), i * width);
  }
  return { width, codes, scales };
}

function expanded({ width, codes, scales }: Codes): Float32Array {
  return codes.map((code, i) => code * scales[Math.floor(i / width)]);
}

/** A cache of codes: layout in assembly/kv-cache.ts. `lay`: where the numbers of blocks without scales lie. */
function codedCache(lay: typeof keyCache, numbers: Float32Array[], width: number, shape: CacheShape): Uint8Array {
  const { kvHeads, pool } = shape;
  const all = numbers.map((own) => codesOf(own, width));
  const codes = lay(
    all.map(({ codes }) => codes),
    width,
    shape,
  );
  const blocks = pool.length * kvHeads;
  const blockCodes = codes.length / blocks;
  const blockBytes = blockCodes === 0 ? 0 : blockCodes + 32 * 4;
  const bytes = new Uint8Array(blocks * blockBytes);
  const scaleOf = (place: number) => new Float32Array(bytes.buffer, place * blockBytes + blockCodes, 32);
  for (let place = 0; place < blocks && blockBytes > 0; place++) {
    new Int8Array(bytes.buffer, place * blockBytes, blockCodes).set(
      codes.subarray(place * blockCodes, (place + 1) * blockCodes),
    );
    scaleOf(place).fill(Number.NaN);
  }
  const positions = pool.length / numbers.length;
  for (const [sequence, { scales }] of all.entries())
    scales.forEach((scale, i) => {
      const [position, kvHead] = [Math.floor(i / kvHeads), i % kvHeads];
      const block = pool[sequence * positions + Math.floor(position / 32)];
      scaleOf(placeOf(block, kvHead, shape))[position % 32] = scale;
    });
  return bytes;
}

interface CacheShape {
  kvHeads: number;
  context: number;
  /** Of each sequence, block after block: which of the pool's it is. */
  pool: number[];
}

function poolOf({ sequences, scattered = false, shared = 0 }: AttentionSpec, blocks: number, r: Random): number[] {
  const pool = Array.from({ length: sequences.length * blocks }, (_, block) => block);
  for (let i = pool.length - 1; scattered && i > 0; i--) {
    const other = r.int(i + 1);
    [pool[i], pool[other]] = [pool[other], pool[i]];
  }
  for (let sequence = 1; sequence < sequences.length; sequence++)
    for (let block = 0; block * 32 < shared; block++) pool[sequence * blocks + block] = pool[block];
  return pool;
}

/** Where a block of the pool lies, counted in the blocks of one kv head. */
function placeOf(block: number, kvHead: number, { kvHeads, context }: CacheShape): number {
  const blocks = filledUp(context, 32) / 32;
  return (Math.floor(block / blocks) * kvHeads + kvHead) * blocks + (block % blocks);
}

function tableOf(shape: CacheShape): Uint32Array<ArrayBuffer> {
  return Uint32Array.from(shape.pool, (block) => placeOf(block, 0, shape));
}

/** keys: of each sequence [positions, kvHeads, dims]. Layout: assembly/kv-cache.ts; NaN where no row may look. */
function keyCache(keys: Float32Array[], dims: number, shape: CacheShape): Float32Array {
  const { kvHeads, context, pool } = shape;
  const positions = filledUp(context, 32);
  const cache = new Float32Array(keys.length * kvHeads * positions * dims).fill(Number.NaN);
  for (const [sequence, numbers] of keys.entries())
    numbers.forEach((number, i) => {
      const [position, kvHead, dim] = [Math.floor(i / dims / kvHeads), Math.floor(i / dims) % kvHeads, i % dims];
      const block = pool[(sequence * positions + position - (position % 32)) / 32];
      const group = placeOf(block, kvHead, shape) * 4 + Math.floor((position % 32) / 8);
      cache[(group * dims + dim) * 8 + (position % 8)] = number;
    });
  return cache;
}

function valueCache(values: Float32Array[], dims: number, shape: CacheShape): Float32Array {
  const { kvHeads, context, pool } = shape;
  const blocks = filledUp(context, 32) / 32;
  const groups = filledUp(dims, 8) / 8;
  const cache = new Float32Array(values.length * kvHeads * blocks * groups * 32 * 8).fill(Number.NaN);
  for (const [sequence, numbers] of values.entries())
    numbers.forEach((number, i) => {
      const [position, kvHead, dim] = [Math.floor(i / dims / kvHeads), Math.floor(i / dims) % kvHeads, i % dims];
      const block = placeOf(pool[sequence * blocks + Math.floor(position / 32)], kvHead, shape);
      cache[((block * groups + Math.floor(dim / 8)) * 32 + (position % 32)) * 8 + (dim % 8)] = number;
    });
  return cache;
}

function filledUp(count: number, unit: number): number {
  return Math.ceil(count / unit) * unit;
}

/**
 * Relative error of a softmax's sums: twice that of a power, the roundings of as many terms as there are keys, and of as
 * many corrections by a power as there are further blocks of 32 keys.
 */
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
  return Math.expm1(2 * power) + (2 * keys + 12 * Math.floor((keys - 1) / 32) + 10) * U;
}
