// Reading weights: every dtype to the last bit, by rows, over shards; and every way in which a file can lie.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { openTensors, readJson } from "../packs/safetensors";
import type { ErrorCode, SnugError } from "../runtime/errors";
import {
  encode,
  type FloatType,
  patchJson,
  type StoredTensor,
  says,
  scratchFolder,
  writeCheckpoint,
  writeRawSafetensors,
  writeSafetensors,
} from "./write-checkpoint";

const FILE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Zeros, subnormals, the ends of each range, ties, and plain numbers. */
const AWKWARD = [
  0,
  -0,
  1,
  -1,
  1.5,
  2 ** -24,
  -(2 ** -24),
  3 * 2 ** -24,
  1023 * 2 ** -24,
  2 ** -14,
  65504,
  -65504,
].concat([0.1, -0.3, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 / 3, 1234.567]);

for (const dtype of ["F32", "F16", "BF16"] as FloatType[]) {
  test(`${dtype} is read to the last bit`, async (t) => {
    const folder = scratchFolder(t);
    const values = Float32Array.from(AWKWARD, (value) => encode(value, dtype).value);
    const shape = [6, 3];
    writeSafetensors(join(folder, FILE), new Map([["w", { dtype, shape, values }]]));
    const tensors = await openTensors(folder);
    assert.deepEqual(await tensors.read("w", shape), values); // deepEqual tells −0 from 0
    assert.deepEqual(await tensors.readRows("w", 1, 2, shape), values.slice(3, 9));
    assert.deepEqual(await tensors.readRows("w", 6, 0), new Float32Array(0));
    await tensors.close();
    await refused(() => tensors.read("w"), "usage", "closed");
  });
}

test("every f16 number is the one that its bits mean", async (t) => {
  const folder = scratchFolder(t);
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((b) => (b & 0x7c00) !== 0x7c00);
  const data = new Uint8Array(bits.buffer);
  const header = { h: { dtype: "F16", shape: [bits.length], data_offsets: [0, data.length] } };
  writeRawSafetensors(join(folder, FILE), header, data);
  const tensors = await openTensors(folder);
  const values = await tensors.read("h");
  await tensors.close();
  values.forEach((value, i) => {
    assert.deepEqual(encode(value, "F16"), { bits: bits[i], value });
  });
  assert.equal(values[bits.indexOf(0x0001)], 2 ** -24);
  assert.equal(values[bits.indexOf(0x03ff)], 1023 / 2 ** 24);
  assert.equal(values[bits.indexOf(0x3555)], 0.333251953125);
  assert.equal(values[bits.indexOf(0xfbff)], -65504);
});

test("a tensor longer than one read is whole, and rows straddle reads", async (t) => {
  const folder = scratchFolder(t);
  const cols = 1021;
  const rows = 3000; // 6 MB in bf16: two reads
  const values = Float32Array.from({ length: rows * cols }, (_, i) => encode((i % 8191) - 4000, "BF16").value);
  writeSafetensors(join(folder, FILE), new Map([["big", { dtype: "BF16", shape: [rows, cols], values }]]));
  const tensors = await openTensors(folder);
  const [whole, part] = await Promise.all([tensors.read("big"), tensors.readRows("big", 2000, 700)]);
  await tensors.close();
  assert.ok(Buffer.from(whole.buffer).equals(Buffer.from(values.buffer)));
  assert.deepEqual(part, values.slice(2000 * cols, 2700 * cols));
});

test("shards and a single file hold the same tensors", async (t) => {
  const folder = scratchFolder(t);
  const single = writeCheckpoint(join(folder, "single"), {}, 7, { dtype: "F32" });
  writeCheckpoint(join(folder, "sharded"), {}, 7, { dtype: "F32", shards: 3 });
  const tensors = await openTensors(join(folder, "sharded"));
  assert.deepEqual([...tensors.entries.keys()].sort(), [...single.tensors.keys()].sort());
  assert.equal(new Set([...tensors.entries.values()].map((entry) => entry.file)).size, 3);
  for (const [name, { shape, values }] of single.tensors) assert.deepEqual(await tensors.read(name, shape), values);
  await tensors.close();
});

