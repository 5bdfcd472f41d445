// A pack and a model that live at the other end of a channel, in a worker or another process: the same names as pack.ts
// and model.ts, but every answer is awaited.

import type { Build } from "./build";
import type { Message } from "./chat";
import type { DeviceChoice } from "./choose";
import { type ErrorCode, SnugError } from "./errors";
import type { GeneratedToken, GenerateOptions, GenerateResult } from "./generation";
import type { SpareMemory } from "./host";
import type { Info } from "./info";
import type { LoadOptions, LoadProgress } from "./load";
import type { Shape } from "./pack";
import type { Plan, PlanOptions } from "./plan";
import { Caller, type Port } from "./port";

/** Of the pack that was opened first at the other end. */
export const FIRST_HANDLE = 1;

/** What the other end answers to open(). */
export interface OpenedPack {
  readonly handle: number;
  readonly info: Info;
  readonly shape: Shape;
  readonly units: number;
  readonly size: number;
  readonly build: Omit<Build, "module">;
  readonly spare: SpareMemory;
}

/** What the other end is told of LoadOptions: the rest stays here. */
export type RemoteLoadOptions = Pick<LoadOptions, "device">;

/** What the other end is told of GenerateOptions: whether it is to tell each token too, which is no string. */
export type RemoteGenerateOptions = Omit<GenerateOptions, "signal" | "onToken"> & { readonly tellsTokens: boolean };

/** What the other end answers to load(). */
export interface LoadedModel {
  readonly handle: number;
  readonly plan: Plan;
  readonly choice: DeviceChoice | null;
}

/** Opens packs at the other end of a port, where servePacks() answers. */
export class RemotePacks {
  readonly #caller: Caller;

  constructor(port: Port) {
    this.#caller = new Caller(port);
  }

  /** `location` and `options` are whatever the other end takes. */
  async open(location: unknown, options: unknown = {}, signal?: AbortSignal): Promise<RemotePack> {
    return new RemotePack(this.#caller, await this.#caller.call<OpenedPack>("open", [location, options], { signal }));
  }

  /** The other end is gone: whatever is under way rejects with this. */
  fail(error: SnugError): void {
    this.#caller.fail(error);
  }
}

export class RemotePack {
  readonly info: Info;
  readonly shape: Shape;
  readonly units: number;
  /** Bytes of the whole pack. */
  readonly size: number;
  /** The build of the core that runs, and why no faster one does. */
  readonly build: Omit<Build, "module">;
  /** Memory that a model may take if nobody says how much, and how that is known or why it is assumed. */
  readonly spare: SpareMemory;
  readonly #caller: Caller;
  readonly #handle: number;

  constructor(caller: Caller, opened: OpenedPack) {
    this.#caller = caller;
    this.#handle = opened.handle;
    this.info = opened.info;
    this.shape = opened.shape;
    this.units = opened.units;
    this.size = opened.size;
    this.build = opened.build;
    this.spare = opened.spare;
  }

  /** What a budget, a pruning rate, or nothing (everything is kept) comes to. Nothing is read or loaded. */
  plan(options: PlanOptions = {}): Promise<Plan> {
    return this.#caller.call("plan", [this.#handle, options]);
  }

  /** Loads what a plan keeps; without a plan, what fits `spare`. */
  load(plan?: Plan, options: LoadOptions = {}): Promise<RemoteModel> {
    return loadRemote(this.#caller, this.#handle, this.info, plan, options);
  }

  /** Closes the source. Models that were loaded from it stay. */
  close(): Promise<void> {
    return this.#caller.call("close", [this.#handle]);
  }
}

/** Loads at the other end. */
export async function loadRemote(
  caller: Caller,
  pack: number,
  info: Info,
  plan: Plan | undefined,
  options: LoadOptions,
): Promise<RemoteModel> {
  const onEvent = (event: unknown) => {
    const told = event as { progress?: LoadProgress; smaller?: Plan; code: ErrorCode; message: string };
    if (told.progress !== undefined) options.onProgress?.(told.progress);
    if (told.smaller !== undefined) options.onSmaller?.(told.smaller, new SnugError(told.code, told.message));
  };
  const { signal, device } = options;
  const remote: RemoteLoadOptions = device === undefined ? {} : { device };
  return new RemoteModel(caller, await caller.call("load", [pack, plan, remote], { signal, onEvent }), info);
}

export class RemoteModel {
  /** What was loaded: smaller than what was asked for if the engine refused the memory. */
  readonly plan: Plan;
  /** Why it runs on this device, where the faster one was to be found out. */
  readonly choice: DeviceChoice | null;
  readonly info: Info;
  readonly #caller: Caller;
  readonly #handle: number;

  constructor(caller: Caller, loaded: LoadedModel, info: Info) {
    this.#caller = caller;
    this.#handle = loaded.handle;
    this.plan = loaded.plan;
    this.choice = loaded.choice;
    this.info = info;
  }

  /** Continues a prompt: text, or token ids that are taken as they are. */
  generate(prompt: string | readonly number[], options: GenerateOptions = {}): RemoteGeneration {
    return new RemoteGeneration(this.#caller, "generate", [this.#handle, prompt], options);
  }

  /** Answers a chat's last turn, through the pack's chat template. */
  chat(messages: readonly Message[], options: GenerateOptions = {}): RemoteGeneration {
    return new RemoteGeneration(this.#caller, "chat", [this.#handle, messages], options);
  }

  /** The token ids of a prompt: the model's begin token, if it has one, then the text. */
  prompt(text: string): Promise<number[]> {
    return this.#caller.call("prompt", [this.#handle, text]);
  }

  /** The token ids of a text. */
  encode(text: string): Promise<number[]> {
    return this.#caller.call("encode", [this.#handle, text]);
  }

  decode(tokens: readonly number[]): Promise<string> {
    return this.#caller.call("decode", [this.#handle, tokens]);
  }

  /** Frees the memory; every later call is refused. */
  dispose(): Promise<void> {
    return this.#caller.call("dispose", [this.#handle]);
  }
}

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
