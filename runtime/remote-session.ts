// A session at the other end of a channel: the same names as session.ts, but every answer is awaited.

import type { GenerateOptions } from "./generation";
import type { Caller } from "./port";
import { RemoteGeneration } from "./remote-generation";

export class RemoteSession {
  readonly #caller: Caller;
  readonly #handle: number;

  constructor(caller: Caller, handle: number) {
    this.#caller = caller;
    this.#handle = handle;
  }

  /** All tokens so far: those that were put in, and those that the model made. */
  get tokens(): Promise<readonly number[]> {
    return this.#caller.call("session.tokens", [this.#handle]);
  }

  /** Puts a text behind what is there, or token ids as they are. It is read when it is needed. */
  append(text: string | readonly number[]): Promise<void> {
    return this.#caller.call("session.append", [this.#handle, text]);
  }

  /** Continues. What comes belongs to the session, the end token too, if there was one. One at a time. */
  generate(options: GenerateOptions = {}): RemoteGeneration {
    return new RemoteGeneration(this.#caller, "session.generate", [this.#handle], options);
  }

  /** Another session that has said the same so far. */
  async fork(): Promise<RemoteSession> {
    return new RemoteSession(this.#caller, await this.#caller.call("session.fork", [this.#handle]));
  }

  /** All that it takes to go on later, with the same pack and cut. */
  save(): Promise<Uint8Array> {
    return this.#caller.call("session.save", [this.#handle]);
  }

  /** Gives back what is kept of it; every later call is refused. */
  dispose(): Promise<void> {
    return this.#caller.call("session.dispose", [this.#handle]);
  }
}
