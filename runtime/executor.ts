// Who runs a model's steps: the core itself, or a device (gpu.ts). The rows of a step lie at rows_ptr() of the core.

import type { Core } from "./core";
import { guarded } from "./core";

export interface Executor {
  /** The GPU, as its driver calls it. Absent: the core runs its steps by itself. */
  readonly name?: string;
  /** Runs the first `rows` rows. */
  run(rows: number): void | Promise<void>;
  /** Runs them; the logits of those that want some lie at logits_ptr() then. */
  logits(rows: number): void | Promise<void>;
  /** From the one row that is there on: `count` tokens, each the likeliest after the one before. Absent: step by step. */
  greedy?(count: number): AsyncGenerator<number, void>;
  /** Gives back what it holds. */
  end(): void;
}

/** The core runs its steps by itself. */
export function coreExecutor(core: Core): Executor {
  const step = (rows: number) => {
    guarded(() => core.check(core.exports.step(rows)));
  };
  return { run: step, logits: step, end: () => core.endThreads() };
}
