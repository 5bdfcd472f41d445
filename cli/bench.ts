// snug bench: how fast a pack is on this machine, or a model of any shape, beside what the machine can do at most.

import { syntheticSource, writeSyntheticPack } from "../packs/index";
import type { Ceilings, Pack, Plan, Source } from "../runtime/index";
import {
  type Cut,
  type KernelShare,
  type Measured,
  measure,
  median,
  type OpShare,
  type Shares,
  type Test,
} from "./bench-measure";
import { readShape } from "./bench-shape";
import { ENGINE_OPTIONS, planFacts, settleDevice, withPack } from "./budget";
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
  device: choice(
    ["cpu", "gpu", "auto", "both"] as const,
    "what runs it; auto: the faster one; both: each cut on each, in turn (cpu)",
  ),
  repetitions: count("N", 1, "how often everything is measured (5)", 1000),
  ops: flag("show what takes the time, op by op, of the first cut on each device"),
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
memory, and only multiply 8-bit numbers; those of a GPU are not measured.

SHAPE is qwen2.5-0.5b, qwen2.5-1.5b, llama-3.2-1b, llama-3.1-8b or mamba2-1.3b,
with other numbers after a colon if wanted, or the path of a config.json. Its
weights are made while they are read, and take no disk without --keep.

  snug bench tale.snug --pruning 0,0.15,0.25,0.35
  snug bench tale.snug --device both --ops
  snug bench --shape llama-3.2-1b --vocabulary 128256 --threads 2 --ops
  snug bench --shape llama-3.2-1b:num_hidden_layers=4,hidden_size=512`,
  options: OPTIONS,
  async run(values, [file], signal) {
    const tests = readTests(values);
    await checkOptions(values, file);
    const progress = new Progress({ lines: false });
    try {
      if (file === undefined) progress.update("making the pack", 0);
      const [source, shape] = await findTarget(values, file, positionsOf(tests));
      const work = async (pack: Pack) => {
        progress.end();
        const plans = await plansOf(pack, values, tests, signal);
        const measured = await measure(pack, plans, {
          tests,
          repetitions: values.repetitions ?? DEFAULTS.repetitions,
          ops: values.ops ?? false,
          signal,
          onProgress: (stage, done) => progress.update(stage, done),
        });
        progress.end();
        if (values.json) printJson(factsOf(pack, shape, tests, measured));
        else process.stdout.write(`${describe(pack, tests, measured, values).join("\n")}\n`);
      };
      await withPack(source, work, values);
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

/** Every cut on every device. */
async function plansOf(
  pack: Pack,
  { pruning = [0], device: wanted, threads, activations, kv }: BenchValues,
  tests: readonly Test[],
  signal: AbortSignal,
): Promise<Plan[]> {
  const context = positionsOf(tests);
  const { maximumContext } = pack.shape;
  if (context > maximumContext)
    throw usage(`this model has at most ${maximumContext} positions, and this takes ${context}`);
  const options = { context, ...given({ threads, activations, kv }) };
  const devices =
    wanted === "both"
      ? (["cpu", "gpu"] as const)
      : [await settleDevice(pack, wanted, { ...options, pruning: pruning[0] as number }, signal)];
  return pruning.flatMap((rate) => devices.map((device) => pack.plan({ ...options, pruning: rate, device })));
}

/** The pack that was given, or one of the shape and its name. */
async function findTarget(
  values: BenchValues,
  file: string | undefined,
  positions: number,
): Promise<[source: string | Source, shape: string | null]> {
  if (file !== undefined) return [file, null];
  const { shape: name = DEFAULTS.shape, vocabulary, weights, group, keep } = values;
  const shape = await readShape(name);
  const context = Math.max(positions, Number(shape.max_position_embeddings ?? 0));
  const wanted = { ...shape, max_position_embeddings: context, ...given({ vocab_size: vocabulary }) };
  const options = { name, ...given({ weights, group }) };
  if (keep === undefined) return [await syntheticSource(wanted, options), name];
  await writeSyntheticPack(keep, wanted, options);
  return [keep, name];
}

// What came out

interface Result {
  readonly kind: Test["kind"];
  readonly name: string;
  readonly device: "cpu" | "gpu";
  readonly pruningRate: number;
  /** Tokens a second: the median of the repetitions, and all of them. */
  readonly tokensPerSecond: number;
  readonly repetitions: readonly number[];
  /** What the plan promises, as tokensPerSecond; null where it promises nothing. */
  readonly expected: number | null;
  /** Of weights, a second. */
  readonly weightBytesPerSecond: number;
  readonly productsPerSecond: number;
  /**
   * How much faster it is than the device's first cut; and how much less it reads (decode) or multiplies (prefill).
   */
  readonly gain: number;
  readonly promisedGain: number;
  /** How much faster it is than the same cut on the CPU; null where that is not measured. */
  readonly overCpu: number | null;
}

/** Test by test, each at every cut. */
function resultsOf(tests: readonly Test[], { cuts }: Measured): Result[] {
  return tests.flatMap((test, i) =>
    cuts.map((cut) => {
      const first = cuts.find(({ gpu }) => gpu === cut.gpu) as Cut;
      const onCpu = cuts.find(({ gpu, plan }) => gpu === null && plan.options.pruning === cut.plan.options.pruning);
      const { kind, tokens, position } = test;
      const seconds = median(cut.seconds[i] as number[]);
      const { rows } = cut.plan;
      const steps = kind === "decode" ? tokens : Math.ceil(tokens / rows);
      const outputs = kind === "decode" ? tokens : 1;
      const name = `${kind === "decode" ? "tg" : "pp"}${tokens}${position > 0 ? ` at ${position}` : ""}`;
      return {
        kind,
        name,
        device: cut.plan.options.device ?? "cpu",
        pruningRate: cut.plan.pruningRate,
        tokensPerSecond: tokens / seconds,
        repetitions: (cut.seconds[i] as number[]).map((one) => tokens / one),
        expected: cut.expected.length > 0 && kind === "decode" && position === 0 ? median(cut.expected) : null,
        weightBytesPerSecond: (cut.weightBytes * steps) / seconds,
        productsPerSecond: (cut.products.row * tokens + cut.products.output * outputs) / seconds,
        gain: median(first.seconds[i] as number[]) / seconds,
        promisedGain:
          kind === "decode" ? bytesAt(first, test) / bytesAt(cut, test) : first.products.row / cut.products.row,
        overCpu: onCpu === undefined ? null : median(onCpu.seconds[i] as number[]) / seconds,
      };
    }),
  );
}

/** What a token reads in the middle of a test: weights, cache and state. */
function bytesAt({ weightBytes, kvBytes, plan }: Cut, { tokens, position }: Test): number {
  return weightBytes + kvBytes * (position + tokens / 2) + plan.stateBytes;
}

function factsOf(pack: Pack, shape: string | null, tests: readonly Test[], measured: Measured) {
  const { cuts, ceilings, undisturbed, ops, gpuOps } = measured;
  const { gpu, threads } = devicesOf(measured);
  return {
    name: pack.info.name,
    shape,
    ...pack.shape,
    bytes: pack.size,
    node: process.versions.node,
    simd: pack.build.simd,
    turbo: pack.build.turbo,
    threads,
    gpu,
    ceilings,
    undisturbed,
    cuts: cuts.map(({ plan: own, weightBytes, products }) => {
      const { layers: _, ...facts } = planFacts(own);
      return { ...facts, weightBytesPerToken: weightBytes, productsPerToken: products.row + products.output };
    }),
    results: resultsOf(tests, measured),
    ops,
    gpuOps,
  };
}

/** The GPU, and how many threads of the CPU; null for a device that runs nothing. */
function devicesOf({ cuts }: Measured): { gpu: string | null; threads: number | null } {
  const onCpu = cuts.find(({ gpu }) => gpu === null);
  return { gpu: cuts.find(({ gpu }) => gpu !== null)?.gpu ?? null, threads: onCpu?.plan.threads ?? null };
}

function describe(pack: Pack, tests: readonly Test[], measured: Measured, values: BenchValues): string[] {
  const look = lookOf(process.stdout);
  const { gpu, threads } = devicesOf(measured);
  const { simd, turbo } = pack.build;
  const vectors = `${simd === "relaxed" ? "relaxed SIMD" : simd}${turbo ? ", turbo" : ""}`;
  const facts = [
    `${pack.shape.family} in ${pack.shape.weights}, ${megabytes(pack.size)}`,
    ...(threads === null ? [] : [`${threads} thread${threads === 1 ? "" : "s"}, ${vectors}`]),
    `Node ${process.versions.node}`,
  ];
  const { dot } = look.glyphs;
  return [
    `${look.bold(plain(pack.info.name))} ${look.dim(`${dot} ${facts.join(` ${dot} `)}`)}`,
    ...(gpu === null ? [] : [look.dim(`  GPU: ${plain(gpu)}`)]),
    "",
    ...describeResults(tests, measured, look),
    ...(measured.ops && measured.ceilings ? describeOps(measured.ops, measured.ceilings, look) : []),
    ...(measured.gpuOps ? describeGpuOps(measured.gpuOps, look) : []),
    ...(values.ops && gpu !== null && !measured.gpuOps ? ["", "  This GPU has no timestamps to time ops with."] : []),
  ];
}

function describeResults(tests: readonly Test[], measured: Measured, look: Look): string[] {
  const { ceilings, cuts, undisturbed } = measured;
  const results = resultsOf(tests, measured);
  const { gpu, threads } = devicesOf(measured);
  const isBoth = gpu !== null && threads !== null;
  const isSweep = new Set(cuts.map(({ plan }) => plan.options.pruning)).size > 1;
  const isExpected = !isBoth && results.some(({ expected }) => expected !== null);
  const columns = ["", ...(gpu === null ? [] : ["on"]), "pruned", "tok/s", "least and most"];
  if (isExpected) columns.push("plan said");
  if (isSweep) columns.push("gain");
  if (isBoth) columns.push("over CPU");
  const rows = results.map((result) => [
    result.name,
    ...(gpu === null ? [] : [result.device.toUpperCase()]),
    percent(result.pruningRate),
    digits(result.tokensPerSecond),
    `${digits(Math.min(...result.repetitions))}${look.glyphs.to}${digits(Math.max(...result.repetitions))}`,
    ...(isExpected ? [result.expected === null ? "" : digits(result.expected)] : []),
    ...(isSweep ? [`${result.gain.toFixed(2)} of ${result.promisedGain.toFixed(2)}`] : []),
    ...(isBoth ? [result.device === "cpu" || result.overCpu === null ? "" : result.overCpu.toFixed(2)] : []),
    ...ofCeiling(result.kind === "decode" ? result.weightBytesPerSecond : null, ceilingOf(result, ceilings?.readBytes)),
    ...ofCeiling(result.productsPerSecond, ceilingOf(result, ceilings?.products)),
  ]);
  const top = (rate: number) => [(rate / 1e9).toFixed(1), ""];
  const last = ceilings && [
    "ceiling",
    ...columns.slice(1).fill(""),
    ...top(ceilings.readBytes),
    ...top(ceilings.products),
  ];
  const [head = "", ...lines] = table([[...columns, "GB/s", "", "GMAC/s", ""], ...rows, ...(last ? [last] : [])]);
  return [
    look.dim(head),
    ...lines.slice(0, rows.length),
    ...lines.slice(rows.length).map((line) => look.dim(line)),
    ...(undisturbed < UNDISTURBED_LEAST
      ? ["", `  Its threads ran only ${percent(undisturbed)} of the time: measure again when the machine is quiet.`]
      : []),
  ];
}

/** What ops of one kind take of a token made, and of a chunk of a prompt. */
function describeOps({ decode, prefill }: Shares<OpShare>, ceilings: Ceilings, look: Look): string[] {
  const read = ({ weightBytes, seconds }: OpShare) => ofCeiling(weightBytes / seconds, ceilings.readBytes);
  const multiply = ({ products, seconds }: OpShare) => ofCeiling(products / seconds, ceilings.products);
  const lines = (title: string, shares: readonly OpShare[], unit: string, rate: (share: OpShare) => [string, string]) =>
    drawShares(title, shares, look, [unit, ""], (share) => (share.matrix === "" ? [] : rate(share)));
  return [...lines("a token made", decode, "GB/s", read), ...lines("a chunk of a prompt", prefill, "GMAC/s", multiply)];
}

function describeGpuOps({ decode, prefill }: Shares<KernelShare>, look: Look): string[] {
  return [...drawShares("a token made, GPU", decode, look), ...drawShares("a chunk of a prompt, GPU", prefill, look)];
}

/** A table of shares; `more`: further cells of a row, below these heads. */
function drawShares<T extends KernelShare & { readonly matrix?: string }>(
  title: string,
  shares: readonly T[],
  look: Look,
  heads: readonly string[] = [],
  more: (share: T) => readonly string[] = () => [],
): string[] {
  const [head = "", ...rows] = table([
    [title, "count", "ms", "share", ...heads],
    ...shares.map((share) => [
      `${share.op} ${share.matrix ?? ""}`.trim(),
      String(share.count),
      (share.seconds * 1000).toFixed(3),
      percent(share.share),
      ...more(share),
    ]),
  ]);
  return ["", look.dim(head), ...rows];
}

/** A GPU's ceilings are not known. */
function ceilingOf({ device }: Result, ceiling: number | undefined): number | undefined {
  return device === "cpu" ? ceiling : undefined;
}

/** A rate in thousands of millions, and its share of the ceiling where there is one. */
function ofCeiling(rate: number | null, ceiling: number | undefined): [string, string] {
  if (rate === null) return ["", ""];
  return [(rate / 1e9).toFixed(1), ceiling === undefined ? "" : `${Math.round((100 * rate) / ceiling)} %`];
}
