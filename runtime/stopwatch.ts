// How fast a loaded model is: prompts, single tokens, single ops, and what the machine could do at most. Only the
// model's own steps are timed, with the choice of the likeliest token after each; no text is made and nothing is drawn.

import {
  FLAG_OUTPUTS,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_PANELS,
  MATMUL_ROWS,
  OP_ATTENTION,
  OP_BYTES,
  OP_CEILING_PRODUCTS,
  OP_CEILING_READ,
  OP_CODE,
  OP_CONV,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_GATED_NORM,
  OP_MATMUL,
  OP_NORM,
  OP_QUANTIZE,
  OP_ROLE,
  OP_ROPE,
  OP_SCAN,
  OP_SELECT,
  OP_SQUARED_RELU,
  OP_STEP_SIZE,
} from "../assembly/abi";
import {
  DTYPE_F32,
  DTYPE_Q4,
  ROLE_B,
  ROLE_C,
  ROLE_DOWN,
  ROLE_DT,
  ROLE_EMBEDDING,
  ROLE_GATE,
  ROLE_HEAD,
  ROLE_K,
  ROLE_O,
  ROLE_OUT,
  ROLE_Q,
  ROLE_UP,
  ROLE_V,
  ROLE_X,
  ROLE_Z,
  ROW_TILE,
} from "../packs/format";
import { type Core, guarded } from "./core";
import { SnugError } from "./errors";
import { GpuExecutor } from "./gpu";
import { throwIfAborted } from "./load";
import type { Model } from "./model";
import { writeRows } from "./rows";

/** An op of the program, and what it does in a step. */
export interface OpWork {
  /** Such as "norm" or "attention"; "matrix" for a product with weights. */
  readonly op: string;
  /** Which matrix, such as "gate"; "" for other ops. */
  readonly matrix: string;
  /** Stored bytes of the matrix: what is read of it in every step. */
  readonly weightBytes: number;
  /** Multiplications with weights for one row of the step. */
  readonly products: number;
  /** Is it done for those rows only that want logits? */
  readonly forOutputs: boolean;
}

/** What a GPU's kernels of one kind take of a step. */
export interface KernelTime {
  /** Such as "attention", or "matrix gate"; a product with several matrices at once has the first one's name. */
  readonly kernel: string;
  /** Times that they are launched. */
  readonly launches: number;
  readonly seconds: number;
}

export interface Ceilings {
  /** Bytes a second of reading what the model keeps in memory, and doing nothing else. */
  readonly readBytes: number;
  /** Multiplications a second of 8-bit numbers in the first cache, and nothing else. */
  readonly products: number;
}

const OP_NAMES: Readonly<Record<number, string>> = {
  [OP_EMBED]: "embed",
  [OP_NORM]: "norm",
  [OP_QUANTIZE]: "quantize",
  [OP_MATMUL]: "matrix",
  [OP_ROPE]: "rope",
  [OP_ATTENTION]: "attention",
  [OP_GATE]: "gate",
  [OP_SELECT]: "select",
  [OP_SQUARED_RELU]: "squared relu",
  [OP_CONV]: "convolution",
  [OP_STEP_SIZE]: "step size",
  [OP_SCAN]: "scan",
  [OP_GATED_NORM]: "gated norm",
};
const MATRIX_NAMES: Readonly<Record<number, string>> = {
  [ROLE_EMBEDDING]: "head",
  [ROLE_HEAD]: "head",
  [ROLE_Q]: "q",
  [ROLE_K]: "k",
  [ROLE_V]: "v",
  [ROLE_O]: "o",
  [ROLE_GATE]: "gate",
  [ROLE_UP]: "up",
  [ROLE_DOWN]: "down",
  [ROLE_B]: "B",
  [ROLE_C]: "C",
  [ROLE_Z]: "z",
  [ROLE_X]: "x",
  [ROLE_DT]: "dt",
  [ROLE_OUT]: "out",
};

const THREADS_MS = 2000;
const ESTIMATE_SECONDS = 0.04;
const CEILING_PASSES = 4; // of which the first only warms up
const READ_ITEM_BYTES = 256;
const READ_AT_ONCE = 2 ** 20;
const READ_LEAST = 2 ** 28; // in a pass, so that the clock's grain does not count
const PRODUCT_ITEMS = 64;
const PRODUCT_CALLS = 200;

