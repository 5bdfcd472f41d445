// Whole programs of small packs against the CPU's core, step by step: "cut", "batch" and "fused".

import type { Row } from "./case";
import type { SmallPack } from "./gpu-fixtures";
import { loadSteps, type Steps, Texts } from "./gpu-steps";
import { compare, type GpuContext, type GpuTest, hostOf } from "./gpu-test";

const ROWS = 16;
const CONTEXT = 320;
/** Prompts: of one row, of few, and of more than a chunk. */
const PROMPTS = [1, 7, 8, 9, 40];
/** Rows of steps after a prompt that is longer than attention takes at once, and twice that. */
const LATER = [1, 3, 1, 9, 1];
const LONG = 288;
/** Of the largest logit. f32 on both sides; the sums are in another order. */
const F32_BOUND = 1e-3;
/** A last digit that differs can round an activation to the next of 255 steps. */
const INT8_BOUND = 5e-2;

type Activations = "f32" | "int8";

interface Program {
  readonly pack: SmallPack;
  readonly cut: SmallPack["cuts"][number];
  readonly activations: Activations;
}

export function programTests(context: GpuContext): GpuTest[] {
  const all = programsOf(context);
  const halved = all.filter(({ pack, cut }) => cut === pack.cuts[1]);
  const used = context.thorough ? { cut: all, batch: halved, fused: halved } : thinned(halved);
  const named = (kind: string, { pack, cut, activations }: Program) =>
    `${kind} ${activations} ${pack.name}, ${cut.units} units`;
  return [
    ...used.cut.map((one) => ({ name: named("cut", one), run: () => cutTest(context, one) })),
    ...used.batch.map((one) => ({ name: named("batch", one), run: () => batchTest(context, one) })),
    ...used.fused.map((one) => ({ name: named("fused", one), run: () => fusedTest(context, one) })),
  ];
}

function programsOf({ fixtures, device }: GpuContext): Program[] {
  const sizes: readonly Activations[] = device.packedDot ? ["f32", "int8"] : ["f32"];
  return fixtures.small
    .filter(({ hasText }) => !hasText)
    .flatMap((pack) =>
      pack.cuts.flatMap((cut) =>
        (pack.weights === "f32" ? (["f32"] as const) : sizes).map((activations) => ({ pack, cut, activations })),
      ),
    );
}

/** The family with all mixers, in codes, and the one with the other kind of MLP: each program takes long to compile. */
function thinned(halved: readonly Program[]) {
  const find = (family: string, weights: string, activations: Activations) =>
    halved.filter(
      (one) => one.pack.family === family && one.pack.weights === weights && one.activations === activations,
    );
  const coded = [...find("bamba", "q4", "int8"), ...find("bamba", "q4", "f32")].slice(0, 1);
  return { cut: [...coded, ...find("nemotron_h", "f32", "f32")], batch: coded, fused: coded };
}

async function cutTest(context: GpuContext, program: Program): Promise<void> {
  await sideBySide(context, program, 1, cutSteps);
}

function* cutSteps(texts: Texts): Generator<Row[]> {
  for (const prompt of PROMPTS) {
    texts.restart(0);
    for (let at = 0; at < prompt; at += ROWS) yield texts.next(0, Math.min(ROWS, prompt - at));
    yield texts.next(0, 1);
    yield texts.next(0, 1);
  }
  texts.restart(0);
  for (let at = 0; at < LONG; at += ROWS) {
    yield texts.next(0, ROWS, "last");
    // One row, and a few, from just before the second split on.
    if (at === 112) yield* LATER.slice(0, 2).map((rows) => texts.next(0, rows));
  }
  for (const rows of LATER) yield texts.next(0, rows);
}

async function batchTest(context: GpuContext, program: Program): Promise<void> {
  await sideBySide(context, program, 3, batchSteps);
}

function* batchSteps(texts: Texts): Generator<Row[]> {
  const decode = (...sequences: number[]) => sequences.flatMap((sequence) => texts.next(sequence, 1));
  yield texts.next(0, 9);
  yield [...texts.next(1, 5), ...decode(0)];
  yield [...decode(1), ...texts.next(2, 12), ...decode(0)];
  yield decode(0, 1, 2);
  yield decode(2, 0, 1);
  yield [...texts.next(0, 2), ...decode(2)];
  yield [...decode(1), ...texts.next(2, 3), ...texts.next(0, 2)];
  texts.restart(1);
  yield [...decode(2), ...texts.next(1, 10, "last"), ...decode(0)];
  yield decode(1, 2);
  yield decode(2);
}

async function sideBySide(
  context: GpuContext,
  { pack, cut, activations }: Program,
  sequences: number,
  steps: (texts: Texts) => Iterable<Row[]>,
): Promise<void> {
  const bytes = await context.fetchBytes(pack.file);
  const host = hostOf(context);
  const common = { pruning: cut.pruning, activations, sequences, rows: ROWS, context: CONTEXT };
  const cpu = await loadSteps(bytes, host, common);
  const gpu = await loadSteps(bytes, host, { ...common, device: context.device });
  const bound = activations === "f32" ? F32_BOUND : INT8_BOUND;
  try {
    await eachStep(context, cpu, gpu, steps(new Texts(cpu.vocabulary, pack.name.length)), bound);
  } finally {
    gpu.end();
  }
}

async function fusedTest(context: GpuContext, { pack, cut, activations }: Program): Promise<void> {
  const bytes = await context.fetchBytes(pack.file);
  const host = hostOf(context);
  const common = { pruning: cut.pruning, activations, rows: ROWS, context: CONTEXT, device: context.device };
  const plain = await loadSteps(bytes, host, { ...common, fused: false });
  const fused = await loadSteps(bytes, host, common);
  try {
    const texts = new Texts(plain.vocabulary, pack.name.length);
    const steps = [1, 3, 1, 9, 16, 8, 2, 1].map((rows) => texts.next(0, rows));
    await eachStep(context, plain, fused, steps, activations === "f32" ? F32_BOUND / 10 : INT8_BOUND);
  } finally {
    plain.end();
    fused.end();
  }
}

async function eachStep(
  { executes }: GpuContext,
  want: Steps,
  got: Steps,
  steps: Iterable<Row[]>,
  bound: number,
): Promise<void> {
  for (const rows of steps) {
    const own = await got.run(rows);
    const right = await want.run(rows);
    const [first] = rows;
    const where = `${rows.length} rows from position ${first?.position} of sequence ${first?.sequence}`;
    if (executes) compare(own, right, bound, where);
  }
}
