// The CPU's kernels over test/cases.ts, debug and release build; and the arithmetic that they share.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AXIS_COLS,
  MATMUL_AXIS,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_PANEL_BYTES,
  MATMUL_PANELS,
  MATMUL_PARTS,
  MATMUL_ROOM,
  MATMUL_ROWS,
  MATMUL_WIDE,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_CONV,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_GATED_NORM,
  OP_MATMUL,
  OP_NORM,
  OP_QUANTIZE,
  OP_ROPE,
  OP_SCAN,
  OP_SELECT,
  OP_SQUARED_RELU,
  OP_STEP_SIZE,
  ROW_BYTES,
  ROW_OUTPUT,
  ROW_POSITION,
  ROW_SEQUENCE,
  ROW_TOKEN,
} from "../assembly/abi";
import { f32FromF16, matrixBytes } from "../packs/encode";
import { ROW_TILE } from "../packs/format";
import { ATTENTIONS, attentionCase, attentionScratch } from "./attention-cases";
import type { Field, OpCase } from "./case";
import { CASES, MATMUL_SCRATCH_BYTES } from "./cases";
import { close, loadTestModule, type TestModule } from "./harness";
import { random } from "./random";

const MODULES = [loadTestModule("debug"), loadTestModule("release"), loadTestModule("relaxed")];

/**
 * Runs one case: fails if an output is out of bounds, or if anything else has changed. worst: error over bound; outputs: what
 * was made, by buffer.
 */
function runCase(
  module: TestModule,
  { before, op, flags, rows, fields, buffers, scratch, want, wantBytes = {} }: OpCase,
): { worst: number; outputs: Record<string, Float32Array> } {
  const { exports, memory } = module;
  module.reset();
  const places = new Map(Object.entries(buffers).map(([name, bytes]) => [name, module.guarded(bytes.length)]));
  const placeOf = (name: string) => places.get(name) ?? assert.fail(`no buffer ${name}`);
  for (const [name, bytes] of Object.entries(buffers)) new Uint8Array(memory.buffer).set(bytes, placeOf(name).ptr);
  const steps = module.put(
    Uint32Array.from({ length: (rows.length * ROW_BYTES) / 4 }, (_, i) => {
      const row = rows[Math.floor((i * 4) / ROW_BYTES)];
      const values = { [ROW_TOKEN]: row.token, [ROW_POSITION]: row.position, [ROW_SEQUENCE]: row.sequence };
      return { ...values, [ROW_OUTPUT]: Number(row.output) }[(i * 4) % ROW_BYTES] ?? 0;
    }),
  );
  const recordOf = (code: number, bits: number, values: readonly Field[]) => {
    const ptr = module.put(new Uint8Array(OP_BYTES));
    const view = new DataView(memory.buffer, ptr, OP_BYTES);
    view.setUint32(OP_CODE, code, true);
    view.setUint32(OP_FLAGS, bits, true);
    for (const field of values) {
      if ("word" in field) view.setUint32(field.at, field.word, true);
      else if ("float" in field) view.setFloat32(field.at, field.float, true);
      else view.setUint32(field.at, placeOf(field.buffer).ptr + (field.offset ?? 0), true);
    }
    return ptr;
  };
  if (before?.op === OP_QUANTIZE) exports.quantize(recordOf(before.op, 0, before.fields), rows.length);
  const record = recordOf(op, flags, fields);

  if (op === OP_EMBED) exports.embed(record, steps, rows.length);
  else if (op === OP_NORM) exports.norm(record, rows.length);
  else if (op === OP_MATMUL) exports.matmul(record, rows.length);
  else if (op === OP_ROPE) exports.rope(record, steps, rows.length);
  else if (op === OP_ATTENTION) exports.attention(record, steps, rows.length);
  else if (op === OP_GATE) exports.gate(record, rows.length);
  else if (op === OP_SELECT) exports.select_rows(record, steps, rows.length);
  else if (op === OP_SQUARED_RELU) exports.squared_relu(record, rows.length);
  else if (op === OP_CONV) exports.conv(record, steps, rows.length);
  else if (op === OP_STEP_SIZE) exports.step_size(record, rows.length);
  else if (op === OP_SCAN) exports.scan(record, steps, rows.length);
  else if (op === OP_GATED_NORM) exports.gated_norm(record, rows.length);
  else assert.fail(`no kernel for op ${op}`);

  let worst = 0;
  const outputs: Record<string, Float32Array> = {};
  for (const [name, bytes] of Object.entries(buffers)) {
    const place = placeOf(name);
    place.check();
    if (scratch.includes(name)) continue;
    const outcome = want[name];
    if (outcome === undefined) {
      const wanted = wantBytes[name] ?? bytes;
      assert.deepEqual(module.get(Uint8Array, place.ptr, bytes.length), wanted, `${name} has changed`);
      continue;
    }
    const got = module.get(Float32Array, place.ptr, outcome.values.length);
    close(got, outcome.values, outcome.bound);
    outputs[name] = got.slice();
    outcome.values.forEach((value, i) => {
      if (outcome.bound[i] > 0) worst = Math.max(worst, Math.abs(got[i] - value) / outcome.bound[i]);
    });
  }
  return { worst, outputs };
}

