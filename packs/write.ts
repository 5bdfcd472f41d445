// Writes packs: header first, as format.ts draws it, then the fixed part, then the units in their order. The only
// writer; assembly/pack.ts is the only reader.

import { open, rename, rm } from "node:fs/promises";
import { SnugError } from "../runtime/index";
import type { SsmConfig } from "./config";
import {
  ALIGN,
  CURVE_BYTES,
  CURVE_PERPLEXITY,
  CURVE_TOP_ONE,
  CURVE_UNITS,
  END_TOKENS_MAX,
  FIXED_CHUNK_BYTES,
  HEADER_BEGIN_TOKEN,
  HEADER_CHUNKS,
  HEADER_CONTEXT,
  HEADER_CURVE,
  HEADER_END_TOKENS,
  HEADER_FAMILY,
  HEADER_FIELDS_BYTES,
  HEADER_FIXED_TENSORS,
  HEADER_HEAD_DIM,
  HEADER_HEADS,
  HEADER_INFO,
  HEADER_KV_HEADS,
  HEADER_LAYERS,
  HEADER_MINIMUM_UNITS,
  HEADER_NORM_EPS,
  HEADER_SSM_GROUPS,
  HEADER_SSM_HEAD_DIM,
  HEADER_SSM_HEADS,
  HEADER_SSM_NORM_GROUPS,
  HEADER_SSM_STATE,
  HEADER_SSM_STEP_LEAST,
  HEADER_SSM_STEP_MOST,
  HEADER_SSM_TAPS,
  HEADER_STACKS,
  HEADER_TENSORS,
  HEADER_UNITS,
  HEADER_VOCABULARY,
  HEADER_WIDTH,
  NONE,
  PACK_MAGIC_HIGH,
  PACK_MAGIC_LOW,
  PACK_VERSION,
  PRELUDE_BYTES,
  PRELUDE_FILE_BYTES,
  PRELUDE_FIXED_BYTES,
  PRELUDE_HASH,
  PRELUDE_HEADER_BYTES,
  PRELUDE_HEADER_HASH,
  PRELUDE_MAGIC,
  PRELUDE_VERSION,
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
  UNIT_INDEX,
  UNIT_LOSS,
  UNIT_STACK,
} from "./format";

export type Hash = (bytes: Uint8Array) => bigint;

/** A tensor with its stored bytes. `group` is 0 but for Q4 and Q8. */
export interface StoredTensor {
  readonly role: number;
  readonly dtype: number;
  readonly rows: number;
  readonly cols: number;
  readonly group: number;
  readonly bytes: Uint8Array;
}

export interface FixedTensor extends StoredTensor {
  readonly layer: number | null;
}

/** Where the tensors of a unit lie in it. */
export interface UnitLayout {
  readonly tensors: readonly (Omit<StoredTensor, "bytes"> & { readonly offset: number; readonly length: number })[];
  /** A multiple of ALIGN. */
  readonly bytes: number;
}

/** The units of one kind in one layer. */
export interface Stack {
  readonly layer: number;
  readonly kind: number;
  /** Of one unit: MLP channels, or dimensions of each head or group. */
  readonly channels: number;
  readonly units: number;
  readonly layout: UnitLayout;
}

/** A unit in its place in the file. */
export interface OrderedUnit {
  readonly stack: number;
  readonly index: number;
  /** Nats a token that are lost when the pack is cut before this unit. */
  readonly loss: number;
}

export interface CurvePoint {
  readonly units: number;
  readonly perplexity: number;
  readonly topOne: number;
}

export interface PackContent {
  readonly family: number;
  readonly layers: number;
  readonly width: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ssm: SsmConfig | null;
  readonly normEps: number;
  readonly beginToken: number | null;
  readonly endTokens: readonly number[];
  readonly fixed: readonly FixedTensor[];
  readonly stacks: readonly Stack[];
  readonly order: readonly OrderedUnit[];
  readonly minimumUnits: number;
  readonly curve: readonly CurvePoint[];
  readonly info: unknown;
  /** The bytes of a unit, layout.bytes long. */
  unit(stack: number, index: number): Uint8Array | Promise<Uint8Array>;
}

/** Puts the tensors of a unit one behind the other. */
export function layOutUnit(tensors: readonly StoredTensor[]): { layout: UnitLayout; bytes: Uint8Array } {
  let offset = 0;
  const placed = tensors.map(({ role, dtype, rows, cols, group, bytes }) => {
    const at = offset;
    offset = align(offset + bytes.length);
    return { role, dtype, rows, cols, group, offset: at, length: bytes.length };
  });
  const out = new Uint8Array(offset);
  placed.forEach(({ offset: at }, i) => {
    out.set((tensors[i] as StoredTensor).bytes, at);
  });
  return { layout: { tensors: placed, bytes: offset }, bytes: out };
}

