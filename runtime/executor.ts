// Who runs a model's steps: the core itself, or a device (gpu.ts). The rows of a step lie at rows_ptr() of the core.

import type { Core } from "./core";
import { guarded } from "./core";

/** What a choice of the next token depends on. */
export interface Sampling {
  /** Tokens that it is among, after the penalty: so many of the likeliest; 0: all. */
  readonly count: number;
  readonly repeatPenalty: number;
  /** Tokens that the penalty is for. */
  readonly history: readonly number[];
}

export interface Executor {
  /** The GPU, as its driver calls it. Absent: the core runs its steps by itself. */
  readonly name?: string;
  /** Runs the first `rows` rows. */
  run(rows: number): void | Promise<void>;
  /** Runs them; the logits of those that want some lie at logits_ptr() then. */
  logits(rows: number): void | Promise<void>;
  /** Runs them, of which one wants logits, for choose(): all that can be chosen is to be had then. */
  forChoice(rows: number, sampling: Sampling): void | Promise<void>;
  /** The next token, as the core's sampler is set up. history: tokens that its penalty is for; output: of the step's rows. */
  choose(history: readonly number[], output: number): number;
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
  const choose = (history: readonly number[], output: number) => chooseFrom(core, history, output);
  return { run: step, logits: step, forChoice: step, choose, end: () => core.endThreads() };
}

/** Chooses from a row of logits. */
export function chooseFrom(core: Core, history: readonly number[], output: number): number {
  const { exports } = core;
  core.words(exports.history_ptr(), history.length).set(history);
  return guarded(() => core.check(exports.logits_choose(output, history.length)));
}
