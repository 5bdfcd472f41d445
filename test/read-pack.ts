// A pack's bytes taken apart for tests: where everything lies, and the model of the reference that a cut of it is. Plain
// and trusting; the reader of the product is assembly/pack.ts.

import { decodeMatrix } from "../packs/encode";
import {
  CURVE_BYTES,
  DTYPE_VECTOR,
  HEADER_CHUNKS,
  HEADER_CURVE,
  HEADER_FIXED_TENSORS,
  HEADER_HEAD_DIM,
  HEADER_HEADS,
  HEADER_INFO,
  HEADER_KV_HEADS,
  HEADER_LAYERS,
  HEADER_NORM_EPS,
  HEADER_SSM_GROUPS,
  HEADER_SSM_HEAD_DIM,
  HEADER_SSM_HEADS,
  HEADER_SSM_NORM_GROUPS,
  HEADER_SSM_STEP_LEAST,
  HEADER_SSM_STEP_MOST,
  HEADER_SSM_TAPS,
  HEADER_STACKS,
  HEADER_TENSORS,
  HEADER_UNITS,
  HEADER_VOCABULARY,
  HEADER_WIDTH,
  KIND_BC,
  KIND_MLP,
  KIND_QK,
  KIND_VO,
  KIND_XZ,
  NONE,
  PRELUDE_BYTES,
  PRELUDE_FIXED_BYTES,
  PRELUDE_HEADER_BYTES,
  ROLE_A,
  ROLE_B,
  ROLE_B_BIAS,
  ROLE_B_CONV,
  ROLE_C,
  ROLE_C_BIAS,
  ROLE_C_CONV,
  ROLE_D,
  ROLE_DOWN,
  ROLE_DOWN_BIAS,
  ROLE_DT,
  ROLE_DT_BIAS,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_GATE,
  ROLE_GATE_BIAS,
  ROLE_GATED_NORM,
  ROLE_HEAD,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_MIXER_NORM,
  ROLE_MLP_NORM,
  ROLE_O,
  ROLE_O_BIAS,
  ROLE_OUT,
  ROLE_OUT_BIAS,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_ROPE,
  ROLE_UP,
  ROLE_UP_BIAS,
  ROLE_V,
  ROLE_X,
  ROLE_X_BIAS,
  ROLE_X_CONV,
  ROLE_Z,
  ROLE_Z_BIAS,
  STACK_BYTES,
  STACK_CHANNELS,
  STACK_KIND,
  STACK_LAYER,
  STACK_TENSOR,
  STACK_TENSORS,
  STACK_UNIT_BYTES,
  STACK_UNITS,
  TENSOR_BYTES,
  TENSOR_COLS,
  TENSOR_DTYPE,
  TENSOR_GROUP,
  TENSOR_LAYER,
  TENSOR_LENGTH,
  TENSOR_OFFSET,
  TENSOR_ROLE,
  TENSOR_ROWS,
  UNIT_BYTES,
  UNIT_INDEX,
  UNIT_STACK,
} from "../packs/format";
import type { ReferenceAttention, ReferenceMamba, ReferenceMlp, ReferenceModel, ReferenceSublayer } from "./reference";

export interface TensorPlace {
  role: number;
  /** NONE where it belongs to no layer. */
  layer: number;
  dtype: number;
  rows: number;
  cols: number;
  group: number;
  /** From the start of the fixed part, or of the unit. */
  offset: number;
  length: number;
}

export interface StackPlace {
  layer: number;
  kind: number;
  channels: number;
  units: number;
  unitBytes: number;
  tensors: TensorPlace[];
}

export interface UnitPlace {
  stack: number;
  index: number;
  /** In the file. */
  offset: number;
  length: number;
}

export interface PackLayout {
  headerBytes: number;
  fixedOffset: number;
  unitsOffset: number;
  fileBytes: number;
  fixed: TensorPlace[];
  stacks: StackPlace[];
  units: UnitPlace[];
  /** The header's tables: where they begin in the file, and the bytes of an entry. */
  tables: { field: number; offset: number; count: number; entryBytes: number }[];
}