/** Times a loaded model; what its cache held is void. Times are in seconds. */
export class Stopwatch {
  readonly #model: Model;
  readonly #signal: AbortSignal | undefined;

  constructor(model: Model, signal?: AbortSignal) {
    this.#model = model;
    this.#signal = signal;
    model.engine.forget();
  }

  /** Waits until all threads of the plan take part, or until it is plain that some never will. */
  async ready(): Promise<void> {
    const { core, plan } = this.#model;
    const end = performance.now() + THREADS_MS;
    while (core.exports.threads_ready() < plan.threads && performance.now() < end) await this.#pause();
  }

  /** Reads `tokens` random tokens from `position` on, as a prompt is read, with logits of the last. */
  async prefill(tokens: number, position = 0): Promise<number> {
    const { rows } = this.#model.plan;
    const end = position + tokens;
    let seconds = 0;
    for (let at = position; at < end; at += rows) {
      const chunk = this.#tokens(at, Math.min(rows, end - at));
      seconds += await this.#step(chunk, at, at + chunk.length === end);
    }
    return seconds;
  }

  /** Makes `tokens` tokens one by one from `position` on, each the likeliest after the one before. */
  async decode(tokens: number, position = 0): Promise<number> {
    let seconds = 0;
    let [token] = this.#tokens(position, 1) as [number];
    const { core, executor } = this.#model;
    if (executor.greedy !== undefined) {
      await this.#pause();
      const started = performance.now();
      writeRows(core, [token], position, () => true);
      for await (const _ of executor.greedy(tokens));
      return (performance.now() - started) / 1000;
    }
    for (let at = position; at < position + tokens; at++) {
      seconds += await this.#step([token], at, true);
      token = this.#model.core.exports.logits_best(0);
    }
    return seconds;
  }

