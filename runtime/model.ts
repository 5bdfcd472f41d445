// A loaded model: text and tokens in, text and tokens out.

import { HEADER_BEGIN_TOKEN, HEADER_END_TOKENS, HEADER_SSM_HEADS, HEADER_VOCABULARY, NONE } from "../packs/format";
import { type Message, renderChat } from "./chat";
import type { DeviceChoice } from "./choose";
import { type Core, guarded } from "./core";
import { Engine, type EngineModel } from "./engine";
import { SnugError } from "./errors";
import type { Executor } from "./executor";
import { type GenerateOptions, Generation, type Generator } from "./generation";
import type { Host } from "./host";
import type { Info } from "./info";
import { type ChatOptions, checkOverflow, type FitOptions, type Fitted, fitTurns } from "./overflow";
import type { Plan } from "./plan";
import { Session } from "./session";

export interface Score {
  /** Sum of −ln p of each token after the first. */
  readonly loss: number;
  /** How many of them were the likeliest. */
  readonly topOne: number;
  /** How many there were. */
  readonly tokens: number;
}

/** What a model runs on. */
export interface Running {
  readonly core: Core;
  readonly executor: Executor;
  readonly plan: Plan;
}

export class Model implements Generator, EngineModel {
  readonly info: Info;
  readonly host: Host;
  /** Why it runs on this device, where the faster one was to be found out. */
  readonly choice: DeviceChoice | null;
  readonly vocabulary: number;
  readonly endTokens: ReadonlySet<number>;
  readonly engine: Engine;
  readonly #beginToken: number | undefined;
  readonly #hasState: boolean;
  readonly #again: (() => Promise<Running>) | undefined;
  #running: Running | undefined;
  #plan: Plan;

  /** again: makes what it goes on with after its GPU was lost. */
  constructor(
    running: Running,
    host: Host,
    info: Info,
    { again, choice = null }: { again?: (() => Promise<Running>) | undefined; choice?: DeviceChoice | null } = {},
  ) {
    this.#running = running;
    this.#plan = running.plan;
    this.#again = again;
    this.choice = choice;
    this.host = host;
    this.info = info;
    this.engine = new Engine(this);
    const { core } = running;
    const field = (offset: number) => core.exports.pack_field(offset) >>> 0;
    this.vocabulary = field(HEADER_VOCABULARY);
    this.#beginToken = field(HEADER_BEGIN_TOKEN) === NONE ? undefined : field(HEADER_BEGIN_TOKEN);
    this.#hasState = field(HEADER_SSM_HEADS) > 0;
    const ends = Array.from({ length: field(HEADER_END_TOKENS) }, (_, i) => field(HEADER_END_TOKENS + 4 + i * 4));
    this.endTokens = new Set(ends);
  }

