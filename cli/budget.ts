// From --memory, --pruning and --context to a plan: the same words for every command that cuts a pack.

import {
  chooseDevice,
  type Model,
  open,
  type Pack,
  type Plan,
  type PlanOptions,
  SnugError,
  type Source,
} from "../runtime/index";
import { demoPack } from "../runtime/node-assets";
import { choice, count, flag, given, number, size, usage } from "./options";
import { digits, grouped, lookOf, megabytes, percent, plain, say } from "./output";
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

const NOTHING_IS_CUT = "everything, as the GPU's memory is not known; --memory cuts";

export const ENGINE_OPTIONS = {
  device: choice(["cpu", "gpu", "auto"] as const, "what runs it; auto: the faster one, both are timed first (cpu)"),
  threads: count("N", 1, "threads that share the work (what the machine has cores for)", 64),
  turbo: flag("vectors wider than 128 bits, where the engine has them on request; experimental"),
  activations: choice(["int8", "f32"], "what 4- and 8-bit matrices work on; f32 is exact, and slower (int8)"),
  kv: choice(
    ["q8", "f32"] as const,
    "what the KV cache holds; q8 takes little more than a quarter (q8; f32 with f32 matrices or activations, and on a GPU)",
  ),
};

export interface BudgetValues {
  readonly memory?: number;
  readonly pruning?: number;
  readonly context?: number;
  readonly device?: "cpu" | "gpu" | "auto";
  readonly threads?: number;
  readonly activations?: "int8" | "f32";
  readonly kv?: "f32" | "q8";
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
  file: string | Source,
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

/**
 * The plan for these options. Without memory and pruning: for what the machine can spare, or for everything; a GPU's memory
 * nobody can ask for. Says what --device auto took.
 */
export async function chooseBudget(
  pack: Pack,
  values: BudgetValues,
  otherwise: "spare" | "everything",
  { shape = {}, signal }: { readonly shape?: Pick<PlanOptions, "rows" | "outputs">; readonly signal: AbortSignal },
): Promise<Budget> {
  const { memory, pruning, context, threads, activations, kv } = values;
  if (context !== undefined && context > pack.shape.maximumContext)
    throw usage(`this model has at most ${pack.shape.maximumContext} positions, not ${context}`);
  const common = { ...shape, ...given({ context, threads, activations, kv }) };
  const device = await settleDevice(pack, values.device, { ...common, ...given({ memory, pruning }) }, signal);
  const options = { ...common, device };
  const budget = (more: PlanOptions, how: string): Budget => ({
    plan: pack.plan({ ...options, ...more }),
    how,
  });
  if (memory !== undefined) return budget({ memory }, "as given");
  if (pruning !== undefined) return budget({ pruning }, "what this pruning rate takes");
  if (otherwise === "everything") return budget({}, "everything is kept");
  if (device === "gpu") return budget({}, NOTHING_IS_CUT);
  const spare = pack.spare();
  try {
    return budget({ memory: spare.bytes }, spare.how);
  } catch (error) {
    if (!(error instanceof SnugError) || error.code !== "budget") throw error;
    const found = `the budget of ${megabytes(spare.bytes)} is ${spare.how}; --memory sets another`;
    throw new SnugError("budget", `${error.message} (${found})`, { cause: error });
  }
}

/** Which device --device means. For auto both are timed, and what came out is said. */
export async function settleDevice(
  pack: Pack,
  wanted: "cpu" | "gpu" | "auto" = "cpu",
  options: PlanOptions,
  signal: AbortSignal,
): Promise<"cpu" | "gpu"> {
  if (wanted !== "auto") return wanted;
  const { device, reason } = await chooseDevice(pack, options, signal);
  say(`--device auto takes the ${device.toUpperCase()}: ${reason}`);
  return device;
}

/** Says what will run, in how much memory, and what is kept of it. */
export function describeBudget(pack: Pack, { plan, how }: Budget): void {
  const { dim, bold } = lookOf(process.stderr);
  const quality = plan.expectedPerplexity === null ? "" : `, expected perplexity ${digits(plan.expectedPerplexity)}`;
  const cut = plan.keptUnits === plan.units ? "nothing is pruned" : `pruning rate ${percent(plan.pruningRate)}`;
  const units = `${grouped(plan.keptUnits)} of ${grouped(plan.units)} units`;
  const size = `${megabytes(plan.totalBytes)} of ${megabytes(plan.maximumBytes)}${gpuShare(plan)}`;
  say(`${dim("pack   ")} ${bold(plain(pack.info.name))}, ${pack.shape.layers} layers, ${megabytes(pack.size)}`);
  say(`${dim("budget ")} ${megabytes(plan.memoryBytes)}: ${how}`);
  say(`${dim("plan   ")} ${size}, context ${plan.context}`);
  say(`${dim("kept   ")} ${units}, ${cut}${quality}`);
}

export function describeDevice(model: Model): void {
  say(`${lookOf(process.stderr).dim("device ")} ${plain(deviceWords(model))}`);
}

/** What a loaded model runs on. */
export function deviceWords({ executor, plan: { threads } }: Model): string {
  return executor.name ?? `CPU, ${threads} thread${threads === 1 ? "" : "s"}`;
}

/** How much of a plan is not in the machine's own memory. */
export function gpuShare({ deviceBytes }: Plan): string {
  return deviceBytes > 0 ? `, ${megabytes(deviceBytes)} of it on the GPU` : "";
}

/** Loads what a plan keeps, with a bar if that takes long enough to wonder. */
export async function loadModel(pack: Pack, plan: Plan, signal: AbortSignal): Promise<Model> {
  const progress = new Progress({ delay: LOAD_BAR_DELAY_MS, lines: false });
  try {
    return await pack.load(plan, {
      signal,
      onProgress: ({ readBytes, totalBytes }) => progress.update("loading", readBytes / totalBytes),
    });
  } catch (error) {
    const isMemory = error instanceof SnugError && error.code === "memory";
    if (!isMemory || plan.deviceBytes === 0 || plan.options.memory !== undefined) throw error;
    throw new SnugError("memory", `${error.message}; --memory cuts the model to less`, { cause: error });
  } finally {
    progress.end();
  }
}

/** A plan as JSON for scripts: the device and its numbers, without the other options that made it. */
export function planFacts(plan: Plan): Omit<Plan, "options"> & { device: "cpu" | "gpu" } {
  const { options, ...facts } = plan;
  return { device: options.device ?? "cpu", ...facts };
}
