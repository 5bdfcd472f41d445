// A text that is made at the other end of a channel.

import type { GeneratedToken, GenerateOptions, GenerateResult } from "./generation";
import type { ChatOptions } from "./overflow";
import type { Caller } from "./port";

/** What the other end is told of ChatOptions: whether it is to tell each token too, which is no string. */
export type RemoteGenerateOptions = Omit<ChatOptions, "signal" | "onToken"> & { readonly tellsTokens: boolean };

/**
 * Text as it comes: iterate it for the pieces, or await result() for the whole. It runs once, from the first of these
 * calls on, and does not wait for a slow reader.
 */
export class RemoteGeneration implements AsyncIterable<string> {
  readonly #start: (onPiece: (piece: string) => void) => Promise<GenerateResult>;
  readonly #stop = new AbortController();
  readonly #pieces: string[] = [];
  #running: Promise<GenerateResult> | undefined;
  #wake: () => void = () => {};

  constructor(caller: Caller, method: string, args: readonly unknown[], options: GenerateOptions) {
    const { signal, onToken, ...rest } = options;
    this.#start = (onPiece) => {
      const onEvent = (event: unknown) => {
        if (typeof event === "string") onPiece(event);
        else onToken?.(event as GeneratedToken);
      };
      const stop = () => this.#stop.abort(signal?.reason);
      if (signal?.aborted) stop();
      signal?.addEventListener("abort", stop, { once: true });
      return caller
        .call<GenerateResult>(method, [...args, { ...rest, tellsTokens: onToken !== undefined }], {
          signal: this.#stop.signal,
          onEvent,
        })
        .finally(() => signal?.removeEventListener("abort", stop));
    };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void> {
    let ended = false;
    const over = () => {
      ended = true;
      this.#wake();
    };
    const running = this.#run();
    running.then(over, over);
    try {
      for (;;) {
        const piece = this.#pieces.shift();
        if (piece !== undefined) yield piece;
        else if (ended) break;
        else
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
      }
      await running;
    } finally {
      if (!ended) this.#stop.abort(); // who leaves the loop ends the generation
    }
  }

  /** Runs to the end, if it has not yet, and says how it went. */
  async result(): Promise<GenerateResult> {
    return this.#run();
  }

  #run(): Promise<GenerateResult> {
    this.#running ??= this.#start((piece) => {
      this.#pieces.push(piece);
      this.#wake();
    });
    this.#running.catch(() => {}); // whoever awaits it is told
    return this.#running;
  }
}
