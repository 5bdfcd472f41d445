// Progress on stderr: one line redrawn in place on a terminal, a line every tenth of the way elsewhere.

import { duration, lookOf, writeNow } from "./output";

const REDRAW_MS = 100;
const STAGE_COLUMNS = 34;
const BAR_COLUMNS = { least: 6, most: 24 };
const OTHER_COLUMNS = 28; // gaps, the percentage and the time that is left
const CLEAR_LINE = "\r\x1b[K";

export interface ProgressOptions {
  /** Nothing is shown before this many milliseconds have passed. */
  readonly delay?: number;
  /** Lines where stderr is no terminal. Default true. */
  readonly lines?: boolean;
}

export class Progress {
  readonly #look = lookOf(process.stderr);
  readonly #redraws = process.stderr.isTTY === true && process.env.TERM !== "dumb";
  readonly #delay: number;
  readonly #lines: boolean;
  readonly #started = performance.now();
  #drawn = 0;
  #shown = false;
  #tenths = 0;

  constructor(options: ProgressOptions = {}) {
    this.#delay = options.delay ?? 0;
    this.#lines = options.lines ?? true;
  }

  /** `stage`: words for people; `done`: 0 … 1 of the whole. */
  update(stage: string, done: number): void {
    const now = performance.now();
    const elapsed = now - this.#started;
    if (elapsed < this.#delay) return;
    const share = Math.min(1, Math.max(0, done));
    if (!this.#redraws) {
      const tenths = Math.floor(share * 10 + 1e-9);
      if (!this.#lines || tenths <= this.#tenths) return;
      this.#tenths = tenths;
      process.stderr.write(`${tenths * 10} % ${stage}${this.#remaining(elapsed, share)}\n`);
      return;
    }
    if (this.#shown && now - this.#drawn < REDRAW_MS && share < 1) return;
    this.#drawn = now;
    this.#shown = true;
    const { glyphs, accent, dim } = this.#look;
    const room = (process.stderr.columns || 80) - STAGE_COLUMNS - OTHER_COLUMNS;
    const columns = Math.max(BAR_COLUMNS.least, Math.min(room, BAR_COLUMNS.most));
    const full = Math.floor(share * columns);
    const bar = accent(glyphs.kept.repeat(full)) + dim(glyphs.dropped.repeat(columns - full));
    const words = stage.slice(0, STAGE_COLUMNS).padEnd(STAGE_COLUMNS);
    const percent = `${Math.floor(share * 100)}`.padStart(3);
    process.stderr.write(`${CLEAR_LINE}  ${words} ${bar} ${percent} %${this.#remaining(elapsed, share)}`);
  }

  /** Takes the line away, whatever becomes of the work. */
  end(): void {
    if (this.#shown) writeNow(2, CLEAR_LINE);
    this.#shown = false;
  }

  #remaining(elapsed: number, share: number): string {
    if (share <= 0.005 || share >= 1 || elapsed < 1000) return "";
    return `, ${duration((elapsed / 1000) * (1 / share - 1))} left`;
  }
}
