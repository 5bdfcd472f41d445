// From --memory, --pruning and --context to a plan: the same words for every command that cuts a pack.

import { type Model, open, type Pack, type Plan, type PlanOptions, SnugError } from "../runtime/index";
import { demoPack } from "../runtime/node-assets";
import { choice, count, flag, given, number, size, usage } from "./options";
import { megabytes } from "./output";
import { Progress } from "./progress";

const LOAD_BAR_DELAY_MS = 300;

/** What FILE may say instead of a path: the pack that comes with snug. A file of this name is ./demo. */
export const DEMO = "demo";

export const BUDGET_OPTIONS = {
  memory: size('most memory to use: bytes, or such as "600MB", "0.6GB", "512MiB"'),
  pruning: number("RATE", 0, 1, "share of the prunable weights to leave out, instead of --memory; 0 keeps all"),
};

export const CONTEXT_OPTION = count(
  "N",
  1,
  "positions to have room for, prompt and answer together (2048, or the model's most if that is less)",
);

export const ENGINE_OPTIONS = {
  threads: count("N", 1, "threads that share the work (what the machine has cores for)", 64),
  turbo: flag("vectors wider than 128 bits, where the engine has them on request; experimental"),
  activations: choice(["int8", "f32"], "what 4- and 8-bit matrices work on; f32 is exact, and slower (int8)"),
};

export interface BudgetValues {
  readonly memory?: number;
  readonly pruning?: number;
  readonly context?: number;
  readonly threads?: number;
  readonly activations?: "int8" | "f32";
}

export interface Budget {
  readonly plan: Plan;
  /** Where the number came from, in words. */
  readonly how: string;
}

/** Refuses what contradicts itself before anything is opened. */
export function checkBudget(values: BudgetValues): void {
  if (values.memory !== undefined && values.pruning !== undefined)
    throw usage("--memory and --pruning exclude each other: give one of them");
}

/** Opens a pack for the time of some work. */
export async function withPack<T>(
  file: string,
  work: (pack: Pack) => Promise<T>,
  { turbo = false }: { readonly turbo?: boolean } = {},
): Promise<T> {
  const pack = await open(file === DEMO ? demoPack() : file, { turbo });
  try {
    return await work(pack);
  } finally {
    await pack.close();
  }
}

/** The plan for these options. Without memory and pruning: for what the machine can spare, or for everything. */
export function chooseBudget(
  pack: Pack,
  values: BudgetValues,
  otherwise: "spare" | "everything",
  shape: Pick<PlanOptions, "rows" | "outputs"> = {},
): Budget {
  const { memory, pruning, context, threads, activations } = values;
  if (context !== undefined && context > pack.shape.maximumContext)
    throw usage(`this model has at most ${pack.shape.maximumContext} positions, not ${context}`);
  const options = { ...shape, ...given({ context, threads, activations }) };
  if (memory !== undefined) return { plan: pack.plan({ ...options, memory }), how: "as given" };
  if (pruning !== undefined) return { plan: pack.plan({ ...options, pruning }), how: "what this pruning rate takes" };
  if (otherwise === "everything") return { plan: pack.plan(options), how: "everything is kept" };
  const spare = pack.spare();
  try {
    return { plan: pack.plan({ ...options, memory: spare.bytes }), how: spare.how };
  } catch (error) {
    if (!(error instanceof SnugError) || error.code !== "budget") throw error;
    const found = `the budget of ${megabytes(spare.bytes)} is ${spare.how}; --memory sets another`;
    throw new SnugError("budget", `${error.message} (${found})`, { cause: error });
  }
}

/** Loads what a plan keeps, with a bar if that takes long enough to wonder. */
export async function loadModel(pack: Pack, plan: Plan, signal: AbortSignal): Promise<Model> {
  const progress = new Progress({ delay: LOAD_BAR_DELAY_MS, lines: false });
  try {
    return await pack.load(plan, {
      signal,
      onProgress: ({ readBytes, totalBytes }) => progress.update("loading", readBytes / totalBytes),
    });
  } finally {
    progress.end();
  }
}

/** A plan as JSON for scripts: its numbers, without the options that made it. */
export function planFacts(plan: Plan): Omit<Plan, "options"> {
  const { options: _, ...facts } = plan;
  return facts;
}
