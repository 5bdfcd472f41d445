// Packs that are damaged or made to harm, and sources that fail: each is refused with words, at once, and nothing else is
// harmed. A trap in the core is a failure everywhere here.

import assert from "node:assert/strict";
import { after, before, type TestContext, test } from "node:test";
import {
  CURVE_PERPLEXITY,
  CURVE_TOP_ONE,
  CURVE_UNITS,
  DTYPE_Q4,
  DTYPE_VECTOR,
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
  PACK_VERSION,
  PRELUDE_BYTES,
  PRELUDE_HASH,
  PRELUDE_HEADER_BYTES,
  PRELUDE_HEADER_HASH,
  PRELUDE_MAGIC,
  PRELUDE_VERSION,
  ROLE_EMBEDDING,
  ROLE_GATE_BIAS,
  ROLE_ROPE,
  ROLE_TOKENIZER,
  STACK_CHANNELS,
  STACK_KIND,
  STACK_LAYER,
  STACK_TENSOR,
  STACK_UNIT_BYTES,
  STACK_UNITS,
  TENSOR_COLS,
  TENSOR_DTYPE,
  TENSOR_GROUP,
  TENSOR_LENGTH,
  TENSOR_OFFSET,
  TENSOR_ROWS,
  UNIT_BYTES,
  UNIT_HASH,
  UNIT_INDEX,
  UNIT_STACK,
} from "../packs/format";
import { type ErrorCode, SnugError } from "../runtime/errors";
import type { Model } from "../runtime/model";
import { Pack } from "../runtime/pack";
import { watchModels } from "./all-returned";
import { type Random, random } from "./random";
import { type PackLayout, readLayout } from "./read-pack";
import { fixture } from "./tokenizer-cases";
import { SMALL_CONFIGS, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { memorySource, openBytes, packCheckpoint, testHash, testHost } from "./write-pack";

watchModels();

const SLOW = 2000; // milliseconds that no refusal may take, on a machine that others use too
const FLIPS = 2000;
const LENGTHS = 200;
const MUTATIONS = 12000;
const LARGE = 64e6; // a plan above this is legal, but not loaded here

let bytes: Uint8Array; // a whole pack
let layout: PackLayout;
let hybrid: Uint8Array; // one with attention and SSMs
let hash: (bytes: Uint8Array) => bigint;

before(async () => {
  const folder = scratchFolder({ after });
  writeCheckpoint(
    folder,
    {
      ...{ hidden_size: 16, intermediate_size: 24, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 8 },
      ...{ vocab_size: 600, mlp_bias: true, attention_bias: true },
    },
    1,
    { files: { "tokenizer.json": fixture() } },
  );
  const curve = [2, 7].map((units) => ({ units, perplexity: 30 - units, topOne: 0.3 }));
  const sizes = { qkChannels: 4, voChannels: 4, mlpChannels: 8 };
  const info = { name: "a test", provenance: "room for other descriptions ".repeat(8) };
  bytes = await packCheckpoint(folder, {
    weights: "q4",
    seed: 1,
    sizes,
    curve,
    info,
    beginToken: 586,
    endTokens: [587],
  });
  layout = readLayout(bytes);
  hash = await testHash();
  const bamba = scratchFolder({ after });
  writeCheckpoint(bamba, { ...SMALL_CONFIGS.bamba, num_hidden_layers: 2, attn_layer_indices: [1] }, 1);
  hybrid = await packCheckpoint(bamba, {
    ...{ weights: "q4", seed: 1, curve, endTokens: [2] },
    sizes: { qkChannels: 4, voChannels: 4, mlpChannels: 16, bcChannels: 4, xzChannels: 4 },
  });
});

/** Makes the hybrid the pack that everything here is about, until the work is done. */
async function aboutHybrid(work: () => Promise<void>): Promise<void> {
  const before = { bytes, layout };
  bytes = hybrid;
  layout = readLayout(bytes);
  try {
    await work();
  } finally {
    ({ bytes, layout } = before);
  }
}

// What is done to a pack

/** Opens, loads whole and generates; how far it came, or the error. Takes no longer than it may. */
async function tryPack(damaged: Uint8Array): Promise<{ stage: string; error: SnugError | null }> {
  const started = performance.now();
  let stage = "open";
  let error: SnugError | null = null;
  try {
    const pack = await openBytes(damaged);
    stage = "plan";
    const plan = pack.plan();
    assert.equal(
      plan.coreBytes + plan.weightsBytes + plan.kvBytes + plan.stateBytes + plan.scratchBytes,
      plan.totalBytes,
    );
    if (plan.totalBytes > LARGE) return { stage: "large", error: null };
    stage = "load";
    const model = await pack.load(plan);
    assert.equal(model.memoryBytes, plan.totalBytes, "memory differs from the plan");
    stage = "generate";
    const prompt = hasTokenizer(model) ? "Hello 1 <|begin|>\u00a0[tool] use caf\u00e9!\n\n  12345 \u{1f469}" : [1, 2];
    await model.generate(prompt, { maxTokens: 3, seed: 1 }).result();
    assert.equal(model.memoryBytes, plan.totalBytes, "memory has grown");
    stage = "done";
  } catch (caught) {
    if (!(caught instanceof SnugError)) throw caught;
    if (caught.code === "internal") throw caught;
    error = caught;
  }
  assert.ok(performance.now() - started < SLOW, `it took ${Math.round(performance.now() - started)} ms to ${stage}`);
  return { stage, error };
}

function hasTokenizer(model: Model): boolean {
  return model.core.exports.text_capacity() > 0;
}

/** Refused while it is opened or loaded, as what it is. */
async function refused(damaged: Uint8Array, what: string, codes: ErrorCode[] = ["pack"]): Promise<SnugError> {
  const { stage, error } = await tryPack(damaged);
  assert.ok(error !== null, `${what}: it came to ${stage}`);
  assert.ok(stage === "open" || stage === "load", `${what}: refused at ${stage}: ${error.message}`);
  assert.ok(codes.includes(error.code), `${what}: ${error.code}: ${error.message}`);
  return error;
}

/** A copy with a change, and all checksums right again, as far as the header still says where they are. */
function changed(change: (view: DataView, copy: Uint8Array) => void, from = bytes): Uint8Array {
  const copy = from.slice();
  change(new DataView(copy.buffer), copy);
  reseal(copy);
  return copy;
}

function reseal(copy: Uint8Array): void {
  const view = new DataView(copy.buffer);
  const headerBytes = view.getUint32(PRELUDE_HEADER_BYTES, true);
  const header = copy.subarray(PRELUDE_BYTES, PRELUDE_BYTES + headerBytes);
  const table = (field: number, entryBytes: number) => {
    const [count, offset] = [0, 4].map((i) => view.getUint32(PRELUDE_BYTES + field + i, true));
    const there = count * entryBytes + offset <= header.length;
    return { count: there ? count : 0, at: PRELUDE_BYTES + offset };
  };
  if (headerBytes >= HEADER_FIELDS_BYTES && header.length === headerBytes) {
    // Where the pack had its chunks and units: mutations move no data.
    const chunks = table(HEADER_CHUNKS, 8);
    for (let i = 0; i < chunks.count; i++) {
      const from = layout.fixedOffset + i * FIXED_CHUNK_BYTES;
      const chunk = copy.subarray(from, Math.min(from + FIXED_CHUNK_BYTES, layout.unitsOffset));
      view.setBigUint64(chunks.at + i * 8, hash(chunk), true);
    }
    const units = table(HEADER_UNITS, UNIT_BYTES);
    for (const [i, { offset, length }] of layout.units.slice(0, units.count).entries())
      view.setBigUint64(units.at + i * UNIT_BYTES + UNIT_HASH, hash(copy.subarray(offset, offset + length)), true);
    view.setBigUint64(PRELUDE_HEADER_HASH, hash(header), true);
  }
  view.setBigUint64(PRELUDE_HASH, hash(copy.subarray(0, PRELUDE_HASH)), true);
}

// Damage that checksums find

test("the pack itself is fine", async () => {
  assert.deepEqual(await tryPack(bytes), { stage: "done", error: null });
  assert.deepEqual(await tryPack(changed(() => {})), { stage: "done", error: null });
  assert.deepEqual(
    changed(() => {}),
    bytes,
  );
});

test("a pack that ends early is refused, wherever it ends", async () => {
  const { int, seed } = random(11);
  const edges = [
    ...[0, PRELUDE_BYTES, layout.fixedOffset, layout.unitsOffset, bytes.length],
    ...layout.tables.flatMap(({ offset, count, entryBytes }) => [offset, offset + count * entryBytes]),
    ...layout.fixed.map(({ offset, length }) => layout.fixedOffset + offset + length),
    ...layout.units.map(({ offset }) => offset),
  ].flatMap((edge) => [edge - 1, edge, edge + 1]);
  const lengths = [...edges, ...Array.from({ length: LENGTHS }, () => int(bytes.length))];
  for (const length of lengths.filter((length) => length >= 0 && length < bytes.length))
    await refused(bytes.slice(0, length), `the first ${length} of ${bytes.length} bytes (seed ${seed})`);
});

test("every flipped bit is found", async () => {
  const { int, seed } = random(12);
  const flip = (bit: number) => {
    const copy = bytes.slice();
    copy[bit >>> 3] ^= 1 << (bit & 7);
    return refused(copy, `bit ${bit & 7} of byte ${bit >>> 3} (seed ${seed})`);
  };
  for (let bit = 0; bit < PRELUDE_BYTES * 8; bit++) await flip(bit);
  for (let i = 0; i < FLIPS; i++) await flip(PRELUDE_BYTES * 8 + int((bytes.length - PRELUDE_BYTES) * 8));
});

test("what is no pack, or one of another version, is called so", async () => {
  const magic = await refused(
    changed((view) => view.setUint32(PRELUDE_MAGIC, 0x46554747, true)),
    "magic",
  );
  assert.match(magic.message, /not a snug pack/);
  for (const version of [0, PACK_VERSION + 1, 0xffffffff]) {
    const error = await refused(
      changed((view) => view.setUint32(PRELUDE_VERSION, version, true)),
      `version ${version}`,
    );
    assert.match(error.message, version > PACK_VERSION ? /update snug/ : /make the pack anew/);
  }
  for (const text of ["", "x", "SNUGPACK", `{"a":1}${" ".repeat(100)}`])
    await refused(new TextEncoder().encode(text), JSON.stringify(text));
  await refused(new Uint8Array(100000), "zeros");
});

// Packs made to harm, with right checksums

/** A number that a field is likely not to expect. */
function oddWord(old: number, r: Random): number {
  const near = [old - 1, old + 1, old * 2, old >>> 1, -old, old ^ (1 << r.int(32)), old + 64, old - 64];
  const known = [0, 1, 2, 3, 7, 8, 16, 63, 64, 255, 65535, 65536, 0x00ffffff, 0x01000000];
  const large = [0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, 0xffffffc0, 0x40000000, 0x7fc00000, 0x7f800000];
  return (r.int(2) ? r.pick(near) : r.int(2) ? r.pick(known) : r.int(2) ? r.pick(large) : r.int(2 ** 32)) >>> 0;
}

/** Somewhere that matters: a field of the prelude or header, an entry of a table, the tokenizer's head or body, a weight. */
function somewhere(r: Random): number {
  const tokenizer = layout.fixed.find(({ role }) => role === ROLE_TOKENIZER) ?? layout.fixed[0];
  const tables = layout.tables.filter(({ field, count }) => count > 0 && field !== HEADER_INFO);
  const word = (from: number, length: number) => from + 4 * r.int(Math.max(1, length >>> 2));
  switch (r.int(10)) {
    case 0:
      return word(0, PRELUDE_HASH);
    case 1:
    case 2:
    case 3:
      return word(PRELUDE_BYTES, HEADER_FIELDS_BYTES);
    case 4:
    case 5:
    case 6: {
      const { offset, count, entryBytes } = r.pick(tables);
      return word(offset, count * entryBytes);
    }
    case 7:
      return word(layout.fixedOffset + tokenizer.offset, 32);
    case 8:
      return word(layout.fixedOffset + tokenizer.offset, tokenizer.length);
    default:
      return word(layout.fixedOffset, bytes.length - layout.fixedOffset);
  }
}

const MUTATED = "packs with odd numbers and right checksums: no trap, no hang, no memory beyond the plan";
test(`${MUTATIONS} ${MUTATED}`, (t) => mutate(t, MUTATIONS, 13));
test(`${MUTATIONS / 2} hybrid ${MUTATED}`, (t) => aboutHybrid(() => mutate(t, MUTATIONS / 2, 14)));

async function mutate(t: TestContext, count: number, from: number): Promise<void> {
  const outcomes = new Map<string, number>();
  const { seed, int } = random(from);
  for (let i = 0; i < count; i++) {
    const own = int(2 ** 32);
    const r = random(own);
    const edits: string[] = [];
    const damaged = changed((view) => {
      for (let edit = 0; edit <= r.int(3); edit++) {
        const at = somewhere(r);
        const value = oddWord(view.getUint32(at, true), r);
        view.setUint32(at, value, true);
        edits.push(`${value} at ${at}`);
      }
    });
    const what = `mutation ${i} of seed ${seed}: ${edits.join(", ")}`;
    const { stage, error } = await tryPack(damaged).catch((cause) => assert.fail(`${what}: ${cause.stack}`));
    const code = error?.code ?? "fine";
    outcomes.set(`${stage}: ${code}`, (outcomes.get(`${stage}: ${code}`) ?? 0) + 1);
    // A context that was made tiny does not hold the prompt.
    const right = stage === "generate" ? ["context"] : ["pack", "unsupported"];
    if (error !== null) assert.ok(right.includes(code), `${what}: ${code} at ${stage}: ${error.message}`);
  }
  t.diagnostic([...outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(", "));
  assert.ok([...outcomes.keys()].includes("done: fine"), "no mutation came through: they are too rough");
}

test("the fields of an SSM that contradict its tensors, or themselves, are refused", async () => {
  const float = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0];
  const edits: [field: number, values: number[]][] = [
    [HEADER_SSM_HEADS, [0, 1, 7, 16, 65536]],
    [HEADER_SSM_HEAD_DIM, [0, 4, 65536]],
    [HEADER_SSM_GROUPS, [0, 1, 3, 4, 9]],
    [HEADER_SSM_STATE, [0, 4, 65536]],
    [HEADER_SSM_TAPS, [0, 1, 2, 4, 65]],
    [HEADER_SSM_NORM_GROUPS, [0, 3, 16]],
    [HEADER_SSM_STEP_LEAST, [float(-1), float(Number.NaN), float(1e30)]],
    [HEADER_SSM_STEP_MOST, [float(-1), float(Number.NaN)]],
  ];
  await aboutHybrid(async () => {
    assert.deepEqual(await tryPack(bytes), { stage: "done", error: null });
    for (const [field, values] of edits)
      for (const value of values) {
        const damaged = changed((view) => {
          view.setUint32(PRELUDE_BYTES + field, value, true);
          if (field === HEADER_SSM_STEP_LEAST) view.setFloat32(PRELUDE_BYTES + HEADER_SSM_STEP_MOST, 1, true);
        });
        await refused(damaged, `${value} at ${field} of the header`);
      }
  });
});

test("counts and lengths past all reason are refused", async () => {
  const words = [0x7fffffff, 0x80000000, 0xffffffff, 0xffffffc0, 0x10000000];
  for (const { field, offset, count, entryBytes } of layout.tables) {
    for (const value of words) {
      await refused(
        changed((view) => view.setUint32(PRELUDE_BYTES + field, value, true)),
        `count ${value} of table ${field}`,
      );
      await refused(
        changed((view) => view.setUint32(PRELUDE_BYTES + field + 4, value, true)),
        `offset ${value} of table ${field}`,
      );
    }
    if (field === HEADER_TENSORS)
      for (let at = offset; at < offset + count * entryBytes; at += 8)
        await tryPack(changed((view) => view.setBigUint64(at, 0xfffffffffffffff0n, true))); // another role is legal
  }
});

test("a header that contradicts itself is refused", async () => {
  const float = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0];
  const old = new DataView(bytes.buffer);
  const header = (field: number, ...values: number[]) => values.map((value) => [PRELUDE_BYTES + field, value] as const);
  /** The field of the table's first and last entry, plus each of these. */
  const entries = (table: number, field: number, ...deltas: number[]) => {
    const { offset, count, entryBytes } = layout.tables.find((one) => one.field === table) ?? assert.fail();
    return [0, count - 1].flatMap((i) => {
      const at = offset + i * entryBytes + field;
      return deltas.map((delta) => [at, (old.getUint32(at, true) + delta) >>> 0] as const);
    });
  };
  const { nan, infinity } = { nan: float(Number.NaN), infinity: float(Number.POSITIVE_INFINITY) };
  const edits = [
    ...[...header(HEADER_LAYERS, 0, 1, 3), ...header(HEADER_WIDTH, 0, 15, 24), ...header(HEADER_VOCABULARY, 0, 599)],
    ...[...header(HEADER_CONTEXT, 0, 2 ** 31), ...header(HEADER_HEADS, 0, 1, 3), ...header(HEADER_KV_HEADS, 0, 2, 3)],
    ...[...header(HEADER_HEAD_DIM, 0, 4, 7), ...header(HEADER_NORM_EPS, nan, infinity, float(-1e-5), float(1))],
    ...[...header(HEADER_BEGIN_TOKEN, 600), ...header(HEADER_END_TOKENS, 9), ...header(HEADER_END_TOKENS + 4, 600)],
    ...[...header(HEADER_MINIMUM_UNITS, layout.units.length + 1), ...header(HEADER_FIXED_TENSORS, 0, 3, 1000)],
    ...header(HEADER_FAMILY, 0, 3, 5, 99),
    ...[...entries(HEADER_STACKS, STACK_UNITS, -1, 1), ...entries(HEADER_STACKS, STACK_LAYER, 7)],
    ...[...entries(HEADER_STACKS, STACK_KIND, 1, -1, 9), ...entries(HEADER_STACKS, STACK_CHANNELS, -1, 1)],
    ...[...entries(HEADER_STACKS, STACK_UNIT_BYTES, -64, 64, 1), ...entries(HEADER_STACKS, STACK_TENSOR, -30, 100)],
    ...[...entries(HEADER_UNITS, UNIT_STACK, 1, 100), ...entries(HEADER_UNITS, UNIT_INDEX, 1, -1)],
    ...entries(HEADER_CURVE, CURVE_UNITS, 100),
    ...[...entries(HEADER_CURVE, CURVE_PERPLEXITY, 2 ** 31, 2 ** 30), ...entries(HEADER_CURVE, CURVE_TOP_ONE, 2 ** 31)],
    ...[...entries(HEADER_TENSORS, TENSOR_ROWS, 1), ...entries(HEADER_TENSORS, TENSOR_COLS, 1)],
    ...[...entries(HEADER_TENSORS, TENSOR_GROUP, 1, 8), ...entries(HEADER_TENSORS, TENSOR_DTYPE, 1, 9)],
    ...[...entries(HEADER_TENSORS, TENSOR_LENGTH, 64), ...entries(HEADER_TENSORS, TENSOR_OFFSET, 1, 2 ** 30)],
  ];
  for (const [at, value] of edits) {
    const damaged = changed((view) => view.setUint32(at, value, true));
    await refused(damaged, `${value} instead of ${old.getUint32(at, true)} at ${at - PRELUDE_BYTES} of the header`, [
      "pack",
      ...(at === PRELUDE_BYTES + HEADER_FAMILY ? (["unsupported"] as const) : []),
    ]);
  }
});