test("tensors of dtypes that cannot be read do not stand in the way of the others", async (t) => {
  const folder = scratchFolder(t);
  const header = {
    ids: { dtype: "I64", shape: [1], data_offsets: [0, 8] },
    odd: { dtype: "F4", shape: [3], data_offsets: [8, 10] },
    later: { dtype: "Q99", shape: [7], data_offsets: [10, 12] },
    w: { dtype: "F32", shape: [], data_offsets: [12, 16] },
  };
  writeRawSafetensors(join(folder, FILE), header, new Uint8Array(16));
  const tensors = await openTensors(folder);
  t.after(() => tensors.close());
  assert.deepEqual(await tensors.read("w", []), Float32Array.of(0));
  for (const [name, dtype] of [
    ["ids", "I64"],
    ["odd", "F4"],
    ["later", "Q99"],
  ]) {
    await refused(() => tensors.read(name), "checkpoint", name, "BF16", dtype, "unquantized");
  }
});

test("asking for the wrong thing is refused by name", async (t) => {
  const tensors = await openTensors(writeCheckpoint(scratchFolder(t)).folder);
  t.after(() => tensors.close());
  const name = "model.layers.1.mlp.up_proj.weight";
  await refused(() => tensors.read(name, [80, 49]), "checkpoint", name, "expected shape [80, 49]", "found [80, 48]");
  await refused(() => tensors.read(name, [80]), "checkpoint", "expected shape [80]");
  const missing = "model.layers.2.mlp.up_proj.weight";
  await refused(() => tensors.read(missing), "checkpoint", missing, "missing", "model.layers.0.mlp.up_proj.weight");
  await refused(() => tensors.read("__proto__"), "checkpoint", "__proto__", "missing");
  for (const [first, count] of [
    [79, 2],
    [-1, 1],
    [0, 0.5],
    [81, 0],
  ]) {
    await refused(() => tensors.readRows(name, first, count), "usage", name, "80 rows");
  }
});

for (const dtype of ["F32", "F16", "BF16"] as FloatType[]) {
  for (const value of [NaN, Infinity, -Infinity]) {
    test(`${value} in ${dtype} is refused with its place`, async (t) => {
      const folder = scratchFolder(t);
      const values = new Float32Array(20).fill(1);
      values[13] = value;
      values[17] = NaN;
      writeSafetensors(join(folder, FILE), new Map([["w", { dtype, shape: [4, 5], values }]]));
      const tensors = await openTensors(folder);
      t.after(() => tensors.close());
      await refused(() => tensors.read("w"), "checkpoint", '"w"', `found ${value}`, "[2, 3]");
      await refused(() => tensors.readRows("w", 2, 1), "checkpoint", "[2, 3]");
      assert.equal((await tensors.readRows("w", 0, 2)).length, 10);
    });
  }
}

const header = (changes: object): string =>
  JSON.stringify({
    a: { dtype: "F32", shape: [2], data_offsets: [0, 8] },
    w: { dtype: "F32", shape: [2], data_offsets: [8, 16], ...changes },
  });

/** What the header says, what else the message must hold. The file has 16 bytes of data. */
const LIES: [what: string, header: string, ...words: string[]][] = [
  ["text that is not JSON", "{nope", "JSON"],
  ["bytes that are not UTF-8", "\udcff{", "JSON"],
  ["a list", "[]", "JSON object"],
  ["a tensor that is no object", '{"w": 3}', '"w"', "found 3"],
  ["no dtype", header({ dtype: 7 }), '"w"', "dtype", "found 7"],
  ["no shape", header({ shape: "2" }), '"w"', "shape"],
  ["a negative size", header({ shape: [-2] }), '"w"', "shape", "[-2]"],
  ["a fraction as size", header({ shape: [0.5] }), '"w"', "shape"],
  ["an absurd shape", header({ shape: [2 ** 40, 2 ** 40] }), '"w"', "shape"],
  ["a shape beyond numbers", header({ shape: new Array(40).fill(2 ** 52).concat(0) }), '"w"', "shape"],
  ["no offsets", header({ data_offsets: [8] }), '"w"', "data_offsets", "[8]"],
  ["offsets backwards", header({ data_offsets: [16, 8] }), '"w"', "data_offsets"],
  ["a negative offset", header({ data_offsets: [-8, 0] }), '"w"', "data_offsets"],
  ["an offset beyond numbers", header({ data_offsets: [1e300, 1e300] }), '"w"', "data_offsets"],
  ["too few bytes for the shape", header({ shape: [3] }), '"w"', "F32 [3] takes 12 bytes", "found 8"],
  ["too many bytes for the dtype", header({ dtype: "BF16" }), '"w"', "BF16 [2] takes 4 bytes", "found 8"],
  ["data after the end of the file", header({ data_offsets: [12, 20] }), '"w"', "cut short"],
  ["overlapping tensors", header({ data_offsets: [4, 12] }), '"a"', '"w"', "overlap"],
  ["one tensor inside another", header({ shape: [1], data_offsets: [2, 6] }), '"a"', '"w"', "overlap"],
];