  /** What each op takes on the CPU in a step of `rows` rows from `position` on, in the order of work(). */
  async ops(rows: number, position = 0): Promise<Float64Array> {
    const core = this.#cpuCore("ops");
    const { exports } = core;
    const seconds = new Float64Array(exports.program_length());
    await this.#pause();
    writeRows(core, this.#tokens(position, rows), position, (row) => row === rows - 1);
    guarded(() => {
      core.check(exports.step_begin(rows));
      for (let op = 0; op < seconds.length; op++) {
        const started = performance.now();
        core.check(exports.step_ops(op, op + 1));
        seconds[op] = (performance.now() - started) / 1000;
      }
    });
    return seconds;
  }

  /**
   * What the kernels take on the GPU in a step of `rows` rows from `position` on, the longest first; null where it has no
   * timestamps.
   */
  async gpuOps(rows: number, position = 0): Promise<KernelTime[] | null> {
    const { core, executor } = this.#model;
    if (!(executor instanceof GpuExecutor)) throw new SnugError("usage", "gpuOps() is for a model on a GPU");
    if (!executor.hasTimestamps) return null;
    await this.#pause();
    writeRows(core, this.#tokens(position, rows), position, (row) => row === rows - 1);
    const times = await executor.times(rows);
    return [...times]
      .map(([label, { launches, seconds }]) => ({ kernel: kernelName(label), launches, seconds }))
      .toSorted((a, b) => b.seconds - a.seconds);
  }

  /** Seconds that a step of `rows` rows takes on the CPU, from its first ops if it takes long: by their products. */
  async estimate(rows: number): Promise<number> {
    const core = this.#cpuCore("estimate");
    const { exports } = core;
    const work = this.work();
    const all = work.reduce((sum, { products }) => sum + products, 0);
    let seconds = 0;
    // The first pass runs what an engine's first compiler made.
    for (const limit of [ESTIMATE_SECONDS / 2, ESTIMATE_SECONDS]) {
      await this.#pause();
      writeRows(core, this.#tokens(0, rows), 0, (row) => row === rows - 1);
      guarded(() => core.check(exports.step_begin(rows)));
      const started = performance.now();
      let done = 0;
      for (let op = 0; op < work.length; op++) {
        guarded(() => core.check(exports.step_ops(op, op + 1)));
        done += (work[op] as OpWork).products;
        seconds = (performance.now() - started) / 1000;
        if (seconds > limit && done > 0) break;
      }
      seconds *= all / done;
    }
    return seconds;
  }

  /** The ops of the program. */
  work(): OpWork[] {
    const { core } = this.#model;
    return Array.from({ length: core.exports.program_length() }, (_, index) =>
      readOp(core.view((core.exports.program_ptr() >>> 0) + index * OP_BYTES, OP_BYTES)),
    );
  }

  /** What the threads of a model on the CPU can do at most on this machine; takes some tenths of a second. */
  async ceilings(): Promise<Ceilings> {
    const core = this.#cpuCore("ceilings");
    const { exports } = core;
    const atOnce = Math.min(READ_AT_ONCE, core.memoryBytes);
    const bytes = Math.floor(core.memoryBytes / atOnce) * atOnce;
    const rounds = Math.ceil(READ_LEAST / bytes);
    const read = await this.#fastest(() => {
      for (let round = 0; round < rounds; round++)
        for (let at = 0; at < bytes; at += atOnce) exports.ceiling(OP_CEILING_READ, at, atOnce / READ_ITEM_BYTES);
    });
    const multiply = await this.#fastest(() => {
      for (let call = 0; call < PRODUCT_CALLS; call++) exports.ceiling(OP_CEILING_PRODUCTS, 0, PRODUCT_ITEMS);
    });
    return {
      readBytes: (rounds * bytes) / read,
      products: (PRODUCT_CALLS * PRODUCT_ITEMS * exports.ceiling_products()) / multiply,
    };
  }

  /** The core, which runs the steps itself, or a refusal. */
  #cpuCore(name: string): Core {
    const { core, executor } = this.#model;
    if (executor instanceof GpuExecutor)
      throw new SnugError("usage", `${name}() is for a model on the CPU: this one is on a GPU`);
    return core;
  }

  async #fastest(work: () => void): Promise<number> {
    let least = Number.POSITIVE_INFINITY;
    for (let pass = 0; pass < CEILING_PASSES; pass++) {
      await this.#pause();
      const started = performance.now();
      guarded(work);
      least = Math.min(least, (performance.now() - started) / 1000);
    }
    return least;
  }

  async #step(tokens: readonly number[], position: number, wantsLogits: boolean): Promise<number> {
    const { core, executor } = this.#model;
    await this.#pause();
    const started = performance.now();
    writeRows(core, tokens, position, (row) => wantsLogits && row === tokens.length - 1);
    await (wantsLogits ? executor.logits(tokens.length) : executor.run(tokens.length));
    if (wantsLogits) core.exports.logits_best(0);
    return (performance.now() - started) / 1000;
  }

  async #pause(): Promise<void> {
    await this.#model.host.pause();
    throwIfAborted(this.#signal);
  }

  /** The same for the same positions. */
  #tokens(position: number, count: number): number[] {
    const { vocabulary } = this.#model;
    return Array.from({ length: count }, (_, i) => (Math.imul(position + i + 1, 0x9e3779b1) >>> 0) % vocabulary);
  }
}

function readOp(record: DataView): OpWork {
  const at = (offset: number) => record.getUint32(offset, true);
  const code = at(OP_CODE);
  const forOutputs = (at(OP_FLAGS) & FLAG_OUTPUTS) !== 0;
  const op = OP_NAMES[code] ?? `op ${code}`;
  if (code !== OP_MATMUL) return { op, matrix: "", weightBytes: 0, products: 0, forOutputs };
  const [rows, cols, panels] = [at(MATMUL_ROWS), at(MATMUL_COLS), at(MATMUL_PANELS)];
  return {
    op,
    matrix: MATRIX_NAMES[at(OP_ROLE)] ?? `matrix ${at(OP_ROLE)}`,
    weightBytes: panels * storedBytes(at(MATMUL_DTYPE), rows, cols, at(MATMUL_GROUP)),
    products: panels * rows * cols,
    forOutputs,
  };
}

/** Products with weights are labelled by the numbers of their roles. */
function kernelName(label: string): string {
  const roles = /^matmul ([\d ]+)$/.exec(label)?.[1];
  if (roles === undefined) return label;
  return `matrix ${roles
    .split(" ")
    .map((role) => MATRIX_NAMES[Number(role)] ?? role)
    .join(", ")}`;
}

/** Bytes of a matrix as packs/format.ts lays it out. */
function storedBytes(dtype: number, rows: number, cols: number, group: number): number {
  const stored = Math.ceil(rows / ROW_TILE) * ROW_TILE * cols;
  if (dtype === DTYPE_F32) return stored * 4;
  return (stored / group) * 2 + (dtype === DTYPE_Q4 ? stored / 2 : stored);
}
