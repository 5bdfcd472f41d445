// The measurements of snug bench: every cut is loaded, and rounds go over all cuts and tests in turn, so that what the
// machine does besides hurts all alike.

import {
  type Ceilings,
  expectedSpeed,
  type KernelTime,
  type Model,
  type OpWork,
  type Pack,
  type Plan,
  Stopwatch,
} from "../runtime/index";

export interface Test {
  /** Reading a prompt, or making tokens one by one. */
  readonly kind: "prefill" | "decode";
  readonly tokens: number;
  /** Positions that are filled before. */
  readonly position: number;
}

export interface Cut {
  readonly plan: Plan;
  /** Of one row of a step, and of one that wants logits. */
  readonly products: { readonly row: number; readonly output: number };
  /** Weights that a step reads. */
  readonly weightBytes: number;
  /** Of the KV cache, for one position. */
  readonly kvBytes: number;
  /** The GPU that runs it; null: the CPU. */
  readonly gpu: string | null;
  /** Tokens a second that the plan promises at the start of a text, each time it is asked; empty if it is not. */
  readonly expected: readonly number[];
  /** Seconds of each repetition, test by test. */
  readonly seconds: readonly number[][];
}

/** What kernels of one kind take of a step on a GPU. */
export interface KernelShare {
  readonly op: string;
  readonly count: number;
  readonly seconds: number;
  /** Of the time of all. */
  readonly share: number;
}

/** What ops of one kind take of a step on the CPU. */
export interface OpShare extends KernelShare {
  readonly matrix: string;
  readonly weightBytes: number;
  readonly products: number;
}

/** Of a token made, and of a chunk of a prompt. */
export interface Shares<T extends KernelShare> {
  readonly decode: readonly T[];
  readonly prefill: readonly T[];
}

export interface Measured {
  readonly cuts: readonly Cut[];
  /** Of the CPU; null where nothing runs on it. */
  readonly ceilings: Ceilings | null;
  /** Share of the time for which the CPU's threads ran: what is missing they waited for other programs. */
  readonly undisturbed: number;
  /** Of the first cut on the CPU, if they were asked for. */
  readonly ops: Shares<OpShare> | null;
  /** Of the first cut on the GPU; null also where it has no timestamps. */
  readonly gpuOps: Shares<KernelShare> | null;
}

export interface MeasureOptions {
  readonly tests: readonly Test[];
  readonly repetitions: number;
  readonly ops: boolean;
  readonly signal: AbortSignal;
  /** What is being done, and the share of it that is done. */
  onProgress(stage: string, done: number): void;
}

const WARM_UP_TOKENS = 8;
const OP_STEPS = 9;

