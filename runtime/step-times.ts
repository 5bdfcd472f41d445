// How long steps take here, from what was measured at load.

/** Of the time that running sequences take of a step, what prompts may take on top. */
const SPARE = 0.75;
/** No step has more rows (assembly/shape.ts). */
const ROWS_MOST = 4096;

export class StepTimes {
  /** The shortest that a step of so many rows took, in the order of the rows. */
  readonly #seconds = new Map<number, number>();

  /** A step of so many rows has taken so long. More rows never take less time than fewer. To be told in their order. */
  add(rows: number, seconds: number): void {
    this.#seconds.set(rows, Math.min(seconds, this.#seconds.get(rows) ?? Number.POSITIVE_INFINITY));
  }

  /** Rows of prompts that a step has time for beside so many running rows; at least 1, and no more while nothing is known. */
  spareRows(running: number): number {
    const limit = this.#of(running) * (1 + SPARE);
    let spare = 1;
    while (spare < ROWS_MOST && this.#of(running + spare + 1) <= limit) spare++;
    return spare;
  }

  /** Between two numbers of rows that were measured, and beyond the last two of them, as a line goes. */
  #of(rows: number): number {
    const points = [...this.#seconds];
    const above = points.findIndex(([measured]) => measured >= rows);
    const next = above < 0 ? points.length - 1 : above;
    const [toRows, to] = points[next] ?? [1, 1];
    const [fromRows, from] = points[next - 1] ?? [0, 0];
    const slope = Math.max(0, to - from) / (toRows - fromRows);
    return to + slope * (rows - toRows);
  }
}