export function readLayout(bytes: Uint8Array): PackLayout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number) => view.getUint32(at, true);
  const long = (at: number) => Number(view.getBigUint64(at, true));
  const headerBytes = word(PRELUDE_HEADER_BYTES);
  const fixedOffset = PRELUDE_BYTES + headerBytes;
  const unitsOffset = fixedOffset + long(PRELUDE_FIXED_BYTES);
  const tables = (
    [
      [HEADER_TENSORS, TENSOR_BYTES],
      [HEADER_STACKS, STACK_BYTES],
      [HEADER_UNITS, UNIT_BYTES],
      [HEADER_CHUNKS, 8],
      [HEADER_CURVE, CURVE_BYTES],
      [HEADER_INFO, 1],
    ] as const
  ).map(([field, entryBytes]) => {
    const at = PRELUDE_BYTES + field;
    return { field, entryBytes, count: word(at), offset: PRELUDE_BYTES + word(at + 4) };
  });
  const entries = <T>(field: number, read: (at: number) => T): T[] => {
    const table = tables.find((one) => one.field === field) ?? tables[0];
    return Array.from({ length: table.count }, (_, i) => read(table.offset + i * table.entryBytes));
  };
  const tensors = entries(HEADER_TENSORS, (at) => ({
    role: word(at + TENSOR_ROLE),
    layer: word(at + TENSOR_LAYER),
    dtype: word(at + TENSOR_DTYPE),
    rows: word(at + TENSOR_ROWS),
    cols: word(at + TENSOR_COLS),
    group: word(at + TENSOR_GROUP),
    offset: long(at + TENSOR_OFFSET),
    length: long(at + TENSOR_LENGTH),
  }));
  const stacks = entries(HEADER_STACKS, (at) => ({
    layer: word(at + STACK_LAYER),
    kind: word(at + STACK_KIND),
    channels: word(at + STACK_CHANNELS),
    units: word(at + STACK_UNITS),
    unitBytes: word(at + STACK_UNIT_BYTES),
    tensors: tensors.slice(word(at + STACK_TENSOR), word(at + STACK_TENSOR) + word(at + STACK_TENSORS)),
  }));
  let next = unitsOffset;
  const units = entries(HEADER_UNITS, (at) => {
    const stack = word(at + UNIT_STACK);
    const offset = next;
    next += stacks[stack].unitBytes;
    return { stack, index: word(at + UNIT_INDEX), offset, length: stacks[stack].unitBytes };
  });
  const fixed = tensors.slice(0, word(PRELUDE_BYTES + HEADER_FIXED_TENSORS));
  return { headerBytes, fixedOffset, unitsOffset, fileBytes: next, fixed, stacks, units, tables };
}

/** How many units of each stack the first `units` units are. */
export function keptOf(layout: PackLayout, units: number): number[] {
  const kept = layout.stacks.map(() => 0);
  for (const { stack } of layout.units.slice(0, units)) kept[stack]++;
  return kept;
}