for (const name of new Set(CASES.map((spec) => spec.name.split(" ")[0]))) {
  test(`kernel ${name}`, (context) => {
    const specs = CASES.filter((spec) => spec.name.startsWith(`${name} `));
    let worst = 0;
    for (const spec of specs) {
      const made = spec.make();
      for (const module of MODULES) {
        try {
          worst = Math.max(worst, runCase(module, made).worst);
        } catch (error) {
          if (error instanceof Error) error.message = `${spec.name} (${module.kind}): ${error.message}`;
          throw error;
        }
      }
    }
    context.diagnostic(`${specs.length} cases; ${worst.toFixed(3)} of the bound at most`);
  });
}

/** The same product, with the tiles of each panel dealt to so many parts that have room for more panels; null: too few tiles. */
function inParts(made: OpCase, parts: number, room: number): OpCase | null {
  const word = (at: number) =>
    made.fields.flatMap((field) => (field.at === at && "word" in field ? field.word : []))[0];
  const [rows, cols, group] = [word(MATMUL_ROWS), word(MATMUL_COLS), word(MATMUL_GROUP)];
  const tiles = Math.ceil(rows / ROW_TILE);
  if (word(MATMUL_AXIS) !== AXIS_COLS || tiles < parts) return null;
  const tileBytes = matrixBytes(word(MATMUL_DTYPE), rows, cols, group) / tiles;
  const panelBytes = word(MATMUL_PANEL_BYTES);
  const weight = new Uint8Array(panelBytes * room).fill(0x55);
  for (let part = 0; part < parts; part++) {
    const start = Math.floor((tiles * part) / parts) * tileBytes;
    const end = part + 1 === parts ? panelBytes : Math.floor((tiles * (part + 1)) / parts) * tileBytes;
    for (let panel = 0; panel < word(MATMUL_PANELS); panel++) {
      const from = panel * panelBytes;
      weight.set(made.buffers.weight.subarray(from + start, from + end), start * room + panel * (end - start));
    }
  }
  const others = made.fields.filter(({ at }) => ![MATMUL_PARTS, MATMUL_ROOM].includes(at));
  const fields = [...others, { at: MATMUL_PARTS, word: parts }, { at: MATMUL_ROOM, word: room }];
  return { ...made, fields, buffers: { ...made.buffers, weight } };
}

test("attention over a cache of codes", (context) => {
  let worst = 0;
  for (const [i, spec] of ATTENTIONS.entries()) {
    const made = attentionCase(spec, random(900 + i), true);
    for (const module of MODULES) worst = Math.max(worst, runCase(module, made).worst);
  }
  context.diagnostic(`${ATTENTIONS.length} cases; ${worst.toFixed(3)} of the bound at most`);
});

test("panels along the columns may lie in parts", (context) => {
  let count = 0;
  for (const spec of CASES.filter(({ name }) => name.startsWith("matmul "))) {
    const made = spec.make();
    for (const [parts, spare] of [
      [2, 0],
      [3, 2],
    ] as const) {
      const panels = made.fields.flatMap((field) =>
        field.at === MATMUL_PANELS && "word" in field ? field.word : [],
      )[0];
      const apart = inParts(made, parts, panels + spare);
      if (apart === null) continue;
      count++;
      for (const module of MODULES) runCase(module, apart);
    }
  }
  assert.ok(count > 20);
  context.diagnostic(`${count} cases`);
});

