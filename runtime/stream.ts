// From the bytes of tokens to text for people: whole characters only, and nothing of a stop text, not even its first
// half.

export class TextStream {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #stops: readonly string[];
  readonly #longest: number;
  #held = "";
  #stopped = false;

  constructor(stops: readonly string[] = []) {
    this.#stops = stops.filter((stop) => stop !== "");
    this.#longest = Math.max(0, ...this.#stops.map((stop) => stop.length));
  }

  /** Did a stop text come? Nothing follows then. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes a token's bytes; returns the text that is certain by now. */
  push(bytes: Uint8Array): string {
    return this.#take(this.#decoder.decode(bytes, { stream: true }), false);
  }

  /** The rest, once no more bytes come; an unfinished character becomes U+FFFD. */
  end(): string {
    return this.#take(this.#decoder.decode(), true);
  }

  #take(text: string, last: boolean): string {
    if (this.#stopped) return "";
    this.#held += text;
    const found = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      this.#stopped = true;
      return this.#held.slice(0, Math.min(...found));
    }
    const keep = last ? 0 : this.#undecided();
    const ready = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(this.#held.length - keep);
    return ready;
  }

  /** Length of the longest end of the held text that begins a stop text. */
  #undecided(): number {
    for (let length = Math.min(this.#held.length, this.#longest - 1); length > 0; length--) {
      const end = this.#held.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
