// The calibration text, shared out to worker threads: every call goes to all shards, and their sums are added up.

import { availableParallelism } from "node:os";
import type { Worker } from "node:worker_threads";
import { SnugError } from "../runtime/index";
import { startWorker } from "../runtime/node-assets";
import type { Exam, Marks, NormalEquations, Shard, Statistics, Windows } from "./shard";

const PERPLEXITY_MOST = 2 ** 127; // it is an f32 in the pack, and finite

export type Method = Exclude<keyof Shard, never>;
export interface Call {
  readonly id: number;
  readonly method: Method;
  readonly args: unknown[];
}
export interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: unknown;
}

type Result<M extends Method> = Awaited<ReturnType<Shard[M]>>;

export class Shards {
  readonly #workers: readonly Worker[];
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: unknown) => void }>();
  #calls = 0;
  #failure: unknown;

  /** `threads`: how many shards; by default as many as the machine runs at once, but no more than four. */
  constructor(threads = Math.min(availableParallelism(), 4)) {
    this.#workers = Array.from({ length: threads }, () => {
      const worker = startWorker("packs-worker.js");
      worker.on("message", ({ id, value, error }: Answer) => {
        const waiting = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error === undefined) waiting?.resolve(value);
        else waiting?.reject(revived(error));
      });
      worker.on("error", (error) => this.#fail(error));
      return worker;
    });
  }

  get count(): number {
    return this.#workers.length;
  }

  /** Shares windows out and starts all shards at the first layer. Rows of `original` and `packed`: windows × tokens. */
  async begin({ tokens, levels, original, packed }: Windows): Promise<void> {
    const size = original.length / levels.length;
    await this.#each("begin", (shard) => {
      const own = levels.map((_, window) => window).filter((window) => window % this.count === shard);
      const gather = (values: Float32Array) => {
        const out = new Float32Array(own.length * size);
        own.forEach((window, i) => {
          out.set(values.subarray(window * size, (window + 1) * size), i * size);
        });
        return out;
      };
      const windows: Windows = {
        tokens,
        levels: own.map((window) => levels[window] as number),
        original: gather(original),
        packed: gather(packed),
      };
      return [windows];
    });
  }

  async load(which: "original" | "packed", pack: Uint8Array, levels: readonly (readonly number[])[]): Promise<void> {
    await this.#each("load", () => [which, pack, levels]);
  }

  /** Of each sublayer of the layer. */
  async statistics(): Promise<Statistics[]> {
    return (await this.#each("statistics", () => [])).reduce((a, b) =>
      a.map((own, i) => {
        const other = b[i] as Statistics;
        return {
          inputs: add(own.inputs, other.inputs),
          inputMean: add(own.inputMean, other.inputMean),
          outputs: add(own.outputs, other.outputs),
          states: add(own.states, other.states),
          rows: own.rows + other.rows,
        };
      }),
    );
  }

  /** XᵀX of what goes into the original's head, and X [windows × tokens, width] at the start of the first windows. */
  async headStatistics(windows: number, tokens: number): Promise<{ gram: Float32Array; inputs: Float32Array }> {
    const own = (shard: number) => Math.floor((windows - shard + this.count - 1) / this.count);
    const parts = await this.#each("headStatistics", (shard) => [own(shard), tokens]);
    const size = own(0) === 0 ? 0 : (parts[0]?.kept.length ?? 0) / own(0);
    const inputs = new Float32Array(windows * size);
    for (let window = 0; window < windows; window++) {
      const from = Math.floor(window / this.count) * size;
      inputs.set(
        (parts[window % this.count] as { kept: Float32Array }).kept.subarray(from, from + size),
        window * size,
      );
    }
    return { gram: parts.map(({ gram }) => gram).reduce(add), inputs };
  }

  inputs(sublayer: number): Promise<NormalEquations> {
    return this.#normal("inputs", [sublayer]);
  }

  outputs(sublayer: number, cols: number): Promise<NormalEquations> {
    return this.#normal("outputs", [sublayer, cols]);
  }

  async advance(sublayer: number): Promise<void> {
    await this.#each("advance", () => [sublayer]);
  }

  /** Shares an exam's windows out. */
  async openExam({ path, windows, reference }: Exam): Promise<void> {
    const rows = windows.map(({ length }) => length);
    const vocabulary = reference.length / rows.reduce((a, b) => a + b, 0);
    await this.#each("openExam", (shard) => {
      const own = windows.map((_, i) => i).filter((i) => i % this.count === shard);
      const starts = rows.map((_, i) => rows.slice(0, i).reduce((a, b) => a + b, 0));
      const parts = own.map((i) => {
        const from = (starts[i] as number) * vocabulary;
        return reference.subarray(from, from + (rows[i] as number) * vocabulary);
      });
      const part = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
      parts.reduce((at, values) => {
        part.set(values, at);
        return at + values.length;
      }, 0);
      return [{ path, windows: own.map((i) => windows[i] as Uint32Array), reference: part }];
    });
  }

  /** Mean KL(original ‖ cut) a token, in nats. */
  async examine(kept: readonly number[], sublayer: number): Promise<number> {
    const marks: Marks[] = await this.#each("examine", () => [kept, sublayer]);
    const sum = (value: (marks: Marks) => number) => marks.reduce((total, each) => total + value(each), 0);
    return sum(({ divergence }) => divergence) / sum(({ tokens }) => tokens);
  }

  async accept(): Promise<void> {
    await this.#each("accept", () => []);
  }

  async score(kept: readonly number[]): Promise<{ perplexity: number; topOne: number }> {
    const sums = (await this.#each("score", () => [kept])).reduce((a, b) => ({
      loss: a.loss + b.loss,
      likeliest: a.likeliest + b.likeliest,
      tokens: a.tokens + b.tokens,
    }));
    const perplexity = Math.min(Math.exp(sums.loss / sums.tokens), PERPLEXITY_MOST);
    return { perplexity, topOne: sums.likeliest / sums.tokens };
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
    this.#fail(new SnugError("aborted", "packing was stopped"));
  }

  async #normal(method: "inputs" | "outputs", args: unknown[]): Promise<NormalEquations> {
    const parts: NormalEquations[] = await this.#each(method, () => args);
    return parts.reduce((a, b) => ({ h: add(a.h, b.h), r: add(a.r, b.r) }));
  }

  #each<M extends Method>(method: M, args: (shard: number) => unknown[]): Promise<Result<M>[]> {
    return Promise.all(this.#workers.map((worker, shard) => this.#call<Result<M>>(worker, method, args(shard))));
  }

  #call<T>(worker: Worker, method: Method, args: unknown[]): Promise<T> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#calls++;
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      worker.postMessage({ id, method, args } satisfies Call);
    });
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}

/** `b` is shorter where its shard has no windows. */
function add(a: Float32Array, b: Float32Array): Float32Array {
  for (let i = 0; i < b.length; i++) a[i] = (a[i] as number) + (b[i] as number);
  return a;
}

/** What worker.ts sends of a SnugError; other errors come as they are. */
function revived(error: unknown): unknown {
  const { code, message } = error as Partial<SnugError>;
  return error instanceof Error || code === undefined ? error : new SnugError(code, message ?? "");
}
