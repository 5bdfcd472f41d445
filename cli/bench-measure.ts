// The measurements of snug bench: every cut is loaded, and rounds go over all cuts and tests in turn, so that what the
// machine does besides hurts all alike.

import {
  type Ceilings,
  expectedSpeed,
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
  /** Tokens a second that the plan promises at the start of a text, each time it is asked; empty if it is not. */
  readonly expected: readonly number[];
  /** Seconds of each repetition, test by test. */
  readonly seconds: readonly number[][];
}

/** What ops of one kind take of a step. */
export interface OpShare {
  readonly op: string;
  readonly matrix: string;
  readonly count: number;
  readonly weightBytes: number;
  readonly products: number;
  readonly seconds: number;
  /** Of the time of all ops. */
  readonly share: number;
}

export interface Measured {
  readonly cuts: readonly Cut[];
  readonly ceilings: Ceilings;
  /** Share of the time for which the threads ran: what is missing they waited for other programs. */
  readonly undisturbed: number;
  /** Of the first cut, if they were asked for. */
  readonly ops: { readonly decode: readonly OpShare[]; readonly prefill: readonly OpShare[] } | null;
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
      onProgress("loading", 0);
      models.push(await pack.load(plan, { signal }));
    }
    const watches = models.map((model) => new Stopwatch(model, signal));
    const cuts = watches.map((watch, i) => ({
      ...workOf(watch.work()),
      plan: plans[i] as Plan,
      expected: [] as number[],
      kvBytes: (plans[i] as Plan).kvBytes / (plans[i] as Plan).context,
      seconds: tests.map((): number[] => []),
    }));
    const { rows, context } = plans[0] as Plan;
    for (const watch of watches) {
      onProgress("warming up", 0);
      await watch.ready();
      // What the cache holds must have been written, or it would be read from one page of zeros.
      await watch.prefill(Math.max(1, ...tests.map((test) => test.position)));
      await watch.decode(Math.min(WARM_UP_TOKENS, context));
    }
    const ceilings = { readBytes: 0, products: 0 };
    let [ran, wanted] = [0, 0]; // microseconds of all threads
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const now = await (watches[0] as Stopwatch).ceilings();
      ceilings.readBytes = Math.max(ceilings.readBytes, now.readBytes);
      ceilings.products = Math.max(ceilings.products, now.products);
      for (const [i, watch] of watches.entries())
        for (const [j, { kind, tokens, position }] of tests.entries()) {
          onProgress(`repetition ${repetition + 1} of ${repetitions}`, (repetition + i / watches.length) / repetitions);
          const cut = cuts[i] as (typeof cuts)[number];
          const before = process.cpuUsage();
          const seconds = await watch[kind](tokens, position);
          const { user, system } = process.cpuUsage(before);
          ran += user + system;
          wanted += seconds * 1e6 * cut.plan.threads;
          cut.seconds[j]?.push(seconds);
          if (kind === "decode" && position === 0) cut.expected.push(await expectedSpeed(pack, cut.plan, signal));
        }
    }
    const undisturbed = Math.min(1, ran / wanted);
    const watch = watches[0] as Stopwatch;
    const position = Math.max(0, ...tests.map((test) => test.position));
    const ops = options.ops
      ? {
          decode: await opShares(watch, 1, position),
          prefill: await opShares(watch, Math.min(rows, context), 0),
        }
      : null;
    return { cuts, ceilings, undisturbed, ops };
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
  const shares = [...kinds.values()].toSorted((a, b) => b.seconds - a.seconds);
  const total = sum(shares.map(({ seconds }) => seconds));
  return shares.map((one) => ({ ...one, share: one.seconds / total }));
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] as number) + (sorted[Math.floor(middle)] as number)) / 2;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