test("weights, norms and scales that are no numbers are refused", async () => {
  const { fixed, stacks, units } = layout;
  const places: [what: string, at: number, bits: "f16" | "f32"][] = [];
  for (const tensor of fixed) {
    const at = layout.fixedOffset + tensor.offset;
    if (tensor.role === ROLE_EMBEDDING) places.push(["a scale of the embedding", at + 2, "f16"]);
    if (tensor.dtype === DTYPE_VECTOR) places.push([`vector ${tensor.role}`, at + tensor.length - 4, "f32"]);
  }
  for (const { stack, offset } of units) {
    for (const tensor of stacks[stack].tensors) {
      if (tensor.dtype === DTYPE_Q4) places.push([`a scale of ${tensor.role}`, offset + tensor.offset + 30, "f16"]);
      else places.push([`vector ${tensor.role}`, offset + tensor.offset, "f32"]);
    }
  }
  assert.ok([ROLE_ROPE, ROLE_GATE_BIAS].every((role) => places.some(([what]) => what === `vector ${role}`)));
  for (const [what, at, bits] of places) {
    // NaN, infinity, and for scales what is below zero.
    const values = bits === "f16" ? [0x7e00, 0x7c00, 0xfc00, 0xbc00, 0x7c01] : [0x7fc00000, 0x7f800000, 0xff800000];
    for (const value of values) {
      const damaged = changed((view) => (bits === "f16" ? view.setUint16 : view.setUint32).call(view, at, value, true));
      const error = await refused(damaged, `${what} = 0x${value.toString(16)}`);
      assert.match(error.message, /not a number/, what);
    }
  }
});

