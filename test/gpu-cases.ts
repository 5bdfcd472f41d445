// The case list of test/cases.ts, op by op, on a device: see test/gpu-suite.ts.

import {
  ATTENTION_HEADS,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  DEVICE_ALIGN,
  DEVICE_SPLIT_ROWS,
  DEVICE_SPLITS,
  DEVICE_UNIT,
  EMBED_DTYPE,
  EMBED_GROUP,
  EMBED_WIDTH,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_EMBED,
  OP_FLAGS,
  ROW_BYTES,
  ROW_OUTPUT,
  ROW_POSITION,
  ROW_SEQUENCE,
  ROW_TOKEN,
} from "../assembly/abi";
import type { Device } from "../gpu/device";
import { Executor } from "../gpu/executor";
import { tileBytesOf } from "../gpu/passes";
import { ROW_TILE } from "../packs/format";
import type { Field, OpCase } from "./case";
import { CASES } from "./cases";
import type { GpuContext, GpuTest } from "./gpu-test";

/** Between buffers, and behind the last one. */
const GUARD_BYTES = DEVICE_ALIGN;
const GUARD_BYTE = 0xa5;
/** Devices divide and take roots a little less exactly than a CPU, and add in another order. */
const LOOSER = 4;

/** Where not all are run, one case in so many, but of products one of each kind. */
const SKIPPED = 6;

/** The ops; products of codes in both ways, on codes that are there and on those that the kernel makes. */
export function opTests({ device, executes, thorough }: GpuContext): GpuTest[] {
  const own = CASES.filter(({ name }) => device.packedDot || !isCoded(name));
  const used = thorough ? own : thinned(own);
  return used.flatMap(({ name, make }) => [
    { name, run: () => runCase(device, make(), executes, true) },
    ...(isCoded(name) ? [{ name: `${name}, unfused`, run: () => runCase(device, make(), executes, false) }] : []),
  ]);
}

function isCoded(name: string): boolean {
  return name.includes(" int8 ");
}

/** The same ones each time. Of products one of each kind of weights, activations and variant, each of another shape. */
function thinned<T extends { readonly name: string }>(cases: readonly T[]): T[] {
  const kinds = new Map<string, T[]>();
  for (const one of cases) {
    const [op = "", weights = "", activations = ""] = one.name.split(" ");
    const variant = /variant \d+/.exec(one.name)?.[0];
    const kind = variant === undefined ? op : `${op} ${weights} ${activations} ${variant}`;
    kinds.set(kind, [...(kinds.get(kind) ?? []), one]);
  }
  return [...kinds].flatMap(([kind, own], k) =>
    own.filter((_, i) => (kind.includes("variant") ? i === (k * 7) % own.length : i % SKIPPED === 0)),
  );
}

/** Runs one case: throws if an output is out of bounds, or if anything else has changed. */
export async function runCase(device: Device, made: OpCase, executes: boolean, fused: boolean): Promise<void> {
  const places = new Map<string, number>();
  let end = DEVICE_ALIGN;
  for (const [name, bytes] of Object.entries(made.buffers)) {
    places.set(name, end);
    end = align(end + sizeOf(made, name, bytes) + GUARD_BYTES);
  }
  const image = new Uint8Array(end).fill(GUARD_BYTE);
  for (const [name, bytes] of Object.entries(made.buffers)) image.set(bytes, places.get(name));

  const records = [...(made.before ? [{ op: made.before.op, flags: 0, fields: made.before.fields }] : []), made].map(
    ({ op, flags, fields }) => recordOf(op, flags, fields, places),
  );
  const rows = made.rows.length;
  const executor = await Executor.create(device, {
    ...{ records: concatenated(records), fused },
    ...(made.buffers.table && { table: new Uint32Array(made.buffers.table.slice().buffer) }),
    vocabulary: made.op === OP_EMBED ? vocabularyOf(made) : 1,
    capacity: {
      rows,
      outputs: made.rows.filter(({ output }) => output).length || rows,
      sequences: Math.max(...made.rows.map(({ sequence }) => sequence)) + 1,
    },
  });
  try {
    executor.upload(0, image);
    await executor.compiled();
    executor.run(rowRecords(made));
    if (!executes) return;
    const missing = Object.entries(made.want).filter(([name, { values }]) => {
      const isThere = executor.ranges.some(({ start, end: last }) => isInside(places.get(name) as number, start, last));
      return !isThere && !isUnchanged(values, made.buffers[name] as Uint8Array);
    });
    if (missing.length > 0) throw new Error(`${missing[0]?.[0]} is nowhere`);
    for (const { start, end: last } of executor.ranges)
      check(made, places, image, start, await executor.memory(start, last - start));
  } finally {
    executor.destroy();
  }
}

