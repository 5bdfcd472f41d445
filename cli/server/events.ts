// Server-sent events: one JSON object each, as fast as the other end takes them.

import { once } from "node:events";
import type { ServerResponse } from "node:http";

export class Events {
  readonly #response: ServerResponse;
  readonly #signal: AbortSignal;

  /** signal: nobody waits for the other end any more. */
  constructor(response: ServerResponse, signal: AbortSignal) {
    this.#response = response;
    response.setMaxListeners(0); // every answer waits by itself
    this.#signal = signal;
  }

  /** Sends an object; the first one sends the headers. Resolves once the other end has room for more. */
  async send(data: object): Promise<void> {
    await this.#write(JSON.stringify(data));
  }

  /** The end of a stream that has come to its end. */
  async done(): Promise<void> {
    await this.#write("[DONE]");
    this.#response.end();
  }

  async #write(data: string): Promise<void> {
    const response = this.#response;
    if (response.destroyed) return;
    if (!response.headersSent)
      response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no" });
    if (response.write(`data: ${data}\n\n`) || this.#signal.aborted) return;
    await once(response, "drain", { signal: this.#signal }).catch((error: Error) => {
      if (error.name !== "AbortError") throw error;
    });
  }
}
