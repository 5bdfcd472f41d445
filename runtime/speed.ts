// How fast a plan will be, before anything is loaded: its own steps, timed on weights that are all zero.

import type { Pack } from "./pack";
import type { Plan } from "./plan";
import { Stopwatch } from "./stopwatch";

const LEAST_SECONDS = 0.25;
const LEAST_TOKENS = 4;
const MOST_TOKENS = 400;

/**
 * Tokens a second that a plan's model will make at the start of a text, as this machine is now. Takes some tenths of a
 * second and the memory of Pack.rehearse().
 */
export async function expectedSpeed(pack: Pack, plan: Plan, signal?: AbortSignal): Promise<number> {
  const model = await pack.rehearse(plan);
  try {
    const watch = new Stopwatch(model, signal);
    await watch.ready();
    const seconds: number[] = [];
    // The first tokens run what an engine's first compiler made.
    for (let spent = 0; seconds.length < LEAST_TOKENS || spent < LEAST_SECONDS; ) {
      const token = await watch.decode(1, seconds.length % plan.context);
      seconds.push(token);
      spent += token;
      if (seconds.length === MOST_TOKENS) break;
    }
    const settled = seconds.slice(seconds.length / 2).toSorted((a, b) => a - b);
    return 1 / (settled[Math.floor(settled.length / 2)] as number);
  } finally {
    model.dispose();
  }
}
