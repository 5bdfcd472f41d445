// An opened pack: its header in a core of its own, which answers what fits; loading makes another core, of exactly
// the planned size.

import {
  DTYPE_F32,
  DTYPE_Q4,
  DTYPE_Q8,
  FAMILY_BAMBA,
  FAMILY_LLAMA,
  FAMILY_MAMBA2,
  FAMILY_NEMOTRON_H,
  FAMILY_QWEN2,
  HEADER_CONTEXT,
  HEADER_FAMILY,
  HEADER_FIXED_TENSORS,
  HEADER_HEAD_DIM,
  HEADER_HEADS,
  HEADER_INFO,
  HEADER_KV_HEADS,
  HEADER_LAYERS,
  HEADER_SSM_GROUPS,
  HEADER_SSM_HEAD_DIM,
  HEADER_SSM_HEADS,
  HEADER_SSM_STATE,
  HEADER_UNITS,
  HEADER_VOCABULARY,
  HEADER_WIDTH,
  PRELUDE_BYTES,
  PRELUDE_FILE_BYTES,
  ROLE_EMBEDDING,
  ROLE_TOKENIZER,
  TENSOR_BYTES,
  TENSOR_DTYPE,
  TENSOR_ROLE,
} from "../packs/format";
import { type Build, chooseBuild } from "./build";
import { chooseDevice, type DeviceChoice } from "./choose";
import { Core, guarded } from "./core";
import { SnugError } from "./errors";
import { coreExecutor } from "./executor";
import { type GpuExecutor, gpuExecutor, openDevice } from "./gpu";
import type { Host, Source } from "./host";
import { identityOf } from "./identity";
import { type Info, parseInfo } from "./info";
import { checked, type LoadOptions, loadPlan, readPlan, readSource } from "./load";
import { Model, type Running } from "./model";
import { makePlan, type Plan, type PlanOptions } from "./plan";

/** What a pack's header says of the model. */
export interface Shape {
  readonly family: string;
  /** How its matrices are stored: "q4", "q8" or "f32". */
  readonly weights: string;
  readonly layers: number;
  readonly width: number;
  /** Of the attention; 0 in a model without one. */
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Of the SSM, or null: such a model keeps a state of fixed size instead of, or beside, a KV cache. */
  readonly ssm: {
    readonly heads: number;
    readonly headDim: number;
    readonly state: number;
    readonly groups: number;
  } | null;
  readonly vocabulary: number;
  /** Most positions that the model was made for. */
  readonly maximumContext: number;
  readonly hasTokenizer: boolean;
}

const FAMILY_NAMES: Readonly<Record<number, string>> = {
  [FAMILY_LLAMA]: "llama",
  [FAMILY_QWEN2]: "qwen2",
  [FAMILY_MAMBA2]: "mamba2",
  [FAMILY_BAMBA]: "bamba",
  [FAMILY_NEMOTRON_H]: "nemotron-h",
};
const DTYPE_NAMES: Readonly<Record<number, string>> = { [DTYPE_F32]: "f32", [DTYPE_Q8]: "q8", [DTYPE_Q4]: "q4" };

export interface OpenOptions {
  /** Vectors wider than 128 bits where the engine can be asked for them; experimental in the engines. Default false. */
  readonly turbo?: boolean;
  readonly signal?: AbortSignal;
}

/** Of the memory that an engine refused, this share is asked for next. */
const SMALLER_SHARE = 0.85;

/** Opens a pack and leaves its source open; one that is none is closed. */
export async function openPack(source: Source, host: Host, options: OpenOptions): Promise<Pack> {
  try {
    return await Pack.open(source, host, options);
  } catch (error) {
    await source.close?.();
    throw error;
  }
}

export class Pack {
  /** The build of the core that runs, and why no faster one does. */
  readonly build: Build;
  readonly info: Info;
  readonly shape: Shape;
  readonly units: number;
  /** Bytes of the file. */
  readonly size: number;
  /** What tells it from every other pack, whatever it is called. */
  readonly identity: string;
  readonly #core: Core;
  readonly #source: Source;
  readonly #host: Host;
  readonly #turbo: boolean;

  private constructor(core: Core, source: Source, host: Host, build: Build) {
    this.#core = core;
    this.#source = source;
    this.#host = host;
    this.build = build;
    this.#turbo = build.turbo;
    const { exports } = core;
    this.size = Number(core.view(exports.pack_prelude_ptr(), PRELUDE_BYTES).getBigUint64(PRELUDE_FILE_BYTES, true));
    this.identity = identityOf(core);
    this.shape = readShape(core);
    this.units = exports.pack_count(HEADER_UNITS);
    const json = core.bytes(exports.pack_info_ptr(), exports.pack_count(HEADER_INFO));
    this.info = parseInfo(new TextDecoder().decode(json), source.name);
  }

