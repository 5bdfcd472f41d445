// A pack and a model that live at the other end of a channel, in a worker or another process: the same names as pack.ts
// and model.ts, but every answer is awaited.

import type { Build } from "./build";
import type { Message } from "./chat";
import type { DeviceChoice } from "./choose";
import { type ErrorCode, SnugError } from "./errors";
import type { GenerateOptions } from "./generation";
import type { SpareMemory } from "./host";
import type { Info } from "./info";
import type { LoadOptions, LoadProgress } from "./load";
import type { ChatOptions, FitOptions, Fitted } from "./overflow";
import type { Shape } from "./pack";
import type { Plan, PlanOptions } from "./plan";
import { Caller, type Port } from "./port";
import { RemoteGeneration } from "./remote-generation";
import { RemoteSession } from "./remote-session";

/** Of the pack that was opened first at the other end. */
export const FIRST_HANDLE = 1;

/** What the other end answers to open(). */
export interface OpenedPack {
  readonly handle: number;
  readonly info: Info;
  readonly shape: Shape;
  readonly units: number;
  readonly size: number;
  readonly identity: string;
  readonly build: Omit<Build, "module">;
  readonly spare: SpareMemory;
}

/** What the other end is told of LoadOptions: the rest stays here. */
export type RemoteLoadOptions = Pick<LoadOptions, "device">;

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
  /** What tells it from every other pack, whatever it is called. */
  readonly identity: string;
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
    this.identity = opened.identity;
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
  chat(messages: readonly Message[], options: ChatOptions = {}): RemoteGeneration {
    return new RemoteGeneration(this.#caller, "chat", [this.#handle, messages], options);
  }

  /** What is left of a chat, and its tokens, once the oldest turns are left out that the context has no room for. */
  fit(messages: readonly Message[], options: FitOptions = {}): Promise<Fitted> {
    return this.#caller.call("fit", [this.#handle, messages, options]);
  }

  /** A conversation that stays; it begins with the model's begin token, if it has one. */
  async session(): Promise<RemoteSession> {
    return new RemoteSession(this.#caller, await this.#caller.call("session", [this.#handle]));
  }

  /** Takes up a session that was saved with the same pack and cut. */
  async restore(saved: Uint8Array): Promise<RemoteSession> {
    return new RemoteSession(this.#caller, await this.#caller.call("restore", [this.#handle, saved]));
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
