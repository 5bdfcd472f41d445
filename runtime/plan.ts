// A plan as a host sees it: the numbers that the core computed (assembly/plan.ts), and the options that made them.

import {
  KV_CODES,
  KV_DEFAULT,
  KV_F32,
  PLAN_BYTES,
  PLAN_CODED,
  PLAN_CONTEXT,
  PLAN_CORE_BYTES,
  PLAN_DEVICE_BYTES,
  PLAN_KEPT_UNITS,
  PLAN_KV_BYTES,
  PLAN_MAXIMUM_BYTES,
  PLAN_MEMORY_BYTES,
  PLAN_MINIMUM_BYTES,
  PLAN_OUTPUTS,
  PLAN_PERPLEXITY,
  PLAN_PRUNING_RATE,
  PLAN_READ_BYTES,
  PLAN_ROWS,
  PLAN_SCRATCH_BYTES,
  PLAN_SEQUENCES,
  PLAN_SNAPSHOTS,
  PLAN_STATE_BYTES,
  PLAN_TOTAL_BYTES,
  PLAN_UNITS,
  PLAN_WEIGHTS_BYTES,
} from "../assembly/abi";
import {
  HEADER_CONTEXT,
  HEADER_LAYERS,
  HEADER_STACKS,
  KIND_BC,
  KIND_MLP,
  KIND_QK,
  KIND_VO,
  KIND_XZ,
  STACK_BYTES,
  STACK_CHANNELS,
  STACK_KIND,
  STACK_LAYER,
  STACK_UNIT_BYTES,
  STACK_UNITS,
} from "../packs/format";
import { type Core, guarded } from "./core";
import { SnugError } from "./errors";

export interface PlanOptions {
  /** Bytes, or a string such as "600MB", "0.6GB" (decimal) or "512MiB". Absent: see `pruning`. */
  readonly memory?: number | string;
  /** Share of the prunable weights to leave out at most, 0 … 1. Not together with `memory`. Default 0. */
  readonly pruning?: number;
  /** Positions of a sequence. Default 2048, or the model's most if that is less. */
  readonly context?: number;
  /**
   * Most rows of a step: the length of a prefill chunk. Default 64; in the memory of a GPU 512, or as few as 64 where
   * `memory` would not hold the whole model beside them.
   */
  readonly rows?: number;
  /** Most rows of a step that want logits. Default 1, or as many as `sequences`. */
  readonly outputs?: number;
  /** Most sequences at a time. Default 1. */
  readonly sequences?: number;
  /**
   * Of models with a state, how many states are kept for prompts that begin alike. Default 0, or as many as `sequences` if
   * those are more than 1. Models without a state have none, nor has a GPU.
   */
  readonly snapshots?: number;
  /** Threads that share the work, the caller's among them. Default: what the machine has cores for. */
  readonly threads?: number;
  /**
   * What matrices of 4 and 8 bit work on: "int8", activations rounded to 8 bit group by group (the loss is far below
   * that of the weights' rounding), or "f32": slower, exact. Default "int8".
   */
  readonly activations?: "int8" | "f32";
  /**
   * What the KV cache holds: "f32", or "q8", codes of 8 bit with a scale for each key and value. Default "q8" where
   * matrices are of 4 or 8 bit and so are the activations they work on; on a GPU always "f32".
   */
  readonly kv?: "f32" | "q8";
  /** Whose memory the weights lie in, and with them all that a step works on. Default "cpu". */
  readonly device?: "cpu" | "gpu";
}

/** Queries and keys; values and outputs; MLP channels; dimensions of an SSM's state (B, C); of its heads (x, z). */
export type Kind = "qk" | "vo" | "mlp" | "bc" | "xz";

/** What a plan keeps of one kind of units in one layer. */
export interface StackPlan {
  readonly kind: Kind;
  readonly keptUnits: number;
  readonly units: number;
  /** Of each head, of each group of the state, or of the MLP. */
  readonly keptChannels: number;
  readonly channels: number;
  readonly unitBytes: number;
}

export interface LayerPlan {
  readonly layer: number;
  readonly stacks: readonly StackPlan[];
}