  /** Reads and checks the prelude and the header. */
  static async open(source: Source, host: Host, options: OpenOptions = {}): Promise<Pack> {
    const build = await chooseBuild(host, { shared: false, turbo: options.turbo ?? false });
    const core = new Core(build.module, source.name, false);
    const release = await source.prepare?.(PRELUDE_BYTES, options.signal);
    try {
      await readHeader(core, source);
    } finally {
      await release?.();
    }
    guarded(() => core.check(core.exports.plan_shape(0, 0, 0, 0, 0, 0)));
    return new Pack(core, source, host, build);
  }

  /** What a budget, a pruning rate, or nothing (everything is kept) comes to. Pure: nothing is read or loaded. */
  plan(options: PlanOptions = {}): Plan {
    const { startThread, usableThreads } = this.#host;
    return makePlan(this.#core, options, usableThreads?.() ?? 1, startThread === undefined ? 1 : undefined);
  }

  /**
   * Loads what a plan keeps. Without a plan: what fits the memory that the host can spare, or everything if that is
   * less; see spare(). If the engine refuses the memory, a plan that was made for a budget is made anew for less, until
   * one fits: the model's own plan says what it came to.
   */
  async load(plan: Plan = this.plan({ memory: this.spare().bytes }), options: LoadOptions = {}): Promise<Model> {
    const wanted = options.device ?? plan.options.device ?? "cpu";
    const choice = wanted === "auto" ? await chooseDevice(this, plan.options, options.signal) : null;
    const device = choice?.device ?? (wanted === "gpu" ? "gpu" : "cpu");
    const isOther = device !== (plan.options.device ?? "cpu");
    try {
      return await this.#load(isOther ? this.plan(optionsFor(plan.options, device)) : plan, options, choice);
    } catch (error) {
      // What a GPU that was chosen then refuses, the CPU may take.
      const isRefusal = error instanceof SnugError && ["gpu", "memory", "lost"].includes(error.code);
      if (choice?.device !== "gpu" || !isRefusal) throw error;
      const instead: DeviceChoice = { ...choice, device: "cpu", reason: error.message };
      return this.#load(this.plan(optionsFor(plan.options, "cpu")), options, instead);
    }
  }

  async #load(plan: Plan, options: LoadOptions, choice: DeviceChoice | null): Promise<Model> {
    for (let tried = plan; ; ) {
      try {
        return await this.#start(tried, options, choice);
      } catch (error) {
        const smaller = this.#smaller(tried, error);
        if (smaller === undefined) throw error;
        options.onSmaller?.(smaller, error as SnugError);
        tried = smaller;
      }
    }
  }