/** The model that is left of a pack when the first kept[stack] units of each stack stay. */
export function readCut(bytes: Uint8Array, layout: PackLayout, kept: ArrayLike<number>): ReferenceModel {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const field = (offset: number) => view.getUint32(PRELUDE_BYTES + offset, true);
  const float = (offset: number) => view.getFloat32(PRELUDE_BYTES + offset, true);
  const width = field(HEADER_WIDTH);
  const values = (tensor: TensorPlace, base: number): Float64Array => {
    const from = bytes.subarray(base + tensor.offset, base + tensor.offset + tensor.length);
    if (tensor.dtype === DTYPE_VECTOR) return Float64Array.from(new Float32Array(from.slice().buffer));
    return Float64Array.from(decodeMatrix(from, tensor.dtype, tensor.rows, tensor.cols, tensor.group));
  };
  const optional = (role: number, layer: number = NONE) => {
    const tensor = layout.fixed.find((one) => one.role === role && one.layer === layer);
    return tensor === undefined ? null : values(tensor, layout.fixedOffset);
  };
  const fixed = (role: number, layer: number = NONE) => optional(role, layer) ?? assertThere(role, layer);
  const stackOf = (layer: number, kind: number) => {
    const index = layout.stacks.findIndex((stack) => stack.layer === layer && stack.kind === kind);
    const { channels, tensors } = layout.stacks[index] ?? { channels: 0, tensors: [] };
    const units = layout.units.filter((unit) => unit.stack === index && unit.index < kept[index]);
    return cutStack(kind, channels, units.length, (role) => {
      const tensor = tensors.find((one) => one.role === role);
      if (tensor) return units.map(({ offset }) => values(tensor, offset));
      return index < 0 ? [] : null;
    });
  };

  const readAttention = (layer: number): ReferenceAttention => {
    const [heads, kvHeads] = [field(HEADER_HEADS), field(HEADER_KV_HEADS)];
    const qk = stackOf(layer, KIND_QK);
    const vo = stackOf(layer, KIND_VO);
    return {
      kind: "attention",
      heads,
      kvHeads,
      headDim: field(HEADER_HEAD_DIM),
      dims: qk.dims,
      vDims: vo.dims,
      q: qk.rows(ROLE_Q, heads, width) ?? assertThere(ROLE_Q, layer),
      k: qk.rows(ROLE_K, kvHeads, width) ?? assertThere(ROLE_K, layer),
      v: vo.rows(ROLE_V, kvHeads, width) ?? assertThere(ROLE_V, layer),
      o: vo.cols(ROLE_O, heads, width) ?? assertThere(ROLE_O, layer),
      qBias: qk.rows(ROLE_Q_BIAS, heads, 1),
      kBias: qk.rows(ROLE_K_BIAS, kvHeads, 1),
      vBias: null, // a part of o's
      oBias: optional(ROLE_O_BIAS, layer),
      ropeAngles: qk.angles(kvHeads) ?? new Float64Array((kvHeads * qk.dims) / 2),
    };
  };
  const readMlp = (layer: number): ReferenceMlp => {
    const mlp = stackOf(layer, KIND_MLP);
    return {
      kind: "mlp",
      channels: mlp.dims,
      gate: mlp.rows(ROLE_GATE, 1, width),
      up: mlp.rows(ROLE_UP, 1, width) ?? assertThere(ROLE_UP, layer),
      down: mlp.cols(ROLE_DOWN, 1, width) ?? assertThere(ROLE_DOWN, layer),
      gateBias: mlp.rows(ROLE_GATE_BIAS, 1, 1),
      upBias: mlp.rows(ROLE_UP_BIAS, 1, 1),
      downBias: optional(ROLE_DOWN_BIAS, layer),
    };
  };
  const readMamba = (layer: number): ReferenceMamba => {
    const [heads, groups, taps] = [field(HEADER_SSM_HEADS), field(HEADER_SSM_GROUPS), field(HEADER_SSM_TAPS)];
    const normGroups = field(HEADER_SSM_NORM_GROUPS);
    const bc = stackOf(layer, KIND_BC);
    const xz = stackOf(layer, KIND_XZ);
    const xConv = xz.conv(ROLE_X_CONV, heads, taps) ?? assertThere(ROLE_X_CONV, layer);
    const bConv = bc.conv(ROLE_B_CONV, groups, taps) ?? assertThere(ROLE_B_CONV, layer);
    const cConv = bc.conv(ROLE_C_CONV, groups, taps) ?? assertThere(ROLE_C_CONV, layer);
    return {
      kind: "mamba",
      heads,
      dims: xz.dims,
      groups,
      state: bc.dims,
      taps,
      normGroups,
      normDivisor: (heads / normGroups) * field(HEADER_SSM_HEAD_DIM),
      stepLeast: float(HEADER_SSM_STEP_LEAST),
      stepMost: float(HEADER_SSM_STEP_MOST),
      z: xz.rows(ROLE_Z, heads, width) ?? assertThere(ROLE_Z, layer),
      x: xz.rows(ROLE_X, heads, width) ?? assertThere(ROLE_X, layer),
      b: bc.rows(ROLE_B, groups, width) ?? assertThere(ROLE_B, layer),
      c: bc.rows(ROLE_C, groups, width) ?? assertThere(ROLE_C, layer),
      dt: fixed(ROLE_DT, layer),
      zBias: xz.rows(ROLE_Z_BIAS, heads, 1),
      xBias: xz.rows(ROLE_X_BIAS, heads, 1),
      bBias: bc.rows(ROLE_B_BIAS, groups, 1),
      cBias: bc.rows(ROLE_C_BIAS, groups, 1),
      ...{ xConv: xConv.weight, bConv: bConv.weight, cConv: cConv.weight },
      ...{ xConvBias: xConv.bias, bConvBias: bConv.bias, cConvBias: cConv.bias },
      dtBias: fixed(ROLE_DT_BIAS, layer),
      a: fixed(ROLE_A, layer),
      d: fixed(ROLE_D, layer),
      gatedNorm: xz.rows(ROLE_GATED_NORM, heads, 1) ?? assertThere(ROLE_GATED_NORM, layer),
      out: xz.cols(ROLE_OUT, heads, width) ?? assertThere(ROLE_OUT, layer),
      outBias: optional(ROLE_OUT_BIAS, layer),
    };
  };
  // A layer's stacks say what it adds: an attention or an SSM, then an MLP.
  const readLayer = (layer: number): ReferenceSublayer[] => {
    const has = (...kinds: number[]) =>
      layout.stacks.some((stack) => stack.layer === layer && kinds.includes(stack.kind));
    const sublayers: ReferenceSublayer[] = [];
    if (has(KIND_QK, KIND_VO)) sublayers.push({ norm: fixed(ROLE_MIXER_NORM, layer), block: readAttention(layer) });
    if (has(KIND_BC, KIND_XZ)) sublayers.push({ norm: fixed(ROLE_MIXER_NORM, layer), block: readMamba(layer) });
    if (has(KIND_MLP)) sublayers.push({ norm: fixed(ROLE_MLP_NORM, layer), block: readMlp(layer) });
    return sublayers;
  };
  return {
    width,
    vocabulary: field(HEADER_VOCABULARY),
    normEps: float(HEADER_NORM_EPS),
    embedding: fixed(ROLE_EMBEDDING),
    head: optional(ROLE_HEAD),
    finalNorm: fixed(ROLE_FINAL_NORM),
    layers: Array.from({ length: field(HEADER_LAYERS) }, (_, layer) => readLayer(layer)),
  };
}