/** The pack with other bytes where its description was, filled up with spaces. */
async function withInfo(text: string | Uint8Array): Promise<Uint8Array> {
  const info = typeof text === "string" ? new TextEncoder().encode(text) : text;
  const table = layout.tables.find(({ field }) => field === HEADER_INFO) ?? assert.fail();
  return changed((view, copy) => {
    const room = layout.fixedOffset - table.offset;
    assert.ok(info.length <= room, `${info.length} bytes do not fit ${room}`);
    copy.fill(0x20, table.offset, layout.fixedOffset);
    copy.set(info, table.offset);
    view.setUint32(PRELUDE_BYTES + HEADER_INFO, room, true);
  });
}

test("a description that is none is refused", async () => {
  const broken = ["", "{", "[]", "null", "1", '"name"', '{"name":1}', '{"licence":[]}', '{"chatTemplate":{}}'];
  for (const text of [...broken, "[".repeat(30), Uint8Array.of(0xff, 0xfe, 0x00)])
    await refused(await withInfo(text), `description ${text}`);
  for (const text of ["{}", '{"name":null}', '{"__proto__":1}', '{"name":"\\ud800"}'])
    assert.equal((await tryPack(await withInfo(text))).stage, "done", text);
});

test("a chat template that does not work says so", async () => {
  for (const template of ["{% for %}", "{{ 1 +", "{% if", "{{ raise_exception('no') }}"]) {
    const pack = await openBytes(await withInfo(JSON.stringify({ chatTemplate: template })));
    const model = await pack.load(pack.plan());
    assert.throws(() => model.chat([{ role: "user", content: "hi" }]), says("unsupported", "chat template"), template);
  }
});

