// One generation: prefill the prompt in chunks, then a token at a time, until something ends it.

import { ROW_BYTES, ROW_OUTPUT, ROW_POSITION, ROW_SEQUENCE, ROW_TOKEN } from "../assembly/abi";
import { type Core, guarded } from "./core";
import { SnugError } from "./errors";
import type { Host } from "./host";
import { throwIfAborted } from "./load";
import type { Plan } from "./plan";
import { TextStream } from "./stream";

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
  readonly signal?: AbortSignal;
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
  readonly prompt: Speed;
  readonly decode: Speed;
}

/** What a generation needs of its model. */
export interface Generator {
  readonly core: Core;
  readonly host: Host;
  readonly plan: Plan;
  readonly endTokens: ReadonlySet<number>;
  tokenBytes(token: number): Uint8Array;
  /** Takes the cache over; the function that comes back throws once somebody else has done so. */
  claim(): () => void;
}

/** Text as it comes: iterate it for the pieces, or await result() for the whole. It runs once. */
export class Generation implements AsyncIterable<string> {
  readonly #pieces: AsyncGenerator<string, GenerateResult>;
  #result: GenerateResult | undefined;

  constructor(model: Generator, prompt: readonly number[], options: GenerateOptions) {
    this.#pieces = generate(model, prompt, options);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void> {
    try {
      for (;;) {
        const piece = await this.#pieces.next();
        if (piece.done) {
          this.#result = piece.value ?? this.#result;
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
  prompt: readonly number[],
  options: GenerateOptions,
): AsyncGenerator<string, GenerateResult> {
  const { core, host, plan } = model;
  const { exports } = core;
  const room = plan.context - prompt.length;
  if (prompt.length === 0)
    throw new SnugError("usage", "the prompt is empty, and this model has no token to begin with: give some text");
  if (room < 0)
    throw new SnugError(
      "context",
      `the prompt${options.readTwice ? ", read twice," : ""} is ${prompt.length} tokens long, the context has room for ${plan.context}: shorten it or plan a larger context`,
    );
  const maxTokens = Math.min(wholeNumber("maxTokens", options.maxTokens ?? room, 1e9), room);
  const seed = wholeNumber("seed", options.seed ?? Math.floor(Math.random() * 2 ** 32), Number.MAX_SAFE_INTEGER);
  const still = model.claim();
  const pause = async () => {
    await host.pause();
    throwIfAborted(options.signal);
    still();
  };
  configureSampler(core, options, seed);

  const started = performance.now();
  throwIfAborted(options.signal);
  for (let at = 0; at < prompt.length; at += plan.rows) {
    const chunk = prompt.slice(at, at + plan.rows);
    runStep(core, chunk, at, at + chunk.length === prompt.length);
    await pause();
  }
  const decodeStarted = performance.now();

  const stream = new TextStream(options.stop);
  const tokens: number[] = [];
  let text = "";
  let finishReason: GenerateResult["finishReason"] = "length";
  core.words(exports.history_ptr(), plan.context).set(prompt);
  while (tokens.length < maxTokens) {
    await pause();
    const token = guarded(() => core.check(exports.logits_choose(0, prompt.length + tokens.length)));
    core.words(exports.history_ptr(), plan.context)[prompt.length + tokens.length] = token;
    tokens.push(token);
    if (model.endTokens.has(token)) {
      finishReason = "stop";
      break;
    }
    const piece = stream.push(model.tokenBytes(token));
    text += piece;
    if (piece !== "") yield piece;
    if (stream.stopped) {
      finishReason = "stop";
      break;
    }
    if (tokens.length === maxTokens) break;
    still(); // whoever took the piece may have begun something else
    runStep(core, [token], prompt.length + tokens.length - 1, true);
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
    prompt: speed(prompt.length, decodeStarted - started),
    decode: speed(tokens.length, ended - decodeStarted),
  };
}

/** One step: consecutive tokens of sequence 0 from `position` on; with `last`, logits of the last of them. */
function runStep(core: Core, tokens: readonly number[], position: number, last: boolean): void {
  writeRows(core, tokens, position, (row) => last && row === tokens.length - 1);
  guarded(() => core.check(core.exports.step(tokens.length)));
}

/** Writes the rows of a step: consecutive tokens of sequence 0 from `position` on. */
export function writeRows(
  core: Core,
  tokens: ArrayLike<number>,
  position: number,
  wantsLogits: (row: number) => boolean,
): void {
  const rows = core.view(core.exports.rows_ptr(), tokens.length * ROW_BYTES);
  for (let row = 0; row < tokens.length; row++) {
    const at = row * ROW_BYTES;
    rows.setUint32(at + ROW_TOKEN, tokenId(tokens[row] as number), true);
    rows.setUint32(at + ROW_POSITION, position + row, true);
    rows.setUint32(at + ROW_SEQUENCE, 0, true);
    rows.setUint32(at + ROW_OUTPUT, wantsLogits(row) ? 1 : 0, true);
  }
}

/** A number that a u32 holds as it is; whether it is below the vocabulary is the core's to say. */
function tokenId(token: number): number {
  if (token >>> 0 !== token) throw new SnugError("usage", `${token} is not a token id: give whole numbers from 0 on`);
  return token;
}

function configureSampler(core: Core, options: GenerateOptions, seed: number): void {
  const temperature = inRange("temperature", options.temperature ?? 0.7, 0, 100);
  const topK = wholeNumber("topK", options.topK ?? 40, 2 ** 31);
  const topP = inRange("topP", options.topP ?? 0.95, 1e-6, 1);
  const minP = inRange("minP", options.minP ?? 0.05, 0, 1);
  const repeatPenalty = inRange("repeatPenalty", options.repeatPenalty ?? 1.1, 0.01, 100);
  const high = Math.floor(seed / 2 ** 32);
  guarded(() =>
    core.check(core.exports.logits_configure(temperature, topK, topP, minP, repeatPenalty, seed >>> 0, high)),
  );
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