/** got: what lies from `start` on. */
function check(
  { buffers, scratch, want }: OpCase,
  places: ReadonlyMap<string, number>,
  image: Uint8Array,
  start: number,
  got: Uint8Array,
): void {
  const expected = image.slice(start, start + got.length);
  const own = got.slice();
  for (const [name, bytes] of Object.entries(buffers)) {
    const at = (places.get(name) as number) - start;
    if (!isInside(at, 0, got.length)) continue;
    const outcome = want[name];
    if (outcome !== undefined) close(name, floatsOf(own.subarray(at, at + bytes.length), bytes), outcome);
    if (outcome === undefined && !scratch.includes(name)) continue;
    // What may have changed counts as unchanged: all else is compared as it lies.
    const end = scratch.includes(name)
      ? nextPlace(places, name, start + got.length) - start - GUARD_BYTES
      : at + bytes.length;
    expected.set(own.subarray(at, Math.min(end, own.length)), at);
  }
  const changed = own.findIndex((byte, i) => byte !== expected[i]);
  if (changed >= 0) {
    const [name] = [...places].findLast(([, place]) => place <= start + changed) ?? ["nothing"];
    throw new Error(`byte ${start + changed - (places.get(name) ?? 0)} after the start of ${name} has changed`);
  }
}

/** What is there now; behind its end, which no binding shows, what was there before. */
function floatsOf(now: Uint8Array, before: Uint8Array): Float32Array {
  const bytes = before.slice();
  bytes.set(now);
  return new Float32Array(bytes.buffer);
}

/** Is what must come out what was there? Then there need not be anything on the device. */
function isUnchanged(values: Float64Array, bytes: Uint8Array): boolean {
  const before = new Float32Array(bytes.slice().buffer);
  return values.every((value, i) => value === before[i]);
}

function isInside(at: number, start: number, end: number): boolean {
  return at >= start && at < end;
}

function nextPlace(places: ReadonlyMap<string, number>, name: string, end: number): number {
  const own = places.get(name) as number;
  return Math.min(end + GUARD_BYTES, ...[...places.values()].filter((place) => place > own));
}

function close(
  name: string,
  got: Float32Array,
  { values, bound }: { values: Float64Array; bound: Float64Array },
): void {
  let worst = -1;
  let excess = 1;
  let outside = 0;
  for (let i = 0; i < values.length; i++) {
    const [own, want] = [got[i] as number, values[i] as number];
    if (own === want || (Number.isNaN(own) && Number.isNaN(want))) continue;
    const over = Math.abs(own - want) / ((bound[i] as number) * LOOSER);
    if (over <= 1) continue;
    outside++;
    if (worst < 0 || !(over <= excess)) {
      worst = i;
      excess = over;
    }
  }
  if (worst < 0) return;
  throw new Error(
    `${name}: ${outside} of ${values.length} outside; worst at ${worst}: got ${got[worst]}, want ${values[worst]}, bound ${bound[worst]} × ${LOOSER}`,
  );
}

function sizeOf(made: OpCase, name: string, bytes: Uint8Array): number {
  if (made.op !== OP_ATTENTION || name !== "scratch") return bytes.length;
  const word = (at: number) => wordOf(made, at);
  const dims = word(ATTENTION_VO_UNITS) * word(ATTENTION_VO_CHANNELS);
  return Math.max(bytes.length, DEVICE_SPLIT_ROWS * word(ATTENTION_HEADS) * DEVICE_SPLITS * (dims + 2) * 4);
}

function vocabularyOf(made: OpCase): number {
  const word = (at: number) => wordOf(made, at);
  const tile = tileBytesOf(word(EMBED_DTYPE), word(EMBED_WIDTH), word(EMBED_GROUP));
  return ((made.buffers.weight as Uint8Array).length / tile) * ROW_TILE;
}

function wordOf({ fields }: OpCase, at: number): number {
  const field = fields.find((one) => one.at === at);
  if (field === undefined || !("word" in field)) throw new Error(`no word at ${at}`);
  return field.word;
}

function recordOf(
  op: number,
  flags: number,
  fields: readonly Field[],
  places: ReadonlyMap<string, number>,
): Uint8Array {
  const record = new Uint8Array(OP_BYTES);
  const view = new DataView(record.buffer);
  view.setUint32(OP_CODE, op, true);
  view.setUint32(OP_FLAGS, flags, true);
  for (const field of fields) {
    if ("word" in field) view.setUint32(field.at, field.word, true);
    else if ("float" in field) view.setFloat32(field.at, field.float, true);
    else view.setUint32(field.at, ((places.get(field.buffer) as number) + (field.offset ?? 0)) / DEVICE_UNIT, true);
  }
  return record;
}

function rowRecords({ rows }: OpCase): Uint8Array {
  const records = new Uint8Array(rows.length * ROW_BYTES);
  const view = new DataView(records.buffer);
  for (const [t, { token, position, sequence, output }] of rows.entries()) {
    view.setUint32(t * ROW_BYTES + ROW_TOKEN, token, true);
    view.setUint32(t * ROW_BYTES + ROW_POSITION, position, true);
    view.setUint32(t * ROW_BYTES + ROW_SEQUENCE, sequence, true);
    view.setUint32(t * ROW_BYTES + ROW_OUTPUT, Number(output), true);
  }
  return records;
}

function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function align(bytes: number): number {
  return Math.ceil(bytes / DEVICE_ALIGN) * DEVICE_ALIGN;
}
