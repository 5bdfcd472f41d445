// What a screen reader is told of a text that streams: whole sentences, in batches, never letter by letter. No DOM.

/** Least milliseconds between two batches. */
const PAUSE_MS = 2500;

export class Spoken {
  #waiting = "";
  #last = Number.NEGATIVE_INFINITY;

  /** Takes a piece at a time in milliseconds; returns what is to be said now, or null. */
  push(piece: string, now: number): string | null {
    this.#waiting += piece;
    if (now - this.#last < PAUSE_MS) return null;
    const end = /^[\s\S]*(?:[.!?…:;](?=\s)|\n)/.exec(this.#waiting)?.[0].length ?? 0;
    if (end === 0) return null;
    const said = this.#waiting.slice(0, end).trim();
    this.#waiting = this.#waiting.slice(end);
    if (said === "") return null;
    this.#last = now;
    return said;
  }

  /** The rest, at the end. */
  end(): string {
    const rest = this.#waiting.trim();
    this.#waiting = "";
    this.#last = Number.NEGATIVE_INFINITY;
    return rest;
  }
}
