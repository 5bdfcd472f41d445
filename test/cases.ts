// What every executor's ops must do: one list of cases, worked out by test/reference.ts. Whoever executes programs runs
// all of it; test/kernels.test.ts does so for the CPU.

import {
  AXIS_COLS,
  AXIS_ROWS,
  EMBED_DTYPE,
  EMBED_GROUP,
  EMBED_OUT,
  EMBED_WEIGHT,
  EMBED_WIDTH,
  FLAG_ADD,
  GATE_GATE,
  GATE_UP,
  GATE_WIDTH,
  MATMUL_AXIS,
  MATMUL_BIAS,
  MATMUL_BIAS_BYTES,
  MATMUL_CODES,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_IN,
  MATMUL_IN_STRIDE,
  MATMUL_OUT,
  MATMUL_OUT_STRIDE,
  MATMUL_PANEL_BYTES,
  MATMUL_PANELS,
  MATMUL_PARTS,
  MATMUL_ROOM,
  MATMUL_ROWS,
  MATMUL_SCRATCH,
  MATMUL_WEIGHT,
  NORM_EPS,
  NORM_IN,
  NORM_OUT,
  NORM_WEIGHT,
  NORM_WIDTH,
  OP_EMBED,
  OP_GATE,
  OP_MATMUL,
  OP_NORM,
  OP_QUANTIZE,
  OP_ROPE,
  OP_SELECT,
  QUANTIZE_COLS,
  QUANTIZE_DTYPE,
  QUANTIZE_GROUP,
  QUANTIZE_IN,
  QUANTIZE_OUT,
  ROPE_ANGLES,
  ROPE_CHANNELS,
  ROPE_HEADS,
  ROPE_K,
  ROPE_KV_HEADS,
  ROPE_Q,
  ROPE_UNIT_BYTES,
  ROPE_UNITS,
  SELECT_IN,
  SELECT_OUT,
  SELECT_WIDTH,
} from "../assembly/abi";
import { ALIGN, DTYPE_F32, DTYPE_Q4, DTYPE_Q8 } from "../packs/format";
import { ATTENTIONS, attentionCase } from "./attention-cases";
import {
  align,
  bytesOf,
  type CaseSpec,
  exactly,
  type Field,
  garbage,
  NOTHING,
  normals,
  type OpCase,
  randomMatrix,
  row,
  TINY,
  U,
} from "./case";
import { type Random, random } from "./random";
import * as reference from "./reference";
import {
  CONVS,
  convCase,
  GATED_NORMS,
  gatedNormCase,
  SCANS,
  STEPS,
  scanCase,
  squaredReluCase,
  stepName,
  stepSizeCase,
} from "./ssm-cases";

const DTYPE_NAMES = { [DTYPE_F32]: "f32", [DTYPE_Q8]: "q8", [DTYPE_Q4]: "q4" };

// Embedding

interface EmbedSpec {
  dtype: number;
  vocabulary: number;
  width: number;
  group: number;
}

const EMBEDS: EmbedSpec[] = [
  { dtype: DTYPE_F32, vocabulary: 1, width: 1, group: 0 },
  { dtype: DTYPE_F32, vocabulary: 37, width: 5, group: 0 },
  { dtype: DTYPE_F32, vocabulary: 64, width: 33, group: 0 },
  { dtype: DTYPE_Q8, vocabulary: 17, width: 8, group: 8 },
  { dtype: DTYPE_Q8, vocabulary: 33, width: 72, group: 24 },
  { dtype: DTYPE_Q4, vocabulary: 16, width: 8, group: 8 },
  { dtype: DTYPE_Q4, vocabulary: 47, width: 96, group: 32 },
  { dtype: DTYPE_Q4, vocabulary: 20, width: 256, group: 256 },
];

function embedCase({ dtype, vocabulary, width, group }: EmbedSpec, r: Random): OpCase {
  const weights = randomMatrix(dtype, vocabulary, width, group, r);
  const tokens = [0, vocabulary - 1, ...Array.from({ length: 7 }, () => r.int(vocabulary))];
  const values = reference.embed(weights.values, width, tokens);
  return {
    ...NOTHING,
    op: OP_EMBED,
    rows: tokens.map((token) => row({ token })),
    fields: [
      { at: EMBED_OUT, buffer: "out" },
      { at: EMBED_WEIGHT, buffer: "weight" },
      { at: EMBED_DTYPE, word: dtype },
      { at: EMBED_GROUP, word: group },
      { at: EMBED_WIDTH, word: width },
    ],
    buffers: { weight: weights.encode(0, vocabulary, 0, width), out: garbage(values.length, r) },
    want: { out: exactly(values) },
  };
}

