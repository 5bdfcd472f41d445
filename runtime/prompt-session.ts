// One session of the Prompt API: what was said, what it takes of the context, and one prompt after the other.

import { type Message, renderChat } from "./chat";
import type { ChatModel } from "./chat-model";
import type { GenerateOptions } from "./generation";
import { joinSignals } from "./signals";

export type Role = "system" | "user" | "assistant";

export interface InputMessage {
  readonly role: string;
  readonly content: string | readonly { readonly type: string; readonly value: unknown }[];
  /** Of the last message, the assistant's: the answer goes on with it. */
  readonly prefix?: boolean;
}

/** What a session is told: a user's text, or messages. */
export type Input = string | readonly InputMessage[];

export interface InputOptions {
  readonly signal?: AbortSignal;
  /** Not supported: a prompt with one is refused. */
  readonly responseConstraint?: unknown;
}

const ROLES = ["system", "user", "assistant"];

/** What was asked, with what the answer begins with. */
interface Asked {
  readonly messages: readonly Message[];
  readonly prefix: string;
}

/**
 * A conversation with a model. Prompts of one session wait for each other. What is thrown is what the browser throws:
 * AbortError or the signal's own reason, InvalidStateError once it is destroyed, NotSupportedError, QuotaExceededError with
 * `requested` and `quota` for what the context has no room for; what goes wrong in the model is a SnugError.
 */
