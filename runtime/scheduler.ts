// Which rows a step is made of. No tensors here: sequences are numbers of tokens that wait to be read.
//
// Sequences that make text come first, one row each, so that a long prompt never holds them up (arXiv 2403.02310): what
// prompts get of such a step is as many rows as make it take less than twice as long. Interactive ones come before those
// in the background, and among equals those that came first.

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
export function shareStep(waiting: readonly Waiting[], { rows, outputs }: StepLimits, clock: StepClock): number[] {
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
  if (running > 0) left = Math.min(left, clock.spareRows(running));
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

/** Of the time that running sequences take of a step, what prompts may take on top. */
const SPARE = 0.75;
/** Rows of prompts beside running sequences, until it is known what a row costs. */
const FIRST_SPARE_ROWS = 8;
/** Of an average, what the newest step counts. */
const NEWEST = 0.25;

/** Knows how long steps take here, from those that were. */
export class StepClock {
  /** Seconds of a step in which only running sequences had rows, for each number of them. */
  readonly #running = new Map<number, number>();
  /** Seconds that one more row of a prompt takes. */
  #row: number | undefined;

  /** A step has taken so long: `running` rows of sequences that make text, `read` rows of prompts. */
  note(running: number, read: number, seconds: number): void {
    if (read === 0) {
      this.#running.set(running, average(this.#running.get(running), seconds));
      return;
    }
    const alone = running === 0 ? 0 : (this.#secondsOf(running) ?? 0);
    // One row costs what reading the weights costs: that says nothing of one more.
    if (running > 0 || read > 1) this.#row = average(this.#row, Math.max(0, seconds - alone) / read);
  }

  /** Rows of prompts that a step of so many running rows has time for; at least 1. */
  spareRows(running: number): number {
    const alone = this.#secondsOf(running);
    if (alone === undefined || this.#row === undefined || this.#row === 0) return FIRST_SPARE_ROWS;
    return Math.max(1, Math.floor((alone * SPARE) / this.#row));
  }

  /** Of the nearest number of running rows that there was. */
  #secondsOf(running: number): number | undefined {
    let [nearest, found] = [Number.POSITIVE_INFINITY, undefined as number | undefined];
    for (const [rows, seconds] of this.#running) {
      if (Math.abs(rows - running) >= nearest) continue;
      [nearest, found] = [Math.abs(rows - running), seconds];
    }
    return found;
  }
}

function average(before: number | undefined, now: number): number {
  return before === undefined ? now : before + NEWEST * (now - before);
}
