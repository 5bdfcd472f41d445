// A GPU as the one who runs a model's steps: the words for what can go wrong, and the way from the core's plan to the device.

import { OP_BYTES, PLAN_BYTES, PLAN_OUTPUTS, PLAN_ROWS, PLAN_SEQUENCES, ROW_BYTES } from "../assembly/abi";
import type { Candidates, Device, Executor as DeviceExecutor, GpuReason } from "../gpu/index";
import { HEADER_VOCABULARY } from "../packs/format";
import { type Core, guarded } from "./core";
import { type ErrorCode, SnugError } from "./errors";
import { chooseFrom, type Executor, type Sampling } from "./executor";
import type { Host } from "./host";

const CODES: Readonly<Record<GpuReason, ErrorCode>> = {
  unavailable: "gpu",
  wrong: "gpu",
  memory: "memory",
  lost: "lost",
};

/** More than so many likeliest tokens are not looked for on the GPU: all logits come back instead. */
const CANDIDATES_MOST = 128;
/** Beyond those that are wanted, for what the penalty does to some of them. */
const CANDIDATES_MORE = 64;

/** A device, and the promise that it computes rightly: that is found out while weights are on their way. */
export interface OpenedDevice {
  readonly device: Device;
  readonly tested: Promise<void>;
}

const devices = new WeakMap<Host, Promise<OpenedDevice>>();

/** The host's GPU, asked for and tested once; after it was lost, another. software: one that the CPU plays will do. */
export async function openDevice(host: Host, software = true): Promise<OpenedDevice> {
  const known = await devices.get(host)?.catch(() => undefined);
  if (known !== undefined && !known.device.isLost) return known;
  const opened = named(async () => {
    const { findGpu, requestDevice, selfTest } = await import("../gpu/index");
    const device = await requestDevice(await findGpu(host.webgpu), { software });
    const tested = selfTest(device);
    tested.catch(() => {}); // who needs it awaits it
    return { device, tested };
  });
  devices.set(host, opened);
  return opened;
}

/** Takes the memory of the plan that the core has placed. */
export function gpuExecutor(core: Core, { device, tested }: OpenedDevice): Promise<GpuExecutor> {
  return named(async () => {
    const { Executor } = await import("../gpu/index");
    const { exports } = core;
    const plan = core.view(exports.plan_ptr(), PLAN_BYTES);
    const at = (offset: number) => plan.getFloat64(offset, true);
    const executor = await Executor.create(device, {
      records: core.bytes(exports.program_ptr(), exports.program_length() * OP_BYTES).slice(),
      vocabulary: exports.pack_field(HEADER_VOCABULARY) >>> 0,
      capacity: { rows: at(PLAN_ROWS), outputs: at(PLAN_OUTPUTS), sequences: at(PLAN_SEQUENCES) },
      table: tableOf(core),
    });
    return new GpuExecutor(core, executor, tested);
  });
}

export class GpuExecutor implements Executor {
  readonly #core: Core;
  readonly #executor: DeviceExecutor;
  readonly #tested: Promise<void>;
  /** The ids of the logits that are there; none: all are. */
  #among: readonly number[] = [];

  constructor(core: Core, executor: DeviceExecutor, tested: Promise<void>) {
    this.#core = core;
    this.#executor = executor;
    this.#tested = tested;
  }

  get name(): string {
    return this.#executor.device.name;
  }

  /** Can it time its kernels? */
  get hasTimestamps(): boolean {
    return this.#executor.device.timestamps;
  }

