// Who runs a model's steps: the core itself, or a device (gpu.ts). The rows of a step lie at rows_ptr() of the core.

import type { Core } from "./core";
import { guarded } from "./core";

/** What a choice of the next token depends on. */
export interface Sampling {
  /** Tokens that it is among, after the penalty: the likeliest. */
  readonly count: number;
  /** At least 1. */
  readonly repeatPenalty: number;
  /** Tokens that the penalty is for. */
  readonly history: readonly number[];
}

export interface Executor {
  /** The GPU, as its driver calls it. Absent: the core runs its steps by itself. */
  readonly name?: string;
  /** Runs the first `rows` rows. */
  run(rows: number): void | Promise<void>;
  /**
   * Runs them; the logits of those that want some lie at logits_ptr() then. sampling: only what it can choose from is
   * wanted, of one row; whoever saves something by that leaves −∞ for all others.
   */
  logits(rows: number, sampling?: Sampling): void | Promise<void>;
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