// Norm

function normCase(width: number, count: number, inPlace: boolean, r: Random): OpCase {
  const x = normals(count * width, r);
  x.fill(0, 0, count > 1 ? width : 0); // a row of zeros: only eps is under the root
  const weight = normals(width, r);
  const eps = Math.fround(1e-5);
  const values = reference.rmsNorm(Float64Array.from(x), Float64Array.from(weight), eps);
  const out = inPlace ? "x" : "out";
  return {
    ...NOTHING,
    op: OP_NORM,
    rows: Array.from({ length: count }, () => row({})),
    fields: [
      { at: NORM_IN, buffer: "x" },
      { at: NORM_OUT, buffer: out },
      { at: NORM_WEIGHT, buffer: "weight" },
      { at: NORM_WIDTH, word: width },
      { at: NORM_EPS, float: eps },
    ],
    buffers: { x: bytesOf(x), weight: bytesOf(weight), ...(!inPlace && { out: garbage(x.length, r) }) },
    // All squares are positive: the root's relative error is half of the sum's.
    want: { [out]: { values, bound: values.map((value) => (width / 2 + 6) * U * Math.abs(value) + TINY) } },
  };
}

// Matmul

interface MatmulSpec {
  dtype: number;
  rows: number;
  cols: number;
  group: number;
  panels: number;
}

const MATMUL_COUNTS = [1, 2, 3, 4, 5, 7, 8, 9, 23, 64];
/** Round the tile of 16 rows and the 256 columns that are unpacked at once. */
const MATMULS: MatmulSpec[] = [
  { dtype: DTYPE_F32, rows: 1, cols: 1, group: 0, panels: 1 },
  { dtype: DTYPE_F32, rows: 3, cols: 7, group: 0, panels: 3 },
  { dtype: DTYPE_F32, rows: 16, cols: 31, group: 0, panels: 2 },
  { dtype: DTYPE_F32, rows: 17, cols: 257, group: 0, panels: 1 },
  { dtype: DTYPE_F32, rows: 40, cols: 64, group: 0, panels: 0 },
  { dtype: DTYPE_Q8, rows: 1, cols: 8, group: 8, panels: 1 },
  { dtype: DTYPE_Q8, rows: 15, cols: 24, group: 24, panels: 4 },
  { dtype: DTYPE_Q8, rows: 33, cols: 64, group: 32, panels: 2 },
  { dtype: DTYPE_Q8, rows: 16, cols: 264, group: 88, panels: 1 },
  { dtype: DTYPE_Q8, rows: 20, cols: 512, group: 256, panels: 1 },
  { dtype: DTYPE_Q4, rows: 1, cols: 8, group: 8, panels: 2 },
  { dtype: DTYPE_Q4, rows: 5, cols: 40, group: 40, panels: 5 },
  { dtype: DTYPE_Q4, rows: 16, cols: 128, group: 64, panels: 1 },
  { dtype: DTYPE_Q4, rows: 31, cols: 96, group: 32, panels: 2 },
  { dtype: DTYPE_Q4, rows: 48, cols: 384, group: 128, panels: 1 },
  { dtype: DTYPE_Q4, rows: 17, cols: 360, group: 120, panels: 2 },
  { dtype: DTYPE_Q4, rows: 18, cols: 512, group: 256, panels: 1 },
  { dtype: DTYPE_Q4, rows: 16, cols: 64, group: 64, panels: 0 },
];

/** What a thread's matrices work in. */
export const MATMUL_SCRATCH_BYTES = 28672;

/**
 * Variant bits: 1 panels along the columns, 2 a bias, 4 adds to the output, 8 gaps between rows. `coded`: on activations
 * in 8 bit, without gaps between them.
 */
