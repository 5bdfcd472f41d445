// A pack's bytes taken apart for tests: where everything lies, and the model of the reference that a cut of it is. Plain
// and trusting; the reader of the product is assembly/pack.ts.

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
  HEADER_STACKS,
  HEADER_TENSORS,
  HEADER_UNITS,
  HEADER_VOCABULARY,
  HEADER_WIDTH,
  KIND_MLP,
  KIND_QK,
  KIND_VO,
  NONE,
  PRELUDE_BYTES,
  PRELUDE_FIXED_BYTES,
  PRELUDE_HEADER_BYTES,
  ROLE_ATTENTION_NORM,
  ROLE_DOWN,
  ROLE_DOWN_BIAS,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_GATE,
  ROLE_GATE_BIAS,
  ROLE_HEAD,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_MLP_NORM,
  ROLE_O,
  ROLE_O_BIAS,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_ROPE,
  ROLE_UP,
  ROLE_UP_BIAS,
  ROLE_V,
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
import { decodeMatrix } from "../packs/quantize";
import type { ReferenceAttention, ReferenceMlp, ReferenceModel } from "./reference";

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
  const width = field(HEADER_WIDTH);
  const heads = field(HEADER_HEADS);
  const kvHeads = field(HEADER_KV_HEADS);
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
  /** The kept units of a stack: `of(role)` is one array for each of them, or null where the stack has no such tensor. */
  const unitsOf = (layer: number, kind: number) => {
    const index = layout.stacks.findIndex((stack) => stack.layer === layer && stack.kind === kind);
    const { channels, tensors } = layout.stacks[index];
    const places = layout.units.filter((unit) => unit.stack === index && unit.index < kept[index]);
    const of = (role: number) => {
      const tensor = tensors.find((one) => one.role === role);
      return tensor === undefined ? null : places.map((place) => values(tensor, place.offset));
    };
    return { channels, of };
  };

  const readAttention = (layer: number): ReferenceAttention => {
    const qk = unitsOf(layer, KIND_QK);
    const vo = unitsOf(layer, KIND_VO);
    const half = qk.channels / 2;
    const angles = qk.of(ROLE_ROPE) ?? [];
    // Dimensions of a cut head: the a's of all units, then their b's, for the pair is (i, i + dims / 2).
    const dims = [0, half].flatMap((side) =>
      angles.flatMap((_, unit) => Array.from({ length: half }, (_, i) => ({ unit, channel: side + i }))),
    );
    const values = (vo.of(ROLE_V) ?? []).flatMap((_, unit) =>
      Array.from({ length: vo.channels }, (_, channel) => ({ unit, channel })),
    );
    const rowsOf = (units: Float64Array[] | null, count: number, order: typeof dims, channels: number, cols: number) =>
      units &&
      concat(
        Array.from({ length: count }, (_, head) =>
          order.map(({ unit, channel }) => {
            const row = head * channels + channel;
            return units[unit].subarray(row * cols, (row + 1) * cols);
          }),
        ).flat(),
      );
    const o = vo.of(ROLE_O) ?? [];
    const oCols = Array.from({ length: heads }, (_, head) => values.map((value) => ({ ...value, head }))).flat();
    return {
      dims: dims.length,
      vDims: values.length,
      q: rowsOf(qk.of(ROLE_Q), heads, dims, qk.channels, width) ?? assertThere(ROLE_Q, layer),
      k: rowsOf(qk.of(ROLE_K), kvHeads, dims, qk.channels, width) ?? assertThere(ROLE_K, layer),
      v: rowsOf(vo.of(ROLE_V), kvHeads, values, vo.channels, width) ?? assertThere(ROLE_V, layer),
      o: Float64Array.from({ length: width * oCols.length }, (_, at) => {
        const { head, unit, channel } = oCols[at % oCols.length];
        const row = Math.floor(at / oCols.length);
        return o[unit][row * heads * vo.channels + head * vo.channels + channel];
      }),
      qBias: rowsOf(qk.of(ROLE_Q_BIAS), heads, dims, qk.channels, 1),
      kBias: rowsOf(qk.of(ROLE_K_BIAS), kvHeads, dims, qk.channels, 1),
      vBias: null, // a part of o's
      oBias: optional(ROLE_O_BIAS, layer),
      ropeAngles: concat(
        Array.from({ length: kvHeads }, (_, head) =>
          angles.map((unit) => unit.subarray(head * half, (head + 1) * half)),
        ).flat(),
      ),
    };
  };
  const readMlp = (layer: number): ReferenceMlp => {
    const { channels, of } = unitsOf(layer, KIND_MLP);
    const down = of(ROLE_DOWN) ?? [];
    const count = down.length * channels;
    const stacked = (role: number) => {
      const units = of(role);
      return units && concat(units);
    };
    return {
      channels: count,
      gate: stacked(ROLE_GATE) ?? assertThere(ROLE_GATE, layer),
      up: stacked(ROLE_UP) ?? assertThere(ROLE_UP, layer),
      down: Float64Array.from({ length: width * count }, (_, at) => {
        const col = at % count;
        return down[Math.floor(col / channels)][Math.floor(at / count) * channels + (col % channels)];
      }),
      gateBias: stacked(ROLE_GATE_BIAS),
      upBias: stacked(ROLE_UP_BIAS),
      downBias: optional(ROLE_DOWN_BIAS, layer),
    };
  };
  return {
    width,
    vocabulary: field(HEADER_VOCABULARY),
    heads,
    kvHeads,
    headDim: field(HEADER_HEAD_DIM),
    normEps: view.getFloat32(PRELUDE_BYTES + HEADER_NORM_EPS, true),
    embedding: fixed(ROLE_EMBEDDING),
    head: optional(ROLE_HEAD),
    finalNorm: fixed(ROLE_FINAL_NORM),
    layers: Array.from({ length: field(HEADER_LAYERS) }, (_, layer) => ({
      attentionNorm: fixed(ROLE_ATTENTION_NORM, layer),
      attention: readAttention(layer),
      mlpNorm: fixed(ROLE_MLP_NORM, layer),
      mlp: readMlp(layer),
    })),
  };
}

function concat(parts: readonly Float64Array[]): Float64Array {
  const out = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function assertThere(role: number, layer: number): never {
  throw new Error(`the pack has no tensor of role ${role} (layer ${layer})`);
}