/** Sizes in bytes. The parts (core, weights, kv, state, scratch) add up to totalBytes. */
export interface Plan {
  readonly memoryBytes: number;
  readonly totalBytes: number;
  /** Of the total, what lies in the memory of a GPU: 0 where the CPU's holds all. */
  readonly deviceBytes: number;
  readonly coreBytes: number;
  readonly weightsBytes: number;
  readonly kvBytes: number;
  readonly stateBytes: number;
  readonly scratchBytes: number;
  readonly readBytes: number;
  readonly pruningRate: number;
  readonly keptUnits: number;
  readonly units: number;
  /** On the calibration text, from the pack's quality curve; null if the pack has none. */
  readonly expectedPerplexity: number | null;
  readonly minimumBytes: number;
  readonly maximumBytes: number;
  readonly context: number;
  readonly sequences: number;
  readonly snapshots: number;
  readonly rows: number;
  readonly outputs: number;
  readonly threads: number;
  readonly kv: "f32" | "q8";
  readonly layers: readonly LayerPlan[];
  readonly options: PlanOptions;
}

/** As many as assembly/threads.ts has room for. */
const THREADS_MAX = 64;

const KIND_NAMES: Readonly<Record<number, Kind>> = {
  [KIND_QK]: "qk",
  [KIND_VO]: "vo",
  [KIND_MLP]: "mlp",
  [KIND_BC]: "bc",
  [KIND_XZ]: "xz",
};
const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KIB: 1024,
  MIB: 1024 ** 2,
  GIB: 1024 ** 3,
};

/** Bytes of a size such as 600000000, "600MB", "0.6 GB" or "512MiB". */
export function parseSize(size: number | string): number {
  const match = typeof size === "string" ? /^\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*$/i.exec(size) : null;
  const unit = match ? UNITS[(match[2] ?? "").toUpperCase()] : 1;
  const bytes = match ? Math.floor(Number(match[1]) * (unit ?? Number.NaN)) : Number(size);
  if (typeof size === "string" && !match) throw sizeError(size);
  if (!Number.isFinite(bytes) || bytes < 0) throw sizeError(size);
  return bytes;
}

function sizeError(size: number | string): SnugError {
  return new SnugError("usage", `"${size}" is not a size: give bytes, or a number with KB, MB, GB, KiB, MiB or GiB`);
}

/**
 * Plans in a core that has read a header. Without memory and pruning everything is kept. usableThreads: what `threads`
 * is if it is not given; mostThreads: what it is at most.
 */
export function makePlan(core: Core, options: PlanOptions, usableThreads: number, mostThreads = THREADS_MAX): Plan {
  if (options.memory !== undefined && options.pruning !== undefined)
    throw new SnugError("usage", "give memory or pruning, not both");
  const count = (name: "context" | "sequences" | "rows" | "outputs" | "threads") => {
    const value = options[name] ?? 0;
    if (!Number.isInteger(value) || value < 0 || (options[name] !== undefined && value === 0) || value > 2 ** 31)
      throw new SnugError("usage", `${name} must be a whole number above 0, not ${options[name]}`);
    return value;
  };
  const { exports } = core;
  const most = exports.pack_field(HEADER_CONTEXT);
  if (count("context") > most)
    throw new SnugError(
      "usage",
      `a context of ${options.context} is more than the ${most} that the model was made for`,
    );
  const device = options.device === "gpu" ? 1 : 0;
  const threads = device ? 1 : Math.min(count("threads") || usableThreads, mostThreads);
  const exact = options.activations === "f32" ? 1 : 0;
  const kv = options.kv === undefined ? KV_DEFAULT : options.kv === "q8" ? KV_CODES : KV_F32;
  return guarded(() => {
    const [context, sequences] = [count("context"), count("sequences")];
    const [rows, outputs] = [count("rows"), count("outputs")];
    const snapshots = snapshotsOf(options);
    core.check(exports.plan_shape(context, sequences, rows, outputs, threads, exact, device, kv, snapshots));
    if (options.memory !== undefined) {
      checkBudget(core, exports.plan_memory(parseSize(options.memory)), options);
    } else {
      const rate = options.pruning ?? 0;
      if (!(rate >= 0 && rate <= 1))
        throw new SnugError("usage", `a pruning rate is between 0 and 1, such as 0.25, not ${rate}`);
      core.check(exports.plan_pruning(rate));
    }
    return readPlan(core, { ...options, threads });
  });
}