function matmulCase(spec: MatmulSpec, count: number, variant: number, coded: boolean, r: Random): OpCase {
  const { dtype, rows, cols, group, panels } = spec;
  const axis = variant & 1 ? AXIS_COLS : AXIS_ROWS;
  const allRows = axis === AXIS_ROWS ? rows * panels : rows;
  const allCols = axis === AXIS_COLS ? cols * panels : cols;
  const gap = variant & 8 ? 3 : 0;
  const [inStride, outStride] = [coded ? allCols : allCols + gap, allRows + gap];

  const weights = randomMatrix(dtype, allRows, allCols, group, r);
  const x = normals(count * inStride, r);
  const before = normals(count * outStride, r);
  const bias = variant & 2 ? normals(allRows, r) : null;
  const add = (variant & 4) !== 0;

  // Panels stand apart as units do; a bias along the rows is a part of its panel.
  const encoded = Array.from({ length: panels }, (_, p) =>
    axis === AXIS_ROWS ? weights.encode(p * rows, rows, 0, cols) : weights.encode(0, rows, p * cols, cols),
  );
  const biasOffset = align(encoded[0]?.length ?? 0);
  const panelBytes = biasOffset + align(rows * 4) + ALIGN;
  const weight = garbage(Math.max(1, (panels * panelBytes) / 4), r);
  for (const [p, bytes] of encoded.entries()) {
    weight.set(bytes, p * panelBytes);
    if (bias && axis === AXIS_ROWS)
      weight.set(bytesOf(bias.slice(p * rows, (p + 1) * rows)), p * panelBytes + biasOffset);
  }
  const biasField: Field[] =
    bias === null || (axis === AXIS_ROWS && panels === 0)
      ? []
      : axis === AXIS_ROWS
        ? [
            { at: MATMUL_BIAS, buffer: "weight", offset: biasOffset },
            { at: MATMUL_BIAS_BYTES, word: panelBytes },
          ]
        : [{ at: MATMUL_BIAS, buffer: "bias" }];

  const dense = (from: Float32Array, stride: number, width: number) =>
    Float64Array.from({ length: count * width }, (_, i) => from[Math.floor(i / width) * stride + (i % width)]);
  const exact = dense(x, inStride, allCols);
  const xs = coded ? reference.quantizeActivations(exact, group) : exact;
  const roundings = coded ? allCols / group : allCols;
  const biases = bias && Float64Array.from(bias);
  const absolute = (a: Float64Array) => a.map(Math.abs);
  const product = reference.matmul(xs, weights.values, count, allRows, allCols, biases);
  const sizes = reference.matmul(absolute(xs), weights.sizes, count, allRows, allCols, biases && absolute(biases));
  const values = Float64Array.from(before);
  const bound = new Float64Array(values.length);
  for (let t = 0; t < count; t++) {
    for (let i = 0; i < allRows; i++) {
      const old = add ? before[t * outStride + i] : 0;
      values[t * outStride + i] = old + product[t * allRows + i];
      bound[t * outStride + i] = (roundings + 10) * U * (Math.abs(old) + sizes[t * allRows + i]) + TINY;
    }
  }
  return {
    ...NOTHING,
    ...(coded && {
      before: {
        op: OP_QUANTIZE,
        fields: [
          { at: QUANTIZE_IN, buffer: "x" },
          { at: QUANTIZE_OUT, buffer: "codes" },
          { at: QUANTIZE_COLS, word: allCols },
          { at: QUANTIZE_GROUP, word: group },
          { at: QUANTIZE_DTYPE, word: dtype },
        ],
      },
    }),
    op: OP_MATMUL,
    flags: add ? FLAG_ADD : 0,
    rows: Array.from({ length: count }, () => row({})),
    fields: [
      { at: MATMUL_IN, buffer: "x" },
      { at: MATMUL_IN_STRIDE, word: inStride },
      { at: MATMUL_OUT, buffer: "out" },
      { at: MATMUL_OUT_STRIDE, word: outStride },
      { at: MATMUL_WEIGHT, buffer: "weight" },
      { at: MATMUL_DTYPE, word: dtype },
      { at: MATMUL_GROUP, word: group },
      { at: MATMUL_ROWS, word: rows },
      { at: MATMUL_COLS, word: cols },
      { at: MATMUL_PANELS, word: panels },
      { at: MATMUL_PANEL_BYTES, word: panelBytes },
      { at: MATMUL_AXIS, word: axis },
      { at: MATMUL_PARTS, word: 1 },
      { at: MATMUL_ROOM, word: panels },
      { at: MATMUL_SCRATCH, buffer: "scratch" },
      ...(coded ? [{ at: MATMUL_CODES, buffer: "codes" }] : []),
      ...biasField,
    ],
    buffers: {
      ...{ x: bytesOf(x), weight, out: bytesOf(before), bias: bytesOf(bias ?? new Float32Array(1)) },
      scratch: garbage(MATMUL_SCRATCH_BYTES / 4, r),
      ...(coded && { codes: garbage(Math.max(1, (count * (allCols / group) * (16 + 2 * group)) / 4), r) }),
    },
    scratch: ["scratch", "codes"],
    want: { out: { values, bound } },
  };
}

// RoPE

interface RopeSpec {
  units: number;
  heads: number;
  kvHeads: number;
  channels: number;
}

