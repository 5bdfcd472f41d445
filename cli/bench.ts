// snug bench: how fast a pack is on this machine, or a model of any shape, beside what the machine can do at most.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeSyntheticPack } from "../packs/index";
import type { Ceilings, Pack } from "../runtime/index";
import { type Cut, type Measured, measure, median, type OpShare, type Test } from "./bench-measure";
import { readShape } from "./bench-shape";
import { ENGINE_OPTIONS, planFacts, withPack } from "./budget";
import { checkOutput } from "./files";
import { type Command, choice, count, flag, given, list, number, text, usage, type Values } from "./options";
import { digits, type Look, lookOf, megabytes, percent, plain, printJson, table } from "./output";
import { Progress } from "./progress";

const DEFAULTS = { shape: "qwen2.5-0.5b", pp: 512, tg: 64, repetitions: 5 };
const UNDISTURBED_LEAST = 0.9;

const OPTIONS = {
  shape: text("SHAPE", "instead of FILE, a model of this shape with random weights: see above"),
  vocabulary: count("N", 1, "with --shape: tokens of the vocabulary (32000)"),
  weights: choice(["q4", "q8"] as const, "with --shape: how weights are stored (q4)"),
  group: count("N", 8, "with --shape: most columns that share a scale, a multiple of 8 (32)", 256),
  keep: text("OUT", "with --shape: leave the pack in this file"),
  pp: count("N", 0, "length of the prompt that is read; 0: none (512)"),
  tg: count("N", 0, "how many tokens are made, one by one; 0: none (64)"),
  "context-at": list(count("N", 0, "make the tokens behind N positions, once for each N (0)")),
  pruning: list(number("RATE", 0, 1, "measure these cuts in turn, all in memory at once (0)")),
  ...ENGINE_OPTIONS,
  repetitions: count("N", 1, "how often everything is measured (5)", 1000),
  ops: flag("show what takes the time, op by op, of the first cut"),
  json: flag("print all figures as one JSON object"),
};
type BenchValues = Values<typeof OPTIONS>;

export const benchCommand: Command<typeof OPTIONS> = {
  name: "bench",
  summary: "Measure how fast a pack, or a model of any shape, is on this machine.",
  words: ["[FILE]"],
  about: `
Reads a prompt of random tokens (pp) and makes tokens one by one (tg), in turn,
and shows the medians. The time is that of the core's steps with the choice of
the likeliest token; there is no tokenizer, no text and no drawing of tokens in
it. The ceilings are what the same threads reach that only read the model's
memory, and only multiply 8-bit numbers.

SHAPE is qwen2.5-0.5b, qwen2.5-1.5b, llama-3.2-1b or mamba2-1.3b, with other
numbers after a colon if wanted, or the path of a config.json. Its pack is made
in seconds, and removed in the end.

  snug bench tale.snug --pruning 0,0.15,0.25,0.35
  snug bench --shape llama-3.2-1b --vocabulary 128256 --threads 2 --ops
  snug bench --shape llama-3.2-1b:num_hidden_layers=4,hidden_size=512`,
  options: OPTIONS,
  async run(values, [file], signal) {
    const tests = readTests(values);
    await checkOptions(values, file);
    const progress = new Progress({ lines: false });
    try {
      await withTarget(values, file, positionsOf(tests), (path, shape) => {
        const work = async (pack: Pack) => {
          const measured = await measure(pack, plansOf(pack, values, tests), {
            tests,
            repetitions: values.repetitions ?? DEFAULTS.repetitions,
            ops: values.ops ?? false,
            signal,
            onProgress: (stage, done) => progress.update(stage, done),
          });
          progress.end();
          if (values.json) printJson(factsOf(pack, shape, tests, measured));
          else process.stdout.write(`${describe(pack, tests, measured).join("\n")}\n`);
        };
        return withPack(path, work, values);
      });
    } finally {
      progress.end();
    }
  },
};

// What is measured

function readTests(values: BenchValues): Test[] {
  const { pp = DEFAULTS.pp, tg = DEFAULTS.tg, "context-at": contexts = [0] } = values;
  const tests: Test[] = pp > 0 ? [{ kind: "prefill", tokens: pp, position: 0 }] : [];
  if (tg > 0) for (const position of contexts) tests.push({ kind: "decode", tokens: tg, position });
  if (tests.length === 0) throw usage("with --pp 0 and --tg 0 there is nothing to measure");
  return tests;
}

