// The weights of a pack in the order of a checkpoint, to be written in other formats: codes and scales as they are, so
// that all formats hold the same numbers. For packs in natural order (packs/synthetic.ts), groups of 32, Q4 or Q8.

import { closeSync, openSync, readSync, writeSync } from "node:fs";
import {
  BLOCK_COLS,
  DTYPE_Q4,
  DTYPE_VECTOR,
  HEADER_CONTEXT,
  HEADER_FIXED_TENSORS,
  HEADER_HEAD_DIM,
  HEADER_HEADS,
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
  PRELUDE_HASH,
  PRELUDE_HEADER_BYTES,
  PRELUDE_HEADER_HASH,
  ROLE_DOWN,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_GATE,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_MIXER_NORM,
  ROLE_MLP_NORM,
  ROLE_O,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_UP,
  ROLE_V,
  ROW_TILE,
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
  UNIT_HASH,
  UNIT_STACK,
} from "../../packs/format";
import type { Hash } from "../../packs/write";

/** Columns that share a scale, in every format here. */
export const GROUP = 32;

/** A matrix [rows, cols]: weight = code × scale of its row and group. */
export interface Codes {
  readonly rows: number;
  readonly cols: number;
  readonly codes: Int8Array; // [rows, cols]
  readonly scales: Uint16Array; // f16 [rows, cols / GROUP]
}

/** How the two dims of a RoPE pair i lie in a head's rows: half a head apart, or next to each other. */
export type PairOrder = "halves" | "neighbours";

export type LayerMatrix = "q" | "k" | "v" | "o" | "gate" | "up" | "down";
export type LayerVector = "mixerNorm" | "mlpNorm" | "qBias" | "kBias";

interface Tensor {
  readonly dtype: number;
  readonly rows: number;
  readonly cols: number;
  readonly offset: number; // in the file
  readonly length: number;
}

interface Stack {
  readonly channels: number;
  /** File offsets of the units. */
  readonly units: readonly number[];
  /** By role; offsets from a unit's start. */
  readonly tensors: ReadonlyMap<number, Tensor>;
}

/** Which line of which unit. */
type Line = readonly [unit: number, line: number];

const ROLES: Readonly<Record<LayerMatrix, { kind: number; role: number }>> = {
  q: { kind: KIND_QK, role: ROLE_Q },
  k: { kind: KIND_QK, role: ROLE_K },
  v: { kind: KIND_VO, role: ROLE_V },
  o: { kind: KIND_VO, role: ROLE_O },
  gate: { kind: KIND_MLP, role: ROLE_GATE },
  up: { kind: KIND_MLP, role: ROLE_UP },
  down: { kind: KIND_MLP, role: ROLE_DOWN },
};
const VECTOR_ROLES: Readonly<Record<LayerVector, number>> = {
  mixerNorm: ROLE_MIXER_NORM,
  mlpNorm: ROLE_MLP_NORM,
  qBias: ROLE_Q_BIAS,
  kBias: ROLE_K_BIAS,
};

export class PackWeights {
  readonly bits: 4 | 8;
  readonly layers: number;
  readonly width: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpWidth: number;
  readonly normEps: number;
  readonly #file: number;
  readonly #prelude: DataView;
  readonly #header: DataView;
  readonly #fixed = new Map<string, Tensor>();
  readonly #stacks = new Map<string, Stack>();
  readonly #unitRecords: { stack: number; at: number; offset: number }[] = [];