/** Measures a pack by these plans, all of them in memory at once. */
export async function measure(pack: Pack, plans: readonly Plan[], options: MeasureOptions): Promise<Measured> {
  const { tests, repetitions, signal, onProgress } = options;
  const models: Model[] = [];
  try {
    for (const plan of plans) {
      const stage = plans.length > 1 ? `loading ${models.length + 1} of ${plans.length}` : "loading";
      models.push(
        await pack.load(plan, {
          signal,
          onProgress: ({ readBytes, totalBytes }) => onProgress(stage, readBytes / totalBytes),
        }),
      );
    }
    const watches = models.map((model) => new Stopwatch(model, signal));
    const cuts = watches.map((watch, i) => ({
      ...workOf(watch.work()),
      plan: plans[i] as Plan,
      gpu: (models[i] as Model).executor.name ?? null,
      expected: [] as number[],
      kvBytes: (plans[i] as Plan).kvBytes / (plans[i] as Plan).context,
      seconds: tests.map((): number[] => []),
    }));
    for (const [i, watch] of watches.entries()) {
      onProgress("warming up", 0);
      const { plan } = cuts[i] as Cut;
      await watch.ready();
      // What the cache holds must have been written, or it would be read from one page of zeros.
      await watch.prefill(Math.max(1, ...tests.map((test) => test.position)));
      // A GPU's driver may put off what a kernel takes until it runs for the first time.
      for (const { kind, position } of tests) {
        const tokens = Math.min(kind === "decode" ? WARM_UP_TOKENS : plan.rows, plan.context - position);
        await watch[kind](tokens, position);
      }
    }
    const watchOf = (onGpu: boolean) => watches.find((_, i) => ((cuts[i] as Cut).gpu !== null) === onGpu);
    const [onCpu, onGpu] = [watchOf(false), watchOf(true)];
    const ceilings = { readBytes: 0, products: 0 };
    let [ran, wanted] = [0, 0]; // microseconds of all threads
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const now = await onCpu?.ceilings();
      ceilings.readBytes = Math.max(ceilings.readBytes, now?.readBytes ?? 0);
      ceilings.products = Math.max(ceilings.products, now?.products ?? 0);
      for (const [i, watch] of watches.entries())
        for (const [j, { kind, tokens, position }] of tests.entries()) {
          onProgress(`repetition ${repetition + 1} of ${repetitions}`, (repetition + i / watches.length) / repetitions);
          const cut = cuts[i] as (typeof cuts)[number];
          const before = process.cpuUsage();
          const seconds = await watch[kind](tokens, position);
          cut.seconds[j]?.push(seconds);
          if (cut.gpu !== null) continue;
          const { user, system } = process.cpuUsage(before);
          ran += user + system;
          wanted += seconds * 1e6 * cut.plan.threads;
          if (kind === "decode" && position === 0) cut.expected.push(await expectedSpeed(pack, cut.plan, signal));
        }
    }
    const position = Math.max(0, ...tests.map((test) => test.position));
    const rowsOf = (watch: Stopwatch) => {
      const { rows, context } = plans[watches.indexOf(watch)] as Plan;
      return Math.min(rows, context);
    };
    return {
      cuts,
      ceilings: onCpu === undefined ? null : ceilings,
      undisturbed: onCpu === undefined ? 1 : Math.min(1, ran / wanted),
      ops:
        options.ops && onCpu !== undefined
          ? { decode: await opShares(onCpu, 1, position), prefill: await opShares(onCpu, rowsOf(onCpu), 0) }
          : null,
      gpuOps: options.ops && onGpu !== undefined ? await gpuShares(onGpu, rowsOf(onGpu), position) : null,
    };
  } finally {
    for (const model of models) model.dispose();
  }
}

/** What a step has to do, in all. */
function workOf(work: readonly OpWork[]): Pick<Cut, "products" | "weightBytes"> {
  const products = (forOutputs: boolean) => sum(work.map((op) => (op.forOutputs === forOutputs ? op.products : 0)));
  return {
    products: { row: products(false), output: products(true) },
    weightBytes: sum(work.map((op) => op.weightBytes)),
  };
}

/** The medians of some steps, op by op, those of one kind together, the longest first. */
async function opShares(watch: Stopwatch, rows: number, position: number): Promise<OpShare[]> {
  const steps: Float64Array[] = [];
  for (let step = 0; step < OP_STEPS; step++) steps.push(await watch.ops(rows, position));
  const kinds = new Map<string, OpShare>();
  for (const [i, { op, matrix, weightBytes, products, forOutputs }] of watch.work().entries()) {
    const before = kinds.get(`${op} ${matrix}`);
    kinds.set(`${op} ${matrix}`, {
      op,
      matrix,
      count: (before?.count ?? 0) + 1,
      weightBytes: (before?.weightBytes ?? 0) + weightBytes,
      products: (before?.products ?? 0) + products * (forOutputs ? 1 : rows),
      seconds: (before?.seconds ?? 0) + median(steps.map((step) => step[i] as number)),
      share: 0,
    });
  }
  return shared([...kinds.values()]);
}

/** The medians of some steps on a GPU, of a row and of a chunk. */
async function gpuShares(watch: Stopwatch, rows: number, position: number): Promise<Shares<KernelShare> | null> {
  const sharesOf = async (rows: number, position: number) => {
    const steps: KernelTime[][] = [];
    for (let step = 0; step < OP_STEPS; step++) {
      const times = await watch.gpuOps(rows, position);
      if (times === null) return null;
      steps.push(times);
    }
    return shared(
      (steps[0] as KernelTime[]).map(({ kernel, launches }) => {
        const seconds = steps.map((times) => times.find((one) => one.kernel === kernel)?.seconds ?? 0);
        return { op: kernel, count: launches, seconds: median(seconds), share: 0 };
      }),
    );
  };
  const decode = await sharesOf(1, position);
  const prefill = await sharesOf(rows, 0);
  return decode && prefill && { decode, prefill };
}

/** The longest first, each with its share of all. */
function shared<T extends KernelShare>(times: readonly T[]): T[] {
  const total = sum(times.map(({ seconds }) => seconds));
  return times.toSorted((a, b) => b.seconds - a.seconds).map((one) => ({ ...one, share: one.seconds / total }));
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