const ROPES: RopeSpec[] = [
  { units: 1, heads: 1, kvHeads: 1, channels: 2 },
  { units: 3, heads: 4, kvHeads: 2, channels: 6 },
  { units: 2, heads: 6, kvHeads: 1, channels: 4 },
  { units: 5, heads: 3, kvHeads: 3, channels: 16 },
  { units: 4, heads: 14, kvHeads: 2, channels: 16 },
  { units: 1, heads: 8, kvHeads: 2, channels: 26 },
  { units: 0, heads: 2, kvHeads: 2, channels: 8 },
];

function ropeCase({ units, heads, kvHeads, channels }: RopeSpec, r: Random): OpCase {
  const positions = [0, 1, 17, 2047, 131071];
  const pairs = channels / 2;
  // Of a unit: angles between other things, one of them 0.
  const unitBytes = align(kvHeads * pairs * 4) + ALIGN;
  const angles = Array.from({ length: units }, () =>
    Float32Array.from({ length: kvHeads * pairs }, (_, i) => (i === 0 ? 0 : 10 ** (-4 * r.unit()))),
  );
  const data = garbage(Math.max(1, (units * unitBytes) / 4), r);
  for (const [u, values] of angles.entries()) data.set(bytesOf(values), u * unitBytes);

  const rotated = (x: Float32Array, count: number) => {
    const values = new Float64Array(x.length);
    const bound = new Float64Array(x.length);
    const unitFloats = count * channels;
    for (const [t, position] of positions.entries()) {
      for (let u = 0; u < units; u++) {
        const from = (t * units + u) * unitFloats;
        const part = Float64Array.from(x.subarray(from, from + unitFloats));
        const radians = Float64Array.from(angles[u], (angle) => Math.fround(position * angle));
        values.set(reference.rope(part, [1], radians, count, kvHeads, channels), from);
        for (let i = 0; i < unitFloats; i++) {
          // Of sine and cosine one unit in the last place, and two roundings.
          const other = part[i - (i % channels) + ((i + pairs) % channels)];
          bound[from + i] = 4 * U * (Math.abs(part[i]) + Math.abs(other));
        }
      }
    }
    return { values, bound };
  };
  const q = normals(positions.length * units * heads * channels, r);
  const k = normals(positions.length * units * kvHeads * channels, r);
  return {
    ...NOTHING,
    op: OP_ROPE,
    rows: positions.map((position) => row({ position })),
    fields: [
      { at: ROPE_Q, buffer: "q" },
      { at: ROPE_K, buffer: "k" },
      { at: ROPE_UNITS, word: units },
      { at: ROPE_HEADS, word: heads },
      { at: ROPE_KV_HEADS, word: kvHeads },
      { at: ROPE_CHANNELS, word: channels },
      { at: ROPE_ANGLES, buffer: "angles" },
      { at: ROPE_UNIT_BYTES, word: unitBytes },
    ],
    buffers: { q: bytesOf(q), k: bytesOf(k), angles: data },
    want: { q: rotated(q, heads), k: rotated(k, kvHeads) },
  };
}

// Gate, select

function gateCase(width: number, count: number, r: Random): OpCase {
  const gate = normals(count * width, r).map((value) => 4 * value);
  gate.set([0, -0, 1e-30, 200, -200, 88, -88, 30000].slice(0, gate.length));
  const up = normals(gate.length, r);
  const values = reference.swiglu(Float64Array.from(gate), Float64Array.from(up));
  return {
    ...NOTHING,
    op: OP_GATE,
    rows: Array.from({ length: count }, () => row({})),
    fields: [
      { at: GATE_GATE, buffer: "gate" },
      { at: GATE_UP, buffer: "up" },
      { at: GATE_WIDTH, word: width },
    ],
    buffers: { gate: bytesOf(gate), up: bytesOf(up) },
    // Two units in the last place of the power, three roundings; what is far below zero is as good as zero.
    want: { gate: { values, bound: values.map((value, i) => 8 * U * Math.abs(value) + 1e-35 * Math.abs(up[i])) } },
  };
}

function selectCase(width: number, outputs: boolean[], r: Random): OpCase {
  const x = normals(outputs.length * width, r);
  const chosen = outputs.flatMap((output, t) => (output ? [t] : []));
  const values = chosen.flatMap((t) => [...x.subarray(t * width, (t + 1) * width)]);
  return {
    ...NOTHING,
    op: OP_SELECT,
    rows: outputs.map((output) => row({ output })),
    fields: [
      { at: SELECT_IN, buffer: "x" },
      { at: SELECT_OUT, buffer: "out" },
      { at: SELECT_WIDTH, word: width },
    ],
    buffers: { x: bytesOf(x), out: garbage(values.length, r) },
    want: { out: exactly(Float64Array.from(values)) },
  };
}