for (const [what, text, ...words] of LIES) {
  test(`a header with ${what} is refused`, async (t) => {
    const folder = scratchFolder(t);
    writeRawSafetensors(join(folder, FILE), text, new Uint8Array(16));
    await refused(() => openTensors(folder), "checkpoint", FILE, ...words);
  });
}

test("a header length that cannot be is refused before anything is allocated", async (t) => {
  const folder = scratchFolder(t);
  const lengths = [0n, 9n, 2n ** 32n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n];
  for (const length of lengths) {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(length);
    writeFileSync(join(folder, FILE), bytes);
    await refused(() => openTensors(folder), "checkpoint", FILE, length === 0n ? "JSON" : "announce a header of");
  }
  for (const size of [0, 1, 7]) {
    writeFileSync(join(folder, FILE), Buffer.alloc(size));
    await refused(() => openTensors(folder), "checkpoint", FILE, `${size} bytes`, "no room");
  }
});

test("a header over the limit is refused though the file is long enough", async (t) => {
  const folder = scratchFolder(t);
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(100_000_001n);
  writeFileSync(join(folder, FILE), bytes);
  truncateSync(join(folder, FILE), 200_000_000); // sparse: takes no room on the disk
  await refused(() => openTensors(folder), "checkpoint", "100000001");
});

test("a file cut at any byte is refused", async (t) => {
  const folder = scratchFolder(t);
  const path = join(folder, FILE);
  writeRawSafetensors(path, header({}), new Uint8Array(16));
  const whole = readFileSync(path);
  for (let size = 0; size < whole.length; size++) {
    writeFileSync(path, whole.subarray(0, size));
    await refused(() => openTensors(folder), "checkpoint", FILE, "Download");
  }
});

test("a file that shrinks after it was opened is refused", async (t) => {
  const { folder } = writeCheckpoint(scratchFolder(t));
  const tensors = await openTensors(folder);
  t.after(() => tensors.close());
  truncateSync(join(folder, FILE), 5000);
  await refused(() => tensors.read("model.norm.weight"), "checkpoint", FILE, "ends at byte", "model.norm.weight");
});

