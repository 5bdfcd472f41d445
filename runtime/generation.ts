// One generation: a prompt is read, then a token at a time is made, until something ends it.

import { SAMPLER_BYTES } from "../assembly/abi";
import { type Core, guarded } from "./core";
import type { Engine } from "./engine";
import { SnugError } from "./errors";
import type { Sampling } from "./executor";
import { throwIfAborted } from "./load";
import type { Plan } from "./plan";
import { Sequence } from "./sequence";
import { TextStream } from "./stream";

const DEFAULTS = { temperature: 0.7, topK: 40, repeatPenalty: 1.1 };
const LOGPROBS_MOST = 20;

export interface GenerateOptions {
  /** Most tokens to make. Default: what the context has room for. */
  readonly maxTokens?: number;
  /** 0 always takes the likeliest token. Default 0.7. */
  readonly temperature?: number;
  /** Only the K likeliest tokens; 0: all. Default 40. */
  readonly topK?: number;
  /** Only the likeliest tokens that together have this probability, above 0; 1: all. Default 0.95. */
  readonly topP?: number;
  /** Only tokens at least this likely, relative to the likeliest; 0: all. Default 0.05. */
  readonly minP?: number;
  /** Divides the logits of tokens that were there before; 1: no penalty. Default 1.1. */
  readonly repeatPenalty?: number;
  /** Texts that end the generation; they are not part of the result. */
  readonly stop?: readonly string[];
  /**
   * Reads the prompt twice, the begin token once: what a model with a state of fixed size did not know to keep at the
   * first reading, it can keep at the second (arXiv 2407.05483). Only for such models; it takes twice the context.
   */
  readonly readTwice?: boolean;
  /** Whole number below 2^53. The same seed gives the same text. Default: drawn at random. */
  readonly seed?: number;
  /** Interactive ones come before those in the background. Default "interactive". */
  readonly priority?: "interactive" | "background";
  /** For onToken: how likely each token was, and as many of the likeliest, 0 … 20, beside it. Default: nobody works it out. */
  readonly logprobs?: number;
  /** Called for each token that is made, before its text comes. */
  readonly onToken?: (token: GeneratedToken) => void;
  readonly signal?: AbortSignal;
}

export interface TokenLogprob {
  readonly id: number;
  /** Natural logarithm of its probability, as the model gave it: before temperature, penalty and cuts. */
  readonly logprob: number;
}

export interface GeneratedToken {
  readonly id: number;
  /** null where nobody asked for logprobs. */
  readonly logprob: number | null;
  /** The likeliest first. */
  readonly top: readonly TokenLogprob[];
}

export interface Speed {
  readonly tokens: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
}

export interface GenerateResult {
  readonly text: string;
  /** The ids that were made, the end token included if there was one. */
  readonly tokens: readonly number[];
  /** "stop": an end token or a stop text; "length": maxTokens or the context's end. */
  readonly finishReason: "stop" | "length";
  readonly seed: number;
  /** Of a chat, the messages that were left out for want of room: see `overflow`. */
  readonly droppedTurns: number;
  readonly prompt: Speed;
  readonly decode: Speed;
}

/** What a generation needs of its model. */
export interface Generator {
  readonly core: Core;
  readonly engine: Engine;
  readonly plan: Plan;
  readonly endTokens: ReadonlySet<number>;
  tokenBytes(token: number): Uint8Array;
}

/** Text as it comes: iterate it for the pieces, or await result() for the whole. It runs once. */
export class Generation implements AsyncIterable<string> {
  /** Tokens that are to be read before the first one can be made: known however it ends. */
  readonly promptTokens: number;
  /** As in the result. */
  readonly droppedTurns: number;
  readonly #pieces: AsyncGenerator<string, Omit<GenerateResult, "droppedTurns">>;
  #result: GenerateResult | undefined;

  /** of: what is continued, tokens that are read for this text alone, or a sequence that goes on after it. */
  constructor(model: Generator, of: readonly number[] | Sequence, options: GenerateOptions, droppedTurns = 0) {
    this.promptTokens = of instanceof Sequence ? of.pending : of.length;
    this.droppedTurns = droppedTurns;
    this.#pieces = generate(model, of, options);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void> {
    try {
      for (;;) {
        const piece = await this.#pieces.next();
        if (piece.done) {
          if (piece.value !== undefined) this.#result = { ...piece.value, droppedTurns: this.droppedTurns };
          return;
        }
        yield piece.value;
      }
    } finally {
      // Who leaves the loop ends the generation; one that has ended stays as it is.
      await this.#pieces.return(undefined as never);
    }
  }