function snapshotsOf({ sequences = 1, snapshots = sequences > 1 ? sequences : 0 }: PlanOptions): number {
  if (!Number.isInteger(snapshots) || snapshots < 0 || snapshots > 2 ** 31)
    throw new SnugError("usage", `snapshots must be a whole number, 0 for none, not ${snapshots}`);
  return snapshots;
}

/** As core.check(); what does not fit is told with the context that it was planned for, and for how many sequences. */
function checkBudget(core: Core, result: number, { context, sequences = 1 }: PlanOptions): void {
  try {
    core.check(result);
  } catch (error) {
    if (!(error instanceof SnugError) || error.code !== "budget") throw error;
    core.check(core.exports.plan_pruning(1)); // a plan, whatever it takes, knows the context
    const planned = core.view(core.exports.plan_ptr(), PLAN_BYTES).getFloat64(PLAN_CONTEXT, true);
    const which = context === undefined ? `${planned}, the default` : String(planned);
    const times = sequences > 1 ? `, for ${sequences} sequences at a time` : "";
    throw new SnugError("budget", `${error.message} (it is ${which}${times})`, { cause: error });
  }
}

function readPlan(core: Core, options: PlanOptions): Plan {
  const view = core.view(core.exports.plan_ptr(), PLAN_BYTES);
  const at = (offset: number) => view.getFloat64(offset, true);
  const perplexity = at(PLAN_PERPLEXITY);
  return {
    memoryBytes: at(PLAN_MEMORY_BYTES),
    totalBytes: at(PLAN_TOTAL_BYTES),
    deviceBytes: at(PLAN_DEVICE_BYTES),
    coreBytes: at(PLAN_CORE_BYTES),
    weightsBytes: at(PLAN_WEIGHTS_BYTES),
    kvBytes: at(PLAN_KV_BYTES),
    stateBytes: at(PLAN_STATE_BYTES),
    scratchBytes: at(PLAN_SCRATCH_BYTES),
    readBytes: at(PLAN_READ_BYTES),
    pruningRate: at(PLAN_PRUNING_RATE),
    keptUnits: at(PLAN_KEPT_UNITS),
    units: at(PLAN_UNITS),
    expectedPerplexity: Number.isNaN(perplexity) ? null : perplexity,
    minimumBytes: at(PLAN_MINIMUM_BYTES),
    maximumBytes: at(PLAN_MAXIMUM_BYTES),
    context: at(PLAN_CONTEXT),
    sequences: at(PLAN_SEQUENCES),
    snapshots: at(PLAN_SNAPSHOTS),
    rows: at(PLAN_ROWS),
    outputs: at(PLAN_OUTPUTS),
    kv: at(PLAN_CODED) === 1 ? "q8" : "f32",
    threads: options.threads ?? 1,
    layers: readLayers(core),
    options,
  };
}

function readLayers(core: Core): LayerPlan[] {
  const layers = Array.from({ length: core.exports.pack_field(HEADER_LAYERS) }, (_, layer) => ({
    layer,
    stacks: [] as StackPlan[],
  }));
  const stacks = core.exports.pack_count(HEADER_STACKS);
  for (let stack = 0; stack < stacks; stack++) {
    const record = core.view(core.exports.stack_ptr(stack), STACK_BYTES);
    const at = (offset: number) => record.getUint32(offset, true);
    const keptUnits = core.exports.cut_kept(stack);
    layers[at(STACK_LAYER)]?.stacks.push({
      kind: KIND_NAMES[at(STACK_KIND)] as Kind,
      keptUnits,
      units: at(STACK_UNITS),
      keptChannels: keptUnits * at(STACK_CHANNELS),
      channels: at(STACK_UNITS) * at(STACK_CHANNELS),
      unitBytes: at(STACK_UNIT_BYTES),
    });
  }
  return layers;
}