// The list

/** All cases, in the order of the op codes. */
export const CASES: readonly CaseSpec[] = [
  ...EMBEDS.map((spec, i) => ({
    name: `embed ${DTYPE_NAMES[spec.dtype]} ${spec.vocabulary}×${spec.width}/${spec.group}`,
    make: () => embedCase(spec, random(100 + i)),
  })),
  ...[1, 2, 3, 4, 5, 7, 8, 17, 64, 100].flatMap((width) =>
    [1, 3, 9].map((count, i) => ({
      name: `norm ${count}×${width}${i % 2 ? " in place" : ""}`,
      make: () => normCase(width, count, i % 2 === 1, random(200 + width)),
    })),
  ),
  ...MATMULS.flatMap((spec, i) =>
    MATMUL_COUNTS.flatMap((count, j) =>
      // Every shape meets every variant, over its counts; a single row and eight meet all.
      (count === 1 || count === 8
        ? Array.from({ length: 16 }, (_, v) => v)
        : [(i + j) % 16, (i * 5 + j + 7) % 16]
      ).flatMap((variant) =>
        (spec.dtype === DTYPE_F32 ? [false] : [false, true]).map((coded) => ({
          name: `matmul ${DTYPE_NAMES[spec.dtype]} ${coded ? "int8" : "f32"} ${count} · ${spec.panels} of ${spec.rows}×${spec.cols}/${spec.group}, variant ${variant}`,
          make: () => matmulCase(spec, count, variant, coded, random(300 + i * 100 + j)),
        })),
      ),
    ),
  ),
  ...ROPES.map((spec, i) => ({
    name: `rope ${spec.units} units of ${spec.heads}/${spec.kvHeads} heads × ${spec.channels}`,
    make: () => ropeCase(spec, random(5000 + i)),
  })),
  ...ATTENTIONS.map((spec, i) => ({
    name: `attention ${spec.heads}/${spec.kvHeads} heads, qk ${spec.qk}, vo ${spec.vo}, sequences ${spec.sequences.join(" ")}${spec.runs ? " in runs" : ""}${spec.shared ? ", shared" : ""}${spec.scattered ? ", scattered" : ""}`,
    make: () => attentionCase(spec, random(6000 + i)),
  })),
  ...[1, 3, 4, 31, 64].flatMap((width) =>
    [1, 2, 7].map((count) => ({
      name: `gate ${count}×${width}`,
      make: () => gateCase(width, count, random(7000 + width)),
    })),
  ),
  ...["1", "01", "1010011", "0001", "111"].map((outputs) => ({
    name: `select ${outputs}`,
    make: () =>
      selectCase(
        5,
        [...outputs].map((digit) => digit === "1"),
        random(8000),
      ),
  })),
  ...[1, 3, 4, 31, 64].flatMap((width) =>
    [1, 2, 7].map((count) => ({
      name: `squared_relu ${count}×${width}`,
      make: () => squaredReluCase(width, count, random(8100 + width)),
    })),
  ),
  ...CONVS.flatMap((spec, i) =>
    STEPS.map((runs, j) => ({
      name: `conv ${spec.units} units of ${spec.channels}, ${spec.taps} taps, ${stepName(runs)}`,
      make: () => convCase(spec, runs, random(9000 + i * 100 + j)),
    })),
  ),
  ...[1, 3, 4, 5, 16].flatMap((heads) =>
    [[0, Number.POSITIVE_INFINITY] as const, [Math.fround(0.001), Math.fround(0.1)] as const].map((limits) => ({
      name: `step_size ${heads} heads, ${limits[0]} to ${limits[1]}`,
      make: () => stepSizeCase(heads, 15, limits, random(10000 + heads)),
    })),
  ),
  ...SCANS.flatMap((spec, i) =>
    STEPS.map((runs, j) => ({
      name: `scan ${spec.heads}/${spec.groups} heads, xz ${spec.xz}, bc ${spec.bc}, ${stepName(runs)}`,
      make: () => scanCase(spec, runs, random(11000 + i * 100 + j)),
    })),
  ),
  ...GATED_NORMS.flatMap((spec, i) =>
    [1, 2, 7].map((count) => ({
      name: `gated_norm ${count} · ${spec.units} units of ${spec.heads}/${spec.groups} heads × ${spec.channels}`,
      make: () => gatedNormCase(spec, count, random(13000 + i)),
    })),
  ),
];