/** Writes a pack to `path`, under a partial name until it is whole. Returns its bytes. */
export async function writePackFile(path: string, content: PackContent, hash: Hash): Promise<number> {
  const partial = `${path}.partial`;
  const file = await open(partial, "w").catch((cause: Error) => {
    throw new SnugError("source", `cannot write ${partial}: ${cause.message}`, { cause });
  });
  let bytes = 0;
  try {
    try {
      for await (const piece of packPieces(content, hash)) {
        for (let done = 0; done < piece.length; )
          done += (await file.write(piece, done, piece.length - done, bytes + done)).bytesWritten;
        bytes += piece.length;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (cause) {
    await rm(partial, { force: true });
    if (cause instanceof SnugError) throw cause;
    throw new SnugError("source", `cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
  return bytes;
}

/** A pack in memory. */
export async function writePackBytes(content: PackContent, hash: Hash): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of packPieces(content, hash)) pieces.push(piece);
  return new Uint8Array(Buffer.concat(pieces));
}

async function* packPieces(content: PackContent, hash: Hash): AsyncGenerator<Uint8Array> {
  yield* frontPieces(content, hash);
  for (const { stack, index } of content.order) yield await content.unit(stack, index);
}

/** All that lies before the units. Asks for each unit once, for its checksum. */
export async function* frontPieces(unsorted: PackContent, hash: Hash): AsyncGenerator<Uint8Array> {
  const place = ({ layer, role }: FixedTensor) => ((layer ?? -1) + 1) * 256 + role;
  const content = { ...unsorted, fixed: unsorted.fixed.toSorted((a, b) => place(a) - place(b)) };
  const hashes: bigint[] = [];
  for (const { stack, index } of content.order) hashes.push(hash(await content.unit(stack, index)));
  const fixed = layOutFixed(content.fixed);
  const header = encodeHeader(content, fixed, hashes, hash);
  const unitBytes = content.order.reduce((sum, { stack }) => sum + stackOf(content, stack).layout.bytes, 0);
  yield encodePrelude(header, fixed.bytes, PRELUDE_BYTES + header.length + fixed.bytes + unitBytes, hash);
  yield header;
  yield* fixedChunks(content.fixed, fixed);
}

function stackOf(content: PackContent, stack: number): Stack {
  return content.stacks[stack] as Stack;
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGN) * ALIGN;
}

interface FixedLayout {
  readonly offsets: readonly number[];
  readonly bytes: number;
}

function layOutFixed(tensors: readonly FixedTensor[]): FixedLayout {
  let bytes = 0;
  const offsets = tensors.map((tensor) => {
    const at = bytes;
    bytes = align(bytes + tensor.bytes.length);
    return at;
  });
  return { offsets, bytes };
}

/** The fixed part in pieces of FIXED_CHUNK_BYTES. */
function* fixedChunks(tensors: readonly FixedTensor[], { offsets, bytes }: FixedLayout): Generator<Uint8Array> {
  for (let from = 0; from < bytes; from += FIXED_CHUNK_BYTES) {
    const chunk = new Uint8Array(Math.min(FIXED_CHUNK_BYTES, bytes - from));
    tensors.forEach((tensor, i) => {
      const at = (offsets[i] as number) - from;
      if (at >= chunk.length || at + tensor.bytes.length <= 0) return;
      const skipped = Math.max(0, -at);
      chunk.set(tensor.bytes.subarray(skipped, skipped + chunk.length - Math.max(at, 0)), Math.max(at, 0));
    });
    yield chunk;
  }
}

function encodePrelude(header: Uint8Array, fixedBytes: number, fileBytes: number, hash: Hash): Uint8Array {
  const prelude = new Uint8Array(PRELUDE_BYTES);
  const view = new DataView(prelude.buffer);
  view.setUint32(PRELUDE_MAGIC, PACK_MAGIC_LOW, true);
  view.setUint32(PRELUDE_MAGIC + 4, PACK_MAGIC_HIGH, true);
  view.setUint32(PRELUDE_VERSION, PACK_VERSION, true);
  view.setUint32(PRELUDE_HEADER_BYTES, header.length, true);
  view.setBigUint64(PRELUDE_HEADER_HASH, hash(header), true);
  view.setBigUint64(PRELUDE_FIXED_BYTES, BigInt(fixedBytes), true);
  view.setBigUint64(PRELUDE_FILE_BYTES, BigInt(fileBytes), true);
  view.setBigUint64(PRELUDE_HASH, hash(prelude.subarray(0, PRELUDE_HASH)), true);
  return prelude;
}

function encodeHeader(content: PackContent, fixed: FixedLayout, unitHashes: readonly bigint[], hash: Hash): Uint8Array {
  const tensors = [
    ...content.fixed.map((tensor, i) => ({
      ...tensor,
      layer: tensor.layer ?? NONE,
      offset: fixed.offsets[i] as number,
      length: tensor.bytes.length,
    })),
    ...content.stacks.flatMap(({ layer, layout }) => layout.tensors.map((tensor) => ({ ...tensor, layer }))),
  ];
  const chunkHashes = [...fixedChunks(content.fixed, fixed)].map(hash);
  const info = new TextEncoder().encode(JSON.stringify(content.info));

  let end = HEADER_FIELDS_BYTES;
  const table = (count: number, bytes: number) => {
    const offset = end;
    end = align(end + count * bytes);
    return { count, offset };
  };
  const tables: [field: number, place: { count: number; offset: number }][] = [
    [HEADER_TENSORS, table(tensors.length, TENSOR_BYTES)],
    [HEADER_STACKS, table(content.stacks.length, STACK_BYTES)],
    [HEADER_UNITS, table(content.order.length, UNIT_BYTES)],
    [HEADER_CHUNKS, table(chunkHashes.length, 8)],
    [HEADER_CURVE, table(content.curve.length, CURVE_BYTES)],
    [HEADER_INFO, table(info.length, 1)],
  ];
  const header = new Uint8Array(end);
  const view = new DataView(header.buffer);
  const word = (offset: number, value: number) => view.setUint32(offset, value, true);
  word(HEADER_FAMILY, content.family);
  word(HEADER_LAYERS, content.layers);
  word(HEADER_WIDTH, content.width);
  word(HEADER_VOCABULARY, content.vocabulary);
  word(HEADER_CONTEXT, content.context);
  word(HEADER_HEADS, content.heads);
  word(HEADER_KV_HEADS, content.kvHeads);
  word(HEADER_HEAD_DIM, content.headDim);
  if (content.ssm !== null) {
    const { heads, headDim, groups, state, taps, normGroups, stepLeast, stepMost } = content.ssm;
    word(HEADER_SSM_HEADS, heads);
    word(HEADER_SSM_HEAD_DIM, headDim);
    word(HEADER_SSM_GROUPS, groups);
    word(HEADER_SSM_STATE, state);
    word(HEADER_SSM_TAPS, taps);
    word(HEADER_SSM_NORM_GROUPS, normGroups);
    view.setFloat32(HEADER_SSM_STEP_LEAST, stepLeast, true);
    view.setFloat32(HEADER_SSM_STEP_MOST, stepMost, true);
  }
  view.setFloat32(HEADER_NORM_EPS, content.normEps, true);
  word(HEADER_BEGIN_TOKEN, content.beginToken ?? NONE);
  const endTokens = content.endTokens.slice(0, END_TOKENS_MAX);
  word(HEADER_END_TOKENS, endTokens.length);
  endTokens.forEach((token, i) => {
    word(HEADER_END_TOKENS + 4 + i * 4, token);
  });
  word(HEADER_MINIMUM_UNITS, content.minimumUnits);
  word(HEADER_FIXED_TENSORS, content.fixed.length);
  for (const [field, { count, offset }] of tables) {
    word(field, count);
    word(field + 4, offset);
  }
  const rows = (table: number, bytes: number) => {
    const start = view.getUint32(table + 4, true);
    return (index: number) => start + index * bytes;
  };

  const tensorAt = rows(HEADER_TENSORS, TENSOR_BYTES);
  tensors.forEach((tensor, i) => {
    const at = tensorAt(i);
    word(at + TENSOR_ROLE, tensor.role);
    word(at + TENSOR_LAYER, tensor.layer);
    word(at + TENSOR_DTYPE, tensor.dtype);
    word(at + TENSOR_ROWS, tensor.rows);
    word(at + TENSOR_COLS, tensor.cols);
    word(at + TENSOR_GROUP, tensor.group);
    view.setBigUint64(at + TENSOR_OFFSET, BigInt(tensor.offset), true);
    view.setBigUint64(at + TENSOR_LENGTH, BigInt(tensor.length), true);
  });
  const stackAt = rows(HEADER_STACKS, STACK_BYTES);
  let firstTensor = content.fixed.length;
  content.stacks.forEach((stack, i) => {
    const at = stackAt(i);
    word(at + STACK_LAYER, stack.layer);
    word(at + STACK_KIND, stack.kind);
    word(at + STACK_UNITS, stack.units);
    word(at + STACK_CHANNELS, stack.channels);
    word(at + STACK_UNIT_BYTES, stack.layout.bytes);
    word(at + STACK_TENSOR, firstTensor);
    word(at + STACK_TENSORS, stack.layout.tensors.length);
    firstTensor += stack.layout.tensors.length;
  });
  const unitAt = rows(HEADER_UNITS, UNIT_BYTES);
  content.order.forEach((unit, i) => {
    const at = unitAt(i);
    word(at + UNIT_STACK, unit.stack);
    word(at + UNIT_INDEX, unit.index);
    view.setBigUint64(at + UNIT_HASH, unitHashes[i] as bigint, true);
    view.setFloat32(at + UNIT_LOSS, unit.loss, true);
  });
  const chunkAt = rows(HEADER_CHUNKS, 8);
  chunkHashes.forEach((value, i) => {
    view.setBigUint64(chunkAt(i), value, true);
  });
  const curveAt = rows(HEADER_CURVE, CURVE_BYTES);
  content.curve.forEach((point, i) => {
    const at = curveAt(i);
    word(at + CURVE_UNITS, point.units);
    view.setFloat32(at + CURVE_PERPLEXITY, point.perplexity, true);
    view.setFloat32(at + CURVE_TOP_ONE, point.topOne, true);
  });
  header.set(info, rows(HEADER_INFO, 1)(0));
  return header;
}
