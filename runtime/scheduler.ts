// Which rows a step is made of. No tensors here: sequences are numbers of tokens that wait to be read.
//
// Sequences that make text come first, one row each, so that a long prompt never holds them up (arXiv 2403.02310): what
// prompts get of such a step is as many rows as make it take less than twice as long. Interactive ones come before those
// in the background, and among equals those that came first.

import type { StepTimes } from "./step-times";

export interface Waiting {
  /** Tokens that are to be read before the next one can be chosen; at least 1. */
  readonly tokens: number;
  /** Has it made text already? Then it is one of those that are not to be held up. */
  readonly isRunning: boolean;
  readonly isBackground: boolean;
  /** Of the tokens, how many it takes at a time at most. Absent: all. */
  readonly most?: number;
}

export interface StepLimits {
  readonly rows: number;
  readonly outputs: number;
}

/** Rows for each of those that wait, in their order; 0: it waits for another step. */
export function shareStep(waiting: readonly Waiting[], { rows, outputs }: StepLimits, times: StepTimes): number[] {
  const shares = waiting.map(() => 0);
  const places = waiting.map((_, i) => i);
  const order = [false, true].flatMap((background) => places.filter((i) => waiting[i]?.isBackground === background));
  let left = rows;
  let outputsLeft = outputs;
  for (const i of order.filter((place) => waiting[place]?.isRunning && waiting[place].tokens === 1)) {
    if (left === 0 || outputsLeft === 0) break;
    shares[i] = 1;
    left--;
    outputsLeft--;
  }
  const running = rows - left;
  if (running > 0) left = Math.min(left, times.spareRows(running));
  for (const i of order) {
    if (shares[i] !== 0 || left === 0) continue;
    const { tokens, most = tokens } = waiting[i] as Waiting;
    const share = Math.min(tokens, most, left);
    // The last of a prompt's tokens wants logits.
    const isLast = share === tokens;
    shares[i] = isLast && outputsLeft === 0 ? share - 1 : share;
    if (isLast && outputsLeft > 0) outputsLeft--;
    left -= shares[i];
  }
  return shares;
}