async function checkOptions(values: BenchValues, file: string | undefined): Promise<void> {
  if (file !== undefined) {
    for (const name of ["shape", "vocabulary", "weights", "group", "keep"] as const)
      if (values[name] !== undefined) throw usage(`--${name} is of a model that is made: leave ${file} out`);
  }
  if (values.keep !== undefined) await checkOutput(values.keep, "--keep");
}

function positionsOf(tests: readonly Test[]): number {
  return Math.max(...tests.map(({ tokens, position }) => tokens + position));
}

function plansOf(pack: Pack, { pruning = [0], threads, activations }: BenchValues, tests: readonly Test[]) {
  const context = positionsOf(tests);
  const { maximumContext } = pack.shape;
  if (context > maximumContext)
    throw usage(`this model has at most ${maximumContext} positions, and this takes ${context}`);
  return pruning.map((rate) => pack.plan({ context, pruning: rate, ...given({ threads, activations }) }));
}

/** The pack that was given, or one of the shape, which is gone afterwards unless it is to be kept. */
async function withTarget(
  values: BenchValues,
  file: string | undefined,
  positions: number,
  work: (path: string, shape: string | null) => Promise<void>,
): Promise<void> {
  if (file !== undefined) return work(file, null);
  const { shape: name = DEFAULTS.shape, vocabulary, weights, group, keep } = values;
  const shape = await readShape(name);
  const context = Math.max(positions, Number(shape.max_position_embeddings ?? 0));
  const folder = keep === undefined ? await mkdtemp(join(tmpdir(), "snug-bench-")) : undefined;
  const path = folder === undefined ? (keep as string) : join(folder, "synthetic.snug");
  try {
    const wanted = { ...shape, max_position_embeddings: context, ...given({ vocab_size: vocabulary }) };
    await writeSyntheticPack(path, wanted, { name, ...given({ weights, group }) });
    await work(path, name);
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

// What came out

interface Result {
  readonly kind: Test["kind"];
  readonly name: string;
  readonly pruningRate: number;
  /** Tokens a second: the median of the repetitions, and all of them. */
  readonly tokensPerSecond: number;
  readonly repetitions: readonly number[];
  /** What the plan promises, as tokensPerSecond; null where it promises nothing. */
  readonly expected: number | null;
  /** Of weights, a second. */
  readonly weightBytesPerSecond: number;
  readonly productsPerSecond: number;
  /** How much faster it is than the first cut; and how much less it reads (decode) or multiplies (prefill). */
  readonly gain: number;
  readonly promisedGain: number;
}

/** Test by test, each at every cut. */
function resultsOf(tests: readonly Test[], { cuts }: Measured): Result[] {
  const first = cuts[0] as Cut;
  return tests.flatMap((test, i) =>
    cuts.map((cut) => {
      const { kind, tokens, position } = test;
      const seconds = median(cut.seconds[i] as number[]);
      const { rows } = cut.plan;
      const steps = kind === "decode" ? tokens : Math.ceil(tokens / rows);
      const outputs = kind === "decode" ? tokens : 1;
      const name = `${kind === "decode" ? "tg" : "pp"}${tokens}${position > 0 ? ` at ${position}` : ""}`;
      return {
        kind,
        name,
        pruningRate: cut.plan.pruningRate,
        tokensPerSecond: tokens / seconds,
        repetitions: (cut.seconds[i] as number[]).map((one) => tokens / one),
        expected: kind === "decode" && position === 0 ? median(cut.expected) : null,
        weightBytesPerSecond: (cut.weightBytes * steps) / seconds,
        productsPerSecond: (cut.products.row * tokens + cut.products.output * outputs) / seconds,
        gain: median(first.seconds[i] as number[]) / seconds,
        promisedGain:
          kind === "decode" ? bytesAt(first, test) / bytesAt(cut, test) : first.products.row / cut.products.row,
      };
    }),
  );
}

/** What a token reads in the middle of a test: weights, cache and state. */
function bytesAt({ weightBytes, kvBytes, plan }: Cut, { tokens, position }: Test): number {
  return weightBytes + kvBytes * (position + tokens / 2) + plan.stateBytes;
}

function factsOf(pack: Pack, shape: string | null, tests: readonly Test[], measured: Measured) {
  const { cuts, ceilings, undisturbed, ops } = measured;
  const plan = (cuts[0] as Cut).plan;
  return {
    name: pack.info.name,
    shape,
    ...pack.shape,
    bytes: pack.size,
    node: process.versions.node,
    simd: pack.build.simd,
    turbo: pack.build.turbo,
    threads: plan.threads,
    ceilings,
    undisturbed,
    cuts: cuts.map(({ plan: own, weightBytes, products }) => {
      const { layers: _, ...facts } = planFacts(own);
      return { ...facts, weightBytesPerToken: weightBytes, productsPerToken: products.row + products.output };
    }),
    results: resultsOf(tests, measured),
    ops,
  };
}

function describe(pack: Pack, tests: readonly Test[], measured: Measured): string[] {
  const look = lookOf(process.stdout);
  const { plan } = measured.cuts[0] as Cut;
  const { simd, turbo } = pack.build;
  const facts = [
    `${pack.shape.family} in ${pack.shape.weights}, ${megabytes(pack.size)}`,
    `${plan.threads} thread${plan.threads === 1 ? "" : "s"}, ${simd === "relaxed" ? "relaxed SIMD" : simd}${turbo ? ", turbo" : ""}`,
    `Node ${process.versions.node}`,
  ];
  const { dot } = look.glyphs;
  return [
    `${look.bold(plain(pack.info.name))} ${look.dim(`${dot} ${facts.join(` ${dot} `)}`)}`,
    "",
    ...describeResults(tests, measured, look),
    ...(measured.ops ? describeOps(measured.ops, measured.ceilings, look) : []),
  ];
}

function describeResults(tests: readonly Test[], measured: Measured, look: Look): string[] {
  const { ceilings, cuts, undisturbed } = measured;
  const results = resultsOf(tests, measured);
  const isSweep = cuts.length > 1;
  const isExpected = results.some(({ expected }) => expected !== null);
  const columns = ["", "pruned", "tok/s", "least and most"];
  if (isExpected) columns.push("plan said");
  if (isSweep) columns.push("gain");
  const rows = results.map((result) => [
    result.name,
    percent(result.pruningRate),
    digits(result.tokensPerSecond),
    `${digits(Math.min(...result.repetitions))}${look.glyphs.to}${digits(Math.max(...result.repetitions))}`,
    ...(isExpected ? [result.expected === null ? "" : digits(result.expected)] : []),
    ...(isSweep ? [`${result.gain.toFixed(2)} of ${result.promisedGain.toFixed(2)}`] : []),
    ...(result.kind === "decode" ? ofCeiling(result.weightBytesPerSecond, ceilings.readBytes) : ["", ""]),
    ...ofCeiling(result.productsPerSecond, ceilings.products),
  ]);
  const [read, multiplied] = [ceilings.readBytes, ceilings.products].map((rate) => (rate / 1e9).toFixed(1));
  const last = ["ceiling", ...columns.slice(1).fill(""), read as string, "", multiplied as string];
  const [head = "", ...lines] = table([[...columns, "GB/s", "", "GMAC/s", ""], ...rows, last]);
  return [
    look.dim(head),
    ...lines.slice(0, -1),
    look.dim(lines.at(-1) as string),
    ...(undisturbed < UNDISTURBED_LEAST
      ? ["", `  Its threads ran only ${percent(undisturbed)} of the time: measure again when the machine is quiet.`]
      : []),
  ];
}

/** What ops of one kind take of a token made, and of a chunk of a prompt. */
function describeOps({ decode, prefill }: NonNullable<Measured["ops"]>, ceilings: Ceilings, look: Look): string[] {
  const lines = (
    title: string,
    shares: readonly OpShare[],
    rate: (share: OpShare) => [number, number],
    unit: string,
  ) => {
    const [head = "", ...rows] = table([
      [title, "count", "ms", "share", unit, ""],
      ...shares.map((share) => [
        `${share.op} ${share.matrix}`.trim(),
        String(share.count),
        (share.seconds * 1000).toFixed(3),
        percent(share.share),
        ...(share.matrix === "" ? [] : ofCeiling(...rate(share))),
      ]),
    ]);
    return ["", look.dim(head), ...rows];
  };
  const read = ({ weightBytes, seconds }: OpShare): [number, number] => [weightBytes / seconds, ceilings.readBytes];
  const multiply = ({ products, seconds }: OpShare): [number, number] => [products / seconds, ceilings.products];
  return [...lines("a token made", decode, read, "GB/s"), ...lines("a chunk of a prompt", prefill, multiply, "GMAC/s")];
}

/** A rate in thousands of millions, and its share of the ceiling. */
function ofCeiling(rate: number, ceiling: number): [string, string] {
  return [(rate / 1e9).toFixed(1), `${Math.round((100 * rate) / ceiling)} %`];
}