  get running(): Running {
    if (this.#running === undefined) throw new SnugError("usage", "this model was disposed");
    return this.#running;
  }

  get core(): Core {
    return this.running.core;
  }

  get executor(): Executor {
    return this.running.executor;
  }

  /** What it was loaded by; after a GPU was lost that had too little memory, a smaller one. */
  get plan(): Plan {
    return this.#plan;
  }

  /** What the model takes: its core's memory, which has grown to what the plan says, and a GPU's. */
  get memoryBytes(): number {
    return this.core.memoryBytes + this.plan.deviceBytes;
  }

  /** Goes on with another GPU after this one was lost; what the cache held is void. */
  async revive(lost: SnugError): Promise<void> {
    if (this.#again === undefined) throw lost;
    this.running.executor.end();
    const running = await this.#again();
    if (this.#running === undefined) running.executor.end();
    else this.#running = running;
    this.#plan = running.plan;
  }

  /** Continues a prompt: text, or token ids that are taken as they are. */
  generate(prompt: string | readonly number[], options: GenerateOptions = {}): Generation {
    const tokens = typeof prompt === "string" ? this.prompt(prompt) : prompt;
    return new Generation(this, this.#read(tokens, options), options);
  }

  /** Answers a chat's last turn, through the pack's chat template. */
  chat(messages: readonly Message[], options: ChatOptions = {}): Generation {
    if (checkOverflow(options.overflow) === "error")
      return this.generate(this.encode(renderChat(this.info, messages)), options);
    const { prompt, droppedTurns } = this.fit(messages, options);
    return new Generation(this, prompt, options, droppedTurns);
  }

  /** What is left of a chat, and its tokens, once the oldest turns are left out that the context has no room for. */
  fit(messages: readonly Message[], options: FitOptions = {}): Fitted {
    const { prefix = "" } = options;
    const read = (kept: readonly Message[]) => this.#read(this.encode(renderChat(this.info, kept) + prefix), options);
    return fitTurns(messages, read, this.plan.context, options);
  }

  /** A conversation that stays; it begins with the model's begin token, if it has one. */
  session(): Session {
    const session = new Session(this);
    if (this.#beginToken !== undefined) session.append([this.#beginToken]);
    return session;
  }

  /** Takes up a session that was saved with the same pack and cut. */
  restore(saved: Uint8Array): Promise<Session> {
    return Session.restore(this, saved);
  }

  /** The token ids of a prompt: the model's begin token, if it has one, then the text. */
  prompt(text: string): number[] {
    return [...(this.#beginToken === undefined ? [] : [this.#beginToken]), ...this.encode(text)];
  }

  /** The token ids of a text; special tokens written out in it are recognised. */
  encode(text: string): number[] {
    const core = this.core;
    const { exports } = core;
    const capacity = exports.text_capacity();
    if (capacity === 0)
      throw new SnugError("unsupported", `${this.info.name} has no tokenizer: give token ids instead of text`);
    const bytes = new TextEncoder().encode(text);
    const tokens: number[] = [];
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + capacity);
      core.bytes(exports.text_ptr(), piece.length).set(piece);
      const last = at + piece.length === bytes.length;
      const count = guarded(() => core.check(exports.text_encode(piece.length, at === 0 ? 1 : 0, last ? 1 : 0, 1)));
      for (const token of core.words(exports.text_tokens_ptr(), count)) tokens.push(token);
      at += exports.text_consumed();
    }
    return tokens;
  }

  decode(tokens: readonly number[]): string {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return tokens.map((token) => decoder.decode(this.tokenBytes(token), { stream: true })).join("") + decoder.decode();
  }

  /** The bytes that a token stands for: none for ids without a text. */
  tokenBytes(token: number): Uint8Array {
    const { exports } = this.core;
    if (!Number.isInteger(token) || token < 0 || token >= this.vocabulary)
      throw new SnugError("usage", `token id ${token} is not below the vocabulary's ${this.vocabulary}`);
    return this.core.bytes(exports.text_token_ptr(token), exports.text_token_length(token)).slice();
  }

  /** Scores a text's tokens, each against the model's prediction from those before it. Wants a plan with outputs. */
  async score(tokens: ArrayLike<number>): Promise<Score> {
    const { core } = this;
    let loss = 0;
    let topOne = 0;
    await this.#forward(tokens, (output, position) => {
      if (position + 1 >= tokens.length) return;
      const next = tokens[position + 1] as number;
      loss -= core.exports.logits_score(output, next);
      if (core.exports.logits_best(output) === next) topOne++;
    });
    return { loss, topOne, tokens: Math.max(0, tokens.length - 1) };
  }

  /** The logits of every position: f32 [vocabulary], valid during the call. Wants a plan with outputs. */
  async logits(tokens: ArrayLike<number>, visit: (logits: Float32Array, position: number) => void): Promise<void> {
    const core = this.core;
    await this.#forward(tokens, (output, position) => {
      const ptr = (core.exports.logits_ptr() >>> 0) + output * this.vocabulary * 4;
      visit(core.floats(ptr, this.vocabulary), position);
    });
  }

  /** Frees the memory; every later call is refused. */
  dispose(): void {
    this.#running?.executor.end();
    this.#running = undefined;
    this.engine.check();
  }

  /** A prompt as it is read: once, or twice. */
  #read(tokens: readonly number[], { readTwice }: GenerateOptions): readonly number[] {
    if (readTwice !== true) return tokens;
    if (!this.#hasState)
      throw new SnugError("usage", `${this.info.name} has no state, it sees its whole prompt: leave readTwice out`);
    const begins = this.#beginToken !== undefined && tokens[0] === this.#beginToken;
    return [...tokens, ...tokens.slice(begins ? 1 : 0)];
  }

  async #forward(tokens: ArrayLike<number>, visit: (output: number, position: number) => void): Promise<void> {
    const { context, rows, outputs } = this.running.plan;
    if (tokens.length === 0) throw new SnugError("usage", "there are no tokens");
    if (tokens.length > context)
      throw new SnugError("context", `${tokens.length} tokens do not fit a context of ${context}`);
    await this.engine.forward(Array.from(tokens), Math.min(rows, outputs), visit);
  }
}