export class LanguageModelSession extends EventTarget {
  /** Hears that turns were dropped for want of room: "contextoverflow". */
  oncontextoverflow: ((event: Event) => void) | null = null;
  /** The older name of oncontextoverflow. */
  onquotaoverflow: ((event: Event) => void) | null = null;
  readonly #model: ChatModel;
  readonly #initial: readonly Message[];
  readonly #settings: GenerateOptions;
  readonly #signal: AbortSignal | undefined;
  readonly #destroyed = new AbortController();
  #turns: readonly Message[] = [];
  #usage = 0;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(
    model: ChatModel,
    initial: readonly Message[],
    settings: GenerateOptions,
    signal: AbortSignal | undefined,
  ) {
    super();
    this.#model = model;
    this.#initial = initial;
    this.#settings = settings;
    this.#signal = signal;
    signal?.addEventListener("abort", () => this.#end(signal.reason), { once: true, signal: this.#destroyed.signal });
  }

  /** A session that knows its initial prompts; signal: destroys it. */
  static async begin(
    model: ChatModel,
    initial: readonly Message[],
    settings: GenerateOptions,
    signal?: AbortSignal,
  ): Promise<LanguageModelSession> {
    const session = new LanguageModelSession(model, initial, settings, signal);
    session.#usage = await session.#count(initial);
    if (session.#usage > session.contextWindow) throw quotaExceeded(session.#usage, session.contextWindow);
    return session;
  }

  get temperature(): number | undefined {
    return this.#settings.temperature;
  }

  get topK(): number | undefined {
    return this.#settings.topK;
  }

  /** Tokens that the context has room for. */
  get contextWindow(): number {
    return this.#model.plan.context;
  }

  /** Tokens of all that was said, as far as it is still known. */
  get contextUsage(): number {
    return this.#usage;
  }

  /** The older name of contextWindow. */
  get inputQuota(): number {
    return this.contextWindow;
  }

  /** The older name of contextUsage. */
  get inputUsage(): number {
    return this.contextUsage;
  }

  /** The answer to a prompt. */
  async prompt(input: Input, options: InputOptions = {}): Promise<string> {
    const asked = checkPrompt(input, options);
    let text = "";
    await this.#inTurn(options.signal, (signal) => this.#answer(asked, signal, (piece) => (text += piece)));
    return text;
  }

  /** The answer to a prompt, piece by piece. It does not wait for a slow reader; one that cancels ends it. */
  promptStreaming(input: Input, options: InputOptions = {}): ReadableStream<string> {
    const left = new AbortController();
    return new ReadableStream<string>({
      start: (controller) => {
        const run = async () => {
          const asked = checkPrompt(input, options);
          const joined = joinSignals(options.signal, left.signal);
          try {
            await this.#inTurn(joined.signal, (signal) =>
              this.#answer(asked, signal, (piece) => controller.enqueue(piece)),
            );
          } finally {
            joined.release();
          }
          controller.close();
        };
        run().catch((error: unknown) => controller.error(error)); // to a reader that left nobody says anything
      },
      cancel: (reason) => left.abort(reason),
    });
  }

  /** Adds to what was said, without an answer. */
  async append(input: Input, options: InputOptions = {}): Promise<undefined> {
    const { messages } = checkPrompt(input, options);
    await this.#inTurn(options.signal, async () => {
      const tokens = await this.#fit({ messages, prefix: "" }, { maxTokens: 0 });
      this.#turns = [...this.#turns, ...messages];
      this.#usage = tokens.length;
    });
  }

  /** How many tokens a prompt would add to contextUsage. */
  async measureContextUsage(input: Input, options: InputOptions = {}): Promise<number> {
    const { messages, prefix } = checkPrompt(input, options);
    this.#checkAlive();
    const known = this.#known();
    return (await this.#tokens([...known, ...messages], prefix)).length - (await this.#count(known));
  }

  /** The older name of measureContextUsage(). */
  measureInputUsage(input: Input, options: InputOptions = {}): Promise<number> {
    return this.measureContextUsage(input, options);
  }

  /** Another session that knows what this one knows by now. Without a signal of its own this one's destroys it, too. */
  async clone({ signal }: { readonly signal?: AbortSignal } = {}): Promise<LanguageModelSession> {
    this.#checkAlive();
    signal?.throwIfAborted();
    const copy = new LanguageModelSession(this.#model, this.#initial, this.#settings, signal ?? this.#signal);
    copy.#turns = this.#turns;
    copy.#usage = this.#usage;
    return copy;
  }

  /** Ends what is under way; later calls are refused. The model stays: whoever loaded it disposes of it. */
  destroy(): void {
    this.#end(new DOMException("the session was destroyed", "AbortError"));
  }

  #end(reason: unknown): void {
    this.#destroyed.abort(reason);
    this.#turns = [];
  }

  #checkAlive(): void {
    if (this.#destroyed.signal.aborted)
      throw new DOMException("the session was destroyed: create another one", "InvalidStateError");
  }

  /** Does some work when all before it is done. */
  async #inTurn<T>(given: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.#checkAlive();
    const { signal, release } = joinSignals(given, this.#destroyed.signal);
    const aborted = new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    const before = this.#last;
    const run = async () => {
      try {
        signal.throwIfAborted();
        await Promise.race([before, aborted]);
        signal.throwIfAborted();
        return await work(signal);
      } catch (error) {
        throw signal.aborted ? signal.reason : error;
      } finally {
        release();
      }
    };
    const running = run();
    this.#last = Promise.allSettled([before, running]);
    return running;
  }

  async #answer(asked: Asked, signal: AbortSignal, onPiece: (piece: string) => void): Promise<void> {
    const tokens = await this.#fit(asked, this.#settings);
    const generation = this.#model.generate(tokens, { ...this.#settings, signal });
    let text = asked.prefix;
    for await (const piece of generation) {
      text += piece;
      onPiece(piece);
    }
    const result = await generation.result();
    signal.throwIfAborted();
    this.#turns = [...this.#turns, ...asked.messages, { role: "assistant", content: text }];
    this.#usage = tokens.length + result.tokens.length;
  }

  /** The tokens of all that is known and what is asked now, without the oldest turns if they leave too little room. */
  async #fit({ messages, prefix }: Asked, { maxTokens }: GenerateOptions): Promise<readonly number[]> {
    const stays = { prefix, first: this.#initial.length, last: messages.length };
    const options = maxTokens === undefined ? stays : { ...stays, maxTokens };
    try {
      const { prompt, droppedTurns } = await this.#model.fit([...this.#known(), ...messages], options);
      if (droppedTurns > 0) this.#drop(droppedTurns);
      return prompt;
    } catch (error) {
      // The model may be of another bundle, with a SnugError of its own.
      if ((error as { code?: unknown }).code !== "context") throw error;
      const { length } = await this.#tokens([...this.#initial, ...messages], prefix);
      throw quotaExceeded(length, this.contextWindow);
    }
  }

  #drop(count: number): void {
    this.#turns = this.#turns.slice(count);
    for (const name of ["contextoverflow", "quotaoverflow"] as const) {
      const event = new Event(name);
      this[`on${name}`]?.(event);
      this.dispatchEvent(event);
    }
  }

  #known(): readonly Message[] {
    return [...this.#initial, ...this.#turns];
  }

  async #count(messages: readonly Message[]): Promise<number> {
    return messages.length === 0 ? 0 : (await this.#tokens(messages, "")).length;
  }

  /** A prompt as the model reads it, up to where its answer begins or goes on. */
  async #tokens(messages: readonly Message[], prefix: string): Promise<readonly number[]> {
    return this.#model.encode(renderChat(this.#model.info, messages) + prefix);
  }
}