  /** Runs to the end, if it has not yet, and says how it went. */
  async result(): Promise<GenerateResult> {
    for await (const _ of this);
    if (this.#result === undefined) throw new SnugError("aborted", "the generation was left before its end");
    return this.#result;
  }
}

async function* generate(
  model: Generator,
  of: readonly number[] | Sequence,
  options: GenerateOptions,
): AsyncGenerator<string, Omit<GenerateResult, "droppedTurns">> {
  const { engine } = model;
  const own = of instanceof Sequence ? undefined : of;
  const prompt = of instanceof Sequence ? of.tokens : of;
  const { context } = model.plan;
  const { signal } = options;
  const room = context - prompt.length;
  if (prompt.length === 0)
    throw new SnugError("usage", "the prompt is empty, and this model has no token to begin with: give some text");
  if (room < 0)
    throw new SnugError(
      "context",
      `the prompt${options.readTwice ? ", read twice," : ""} is ${prompt.length} tokens long, the context has room for ${context}: shorten it or plan a larger context`,
    );
  const maxTokens = Math.min(wholeNumber("maxTokens", options.maxTokens ?? room, 1e9), room);
  const seed = wholeNumber("seed", options.seed ?? Math.floor(Math.random() * 2 ** 32), Number.MAX_SAFE_INTEGER);
  const logprobs =
    options.logprobs === undefined ? undefined : wholeNumber("logprobs", options.logprobs, LOGPROBS_MOST);
  const sequence = of instanceof Sequence ? of : engine.begin();
  sequence.isBackground = options.priority === "background";
  sequence.sampler.set(samplerOf(model.core, options, seed));
  if (own !== undefined) engine.append(sequence, own);
  const unread = sequence.pending;

  const started = performance.now();
  let decodeStarted = started;
  const tokens: number[] = [];
  const stream = new TextStream(options.stop);
  let text = "";
  let finishReason: GenerateResult["finishReason"] = "length";
  try {
    throwIfAborted(signal);
    while (tokens.length < maxTokens) {
      const choice = {
        ...{ sampling: samplingOf(options), isGreedy: isGreedy(options), logprobs },
        most: maxTokens - tokens.length,
      };
      const token = await engine.next(sequence, choice, signal);
      if (tokens.length === 0) decodeStarted = performance.now();
      tokens.push(token.id);
      options.onToken?.(token);
      if (model.endTokens.has(token.id)) {
        finishReason = "stop";
        break;
      }
      const piece = stream.push(model.tokenBytes(token.id));
      text += piece;
      if (piece !== "") yield piece;
      if (stream.stopped) {
        finishReason = "stop";
        break;
      }
    }
  } finally {
    if (own !== undefined) await engine.end(sequence);
  }
  const rest = stream.end();
  if (stream.stopped) finishReason = "stop"; // an unfinished character can complete a stop text
  text += rest;
  if (rest !== "") yield rest;
  const ended = performance.now();
  return {
    text,
    tokens,
    finishReason,
    seed,
    prompt: speed(unread, decodeStarted - started),
    decode: speed(tokens.length, ended - decodeStarted),
  };
}

/** Is always the likeliest token taken, whatever came before? */
function isGreedy({ temperature = DEFAULTS.temperature, repeatPenalty = DEFAULTS.repeatPenalty }: GenerateOptions) {
  return temperature === 0 && repeatPenalty === 1;
}

function samplingOf({
  temperature = DEFAULTS.temperature,
  topK = DEFAULTS.topK,
  repeatPenalty = DEFAULTS.repeatPenalty,
}: GenerateOptions): Omit<Sampling, "history"> {
  return { count: temperature === 0 ? 1 : topK, repeatPenalty };
}

/** A sampler's settings and random numbers, as the core keeps them. */
function samplerOf(core: Core, options: GenerateOptions, seed: number): Uint8Array {
  const temperature = inRange("temperature", options.temperature ?? DEFAULTS.temperature, 0, 100);
  const topK = wholeNumber("topK", options.topK ?? DEFAULTS.topK, 2 ** 31);
  const topP = inRange("topP", options.topP ?? 0.95, 1e-6, 1);
  const minP = inRange("minP", options.minP ?? 0.05, 0, 1);
  const repeatPenalty = inRange("repeatPenalty", options.repeatPenalty ?? DEFAULTS.repeatPenalty, 0.01, 100);
  const high = Math.floor(seed / 2 ** 32);
  guarded(() =>
    core.check(core.exports.logits_configure(temperature, topK, topP, minP, repeatPenalty, seed >>> 0, high)),
  );
  return core.bytes(core.exports.logits_sampler_ptr(), SAMPLER_BYTES).slice();
}

function inRange(name: string, value: number, least: number, most: number): number {
  if (!(value >= least && value <= most))
    throw new SnugError("usage", `${name} must be between ${least} and ${most}, not ${value}`);
  return value;
}

function wholeNumber(name: string, value: number, most: number): number {
  if (!Number.isInteger(value) || value < 0 || value > most)
    throw new SnugError("usage", `${name} must be a whole number from 0 to ${most}, not ${value}`);
  return value;
}

function speed(tokens: number, milliseconds: number): Speed {
  const seconds = milliseconds / 1000;
  return { tokens, seconds, tokensPerSecond: seconds > 0 ? tokens / seconds : 0 };
}