  constructor(path: string) {
    this.#file = openSync(path, "r+");
    const read = (offset: number, length: number) => new DataView(this.#read(offset, length).buffer);
    this.#prelude = read(0, PRELUDE_BYTES);
    this.#header = read(PRELUDE_BYTES, this.#prelude.getUint32(PRELUDE_HEADER_BYTES, true));
    const field = (offset: number) => this.#header.getUint32(offset, true);
    this.layers = field(HEADER_LAYERS);
    this.width = field(HEADER_WIDTH);
    this.vocabulary = field(HEADER_VOCABULARY);
    this.context = field(HEADER_CONTEXT);
    this.heads = field(HEADER_HEADS);
    this.kvHeads = field(HEADER_KV_HEADS);
    this.headDim = field(HEADER_HEAD_DIM);
    this.normEps = this.#header.getFloat32(HEADER_NORM_EPS, true);
    this.#index();
    const mlp = this.#stack(0, KIND_MLP);
    this.mlpWidth = mlp.units.length * mlp.channels;
    this.bits = mlp.tensors.get(ROLE_DOWN)?.dtype === DTYPE_Q4 ? 4 : 8;
  }

  close(): void {
    closeSync(this.#file);
  }

  /** [vocabulary, width], the head too. */
  embedding(): Codes {
    const tensor = this.#fixedTensor(ROLE_EMBEDDING, NONE);
    return decode(this.#read(tensor.offset, tensor.length), tensor);
  }

  finalNorm(): Float32Array {
    return this.#vector(this.#fixedTensor(ROLE_FINAL_NORM, NONE));
  }

  /** Row-major as in a checkpoint; `pairs` says in which order the rows of q and k stand in each head. */
  matrix(layer: number, name: LayerMatrix, pairs: PairOrder = "halves"): Codes {
    const { kind, role } = ROLES[name];
    const units = this.#units(layer, kind, role);
    if (name === "q" || name === "k") return gatherRows(units, this.#pairRows(layer, name, pairs));
    if (name === "v") return gatherRows(units, this.#headLines(layer, this.kvHeads));
    if (name === "o") return gatherCols(units, this.#headLines(layer, this.heads), name);
    const lines = units.flatMap((unit, u) =>
      Array.from({ length: name === "down" ? unit.cols : unit.rows }, (_, line): Line => [u, line]),
    );
    return name === "down" ? gatherCols(units, lines, name) : gatherRows(units, lines);
  }

  /** A norm, or a bias in the order of its matrix's rows; null where there is none. */
  vector(layer: number, name: LayerVector, pairs: PairOrder = "halves"): Float32Array | null {
    const role = VECTOR_ROLES[name];
    if (name === "mixerNorm" || name === "mlpNorm") return this.#vector(this.#fixedTensor(role, layer));
    const stack = this.#stack(layer, KIND_QK);
    const tensor = stack.tensors.get(role);
    if (tensor === undefined) return null;
    const units = stack.units.map((offset) => this.#vector({ ...tensor, offset: offset + tensor.offset }));
    const lines = this.#pairRows(layer, name === "qBias" ? "q" : "k", pairs);
    return Float32Array.from(lines, ([unit, row]) => (units[unit] as Float32Array)[row] as number);
  }

  /**
   * Makes the scales of o's columns fit formats whose groups lie along a head: where a group of 32 dims of a head comes
   * from several units, they get the scales of the first. Writes to the pack, hashes included.
   */
  alignOutputScales(hash: Hash): void {
    for (let layer = 0; layer < this.layers; layer++) {
      const { channels, units, tensors } = this.#stack(layer, KIND_VO);
      const tensor = tensors.get(ROLE_O) as Tensor;
      const share = Math.max(1, GROUP / channels);
      for (let unit = 0; unit < units.length; unit++) {
        if (unit % share === 0) continue;
        const from = this.#read((units[unit - (unit % share)] as number) + tensor.offset, tensor.length);
        const to = this.#read((units[unit] as number) + tensor.offset, tensor.length);
        for (let at = 0; at < to.length; at += groupBytes(tensor.dtype))
          to.set(from.subarray(at, at + ROW_TILE * 2), at);
        writeSync(this.#file, to, 0, to.length, (units[unit] as number) + tensor.offset);
      }
    }
    for (const { at, offset, stack } of this.#unitRecords)
      this.#header.setBigUint64(at + UNIT_HASH, hash(this.#read(offset, this.#unitBytes(stack))), true);
    const bytes = ({ buffer }: DataView) => new Uint8Array(buffer as ArrayBuffer);
    this.#prelude.setBigUint64(PRELUDE_HEADER_HASH, hash(bytes(this.#header)), true);
    this.#prelude.setBigUint64(PRELUDE_HASH, hash(bytes(this.#prelude).subarray(0, PRELUDE_HASH)), true);
    writeSync(this.#file, bytes(this.#prelude), 0, PRELUDE_BYTES, 0);
    writeSync(this.#file, bytes(this.#header), 0, this.#header.byteLength, PRELUDE_BYTES);
  }

  #index(): void {
    const header = this.#header;
    const fixedStart = PRELUDE_BYTES + header.byteLength;
    const [tensors, stacks, units] = [HEADER_TENSORS, HEADER_STACKS, HEADER_UNITS].map((table) => {
      return { count: header.getUint32(table, true), at: header.getUint32(table + 4, true) };
    }) as [Table, Table, Table];
    const tensor = (index: number, start: number): [role: number, layer: number, tensor: Tensor] => {
      const at = tensors.at + index * TENSOR_BYTES;
      const field = (offset: number) => header.getUint32(at + offset, true);
      const dtype = field(TENSOR_DTYPE);
      if (dtype !== DTYPE_VECTOR && field(TENSOR_GROUP) !== GROUP) throw new Error(`wants groups of ${GROUP}`);
      const [offset, length] = [TENSOR_OFFSET, TENSOR_LENGTH].map((o) => Number(header.getBigUint64(at + o, true)));
      const shape = { dtype, rows: field(TENSOR_ROWS), cols: field(TENSOR_COLS) };
      return [
        field(TENSOR_ROLE),
        field(TENSOR_LAYER),
        { ...shape, offset: start + (offset as number), length: length as number },
      ];
    };
    for (let i = 0; i < header.getUint32(HEADER_FIXED_TENSORS, true); i++) {
      const [role, layer, found] = tensor(i, fixedStart);
      this.#fixed.set(`${layer} ${role}`, found);
    }
    let offset = fixedStart + Number(this.#prelude.getBigUint64(PRELUDE_FIXED_BYTES, true));
    for (let i = 0; i < units.count; i++) {
      const at = units.at + i * UNIT_BYTES;
      const stack = header.getUint32(at + UNIT_STACK, true);
      this.#unitRecords.push({ stack, at, offset });
      offset += this.#unitBytes(stack);
    }
    for (let i = 0; i < stacks.count; i++) {
      const field = (name: number) => header.getUint32(stacks.at + i * STACK_BYTES + name, true);
      const own = this.#unitRecords.filter(({ stack }) => stack === i);
      if (own.length !== field(STACK_UNITS)) throw new Error(`stack ${i} has ${own.length} units`);
      const records = Array.from({ length: field(STACK_TENSORS) }, (_, t) => tensor(field(STACK_TENSOR) + t, 0));
      this.#stacks.set(`${field(STACK_LAYER)} ${field(STACK_KIND)}`, {
        channels: field(STACK_CHANNELS),
        units: own.map((unit) => unit.offset),
        tensors: new Map(records.map(([role, , found]) => [role, found])),
      });
    }
  }

  /** The rows of q or k, in the order that `pairs` asks for: [head][dim]. */
  #pairRows(layer: number, name: "q" | "k", pairs: PairOrder): Line[] {
    const { channels } = this.#stack(layer, KIND_QK);
    const half = channels / 2;
    return Array.from({ length: (name === "q" ? this.heads : this.kvHeads) * this.headDim }, (_, row): Line => {
      const head = Math.floor(row / this.headDim);
      const dim = row % this.headDim;
      const pair = pairs === "halves" ? dim % (this.headDim / 2) : dim >> 1;
      const isSecond = pairs === "halves" ? dim >= this.headDim / 2 : dim % 2 === 1;
      return [Math.floor(pair / half), head * channels + (pair % half) + (isSecond ? half : 0)];
    });
  }

  /** The rows of v or the columns of o: [head][dim]. */
  #headLines(layer: number, heads: number): Line[] {
    const { channels } = this.#stack(layer, KIND_VO);
    return Array.from({ length: heads * this.headDim }, (_, line): Line => {
      const dim = line % this.headDim;
      return [Math.floor(dim / channels), Math.floor(line / this.headDim) * channels + (dim % channels)];
    });
  }

  #units(layer: number, kind: number, role: number): Codes[] {
    const { units, tensors } = this.#stack(layer, kind);
    const tensor = tensors.get(role);
    if (tensor === undefined) throw new Error(`layer ${layer} has no tensor of role ${role}`);
    return units.map((offset) => decode(this.#read(offset + tensor.offset, tensor.length), tensor));
  }

  #stack(layer: number, kind: number): Stack {
    const stack = this.#stacks.get(`${layer} ${kind}`);
    if (stack === undefined) throw new Error(`layer ${layer} has no units of kind ${kind}`);
    return stack;
  }

  #fixedTensor(role: number, layer: number): Tensor {
    const tensor = this.#fixed.get(`${layer} ${role}`);
    if (tensor === undefined) throw new Error(`there is no tensor of role ${role}`);
    return tensor;
  }

  #unitBytes(stack: number): number {
    const at = this.#header.getUint32(HEADER_STACKS + 4, true) + stack * STACK_BYTES;
    return this.#header.getUint32(at + STACK_UNIT_BYTES, true);
  }

  #vector({ offset, rows, cols }: Tensor): Float32Array {
    return new Float32Array(this.#read(offset, rows * cols * 4).buffer);
  }

  #read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    if (readSync(this.#file, bytes, 0, length, offset) !== length) throw new Error("the pack ends too early");
    return bytes;
  }
}

interface Table {
  readonly count: number;
  readonly at: number;
}

function groupBytes(dtype: number): number {
  return ROW_TILE * (2 + (dtype === DTYPE_Q4 ? GROUP / 2 : GROUP));
}

/** See "Tensor data" in packs/format.ts. */
function decode(bytes: Uint8Array<ArrayBuffer>, { dtype, rows, cols }: Tensor): Codes {
  const isQ4 = dtype === DTYPE_Q4;
  const groups = cols / GROUP;
  const scales16 = new Uint16Array(bytes.buffer);
  const codes = new Int8Array(rows * cols);
  const scales = new Uint16Array(rows * groups);
  const blockCols = isQ4 ? BLOCK_COLS : BLOCK_COLS / 2;
  const laneBytes = BLOCK_COLS / 2;
  for (let row = 0; row < rows; row++) {
    const lane = row % ROW_TILE;
    for (let g = 0; g < groups; g++) {
      const group = ((row - lane) / ROW_TILE) * groups + g;
      let from = group * groupBytes(dtype);
      scales[row * groups + g] = scales16[from / 2 + lane] as number;
      from += ROW_TILE * 2 + lane * laneBytes;
      const end = row * cols + (g + 1) * GROUP;
      for (let to = end - GROUP; to < end; to += blockCols, from += ROW_TILE * laneBytes) {
        for (let i = 0; i < laneBytes; i++) {
          const byte = bytes[from + i] as number;
          codes[to + i] = isQ4 ? (byte & 15) - 8 : byte;
          if (isQ4) codes[to + i + laneBytes] = (byte >> 4) - 8;
        }
      }
    }
  }
  return { rows, cols, codes, scales };
}

function gatherRows(units: readonly Codes[], lines: readonly Line[]): Codes {
  const { cols } = units[0] as Codes;
  const groups = cols / GROUP;
  const codes = new Int8Array(lines.length * cols);
  const scales = new Uint16Array(lines.length * groups);
  lines.forEach(([unit, row], to) => {
    const from = units[unit] as Codes;
    codes.set(from.codes.subarray(row * cols, (row + 1) * cols), to * cols);
    scales.set(from.scales.subarray(row * groups, (row + 1) * groups), to * groups);
  });
  return { rows: lines.length, cols, codes, scales };
}

/** Refuses columns whose scales differ inside one of the new groups. */
function gatherCols(units: readonly Codes[], lines: readonly Line[], name: string): Codes {
  const { rows } = units[0] as Codes;
  const cols = lines.length;
  const codes = new Int8Array(rows * cols);
  const scales = new Uint16Array((rows * cols) / GROUP);
  for (let row = 0; row < rows; row++)
    lines.forEach(([unit, col], to) => {
      const from = units[unit] as Codes;
      const scale = from.scales[(row * from.cols + col - (col % GROUP)) / GROUP] as number;
      const at = (row * cols + to - (to % GROUP)) / GROUP;
      if (to % GROUP === 0) scales[at] = scale;
      else if (scales[at] !== scale) throw new Error(`${name}: columns that share a group have two scales`);
      codes[row * cols + to] = from.codes[row * from.cols + col] as number;
    });
  return { rows, cols, codes, scales };
}