test("a tokenizer of nonsense is refused", async () => {
  const place = layout.fixed.find(({ role }) => role === ROLE_TOKENIZER) ?? assert.fail();
  const at = layout.fixedOffset + place.offset;
  const { int } = random(14);
  const fill = (byte: () => number) =>
    changed((_, copy) => {
      for (let i = 0; i < place.length; i++) copy[at + i] = byte();
    });
  await refused(
    fill(() => 0),
    "zeros",
    ["pack", "unsupported"],
  );
  await refused(
    fill(() => 0xff),
    "ones",
    ["pack", "unsupported"],
  );
  for (let i = 0; i < 20; i++)
    await refused(
      fill(() => int(256)),
      `noise ${i}`,
      ["pack", "unsupported"],
    );
});

// Sources

test("a source that fails is told apart from a damaged pack, whenever it fails", async () => {
  const reads = (await openAndLoad(memorySource(bytes))).reads.length;
  assert.ok(reads > 4);
  for (let fail = 0; fail < reads; fail++) {
    for (const how of ["rejects", "throws", "text"]) {
      const source = memorySource(bytes, "far.snug");
      const read = source.read;
      let open = 0;
      source.read = (offset, target) => {
        if (source.reads.length === fail) {
          if (how === "throws") throw new TypeError("no wire");
          return Promise.reject(how === "text" ? "no wire" : new Error("no wire"));
        }
        open++;
        return read(offset, target).finally(() => open--);
      };
      await assert.rejects(openAndLoad(source), says("source", "far.snug", "no wire"), `read ${fail} ${how}`);
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal(open, 0, "a read is left hanging");
    }
  }
});

test("a source that returns too little is found out", async () => {
  const whole = memorySource(bytes);
  for (let short = 0; short < 6; short++) {
    const source = memorySource(bytes);
    let count = 0;
    source.read = (offset, target) =>
      whole.read(offset, count++ === short ? target.subarray(0, target.length >>> 1) : target);
    await assert.rejects(openAndLoad(source), says("pack", "damaged"), `read ${short}`);
  }
});

async function openAndLoad(source: ReturnType<typeof memorySource>) {
  const pack = await Pack.open(source, testHost);
  await pack.load(pack.plan());
  return source;
}