  /** Puts verified bytes where the plan has them. */
  upload(offset: number, bytes: Uint8Array): void {
    named(() => this.#executor.upload(offset, bytes as Uint8Array<ArrayBuffer>));
  }

  /** Resolves when steps can run, on a device that computes rightly. */
  ready(): Promise<void> {
    return named(async () => {
      await this.#tested;
      await this.#executor.compiled();
    });
  }

  run(rows: number): void {
    named(() => this.#executor.run(this.#rows(rows)));
  }

  async logits(rows: number): Promise<void> {
    this.#among = [];
    this.#put(await named(() => this.#executor.logits(this.#rows(rows))));
  }

  async forChoice(rows: number, sampling: Sampling): Promise<void> {
    const { count, repeatPenalty } = sampling;
    this.#among = [];
    if (count === 0 || count > CANDIDATES_MOST || repeatPenalty < 1) return this.logits(rows);
    const candidates = await named(() => this.#executor.candidates(this.#rows(rows), count + CANDIDATES_MORE));
    if (candidates === null || !suffice(candidates, sampling))
      return this.#put(await named(() => this.#executor.lastLogits(1)));
    // In ascending order, as the sampler has equals.
    const { ids, logits } = candidates;
    const order = ids.map((_, i) => i).toSorted((a, b) => (ids[a] as number) - (ids[b] as number));
    this.#among = order.map((i) => ids[i] as number);
    this.#put(Float32Array.from(order, (i) => logits[i] as number));
  }

  choose(history: readonly number[], output: number): number {
    if (this.#among.length === 0) return chooseFrom(this.#core, history, output);
    const { exports } = this.#core;
    const places = new Map(this.#among.map((id, place) => [id, place]));
    const seen = [...new Set(history)].flatMap((id) => places.get(id) ?? []);
    this.#core.words(exports.history_ptr(), seen.length).set(seen);
    const place = guarded(() => this.#core.check(exports.logits_choose_among(this.#among.length, seen.length)));
    return this.#among[place] as number;
  }

  #put(logits: Float32Array): void {
    this.#core.floats(this.#core.exports.logits_ptr(), logits.length).set(logits);
  }

  async *greedy(count: number): AsyncGenerator<number, void> {
    const tokens = named(() => this.#executor.greedy(this.#rows(1), count));
    try {
      for (;;) {
        const next = await named(() => tokens.next());
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await tokens.return();
    }
  }

  /** What the device takes for each kind of op in a step, in seconds. */
  times(rows: number): Promise<Map<string, { seconds: number; launches: number }>> {
    return named(() => this.#executor.times(this.#rows(rows)));
  }

  end(): void {
    this.#executor.destroy();
  }

  /** The rows at rows_ptr(), checked, once the device knows where the cache's blocks lie. */
  #rows(rows: number): Uint8Array {
    const { exports } = this.#core;
    guarded(() => this.#core.check(exports.step_begin(rows)));
    this.#executor.place(tableOf(this.#core));
    return this.#core.bytes(exports.rows_ptr(), rows * ROW_BYTES);
  }
}

/** Where the cache's blocks lie; none where there is no attention. */
export function tableOf(core: Core): Uint32Array {
  const table = core.exports.cache_table() >>> 0;
  return table === 0 ? new Uint32Array() : core.words(table, core.exports.cache_blocks());
}

/** Do they hold all that can be chosen? The penalty only lowers logits, and those that are not among them are below `bound`. */
function suffice({ ids, logits, bound }: Candidates, { count, repeatPenalty, history }: Sampling): boolean {
  const penalized = new Set(repeatPenalty === 1 ? [] : history);
  const lowered = ids.map((id, i) => {
    const logit = logits[i] as number;
    if (!penalized.has(id)) return logit;
    return logit > 0 ? logit / repeatPenalty : logit * repeatPenalty;
  });
  const least = lowered.toSorted((a, b) => b - a)[count - 1];
  return least !== undefined && least >= bound && ids.length > count;
}

/** Runs what may fail on a device; its errors become SnugErrors. */
function named<T>(work: () => T): T {
  try {
    const done = work();
    return done instanceof Promise ? (done.catch(renamed) as T) : done;
  } catch (error) {
    return renamed(error);
  }
}

function renamed(error: unknown): never {
  if (error instanceof Error && error.name === "GpuError" && "reason" in error)
    throw new SnugError(CODES[error.reason as GpuReason], error.message, { cause: error });
  throw error;
}