  /**
   * A model as `plan` makes it, but without its weights, which are not read: it is as fast, and knows nothing. Takes
   * 128 MB of memory, or what the plan takes if that is less, and the fixed part if that is more. software: of GPUs, one
   * that the CPU plays will do.
   */
  async rehearse(plan: Plan, software = true): Promise<Model> {
    const core = await this.#makeCore(plan);
    try {
      guarded(() => core.check(core.exports.load_rehearsal()));
      const gpu = plan.deviceBytes > 0 ? await gpuExecutor(core, await openDevice(this.#host, software)) : undefined;
      await gpu?.ready();
      return new Model({ core, executor: gpu ?? coreExecutor(core), plan }, this.#host, this.info);
    } catch (error) {
      core.endThreads();
      throw error;
    }
  }

  /** The plan to try after this error: undefined if the error is another, or nothing smaller can run. */
  #smaller(plan: Plan, error: unknown, budget = plan.options.memory): Plan | undefined {
    const refused = error instanceof SnugError && error.code === "memory";
    if (!refused || budget === undefined) return undefined;
    const { pruning: _, ...options } = plan.options;
    const memory = Math.floor(plan.totalBytes * SMALLER_SHARE);
    return memory < plan.minimumBytes ? undefined : this.plan({ ...options, memory });
  }

  async #start(plan: Plan, options: LoadOptions, choice: DeviceChoice | null): Promise<Model> {
    const core = await this.#makeCore(plan, plan.totalBytes - plan.deviceBytes);
    let gpu: GpuExecutor | undefined;
    try {
      const begin = async () => {
        gpu = await gpuExecutor(core, await openDevice(this.#host));
        return gpu.upload.bind(gpu);
      };
      await loadPlan(core, this.#source, this.#host, plan, options, plan.deviceBytes > 0 ? begin : undefined);
      await gpu?.ready();
      const executor = gpu ?? coreExecutor(core);
      const again = gpu && (() => this.#again(core, plan));
      const model = new Model({ core, executor, plan }, this.#host, this.info, { again, choice });
      // A GPU that is lost by now is missed at the first step, and another one taken.
      if (plan.sequences > 1) await model.engine.measure().catch(unlessLost);
      return model;
    } catch (error) {
      gpu?.end();
      core.endThreads();
      throw error;
    }
  }

  /** A core that has made this plan. bytes: what it will take; absent: it grows as it needs. */
  async #makeCore(plan: Plan, bytes?: number): Promise<Core> {
    const shared = plan.threads > 1 && this.#host.startThread !== undefined;
    const build = shared ? await chooseBuild(this.#host, { shared, turbo: this.#turbo }) : this.build;
    const core = new Core(build.module, this.#source.name, shared, bytes);
    if (shared) core.startThreads(this.#host, plan.threads - 1);
    core.exports.program_wide(build.turbo);
    try {
      this.#replan(core, plan);
    } catch (error) {
      core.endThreads();
      throw error;
    }
    return core;
  }

  /** What a model goes on with after its GPU was lost: another one, loaded anew; with a smaller cut, if memory is short. */
  async #again(core: Core, plan: Plan): Promise<Running> {
    try {
      const executor = await gpuExecutor(core, await openDevice(this.#host));
      await readPlan(core, this.#source, plan, {}, executor.upload.bind(executor));
      await executor.ready();
      return { core, executor, plan };
    } catch (error) {
      const smaller = this.#smaller(plan, error, plan.totalBytes);
      if (smaller === undefined) throw error;
      const model = await this.#start(smaller, {}, null);
      return model.running;
    }
  }

  /** Makes the plan in a core of its own. */
  #replan(core: Core, plan: Plan): void {
    const headerBytes = this.#core.exports.pack_header_bytes();
    core
      .bytes(core.exports.pack_prelude_ptr(), PRELUDE_BYTES)
      .set(this.#core.bytes(this.#core.exports.pack_prelude_ptr(), PRELUDE_BYTES));
    guarded(() => core.check(core.exports.pack_prelude(this.#source.size)));
    core
      .bytes(core.exports.pack_header_ptr(), headerBytes)
      .set(this.#core.bytes(this.#core.exports.pack_header_ptr(), headerBytes));
    guarded(() => core.check(core.exports.pack_header()));
    const again = makePlan(core, plan.options, plan.threads);
    if (again.totalBytes !== plan.totalBytes || again.keptUnits !== plan.keptUnits)
      throw new SnugError("usage", "this plan was made for another pack: plan with the pack that is loaded");
  }

  /** Memory that the host can spare, and how that was found out. */
  spare() {
    return this.#host.spareMemory();
  }

  async close(): Promise<void> {
    await this.#source.close?.();
  }
}

/** A plan's options for another device: threads and rows are those of the other, unless they were asked for. */
function optionsFor({ threads: _, ...options }: PlanOptions, device: "cpu" | "gpu"): PlanOptions {
  return { ...options, device };
}

/** Reads and checks the prelude and the header. */
async function readHeader(core: Core, source: Source): Promise<void> {
  const { exports } = core;
  const prelude = new Uint8Array(PRELUDE_BYTES);
  const readPrelude = () => readSource(source, 0, prelude.subarray(0, Math.min(PRELUDE_BYTES, source.size)));
  await readPrelude();
  const checkPrelude = () => {
    core.bytes(exports.pack_prelude_ptr(), PRELUDE_BYTES).set(prelude);
    return guarded(() => core.check(exports.pack_prelude(source.size)));
  };
  const headerBytes = await checked(source, 0, PRELUDE_BYTES, checkPrelude, readPrelude);
  const header = new Uint8Array(headerBytes);
  const readAll = () => readSource(source, PRELUDE_BYTES, header);
  await readAll();
  const checkHeader = () => {
    core.bytes(exports.pack_header_ptr(), headerBytes).set(header);
    guarded(() => core.check(exports.pack_header()));
  };
  await checked(source, PRELUDE_BYTES, headerBytes, checkHeader, readAll);
}

function readShape(core: Core): Shape {
  const { exports } = core;
  const field = (offset: number) => exports.pack_field(offset) >>> 0;
  const fixed = Array.from({ length: field(HEADER_FIXED_TENSORS) }, (_, i) =>
    core.view(exports.tensor_ptr(i), TENSOR_BYTES),
  );
  const find = (role: number) => fixed.find((record) => record.getUint32(TENSOR_ROLE, true) === role);
  return {
    family: FAMILY_NAMES[field(HEADER_FAMILY)] ?? "",
    weights: DTYPE_NAMES[find(ROLE_EMBEDDING)?.getUint32(TENSOR_DTYPE, true) ?? -1] ?? "",
    layers: field(HEADER_LAYERS),
    width: field(HEADER_WIDTH),
    heads: field(HEADER_HEADS),
    kvHeads: field(HEADER_KV_HEADS),
    headDim: field(HEADER_HEAD_DIM),
    ssm:
      field(HEADER_SSM_HEADS) === 0
        ? null
        : {
            heads: field(HEADER_SSM_HEADS),
            headDim: field(HEADER_SSM_HEAD_DIM),
            state: field(HEADER_SSM_STATE),
            groups: field(HEADER_SSM_GROUPS),
          },
    vocabulary: field(HEADER_VOCABULARY),
    maximumContext: field(HEADER_CONTEXT),
    hasTokenizer: find(ROLE_TOKENIZER) !== undefined,
  };
}

function unlessLost(error: unknown): void {
  if (!(error instanceof SnugError) || error.code !== "lost") throw error;
}
