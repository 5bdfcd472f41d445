// The cases of an SSM's ops and of the squared ReLU, which test/cases.ts lists: awkward sizes, cuts to nothing, several
// sequences whose rows come in runs, states with a past and states that must not be read.

import {
  CONV_CHANNELS,
  CONV_DATA,
  CONV_STATE,
  CONV_TAPS,
  CONV_UNIT_BYTES,
  CONV_UNITS,
  CONV_WEIGHT,
  GATED_NORM_CHANNELS,
  GATED_NORM_DATA,
  GATED_NORM_DIVISOR,
  GATED_NORM_EPS,
  GATED_NORM_GATE,
  GATED_NORM_GROUPS,
  GATED_NORM_HEADS,
  GATED_NORM_UNIT_BYTES,
  GATED_NORM_UNITS,
  GATED_NORM_WEIGHT,
  OP_CONV,
  OP_GATED_NORM,
  OP_SCAN,
  OP_SQUARED_RELU,
  OP_STEP_SIZE,
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
  SQUARED_RELU_DATA,
  SQUARED_RELU_WIDTH,
  STEP_SIZE_BIAS,
  STEP_SIZE_DATA,
  STEP_SIZE_HEADS,
  STEP_SIZE_LEAST,
  STEP_SIZE_MOST,
} from "../assembly/abi";
import { ALIGN } from "../packs/format";
import {
  align,
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

/** What a silu of far below zero may be instead of next to nothing, for each unit of what it is multiplied with. */
const SILU_TINY = 1e-35;
/** Floats of the scan's scratch: more than any of the cases wants. */
const SCRATCH = 65536;

export type Units = [units: number, channels: number];

/** Rows of one sequence that stand together: the first one's position, and how many. */
export type Run = [sequence: number, position: number, rows: number];

/** Steps of one sequence, at its beginning or on its way, and of several, whose runs may take turns. */
export const STEPS: Run[][] = [
  [[0, 0, 1]],
  [[0, 9, 1]],
  [[0, 0, 2]],
  [[1, 1, 3]],
  [[0, 0, 7]],
  [[0, 0, 64]],
  [[0, 5, 65]],
  [[0, 0, 150]],
  [
    [2, 0, 3],
    [0, 4, 1],
    [3, 1, 2],
  ],
  [
    [1, 0, 2],
    [0, 8, 65],
    [1, 2, 1],
    [2, 3, 64],
    [1, 3, 7],
  ],
  Array.from({ length: 9 }, (_, i): Run => [i % 3, [0, 1, 20][i % 3] + Math.floor(i / 3), 1]),
];

export function stepName(runs: readonly Run[]): string {
  return runs.map(([sequence, position, rows]) => `${rows} of ${sequence} from ${position}`).join(", ");
}

// Squared ReLU

export function squaredReluCase(width: number, count: number, r: Random): OpCase {
  const data = normals(count * width, r).map((value) => 4 * value);
  data.set([0, -0, 1e-30, -1e-30, 200, -200, 1e19, -1e19].slice(0, data.length));
  const values = reference.squaredRelu(Float64Array.from(data));
  return {
    ...NOTHING,
    op: OP_SQUARED_RELU,
    rows: Array.from({ length: count }, () => row({})),
    fields: [
      { at: SQUARED_RELU_DATA, buffer: "data" },
      { at: SQUARED_RELU_WIDTH, word: width },
    ],
    buffers: { data: bytesOf(data) },
    want: { data: { values, bound: values.map((value) => U * value + TINY) } },
  };
}

// Convolution

export interface ConvSpec {
  units: number;
  channels: number;
  taps: number;
}

export const CONVS: ConvSpec[] = [
  { units: 1, channels: 1, taps: 2 },
  { units: 1, channels: 4, taps: 4 },
  { units: 2, channels: 3, taps: 3 },
  { units: 3, channels: 7, taps: 5 },
  { units: 2, channels: 16, taps: 4 },
  { units: 1, channels: 33, taps: 2 },
  { units: 0, channels: 8, taps: 4 },
];

export function convCase({ units, channels, taps }: ConvSpec, runs: readonly Run[], r: Random): OpCase {
  const floats = units * channels;
  const { rows, sequences } = rowsOf(runs);
  const data = normals(rows.length * floats, r).map((value) => 3 * value);
  for (let i = 0; i < data.length; i += 29) data[i] = r.pick([0, 1e-30, 200, -200]);
  const weights = Array.from({ length: units }, () => normals((taps + 1) * channels, r));
  const { bytes: weight, unitBytes } = placeUnits(weights, (taps + 1) * channels, r);
  const before = statesBefore(rows, sequences, (taps - 1) * floats, r);
  const after = before.slice();

  // As the reference has them: [units × channels][taps], [units × channels].
  const of = (i: number, tap: number) => weights[Math.floor(i / channels)][tap * channels + (i % channels)];
  const kernel = Float64Array.from({ length: floats * taps }, (_, at) => of(Math.floor(at / taps), at % taps));
  const bias = Float64Array.from({ length: floats }, (_, i) => of(i, taps));
  const values = new Float64Array(data.length);
  const bound = new Float64Array(data.length);
  for (const [t, { sequence, position }] of rows.entries()) {
    const past = after.subarray(sequence * (taps - 1) * floats, (sequence + 1) * (taps - 1) * floats);
    if (position === 0) past.fill(0);
    const input = data.subarray(t * floats, (t + 1) * floats);
    const [x, window] = [Float64Array.from(input), Float64Array.from(past)];
    const sums = reference.causalConv(x, kernel, bias, floats, taps, window);
    const absolute = (from: Float64Array) => from.map(Math.abs);
    const sizes = reference.causalConv(absolute(x), absolute(kernel), absolute(bias), floats, taps, absolute(window));
    for (const [i, value] of reference.silu(sums).entries()) {
      values[t * floats + i] = value;
      // A silu is nowhere steeper than 1.1, and rounds as in a gate.
      bound[t * floats + i] = (1.1 * (taps + 2) * sizes[i] + 8 * Math.abs(value)) * U + 1000 * SILU_TINY;
    }
    past.copyWithin(0, floats);
    past.set(input, (taps - 2) * floats);
  }
  return {
    ...NOTHING,
    op: OP_CONV,
    rows,
    fields: [
      { at: CONV_DATA, buffer: "data" },
      { at: CONV_UNITS, word: units },
      { at: CONV_CHANNELS, word: channels },
      { at: CONV_TAPS, word: taps },
      { at: CONV_WEIGHT, buffer: "weight" },
      { at: CONV_UNIT_BYTES, word: unitBytes },
      { at: CONV_STATE, buffer: "state" },
    ],
    buffers: { data: bytesOf(data), weight, state: bytesOf(before) },
    want: { data: { values, bound }, state: exactly(Float64Array.from(after)) },
  };
}

// Step size

export function stepSizeCase(
  heads: number,
  count: number,
  [least, most]: readonly [number, number],
  r: Random,
): OpCase {
  const data = normals(count * heads, r).map((value) => 4 * value);
  const bias = normals(heads, r);
  bias[0] = 0;
  const special = [0, -0, 1e-30, -1e-30, -12, -16.7, -20, 20, -87, 88, -200, 200, -30000, 30000];
  for (const [i, value] of special.entries()) if (i * heads < data.length) data[i * heads] = value;
  const sum = (i: number) => data[i] + bias[i % heads];
  const values = reference.stepSize(Float64Array.from(data), Float64Array.from(bias), least, most);
  return {
    ...NOTHING,
    op: OP_STEP_SIZE,
    rows: Array.from({ length: count }, () => row({})),
    fields: [
      { at: STEP_SIZE_DATA, buffer: "data" },
      { at: STEP_SIZE_HEADS, word: heads },
      { at: STEP_SIZE_BIAS, buffer: "bias" },
      { at: STEP_SIZE_LEAST, float: least },
      { at: STEP_SIZE_MOST, float: most },
    ],
    buffers: { data: bytesOf(data), bias: bytesOf(bias) },
    // A step size is as good as e^sum, however small: the state is made of its products. Far below zero the rounding of
    // the sum is one of its exponent.
    want: {
      data: { values, bound: values.map((value, i) => (8 + Math.max(0, -sum(i))) * U * Math.abs(value) + TINY) },
    },
  };
}

// Scan

export interface ScanSpec {
  heads: number;
  groups: number;
  xz: Units;
  bc: Units;
}

export const SCANS: ScanSpec[] = [
  { heads: 1, groups: 1, xz: [1, 1], bc: [1, 1] },
  { heads: 3, groups: 1, xz: [2, 4], bc: [1, 16] },
  { heads: 6, groups: 3, xz: [3, 2], bc: [2, 5] },
  { heads: 4, groups: 2, xz: [1, 5], bc: [3, 1] },
  { heads: 5, groups: 5, xz: [1, 16], bc: [2, 16] },
  { heads: 2, groups: 1, xz: [2, 16], bc: [3, 16] },
  { heads: 8, groups: 4, xz: [3, 4], bc: [1, 2] },
  { heads: 3, groups: 3, xz: [2, 1], bc: [0, 16] },
  { heads: 2, groups: 2, xz: [0, 4], bc: [2, 4] },
];

export function scanCase({ heads, groups, xz, bc }: ScanSpec, runs: readonly Run[], r: Random): OpCase {
  const [dims, state] = [xz[0] * xz[1], bc[0] * bc[1]];
  const [inner, shared, cells] = [heads * dims, groups * state, heads * dims * state];
  const { rows, sequences } = rowsOf(runs);
  const x = normals(rows.length * inner, r);
  const b = normals(rows.length * shared, r);
  const c = normals(rows.length * shared, r);
  // Heads that keep all, some, or nothing: dt × a is 0, or from about −0.001 to about −20.
  const dt = Float32Array.from({ length: rows.length * heads }, () =>
    r.int(12) === 0 ? 0 : 10 ** (-2 + 2 * r.unit()),
  );
  const a = Float32Array.from({ length: heads }, (_, i) => [-1, -20, -0.1][i % 3] * (1 + 0.1 * r.unit()));
  const d = normals(heads, r);
  const before = statesBefore(rows, sequences, cells, r);

  const out = { values: new Float64Array(x.length), bound: new Float64Array(x.length) };
  const after = { values: Float64Array.from(before), bound: new Float64Array(before.length) };
  const sizes = { heads, dims, groups, state };
  const absolute = (from: Float64Array) => from.map(Math.abs);
  const [as, ds] = [Float64Array.from(a), Float64Array.from(d)];
  for (const sequence of new Set(rows.map((one) => one.sequence))) {
    const own = rows.flatMap((one, t) => (one.sequence === sequence ? [t] : []));
    // Of these rows of a buffer, side by side.
    const pick = (from: Float32Array, floats: number) =>
      Float32Array.from(
        { length: own.length * floats },
        (_, i) => from[own[Math.floor(i / floats)] * floats + (i % floats)],
      );
    const xs = byHead(pick(x, inner), own.length, heads, xz);
    const bs = byHead(pick(b, shared), own.length, groups, bc);
    const cs = byHead(pick(c, shared), own.length, groups, bc);
    const dts = Float64Array.from(pick(dt, heads));
    const past = before.slice(sequence * cells, (sequence + 1) * cells);
    // The state's dimensions follow each other in the buffer as in the reference: they are a part of the channel.
    const stateUnits: Units = [xz[0], xz[1] * state];
    const h = byHead(rows[own[0]].position === 0 ? past.fill(0) : past, 1, heads, stateUnits);
    const hSizes = absolute(h);
    const ys = reference.scan(xs, bs, cs, dts, as, ds, sizes, h);
    const ySizes = reference.scan(absolute(xs), absolute(bs), absolute(cs), dts, as, absolute(ds), sizes, hSizes);
    // Of each row: a power, its product with what was, and a sum. Of each output: a sum over the state.
    const error = (4 * own.length + state + 16) * U;
    for (const [i, t] of own.entries()) {
      const place = (from: Float64Array) => toUnits(from.subarray(i * inner, (i + 1) * inner), heads, xz);
      out.values.set(place(ys), t * inner);
      out.bound.set(place(ySizes.map((size) => error * size + TINY)), t * inner);
    }
    after.values.set(toUnits(h, heads, stateUnits), sequence * cells);
    after.bound.set(
      toUnits(
        hSizes.map((size) => error * size + TINY),
        heads,
        stateUnits,
      ),
      sequence * cells,
    );
  }
  return {
    ...NOTHING,
    op: OP_SCAN,
    rows,
    fields: [
      { at: SCAN_X, buffer: "x" },
      { at: SCAN_B, buffer: "b" },
      { at: SCAN_C, buffer: "c" },
      { at: SCAN_DT, buffer: "dt" },
      { at: SCAN_OUT, buffer: "out" },
      { at: SCAN_A, buffer: "a" },
      { at: SCAN_D, buffer: "d" },
      { at: SCAN_STATE, buffer: "state" },
      { at: SCAN_XZ_UNITS, word: xz[0] },
      { at: SCAN_XZ_CHANNELS, word: xz[1] },
      { at: SCAN_BC_UNITS, word: bc[0] },
      { at: SCAN_BC_CHANNELS, word: bc[1] },
      { at: SCAN_HEADS, word: heads },
      { at: SCAN_GROUPS, word: groups },
      { at: SCAN_SCRATCH, buffer: "scratch" },
    ],
    buffers: {
      ...{ x: bytesOf(x), b: bytesOf(b), c: bytesOf(c), dt: bytesOf(dt), a: bytesOf(a), d: bytesOf(d) },
      ...{ out: garbage(x.length, r), state: bytesOf(before), scratch: garbage(SCRATCH, r) },
    },
    scratch: ["scratch"],
    want: { out, state: after },
  };
}

// Gated norm

export interface GatedNormSpec {
  units: number;
  heads: number;
  channels: number;
  groups: number;
}

export const GATED_NORMS: GatedNormSpec[] = [
  { units: 1, heads: 1, channels: 1, groups: 1 },
  { units: 1, heads: 3, channels: 5, groups: 1 },
  { units: 2, heads: 4, channels: 4, groups: 2 },
  { units: 3, heads: 6, channels: 1, groups: 3 },
  { units: 3, heads: 5, channels: 2, groups: 5 },
  { units: 2, heads: 8, channels: 16, groups: 1 },
  { units: 0, heads: 4, channels: 8, groups: 2 },
];

export function gatedNormCase({ units, heads, channels, groups }: GatedNormSpec, count: number, r: Random): OpCase {
  const inner = units * heads * channels;
  const data = normals(count * inner, r);
  const gate = normals(count * inner, r).map((value) => 3 * value);
  for (let i = 0; i < gate.length; i += 17) gate[i] = r.pick([0, 1e-30, 200, -100]);
  gate.fill(0, 0, count > 1 ? inner : 0); // a row of zeros: only eps is under the root
  const weights = Array.from({ length: units }, () => normals(heads * channels, r));
  const { bytes: weight, unitBytes } = placeUnits(weights, heads * channels, r);
  const size = (heads / groups) * units * channels;
  const divisor = size + 3 * (heads / groups); // as if channels had been cut away
  const eps = Math.fround(1e-5);

  const parts: Units = [units, channels];
  const ordered = Float32Array.from(weights.flatMap((values) => [...values]));
  const [ys, zs, ws] = [
    byHead(data, count, heads, parts),
    byHead(gate, count, heads, parts),
    byHead(ordered, 1, heads, parts),
  ];
  const values = reference.gatedNorm(ys, zs, ws, { channels: inner, groups, divisor, eps });
  // The root halves the relative errors of a sum of squares, and those of v are twice in each.
  const bound = values.map(
    (value, i) =>
      (size / 2 + 24) * U * Math.abs(value) + (SILU_TINY / Math.sqrt(eps)) * Math.abs(ys[i] * ws[i % inner]),
  );
  const place = (from: Float64Array) =>
    Float64Array.from(
      Array.from({ length: count }, (_, t) => [
        ...toUnits(from.subarray(t * inner, (t + 1) * inner), heads, parts),
      ]).flat(),
    );
  return {
    ...NOTHING,
    op: OP_GATED_NORM,
    rows: Array.from({ length: count }, () => row({})),
    fields: [
      { at: GATED_NORM_DATA, buffer: "data" },
      { at: GATED_NORM_GATE, buffer: "gate" },
      { at: GATED_NORM_WEIGHT, buffer: "weight" },
      { at: GATED_NORM_UNIT_BYTES, word: unitBytes },
      { at: GATED_NORM_UNITS, word: units },
      { at: GATED_NORM_HEADS, word: heads },
      { at: GATED_NORM_CHANNELS, word: channels },
      { at: GATED_NORM_GROUPS, word: groups },
      { at: GATED_NORM_DIVISOR, float: divisor },
      { at: GATED_NORM_EPS, float: eps },
    ],
    buffers: { data: bytesOf(data), gate: bytesOf(gate), weight },
    want: { data: { values: place(values), bound: place(bound) } },
  };
}

// What they share

/** The rows of a step, and how many sequences there are: the last one has no rows. */
function rowsOf(runs: readonly Run[]): { rows: Row[]; sequences: number; context: number } {
  const rows = runs.flatMap(([sequence, position, count]) =>
    Array.from({ length: count }, (_, i) => row({ sequence, position: position + i })),
  );
  const sequences = Math.max(...rows.map((one) => one.sequence)) + 2;
  return { rows, sequences, context: Math.max(...rows.map((one) => one.position)) + 1 };
}

/** States of `floats` numbers: NaN where the sequence begins in this step, so that nothing may be read of it. */
function statesBefore(rows: readonly Row[], sequences: number, floats: number, r: Random): Float32Array {
  const begin = new Set(rows.filter(({ position }) => position === 0).map(({ sequence }) => sequence));
  return normals(sequences * floats, r).map((value, i) => (begin.has(Math.floor(i / floats)) ? Number.NaN : value));
}

/** A vector of each unit, as units lie in memory: with other things between. */
function placeUnits(vectors: readonly Float32Array[], floats: number, r: Random) {
  const unitBytes = align(floats * 4) + ALIGN;
  const bytes = garbage(Math.max(1, (vectors.length * unitBytes) / 4), r);
  for (const [unit, values] of vectors.entries()) bytes.set(bytesOf(values), unit * unitBytes);
  return { bytes, unitBytes };
}
