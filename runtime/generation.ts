// One generation: prefill the prompt in chunks, then a token at a time, until something ends it.

import { ROW_BYTES, ROW_OUTPUT, ROW_POSITION, ROW_SEQUENCE, ROW_TOKEN } from "../assembly/abi";
import { type Core, guarded } from "./core";
import { SnugError } from "./errors";
import type { Executor, Sampling } from "./executor";
import type { Host } from "./host";
import { throwIfAborted } from "./load";
import type { Plan } from "./plan";
import { TextStream } from "./stream";

const DEFAULTS = { temperature: 0.7, topK: 40, repeatPenalty: 1.1 };
/** GPUs lost at one token, after which nobody tries again. */
const LOSSES_MOST = 3;

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
  readonly executor: Executor;
  readonly host: Host;
  readonly plan: Plan;
  readonly endTokens: ReadonlySet<number>;
  tokenBytes(token: number): Uint8Array;
  /** Goes on with another GPU after this one was lost. */
  revive(lost: SnugError): Promise<void>;
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
  const { host } = model;
  const { context } = model.plan;
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
  const still = model.claim();
  const pause = async () => {
    await host.pause();
    throwIfAborted(options.signal);
    still();
  };
  configureSampler(model.core, options, seed);

  const started = performance.now();
  throwIfAborted(options.signal);
  const tokens: number[] = [];
  const reader = new Reader(model, pause, samplingOf(options));
  await reader.read(prompt);
  const decodeStarted = performance.now();

  const stream = new TextStream(options.stop);
  let text = "";
  let finishReason: GenerateResult["finishReason"] = "length";
  try {
    while (tokens.length < maxTokens) {
      await pause();
      const token = await reader.next(maxTokens - tokens.length, isGreedy(options), () =>
        // The stream of random numbers is lost with the core, where that has changed: another one, as good, goes on.
        configureSampler(model.core, options, seed + tokens.length),
      );
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
      still(); // whoever took the piece may have begun something else
    }
  } finally {
    await reader.end();
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

/** One sequence on its way: what the cache holds of it, what comes next, and what to do when a GPU is lost. */
class Reader {
  readonly #model: Generator;
  readonly #pause: () => Promise<void>;
  readonly #sampling: Omit<Sampling, "history">;
  readonly #tokens: number[] = [];
  /** How many of the tokens the cache holds; the logits are of the last of them. */
  #seen = 0;
  #ahead: AsyncGenerator<number, void> | undefined;

  constructor(model: Generator, pause: () => Promise<void>, sampling: Omit<Sampling, "history">) {
    this.#model = model;
    this.#pause = pause;
    this.#sampling = sampling;
  }

  /** Reads tokens that come next. */
  async read(tokens: readonly number[]): Promise<void> {
    this.#tokens.push(...tokens);
    await this.#surviving(() => this.#catchUp());
  }

  /** The next token, which is read too. most: how many may follow at most, it included. */
  async next(most: number, greedy: boolean, restart: () => void): Promise<number> {
    const token = await this.#surviving(() => this.#choose(most, greedy), restart);
    this.#tokens.push(token);
    return token;
  }

  async end(): Promise<void> {
    await this.#ahead?.return();
  }

  async #choose(most: number, greedy: boolean): Promise<number> {
    const { executor } = this.#model;
    const ahead = await this.#ahead?.next();
    if (ahead !== undefined && !ahead.done) return ahead.value;
    if (greedy && executor.greedy !== undefined && this.#seen === this.#tokens.length - 1) {
      writeRows(this.#model.core, this.#tokens.slice(-1), this.#seen, () => true);
      this.#seen = 0; // the cache runs ahead from here on, and what it holds is not known
      this.#ahead = executor.greedy(most);
      return (await this.#ahead.next()).value as number;
    }
    await this.#catchUp();
    return this.#model.executor.choose(this.#tokens);
  }

  /** Reads what the cache does not hold yet; a prompt in chunks. */
  async #catchUp(): Promise<void> {
    const end = this.#tokens.length;
    const isPrompt = end - this.#seen > 1;
    while (this.#seen < end) {
      const { core, executor, plan } = this.#model;
      const chunk = this.#tokens.slice(this.#seen, this.#seen + plan.rows);
      const isLast = this.#seen + chunk.length === end;
      writeRows(core, chunk, this.#seen, (row) => isLast && row === chunk.length - 1);
      if (isLast) await executor.forChoice(chunk.length, { ...this.#sampling, history: this.#tokens });
      else await executor.run(chunk.length);
      this.#seen += chunk.length;
      if (isPrompt) await this.#pause();
    }
  }

  /** Does some work, again if a GPU is lost meanwhile: another one reads everything anew. */
  async #surviving<T>(work: () => Promise<T>, restart?: () => void): Promise<T> {
    for (let losses = 0; ; losses++) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof SnugError) || error.code !== "lost" || losses === LOSSES_MOST) throw error;
        const before = this.#model.core;
        await this.#model.revive(error);
        if (this.#model.core !== before) restart?.();
        this.#ahead = undefined;
        this.#seen = 0;
      }
    }
  }
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
  const temperature = inRange("temperature", options.temperature ?? DEFAULTS.temperature, 0, 100);
  const topK = wholeNumber("topK", options.topK ?? DEFAULTS.topK, 2 ** 31);
  const topP = inRange("topP", options.topP ?? 0.95, 1e-6, 1);
  const minP = inRange("minP", options.minP ?? 0.05, 0, 1);
  const repeatPenalty = inRange("repeatPenalty", options.repeatPenalty ?? DEFAULTS.repeatPenalty, 0.01, 100);
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
