// The browser's Prompt API (github.com/webmachinelearning/prompt-api) over a snug model, wherever snug runs: what a page
// knows as LanguageModel, with its names, events and exceptions. Texts only: no images, no audio, no tools, no constraints.

import type { Message } from "./chat";
import type { ChatGeneration, ChatModel } from "./chat-model";
import type { GenerateOptions } from "./generation";
import type { LoadProgress } from "./load";
import { checkInput, type Input, LanguageModelSession, notSupported } from "./prompt-session";

export type { InputMessage, InputOptions, Role } from "./prompt-session";
export type { ChatGeneration, ChatModel, Input, LanguageModelSession };

export type Availability = "unavailable" | "downloadable" | "downloading" | "available";

/** What a session is to be capable of. */
export interface CoreOptions {
  /** 0 always takes the likeliest token. Default: the model's, 0.7. */
  readonly temperature?: number;
  /** Only the K likeliest tokens. Default: the model's, 40. */
  readonly topK?: number;
  readonly expectedInputs?: readonly { readonly type: string }[];
  readonly expectedOutputs?: readonly { readonly type: string }[];
  readonly tools?: readonly unknown[];
}

export interface CreateOptions extends CoreOptions {
  /** What every prompt begins with, and what no overflow drops; a system message can only be its first. */
  readonly initialPrompts?: readonly Message[];
  /** Stops the creation, and later destroys the session. */
  readonly signal?: AbortSignal;
  /** Gets an EventTarget that hears "downloadprogress", with `loaded` from 0 to `total`, 1, while the model is loaded. */
  readonly monitor?: (monitor: EventTarget) => void;
}

/** What the browser has as LanguageModel. */
export interface LanguageModelFactory {
  availability(options?: CoreOptions): Promise<Availability>;
  create(options?: CreateOptions): Promise<LanguageModelSession>;
}

/** Loads the model when the first session wants one, as `pack.load()` does: `(options) => pack.load(plan, options)`. */
export type LoadModel = (options: { onProgress: (progress: LoadProgress) => void }) => Promise<ChatModel>;

/**
 * LanguageModel over a model that is loaded, or is to be loaded when it is needed; all sessions share it. `defaults`: for
 * what the Prompt API has no names for, such as seed and maxTokens.
 */
export function promptApi(model: ChatModel | LoadModel, defaults: GenerateOptions = {}): LanguageModelFactory {
  const shared = new SharedModel(model);
  return {
    async availability(options = {}) {
      return unsupported(options) === undefined ? shared.availability : "unavailable";
    },

    async create(options = {}) {
      const reason = unsupported(options);
      if (reason !== undefined) throw notSupported(reason);
      const { signal } = options;
      signal?.throwIfAborted();
      const settings = { ...defaults, ...checkSampling(options) };
      const initial = checkInput(options.initialPrompts ?? [], "initialPrompts").messages;
      const loaded = await unlessAborted(shared.load(monitorOf(options)), signal);
      if (loaded.info.chatTemplate === null)
        throw notSupported(`${loaded.info.name} has no chat template, so it cannot be prompted turn by turn`);
      return unlessAborted(LanguageModelSession.begin(loaded, initial, settings, signal), signal);
    },
  };
}

/** The one model of all sessions: loaded once, tried again if that failed. */
class SharedModel {
  readonly #load: LoadModel | undefined;
  readonly #listeners = new Set<(share: number) => void>();
  #loading: Promise<ChatModel> | undefined;
  #model: ChatModel | undefined;

  constructor(model: ChatModel | LoadModel) {
    if (typeof model === "function") this.#load = model;
    else this.#model = model;
  }

  get availability(): Availability {
    if (this.#model !== undefined) return this.#model.info.chatTemplate === null ? "unavailable" : "available";
    return this.#loading === undefined ? "downloadable" : "downloading";
  }

  async load(onProgress: (share: number) => void): Promise<ChatModel> {
    onProgress(0);
    this.#listeners.add(onProgress);
    try {
      this.#model ??= await this.#loadOnce();
      onProgress(1);
      return this.#model;
    } finally {
      this.#listeners.delete(onProgress);
    }
  }

  #loadOnce(): Promise<ChatModel> {
    this.#loading ??= (this.#load as LoadModel)({
      onProgress: ({ readBytes, totalBytes }) => {
        if (readBytes < totalBytes) for (const listener of this.#listeners) listener(readBytes / totalBytes);
      },
    }).finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }
}

/** Tells a monitor how much is loaded, each share once. */
function monitorOf({ monitor }: CreateOptions): (share: number) => void {
  if (monitor === undefined) return () => {};
  const target = new EventTarget();
  monitor(target);
  let last = -1;
  return (share) => {
    if (share <= last) return;
    last = share;
    const facts = { loaded: share, total: 1, lengthComputable: true };
    target.dispatchEvent(Object.assign(new Event("downloadprogress"), facts));
  };
}

/** Why sessions like this cannot be had. */
function unsupported({ expectedInputs = [], expectedOutputs = [], tools = [] }: CoreOptions): string | undefined {
  const other = [...expectedInputs, ...expectedOutputs].find(({ type }) => type !== "text");
  if (other !== undefined) return `a snug model reads and writes text, not "${other.type}"`;
  return tools.length > 0 ? "a snug model knows no tools" : undefined;
}

function checkSampling({ temperature, topK }: CoreOptions): GenerateOptions {
  if (temperature !== undefined && !(temperature >= 0 && temperature <= 100))
    throw new RangeError(`temperature must be between 0 and 100, not ${temperature}`);
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1 && topK < 2 ** 31))
    throw new RangeError(`topK must be a whole number from 1 on, not ${topK}`);
  return { ...(temperature !== undefined && { temperature }), ...(topK !== undefined && { topK }) };
}

/** Waits for something that others may still want when this signal fires. */
async function unlessAborted<T>(wanted: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return wanted;
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([wanted, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
