// A sequence on its way: its tokens, how many of them the cache holds, and what it waits for. The engine moves it on.

import { SAMPLER_BYTES } from "../assembly/abi";
import type { Sampling } from "./executor";
import type { GeneratedToken } from "./generation";

/** How the next token is to be chosen. */
export interface Choice {
  readonly sampling: Omit<Sampling, "history">;
  /** Is it the likeliest, whatever came before? */
  readonly isGreedy: boolean;
  /** Tokens that may follow at most, this one included. */
  readonly most: number;
  /** How many of the likeliest to tell of; undefined: nothing. */
  readonly logprobs: number | undefined;
}

/** Somebody waits for a token. */
export interface Want {
  readonly choice: Choice;
  readonly resolve: (token: GeneratedToken) => void;
  readonly reject: (error: unknown) => void;
}

export class Sequence {
  /** In the order in which they came. */
  readonly number: number;
  isBackground = false;
  readonly tokens: number[] = [];
  /** Settings and random numbers: SAMPLER_BYTES of the core. */
  readonly sampler = new Uint8Array(SAMPLER_BYTES);
  /** How many of the tokens the cache holds. */
  seen = 0;
  /** Has a token been chosen for it? */
  isRunning = false;
  /** What the core calls it; undefined: it holds nothing. */
  slot: number | undefined;
  /** Of the KV cache, in order. */
  blocks: number[] = [];
  /** Of them, those from the first on that others find. */
  namedBlocks = 0;
  /** Where it goes other ways than a prompt before it, and its state is kept for the next; 0: nowhere. */
  partsAt = 0;
  /** Was what is kept of it brought back from elsewhere? */
  isRestored = false;
  want: Want | undefined;
  /** When it last got a token, by performance.now(). */
  restsSince = 0;
  /** The number of the last step that it was part of. */
  lastStep = 0;

  constructor(number: number) {
    this.number = number;
  }

  /** Tokens that are to be read before the next one can be chosen. */
  get pending(): number {
    return this.tokens.length - this.seen;
  }
}
