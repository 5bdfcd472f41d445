// A plan for a device: what the core lays out where it cannot look is what it lays out for itself, byte for byte. The
// device here is an array.

import assert from "node:assert/strict";
import { before, type TestContext, test } from "node:test";
import {
  ATTENTION_TABLE,
  DEVICE_ALIGN,
  DEVICE_UNIT,
  FLAG_ADD,
  LOAD_SLOTS,
  MATMUL_BIAS,
  MATMUL_CODES,
  MATMUL_OUT,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_FLAGS,
  OP_MATMUL,
  PLAN_BYTES,
  PLAN_DEVICE_BYTES,
  READ_BYTES,
  READ_PIECES,
  ROW_BYTES,
  ROW_OUTPUT,
  ROW_TOKEN,
  STATUS_ARGUMENT,
  STATUS_CORRUPT,
  STATUS_STATE,
} from "../assembly/abi";
import {
  DTYPE_VECTOR,
  FIXED_CHUNK_BYTES,
  HEADER_CHUNKS,
  HEADER_FIELDS_BYTES,
  HEADER_FIXED_TENSORS,
  HEADER_STACKS,
  HEADER_TENSORS,
  HEADER_UNITS,
  HEADER_VOCABULARY,
  PRELUDE_BYTES,
  PRELUDE_HASH,
  PRELUDE_HEADER_HASH,
  ROLE_EMBEDDING,
  ROLE_TOKENIZER,
  TENSOR_BYTES,
  TENSOR_LENGTH,
  TENSOR_OFFSET,
  TENSOR_ROLE,
  UNIT_BYTES,
  UNIT_HASH,
} from "../packs/format";
import { SHAPES as SYNTHETIC_SHAPES, syntheticContent } from "../packs/synthetic";
import { writePackBytes } from "../packs/write";
import { Core } from "../runtime/core";
import { SnugError } from "../runtime/errors";
import { coreExecutor } from "../runtime/executor";
import type { Source } from "../runtime/host";
import { loadPlan, type Upload } from "../runtime/load";
import { Model } from "../runtime/model";
import { makePlan, type Plan, type PlanOptions } from "../runtime/plan";
import { type Extent, extentsOf } from "./op-extents";
import { random } from "./random";
import { keptOf, type PackLayout, readLayout } from "./read-pack";
import { FAMILY_SHAPES, ODD, SHAPES } from "./small-models";
import { fixture } from "./tokenizer-cases";
import { SMALL_CONFIGS, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { memorySource, packCheckpoint, rateOf, testHash, testHost, type Weights } from "./write-pack";

const PAGE = 65536;
const UNTOUCHED = 0xee;
const ROWS = 40; // of a step, in both kinds of plan
const MUTATIONS = 800;
const LARGE = 64e6; // a plan above this is legal, but not loaded here
const TEXT = "Once upon a time <|begin|> the king\u00a0said: café!\n\n  12345 \u{1f469}";

interface Planned {
  core: Core;
  plan: Plan;
}

interface Loaded extends Planned {
  device: Uint8Array;
  uploadedBytes: number;
}

/** A core with a plan, in memory of just the planned size. */
async function planIn(source: Source, options: PlanOptions): Promise<Planned> {
  const module = await testHost.loadModule("core.wasm");
  const opened = async (bytes?: number) => {
    const core = new Core(module, source.name, false, bytes);
    const { exports } = core;
    await source.read(0, core.bytes(exports.pack_prelude_ptr(), PRELUDE_BYTES));
    const headerBytes = core.check(exports.pack_prelude(source.size));
    await source.read(PRELUDE_BYTES, core.bytes(exports.pack_header_ptr(), headerBytes));
    core.check(exports.pack_header());
    return { core, plan: makePlan(core, { kv: "f32", ...options }, 1) };
  };
  const { plan } = await opened();
  return plan.totalBytes > 2 ** 30 ? opened() : opened(plan.totalBytes - plan.deviceBytes);
}

/** Loads; the device's bytes are those that were uploaded, once each, and UNTOUCHED elsewhere. */
async function load(source: Source, options: PlanOptions, upload?: Upload): Promise<Loaded> {
  const { core, plan } = await planIn(source, options);
  const device = new Uint8Array(plan.deviceBytes).fill(UNTOUCHED);
  const places: [from: number, to: number][] = [];
  const copy: Upload = (offset, bytes) => {
    assert.ok(offset % 64 === 0 && bytes.length % 64 === 0, `${bytes.length} bytes at ${offset}`);
    assert.ok(bytes.length > 0 && offset >= DEVICE_ALIGN && offset + bytes.length <= device.length);
    device.set(bytes, offset);
    places.push([offset, offset + bytes.length]);
  };
  await loadPlan(core, source, testHost, plan, {}, plan.deviceBytes === 0 ? undefined : async () => upload ?? copy);
  assertApart(places, "uploads");
  return { core, plan, device, uploadedBytes: places.reduce((sum, [from, to]) => sum + to - from, 0) };
}

const onDevice = (options: PlanOptions = {}): PlanOptions => ({ rows: ROWS, ...options, device: "gpu" });

/** Ranges that do not overlap. */
function assertApart(ranges: readonly (readonly [from: number, to: number])[], what: string): void {
  const sorted = ranges.toSorted(([a], [b]) => a - b);
  for (const [i, [from]] of sorted.entries())
    if (i > 0) assert.ok(from >= (sorted[i - 1]?.[1] as number), `${what}: ${sorted[i - 1]} and ${sorted[i]}`);
}

/** Ranges that begin alike as one each: the longest. */
function longest(ranges: readonly (readonly [from: number, to: number])[]): [number, number][] {
  const ends = new Map<number, number>();
  for (const [from, to] of ranges) ends.set(from, Math.max(to, ends.get(from) ?? 0));
  return [...ends];
}

function programOf(core: Core): DataView[] {
  const { exports } = core;
  return Array.from({ length: exports.program_length() }, (_, i) =>
    core.view((exports.program_ptr() >>> 0) + i * OP_BYTES, OP_BYTES),
  );
}

const shapeOf = ({ core, plan }: Planned) => ({
  rows: plan.rows,
  outputs: plan.options.outputs ?? 1,
  vocabulary: core.exports.pack_field(HEADER_VOCABULARY),
});

/** Both programs are the same but for addresses, and what their weights' addresses reach is the same. */
function assertSameWeights(own: Loaded, loaded: Loaded): void {
  const [ops, deviceOps] = [programOf(own.core), programOf(loaded.core)];
  assert.equal(deviceOps.length, ops.length);
  for (const [i, op] of deviceOps.entries()) {
    const extents = extentsOf(op, shapeOf(loaded));
    const addresses = new Set(extents.map(({ field }) => field));
    for (let field = 0; field < OP_BYTES; field += 4) {
      const [want, got] = [ops[i].getUint32(field, true), op.getUint32(field, true)];
      const isFlag = field === MATMUL_BIAS || field === MATMUL_CODES;
      const isTable = op.getUint32(OP_CODE, true) === OP_ATTENTION && field === ATTENTION_TABLE;
      if (isTable) assert.equal(got, 0, "what runs a device asks the core for the table of blocks");
      else if (!addresses.has(field))
        assert.equal(got, want, `op ${i}, code ${op.getUint32(OP_CODE, true)}: field ${field}`);
      else if (op.getUint32(OP_CODE, true) === OP_MATMUL && isFlag) assert.equal(got === 0, want === 0);
    }
    for (const { kind, field, bytes } of extents) {
      if (kind !== "weight" || bytes === 0) continue;
      const from = op.getUint32(field, true) * DEVICE_UNIT;
      const same = Buffer.compare(
        loaded.device.subarray(from, from + bytes),
        own.core.bytes(ops[i].getUint32(field, true), bytes),
      );
      assert.equal(same, 0, `op ${i}, code ${op.getUint32(OP_CODE, true)}: weights at field ${field}`);
    }
  }
}

/** All that the program reaches lies in the device. */
function assertInside(planned: Planned): void {
  for (const op of programOf(planned.core))
    for (const { field, bytes } of extentsOf(op, shapeOf(planned))) {
      const from = op.getUint32(field, true) * DEVICE_UNIT;
      const inside = from >= DEVICE_ALIGN && from + bytes <= planned.core.exports.device_bytes();
      assert.ok(bytes === 0 || inside, `${bytes} bytes at ${from}`);
    }
}

/** It does, and nothing lies where it may not: see the comments. */
function assertPlaces(planned: Planned): void {
  assertInside(planned);
  const groups: [Extent, number, number][][] = [[]];
  for (const op of programOf(planned.core)) {
    for (const extent of extentsOf(op, shapeOf(planned))) {
      if (extent.bytes === 0) continue;
      const from = op.getUint32(extent.field, true) * DEVICE_UNIT;
      if (extent.kind !== "weight") assert.equal(from % DEVICE_ALIGN, 0);
      groups.at(-1)?.push([extent, from, from + extent.bytes]);
    }
    if (op.getUint32(OP_CODE, true) === OP_MATMUL && op.getUint32(OP_FLAGS, true) & FLAG_ADD) groups.push([]);
  }
  const of = (items: [Extent, number, number][], ...kinds: Extent["kind"][]) =>
    items.filter(([{ kind }]) => kinds.includes(kind)).map(([, from, to]) => [from, to] as const);
  // What a sublayer works on is apart; what is passed on begins alike.
  for (const group of groups) assertApart(longest(of(group, "scratch")), "scratch of a sublayer");
  // Caches and states are each op's own.
  assertApart(of(groups.flat(), "kept"), "caches and states");
  assertApart(longest(of(groups.flat(), "weight")), "weights");
  const scratch = of(groups.flat(), "scratch");
  const all = [Math.min(...scratch.map(([from]) => from)), Math.max(...scratch.map(([, to]) => to))] as const;
  const lasting = longest(of(groups.flat(), "kept", "weight"));
  // The logits lie behind what all sublayers share, before caches and states.
  assertApart([all, ...lasting], "what lasts, and what a step works on");
}

function assertAddsUp(plan: Plan): void {
  const parts = [plan.coreBytes, plan.weightsBytes, plan.kvBytes, plan.stateBytes, plan.scratchBytes];
  assert.equal(
    parts.reduce((sum, part) => sum + part, 0),
    plan.totalBytes,
  );
  for (const part of parts) assert.ok(part >= 0);
  assert.equal((plan.totalBytes - plan.deviceBytes) % PAGE, 0);
  assert.equal(plan.deviceBytes % DEVICE_ALIGN, 0);
}

/** All units, half of them, one and none. */
const someCuts = (units: number) => [...new Set([units, units >>> 1, 1, 0])];

for (const [index, shape] of [...SHAPES, ...FAMILY_SHAPES, ODD].entries()) {
  for (const weights of shape === ODD ? (["f32"] as const) : (["f32", "q8", "q4"] as const)) {
    test(`${weights}: ${shape.name}`, async (context) => {
      const { bytes, layout } = await smallPack(context, shape, weights, index + 1);
      const lengths = layout.units.map(({ length }) => length);
      for (const units of someCuts(layout.units.length)) {
        const options: PlanOptions = { rows: ROWS, outputs: 3, pruning: rateOf(lengths, units) };
        const own = await load(memorySource(bytes), options);
        const loaded = await load(memorySource(bytes), onDevice(options));
        assert.equal(loaded.plan.keptUnits, units);
        assert.equal(loaded.plan.readBytes, own.plan.readBytes);
        assert.equal(loaded.core.memoryBytes, loaded.plan.totalBytes - loaded.plan.deviceBytes);
        assertAddsUp(loaded.plan);
        assert.equal(loaded.core.exports.device_bytes(), loaded.plan.deviceBytes);
        assertPlaces(loaded);
        assertSameWeights(own, loaded);
      }
      // A narrower cut of what is loaded, whose program is made anew.
      const own = await load(memorySource(bytes), { rows: ROWS });
      const loaded = await load(memorySource(bytes), onDevice());
      for (const { core } of [own, loaded]) {
        for (const [stack, units] of keptOf(layout, layout.units.length >>> 1).entries())
          core.check(core.exports.narrow_stack(stack, units));
        core.check(core.exports.narrow_apply());
      }
      assertPlaces(loaded);
      assertSameWeights(own, loaded);
    });
  }
}

async function smallPack(
  context: TestContext,
  { config, sizes }: (typeof SHAPES)[number],
  weights: Weights,
  seed: number,
): Promise<{ bytes: Uint8Array; layout: PackLayout }> {
  const { folder } = writeCheckpoint(scratchFolder(context), config, seed);
  const bytes = await packCheckpoint(folder, { weights, seed, sizes });
  return { bytes, layout: readLayout(bytes) };
}

// A pack with a tokenizer that begins in one chunk of the fixed part, fills another and ends in a third

let bytes: Uint8Array;
let layout: PackLayout;
let tokenizer: { from: number; to: number };
let hash: (bytes: Uint8Array) => bigint;

before(async (context) => {
  const folder = scratchFolder(context as TestContext);
  const json = fixture();
  const first = 600;
  const letters = (n: number) => [...String(n)].map((digit) => "qwxzjkvyub"[Number(digit)]).join("");
  const count = 12000;
  for (let i = 0; i < count; i++) json.model.vocab[`${letters(i).repeat(40)}${i}`] = first + i;
  const config = {
    ...{ hidden_size: 80, intermediate_size: 600, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 8 },
    ...{ vocab_size: first + count, mlp_bias: true, attention_bias: true, num_hidden_layers: 3 },
    tie_word_embeddings: true,
  };
  writeCheckpoint(folder, config, 1, { files: { "tokenizer.json": json } });
  const sizes = { qkChannels: 4, voChannels: 4, mlpChannels: 8 };
  bytes = await packCheckpoint(folder, { weights: "q8", seed: 1, sizes, group: 16 });
  layout = readLayout(bytes);
  const place = layout.fixed.find(({ role }) => role === ROLE_TOKENIZER) ?? assert.fail();
  tokenizer = { from: place.offset, to: place.offset + place.length };
  hash = await testHash();
  const chunks = [tokenizer.from, tokenizer.to].map((offset) => Math.floor(offset / FIXED_CHUNK_BYTES));
  assert.ok(chunks[1] - chunks[0] >= 2 && tokenizer.from % FIXED_CHUNK_BYTES > 0, `${chunks}`);
  assert.ok(layout.fixed.some(({ offset }) => offset >= tokenizer.to) && tokenizer.to % FIXED_CHUNK_BYTES > 0);
});

/** A text's tokens, and the text that they stand for. */
function encoded({ core, plan }: Planned): { tokens: number[]; text: string } {
  const info = { name: "a test" } as ConstructorParameters<typeof Model>[2];
  const model = new Model({ core, executor: coreExecutor(core), plan }, testHost, info);
  const tokens = model.encode(TEXT.repeat(300));
  assert.ok(tokens.length > 1000);
  return { tokens, text: model.decode(tokens) };
}

test("the tokenizer stays with the core, and works", async () => {
  const own = await load(memorySource(bytes), { rows: ROWS });
  const loaded = await load(memorySource(bytes), onDevice());
  assertSameWeights(own, loaded);
  assertPlaces(loaded);
  assert.deepEqual(encoded(loaded), encoded(own));
  // All of the fixed part but the tokenizer is uploaded, and nothing twice.
  const fixedBytes = layout.unitsOffset - layout.fixedOffset;
  const spared = fixedBytes - (Math.ceil(tokenizer.to / 64) * 64 - tokenizer.from);
  const unitBytes = layout.units.reduce((sum, { length }) => sum + length, 0);
  assert.equal(loaded.uploadedBytes, spared + unitBytes);
  assert.ok(loaded.plan.weightsBytes >= spared + unitBytes);
  assert.ok(loaded.plan.weightsBytes < spared + unitBytes + (layout.stacks.length + 1) * DEVICE_ALIGN);
});

/** How many pieces each chunk of the fixed part has for the device. */
function chunkPieces({ core }: Planned, of: PackLayout): number[] {
  const { exports } = core;
  return Array.from({ length: Math.ceil((of.unitsOffset - of.fixedOffset) / FIXED_CHUNK_BYTES) }, (_, i) => {
    assert.equal(exports.load_move(i, 0), 0);
    const pieces = core.view(exports.load_read_ptr(), READ_BYTES).getFloat64(READ_PIECES, true);
    assert.equal(exports.load_move(i, Math.max(pieces, 1)), STATUS_ARGUMENT);
    return pieces;
  });
}

test("a chunk has a piece before the tokenizer, one behind it, both or none", async (context) => {
  const loaded = await load(memorySource(bytes), onDevice());
  const chunkOf = (offset: number) => Math.floor(offset / FIXED_CHUNK_BYTES);
  const pieces = chunkPieces(loaded, layout);
  assert.deepEqual(
    pieces,
    pieces.map((_, i) => (i > chunkOf(tokenizer.from) && i < chunkOf(tokenizer.to) ? 0 : 1)),
  );
  assert.equal(loaded.core.exports.load_move(loaded.core.exports.load_reads(), 0), STATUS_ARGUMENT);

  const { folder } = writeCheckpoint(scratchFolder(context), { vocab_size: 600 }, 1, {
    files: { "tokenizer.json": fixture() },
  });
  const small = await packCheckpoint(folder, { weights: "q4" });
  const [own, one] = [await load(memorySource(small), { rows: ROWS }), await load(memorySource(small), onDevice())];
  assert.deepEqual(chunkPieces(one, readLayout(small)), [2]);
  assertSameWeights(own, one);
  assert.deepEqual(encoded(one), encoded(own));
  assert.equal(own.core.exports.load_move(0, 0), STATUS_STATE);
});

test("a slot is read into only when what was in it has been uploaded", async () => {
  const pause = () => new Promise((resolve) => setImmediate(resolve));
  const device = new Map<number, Uint8Array>();
  const loaded = await load(memorySource(bytes), onDevice(), async (offset, uploaded) => {
    const before = uploaded.slice();
    for (let i = 0; i < 3; i++) await pause();
    assert.deepEqual(uploaded, before, "a slot changed while it was uploaded");
    device.set(offset, before);
  });
  const { device: want } = await load(memorySource(bytes), onDevice());
  assert.ok(loaded.core.exports.load_reads() > 10 * LOAD_SLOTS);
  const got = new Uint8Array(loaded.plan.deviceBytes).fill(UNTOUCHED);
  for (const [offset, uploaded] of device) got.set(uploaded, offset);
  assert.equal(Buffer.compare(got, want), 0);
});

test("an upload that fails ends the load, and a plan for a device needs one", async () => {
  const failing = load(memorySource(bytes), onDevice(), () => Promise.reject(new Error("the device is gone")));
  await assert.rejects(failing, /the device is gone/);
  const source = memorySource(bytes);
  const { core, plan } = await planIn(source, onDevice());
  await assert.rejects(loadPlan(core, source, testHost, plan, {}), says("internal", "uploads"));
});

// Damage

/** A copy with a change, and all checksums right again where the pack had them. */
function resealed(change: (view: DataView) => void, from = bytes, layout = readLayout(from)): Uint8Array {
  const copy = from.slice();
  const view = new DataView(copy.buffer);
  change(view);
  const tableAt = (field: number) => layout.tables.find((one) => one.field === field)?.offset ?? assert.fail();
  for (let from = layout.fixedOffset, i = 0; from < layout.unitsOffset; from += FIXED_CHUNK_BYTES, i++) {
    const chunk = copy.subarray(from, Math.min(from + FIXED_CHUNK_BYTES, layout.unitsOffset));
    view.setBigUint64(tableAt(HEADER_CHUNKS) + i * 8, hash(chunk), true);
  }
  for (const [i, { offset, length }] of layout.units.entries()) {
    const at = tableAt(HEADER_UNITS) + i * UNIT_BYTES + UNIT_HASH;
    view.setBigUint64(at, hash(copy.subarray(offset, offset + length)), true);
  }
  view.setBigUint64(PRELUDE_HEADER_HASH, hash(copy.subarray(PRELUDE_BYTES, layout.fixedOffset)), true);
  view.setBigUint64(PRELUDE_HASH, hash(copy.subarray(0, PRELUDE_HASH)), true);
  return copy;
}

/** Refused in both kinds of plan, in the same words. */
async function refused(damaged: Uint8Array, what: string, words: RegExp): Promise<void> {
  const messages = [];
  for (const options of [{ rows: ROWS }, onDevice()]) {
    const error = await load(memorySource(damaged), options).then(
      () => assert.fail(`${what}: it was loaded`),
      (cause) => cause,
    );
    assert.ok(error instanceof SnugError, String(error.stack));
    assert.equal(error.code, "pack", what);
    messages.push(error.message);
  }
  assert.equal(messages[1], messages[0], what);
  assert.match(messages[0] as string, words, what);
}

test("flipped bits are found", async () => {
  const unit = layout.units.at(-1) ?? assert.fail();
  const places = [
    ["before the tokenizer", layout.fixedOffset + 5],
    ["in the tokenizer", layout.fixedOffset + tokenizer.from + 77],
    ["in a chunk that is all tokenizer", layout.fixedOffset + tokenizer.from + FIXED_CHUNK_BYTES],
    ["behind the tokenizer", layout.unitsOffset - 1],
    ["in the first unit", layout.unitsOffset + 1],
    ["in the last unit", unit.offset + unit.length - 1],
  ] as const;
  for (const [what, at] of places) {
    const copy = bytes.slice();
    copy[at] ^= 4;
    await refused(copy, what, /checksum/);
  }
});

test("scales, vectors and tokenizers that are none are found", async () => {
  const { fixed, stacks, units } = layout;
  const f16: [what: string, at: number][] = [];
  const f32: [what: string, at: number][] = [];
  for (const tensor of fixed) {
    const at = layout.fixedOffset + tensor.offset;
    const groupBytes = 32 + 16 * tensor.group;
    if (tensor.role === ROLE_EMBEDDING) {
      // The first scale, the last one, and those on either side of each border between two chunks.
      const borders = [];
      for (let next = FIXED_CHUNK_BYTES; next < tensor.offset + tensor.length; next += FIXED_CHUNK_BYTES)
        borders.push(Math.floor((next - tensor.offset) / groupBytes) * groupBytes);
      for (const group of [0, tensor.length - groupBytes, ...borders, ...borders.map((at) => at + groupBytes)])
        f16.push([`the embedding's scales at ${group}`, at + group], [`their last at ${group}`, at + group + 30]);
    } else if (tensor.dtype === DTYPE_VECTOR) f32.push([`vector ${tensor.role}`, at + tensor.length - 4]);
  }
  assert.ok(f16.length > 4 && f32.some(([, at]) => at > layout.fixedOffset + tokenizer.to));
  for (const { stack, offset } of [units[0], units[units.length - 1]])
    for (const tensor of stacks[stack].tensors)
      (tensor.dtype === DTYPE_VECTOR ? f32 : f16).push([`unit's ${tensor.role}`, offset + tensor.offset]);
  for (const [what, at] of f16)
    for (const value of [0x7e00, 0xbc00])
      await refused(
        resealed((view) => view.setUint16(at, value, true)),
        what,
        /not a number/,
      );
  for (const [what, at] of f32)
    await refused(
      resealed((view) => view.setUint32(at, 0x7fc00000, true)),
      what,
      /not a number/,
    );
  const start = layout.fixedOffset + tokenizer.from;
  await refused(
    resealed((view) => view.setUint32(start, 0xffffffff, true)),
    "the tokenizer",
    /cannot be/,
  );
});

test("a tensor that reaches into the tokenizer cannot be set aside", async () => {
  const table = layout.tables.find(({ field }) => field === HEADER_TENSORS) ?? assert.fail();
  const view = new DataView(bytes.buffer);
  const records = Array.from({ length: view.getUint32(PRELUDE_BYTES + HEADER_FIXED_TENSORS, true) }, (_, i) => {
    const at = table.offset + i * TENSOR_BYTES;
    return { at, role: view.getUint32(at + TENSOR_ROLE, true), length: view.getBigUint64(at + TENSOR_LENGTH, true) };
  });
  const last = records.at(-1) ?? assert.fail();
  const behind = BigInt(Math.ceil(tokenizer.to / 64) * 64);
  const start = BigInt(tokenizer.from);
  for (const [offset, fits] of [
    [behind, true],
    [behind - 64n, false],
    [start + 64n, false],
    [start, false],
    [start - ((last.length + 63n) / 64n) * 64n, true],
    [start - 64n, last.length <= 64n],
  ] as const) {
    const moved = resealed((view) => view.setBigUint64(last.at + TENSOR_OFFSET, offset, true));
    const module = await testHost.loadModule("core.wasm");
    const core = new Core(module, "test", false);
    const { exports } = core;
    core.bytes(exports.pack_prelude_ptr(), PRELUDE_BYTES).set(moved.subarray(0, PRELUDE_BYTES));
    const headerBytes = core.check(exports.pack_prelude(moved.length));
    core.bytes(exports.pack_header_ptr(), headerBytes).set(moved.subarray(PRELUDE_BYTES, PRELUDE_BYTES + headerBytes));
    core.check(exports.pack_header());
    assert.equal(exports.plan_shape(0, 0, 0, 0, 0, 0, 0), 0);
    assert.equal(
      exports.plan_shape(0, 0, 0, 0, 0, 0, 1),
      fits ? 0 : STATUS_CORRUPT,
      `at ${offset} of ${tokenizer.from}`,
    );
  }
});

test("odd numbers in the header, right checksums: no trap, and nothing outside the device", async (context) => {
  const { folder } = writeCheckpoint(scratchFolder(context), { ...SMALL_CONFIGS.bamba, vocab_size: 600 }, 1, {
    files: { "tokenizer.json": fixture() },
  });
  const sizes = { qkChannels: 4, voChannels: 4, mlpChannels: 16, bcChannels: 4, xzChannels: 4 };
  const small = await packCheckpoint(folder, { weights: "q4", seed: 1, sizes });
  const own = readLayout(small);
  const tables = own.tables.filter(({ field }) => field === HEADER_TENSORS || field === HEADER_STACKS);
  const { int, pick, seed } = random(31);
  let loads = 0;
  for (let i = 0; i < MUTATIONS; i++) {
    const table = int(3) === 0 ? { offset: PRELUDE_BYTES, count: 1, entryBytes: HEADER_FIELDS_BYTES } : pick(tables);
    const at = table.offset + 4 * int((table.count * table.entryBytes) / 4);
    const old = new DataView(small.buffer).getUint32(at, true);
    const value = pick([old + 1, old - 1, old + 64, old - 64, old * 2, old >>> 1, 0, 1, 3, 16, 64, 2 ** 31]) >>> 0;
    const damaged = resealed((view) => view.setUint32(at, value, true), small, own);
    const what = `${value} at ${at} instead of ${old} (seed ${seed})`;
    try {
      const { plan } = await planIn(memorySource(damaged), onDevice());
      if (plan.totalBytes > LARGE) continue;
      const loaded = await load(memorySource(damaged), onDevice());
      assertAddsUp(loaded.plan);
      assertInside(loaded);
      loads++;
    } catch (error) {
      assert.ok(error instanceof SnugError && error.code !== "internal", `${what}: ${(error as Error).stack}`);
    }
  }
  assert.ok(loads > MUTATIONS / 50, `${loads} of ${MUTATIONS} were loaded`);
});

// What a host can do with such a core

test("rows are checked, and a step is refused", async () => {
  const { core } = await load(memorySource(bytes), onDevice({ outputs: 2 }));
  const { exports } = core;
  const row = (i: number) => core.view((exports.rows_ptr() >>> 0) + i * ROW_BYTES, ROW_BYTES);
  core.bytes(exports.rows_ptr(), ROWS * ROW_BYTES).fill(0);
  row(1).setUint32(ROW_OUTPUT, 1, true);
  assert.equal(exports.step_begin(2), 1);
  assert.equal(exports.step_begin(ROWS), 1);
  assert.ok(exports.step_begin(ROWS + 1) < 0);
  row(0).setUint32(ROW_TOKEN, 0xffffffff, true);
  assert.ok(exports.step_begin(1) < 0);
  row(0).setUint32(ROW_TOKEN, 0, true);
  assert.equal(exports.step(2), STATUS_STATE);
  assert.equal(exports.step_ops(0, 1), STATUS_STATE);
  // The logits are the host's to bring: they are not where the program writes them.
  const vocabulary = exports.pack_field(HEADER_VOCABULARY);
  core.floats(exports.logits_ptr(), 2 * vocabulary).fill(0);
  core.floats(exports.logits_ptr(), 2 * vocabulary)[vocabulary + 5] = 1;
  assert.equal(exports.logits_best(1), 5);
  core.check(exports.logits_configure(0, 0, 1, 0, 1, 1, 0));
  assert.equal(exports.logits_choose(1, 0), 5);
  assert.ok((programOf(core).at(-1) as DataView).getUint32(MATMUL_OUT, true) > 0);
});

test("a budget is kept to, and more of it never keeps less", async () => {
  const source = memorySource(bytes);
  const { plan: all } = await planIn(source, onDevice());
  assert.equal(all.totalBytes, all.maximumBytes);
  const { plan: least } = await planIn(source, onDevice({ memory: all.minimumBytes }));
  assert.equal(least.totalBytes, least.minimumBytes);
  await assert.rejects(planIn(source, onDevice({ memory: all.minimumBytes - 1 })), says("budget"));
  let before = least;
  for (let i = 1; i <= 20; i++) {
    const memory = Math.floor(all.minimumBytes + ((all.maximumBytes - all.minimumBytes) * i) / 20);
    const { plan } = await planIn(source, onDevice({ memory }));
    assertAddsUp(plan);
    assert.ok(plan.totalBytes <= memory && plan.keptUnits >= before.keptUnits && plan.totalBytes >= before.totalBytes);
    before = plan;
  }
  assert.equal(before.keptUnits, all.units);
});

test("rows that nobody asked for leave room for the model", async () => {
  const source = memorySource(bytes);
  const planned = async (memory: number, more: PlanOptions = {}) =>
    (await planIn(source, { device: "gpu", memory, ...more })).plan;
  const whole = (await planIn(source, { device: "gpu" })).plan;
  assert.equal(whole.totalBytes, whole.maximumBytes);
  for (const rows of [512, 256, 128, 64]) {
    const { plan } = await planIn(source, { device: "gpu", rows });
    const fitting = await planned(plan.totalBytes);
    assert.equal(fitting.rows, rows);
    assert.equal(fitting.keptUnits, whole.units);
    assert.equal(fitting.totalBytes, plan.totalBytes);
    const less = await planned(plan.totalBytes - 1);
    assert.equal(less.rows, Math.max(rows / 2, 64));
    assert.equal(less.keptUnits === whole.units, rows > 64);
    for (const { minimumBytes, maximumBytes } of [fitting, less])
      assert.deepEqual([minimumBytes, maximumBytes], [whole.minimumBytes, whole.maximumBytes]);
  }
  const least = await planned(whole.minimumBytes);
  assert.equal(least.rows, 64);
  assert.equal(least.totalBytes, whole.minimumBytes);
  const judged = (await planIn(source, { device: "gpu", outputs: 100 })).plan;
  assert.equal((await planned(judged.minimumBytes, { outputs: 100 })).rows, 100, "an output is a row");
  const asked = (await planIn(source, { device: "gpu", rows: 100 })).plan;
  assert.equal((await planned(asked.minimumBytes, { rows: 100 })).rows, 100);
  await assert.rejects(planned(asked.minimumBytes - 1, { rows: 100 }), { code: "budget" });
});

test("defaults: more rows, one thread; nothing in a device without one", async () => {
  const { plan } = await planIn(memorySource(bytes), { device: "gpu", threads: 7 });
  assert.equal(plan.rows, 512);
  assert.equal(plan.threads, 1);
  const own = await planIn(memorySource(bytes), { device: "cpu" });
  assert.equal(own.plan.rows, 64);
  assert.equal(own.plan.deviceBytes, 0);
  assert.equal(own.core.view(own.core.exports.plan_ptr(), PLAN_BYTES).getFloat64(PLAN_DEVICE_BYTES, true), 0);
  assert.equal(own.core.exports.device_bytes(), 0);
});

// Models that are larger than 32 bits can address

/** The header of a synthetic pack like Llama-3.1-8B, in 8 bit; of its units only what they measure. */
async function hugeSource(): Promise<Source> {
  const shape = { ...SYNTHETIC_SHAPES["llama-3.1-8b"], vocab_size: 4096 };
  const content = syntheticContent(shape, { weights: "q8" });
  const front = await writePackBytes({ ...content, unit: () => new Uint8Array() }, await testHash());
  return { ...memorySource(front), size: 2 ** 40 };
}

test("a plan of more than 4 GiB, and its rehearsal in a few", async () => {
  const source = await hugeSource();
  const { core, plan } = await planIn(source, onDevice({ context: 4096 }));
  assert.ok(plan.deviceBytes > 7e9 && plan.deviceBytes < 9e9, String(plan.deviceBytes));
  assert.ok(plan.totalBytes - plan.deviceBytes < 40e6, String(plan.totalBytes - plan.deviceBytes));
  assert.equal(plan.kvBytes, 2 * 4 * 32 * 4096 * 1024);
  core.check(core.exports.plan_place());
  assertAddsUp(plan);
  assert.equal(core.exports.device_bytes(), plan.deviceBytes);
  assertPlaces({ core, plan });
  const addresses = programOf(core).map((op) => op.getUint32(MATMUL_OUT, true) * DEVICE_UNIT);
  assert.ok(Math.max(...addresses) > 2 ** 32);
  for (const memory of [4.6e9, 6e9, 2 ** 33, 1e12]) {
    const { plan: cut } = await planIn(source, onDevice({ memory }));
    assert.ok(cut.totalBytes <= memory && (cut.keptUnits === cut.units || cut.totalBytes > memory - 4e6), `${memory}`);
  }

  const rehearsed = await planIn(source, onDevice({ context: 256 }));
  rehearsed.core.check(rehearsed.core.exports.load_rehearsal());
  const arena = rehearsed.core.exports.device_bytes();
  const { kvBytes, scratchBytes, deviceBytes } = rehearsed.plan;
  assert.ok(deviceBytes > 7e9);
  // Weights take a stack's bytes, or the fewest that no cache holds.
  const stackBytes = rehearsed.plan.layers.flatMap(({ stacks }) => stacks.map((one) => one.keptUnits * one.unitBytes));
  const shared = Math.max(2 ** 27, ...stackBytes);
  assert.ok(arena <= shared + kvBytes + scratchBytes && arena > shared + kvBytes, String(arena));
  assertInside(rehearsed);
  assert.equal(rehearsed.core.exports.step_begin(1), 0);
});

for (const { name, config } of [...FAMILY_SHAPES, { name: "llama", config: SMALL_CONFIGS.llama }])
  test(`a small rehearsal takes what the plan does: ${name}`, async (context) => {
    const { folder } = writeCheckpoint(scratchFolder(context), config, 1);
    const { core, plan } = await planIn(memorySource(await packCheckpoint(folder)), onDevice());
    core.check(core.exports.load_rehearsal());
    assert.equal(core.exports.device_bytes(), plan.deviceBytes);
    assertPlaces({ core, plan });
  });