function checkPrompt(input: Input, { responseConstraint }: InputOptions): Asked {
  if (responseConstraint !== undefined && responseConstraint !== null)
    throw notSupported("a snug model cannot be held to a responseConstraint");
  return checkInput(input, "prompt");
}

/** What a page passed, which may be anything: TypeError, NotSupportedError. A system message can only be an initial one. */
export function checkInput(input: unknown, kind: "prompt" | "initialPrompts"): Asked {
  if (typeof input === "string") return { messages: [{ role: "user", content: input }], prefix: "" };
  if (!Array.isArray(input)) throw new TypeError(`a prompt is a text or a list of messages, not ${typeof input}`);
  if (input.length === 0 && kind === "prompt") throw new TypeError("a prompt has at least one message");
  const messages: Message[] = input.map((message: InputMessage | null, index) => {
    const { role = "", content } = message ?? {};
    if (!ROLES.includes(role))
      throw new TypeError(`message ${index} has the role "${role}": there are ${ROLES.join(", ")}`);
    if (role === "system" && kind === "prompt")
      throw notSupported("a system message can only be the first of initialPrompts");
    if (role === "system" && index > 0) throw new TypeError("a system message can only be the first of initialPrompts");
    return { role, content: textOf(content, index) };
  });
  const marked = input.findIndex((message: InputMessage) => message.prefix === true);
  if (marked < 0) return { messages, prefix: "" };
  const last = messages.at(-1) as Message;
  if (kind === "initialPrompts" || marked < messages.length - 1 || last.role !== "assistant")
    throw new DOMException("prefix is for the last message of a prompt, and the assistant's", "SyntaxError");
  return { messages: messages.slice(0, -1), prefix: last.content };
}

function textOf(content: unknown, index: number): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw new TypeError(`message ${index} has no content: a text, or a list of parts`);
  return content
    .map((part: { type?: unknown; value?: unknown } | null) => {
      if (part?.type !== "text")
        throw notSupported(`message ${index} has a part of type "${part?.type}": only text is read`);
      if (typeof part.value !== "string")
        throw new TypeError(`message ${index} has a part of type "text" without a text`);
      return part.value;
    })
    .join("");
}

export function notSupported(message: string): DOMException {
  return new DOMException(message, "NotSupportedError");
}

function quotaExceeded(requested: number, quota: number): DOMException {
  const words = `${requested} tokens do not fit a context of ${quota}: shorten the prompt or plan a larger context`;
  return Object.assign(new DOMException(words, "QuotaExceededError"), { requested, quota });
}