test("a Git LFS pointer is told from weights", async (t) => {
  const folder = scratchFolder(t);
  writeFileSync(join(folder, FILE), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  await refused(() => openTensors(folder), "checkpoint", "Git LFS pointer", "git lfs pull");
});

test("a tensor too large for memory says so", async (t) => {
  const folder = scratchFolder(t);
  const values = 2 ** 31 + 1;
  const text = JSON.stringify({ w: { dtype: "BF16", shape: [values, 1], data_offsets: [0, values * 2] } });
  writeRawSafetensors(join(folder, FILE), text, new Uint8Array(0));
  truncateSync(join(folder, FILE), 8 + text.length + values * 2); // sparse
  const tensors = await openTensors(folder);
  t.after(() => tensors.close());
  await refused(() => tensors.read("w"), "memory", '"w"', "by rows");
  assert.deepEqual(await tensors.readRows("w", values - 3, 3), new Float32Array(3));
});

test("weights that are not there, or of another format, are named", async (t) => {
  const folder = scratchFolder(t);
  await refused(() => openTensors(folder), "checkpoint", FILE, INDEX, "no weights");
  writeFileSync(join(folder, "pytorch_model.bin"), "");
  await refused(() => openTensors(folder), "checkpoint", "pytorch_model.bin", "safetensors first");
  writeFileSync(join(folder, "model-00001-of-00002.safetensors"), "");
  await refused(() => openTensors(folder), "checkpoint", "model-00001-of-00002.safetensors", "Shards need");
  await refused(() => openTensors(join(folder, "nowhere")), "source", "nowhere");
  mkdirSync(join(folder, FILE));
  await refused(() => openTensors(folder), "checkpoint", FILE, "plain file");
});

function sharded(t: TestContext): string {
  return writeCheckpoint(scratchFolder(t), {}, 1, { shards: 2 }).folder;
}

test("an index that names an absent shard is refused", async (t) => {
  const folder = sharded(t);
  unlinkSync(join(folder, "model-00002-of-00002.safetensors"));
  await refused(() => openTensors(folder), "checkpoint", INDEX, "model-00002-of-00002.safetensors", "missing file");
});

test("an index that names the wrong shard, or a tensor that no shard holds, is refused", async (t) => {
  const folder = sharded(t);
  const shard = "model-00001-of-00002.safetensors";
  patchJson(folder, INDEX, { weight_map: { "model.norm.weight": shard, other: shard } });
  await refused(() => openTensors(folder), "checkpoint", INDEX, "other", shard, "does not hold it");
  renameSync(join(folder, "model-00002-of-00002.safetensors"), join(folder, shard));
  await refused(() => openTensors(folder), "checkpoint", "model.norm.weight", shard);
});

test("an index reaches nothing outside its folder", async (t) => {
  const folder = sharded(t);
  const paths = ["../x.safetensors", "/etc/passwd", "a/../../x.safetensors", "..\\x.safetensors", "C:x.safetensors"];
  for (const file of [...paths, "", "..", "x\0.safetensors", "model.bin", 7, null, ["x.safetensors"]]) {
    patchJson(folder, INDEX, { weight_map: { "model.norm.weight": file } });
    await refused(() => openTensors(folder), "checkpoint", INDEX, "model.norm.weight", "Nothing outside the folder");
  }
});

test("an index that is no index is refused", async (t) => {
  const folder = sharded(t);
  for (const map of [undefined, null, 3, [], {}]) {
    patchJson(folder, INDEX, { weight_map: map });
    await refused(() => openTensors(folder), "checkpoint", INDEX, "weight_map");
  }
  for (const text of ["", "{", "[]", "null", "\uFEFFx"]) {
    writeFileSync(join(folder, INDEX), text);
    await refused(() => openTensors(folder), "checkpoint", INDEX, "JSON");
  }
  writeFileSync(join(folder, INDEX), Buffer.of(0x7b, 0xff, 0x7d));
  await refused(() => openTensors(folder), "checkpoint", INDEX, "UTF-8");
});

test("numbers of Python that JSON lacks are read, outside of texts", async (t) => {
  const folder = scratchFolder(t);
  const read = (text: string) => {
    writeFileSync(join(folder, "config.json"), text);
    return readJson(folder, "config.json");
  };
  const special = (name: string) => ({ __float__: name });
  assert.deepEqual(await read('{"limit": [0.0, Infinity], "x": -Infinity,"NaN":NaN}'), {
    ...{ limit: [0, special("Infinity")], x: special("-Infinity"), NaN: special("NaN") },
  });
  const texts = { a: 'say "Infinity", [NaN]', "b\\": "-Infinity\\", c: '\\"NaN' };
  const text = JSON.stringify(texts);
  assert.deepEqual(await read(`${text.slice(0, -1)},"d":Infinity}`), { ...texts, d: special("Infinity") });
  assert.deepEqual(await read(text), texts);
  for (const broken of [
    ...['{"a": Infinity', "{Infinity: 1}", '{"a": 1Infinity}', '{"a": +Infinity}', '{"a": --Infinity}'],
    ...['{"a": InfinityX}', '{"a": infinity}', '{"a": NaN NaN}', '{"a": "Infinity}', '{"a": 5 -Infinity}', "Infinity,"],
  ]) {
    await refused(() => read(broken), "checkpoint", "config.json is not JSON");
  }
});

test("damaged bytes anywhere in a header are read or refused, never worse", async (t) => {
  const folder = scratchFolder(t);
  const path = join(folder, FILE);
  const stored: StoredTensor = { dtype: "F16", shape: [3, 2], values: Float32Array.of(1, 2, 3, 4, 5, 6) };
  writeSafetensors(
    path,
    new Map([
      ["a", stored],
      ["b", stored],
    ]),
  );
  const whole = readFileSync(path);
  let state = 1;
  for (let round = 0; round < 600; round++) {
    const bytes = Buffer.from(whole);
    for (let hits = 0; hits <= round % 3; hits++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      bytes[(state >>> 8) % bytes.length] = state >>> 24;
    }
    writeFileSync(path, bytes);
    try {
      const tensors = await openTensors(folder);
      const reads = [...tensors.entries.keys()].map((name) => tensors.read(name));
      const done = await Promise.allSettled(reads);
      await tensors.close();
      for (const one of done) if (one.status === "rejected") throw one.reason;
    } catch (error) {
      assert.equal((error as SnugError).code, "checkpoint", String(error));
    }
  }
});

async function refused(action: () => Promise<unknown>, code: ErrorCode, ...words: string[]): Promise<void> {
  await assert.rejects(action, says(code, ...words));
}