test("few rows come out the same, number for number, whether vectors are wide or not", (context) => {
  let count = 0;
  for (const spec of CASES.filter(({ name }) => name.startsWith("matmul "))) {
    const made = spec.make();
    const wide = { ...made, fields: [...made.fields, { at: MATMUL_WIDE, word: 1 }] };
    for (const module of MODULES)
      assert.deepEqual(runCase(module, wide).outputs, runCase(module, made).outputs, spec.name);
    count++;
  }
  context.diagnostic(`${count} cases`);
});

test("the cases give ops the scratch that the core gives them", () => {
  for (const { exports } of MODULES) {
    assert.equal(exports.matmul_scratch_bytes(), MATMUL_SCRATCH_BYTES);
    for (const spec of ATTENTIONS) {
      for (const coded of [false, true]) {
        const floats = exports.attention_scratch_floats(
          spec.qk[0] * spec.qk[1],
          spec.vo[0] * spec.vo[1],
          Number(coded),
        );
        assert.equal(floats, attentionScratch(spec, coded));
      }
    }
  }
});

/** Distance in units in the last place of f32 at `want`. */
function ulps(got: number, want: number): number {
  const exponent = Math.max(-126, Math.floor(Math.log2(Math.abs(want))));
  return Math.abs(got - want) / 2 ** (exponent - 23);
}

for (const module of MODULES) {
  const map = (name: string, input: Float32Array | Uint16Array): Float32Array => {
    module.reset();
    const from = module.put(input);
    const to = module.reserve(input.length * 4);
    module.exports[name](from, to, input.length);
    return module.get(Float32Array, to, input.length);
  };

  test(`exp is within 2 units in the last place (${module.kind})`, (context) => {
    const count = 200000;
    const input = Float32Array.from({ length: count }, (_, i) => -87.3 + (175.6 * i) / (count - 1));
    for (let i = 0; i < 600; i++) input[i] = (i % 2 ? -1 : 1) * 2 ** (-140 + i / 4.2); // and small ones of all sizes
    let worst = 0;
    for (const name of ["exp4_all", "exp1_all"]) {
      map(name, input).forEach((got, i) => {
        if (input[i] < -87.3 || input[i] > 88.3) return;
        const off = ulps(got, Math.exp(input[i]));
        assert.ok(off <= 2, `${name}(${input[i]}) = ${got}: ${off} units off`);
        worst = Math.max(worst, off);
      });
    }
    context.diagnostic(`${worst.toFixed(2)} units at most`);
  });

  test(`powers of 2 are within 2 units in the last place (${module.kind})`, (context) => {
    const input = Float32Array.from({ length: 100000 }, (_, i) => (i < 400 ? -(2 ** (7 - i / 2.9)) : (i - 1e5) / 800));
    let worst = 0;
    map("power4_all", input).forEach((got, i) => {
      if (input[i] < -126) assert.ok(got < 2 ** -125, `${input[i]}: ${got}`);
      else worst = Math.max(worst, ulps(got, 2 ** input[i]));
    });
    assert.ok(worst <= 2, `${worst} units off`);
    context.diagnostic(`${worst.toFixed(2)} units at most`);
    const far = map("power4_all", Float32Array.of(Number.NEGATIVE_INFINITY, -1e30, -127, 0));
    assert.deepEqual([...far], [0, 0, 0, 1]);
  });

  test(`exp of what is out of range, and of NaN (${module.kind})`, () => {
    const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;
    const input = Float32Array.of(-infinity, -1e30, -100, -87.4, 88.4, 100, 3e38, infinity, nan, 0, -0, 1e-45);
    for (const name of ["exp4_all", "exp1_all"]) {
      const got = map(name, input);
      assert.deepEqual([...got.subarray(0, 4)], [0, 0, 0, 0], name);
      for (const value of got.subarray(4, 8)) assert.ok(value > 2e38 && value < infinity, `${name}: ${value}`);
      assert.ok(!(got[8] > 0 && got[8] < infinity), `${name}(NaN) looks like a number: ${got[8]}`);
      assert.deepEqual([...got.subarray(9)], [1, 1, 1], name);
    }
  });

  test(`every f16 that a scale may be is read exactly (${module.kind})`, () => {
    const input = Uint16Array.from({ length: 0x7c00 }, (_, bits) => bits);
    const want = Float64Array.from(input, f32FromF16);
    for (const name of ["load_half_all", "load_half4_all"]) close(map(name, input), want, 0);
  });
}