/**
 * The kept units of a stack, put together head by head; `heads` is 1 in an MLP, and the groups for what they share.
 * `of` gives a tensor's values in each of the units. Arrays are null where the units have no such tensor.
 */
function cutStack(kind: number, channels: number, units: number, of: (role: number) => Float64Array[] | null) {
  // Those of QK are the a's of all units, then their b's, for the pair is (i, i + dims / 2).
  const parts = kind === KIND_QK ? 2 : 1;
  const length = channels / parts;
  const dims = Array.from({ length: parts * units * length }, (_, i) => {
    const part = Math.floor(i / (units * length));
    return { unit: Math.floor(i / length) % units, channel: part * length + (i % length) };
  });
  const collect = (role: number, count: number, pick: (units: Float64Array[], at: number) => number) => {
    const tensors = of(role);
    return tensors && Float64Array.from({ length: count }, (_, at) => pick(tensors, at));
  };

  /** [heads][dims][cols] of units of [heads][channels][cols]. */
  const rows = (role: number, heads: number, cols: number) =>
    collect(role, heads * dims.length * cols, (tensors, at) => {
      const row = Math.floor(at / cols);
      const { unit, channel } = dims[row % dims.length];
      return tensors[unit][(Math.floor(row / dims.length) * channels + channel) * cols + (at % cols)];
    });
  /** [count][heads][dims] of units of [count][heads][channels]. */
  const cols = (role: number, heads: number, count: number) => rows(role, count * heads, 1);
  /** The taps [heads][dims][taps] and the bias [heads][dims] of units of [taps + 1][heads][channels]. */
  const conv = (role: number, heads: number, taps: number) => {
    const all = cols(role, heads, taps + 1);
    const size = heads * dims.length;
    const weight = Float64Array.from(
      { length: size * taps },
      (_, i) => all?.[(i % taps) * size + Math.floor(i / taps)] ?? 0,
    );
    return all && { weight, bias: all.slice(taps * size) };
  };
  /** [kvHeads][dims / 2] of units of [kvHeads][channels / 2]. */
  const angles = (kvHeads: number) =>
    collect(ROLE_ROPE, (kvHeads * dims.length) / 2, (tensors, at) => {
      const { unit, channel } = dims[at % (dims.length / 2)];
      return tensors[unit][Math.floor(at / (dims.length / 2)) * length + channel];
    });
  return { dims: dims.length, rows, cols, conv, angles };
}

function assertThere(role: number, layer: number): never {
  throw new Error(`the pack has no tensor of role ${role} (layer ${layer})`);
}
