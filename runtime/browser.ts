// The public API in a browser: each model lives in a module worker of its own, so that the page never waits, and gives
// every byte back when it is disposed of.

import { forgetSession, keepSession, readSession, type StoredSession, storedSessions } from "./browser-sessions";
import { forget as forgetStored, type StoredPack, stored } from "./browser-store";
import type { BrowserOpenOptions } from "./browser-worker";
import { SnugError } from "./errors";
import type { SpareMemory } from "./host";
import type { LoadOptions } from "./load";
import type { Plan, PlanOptions } from "./plan";
import { Caller } from "./port";
import { FIRST_HANDLE, loadRemote, type OpenedPack, type RemoteModel, RemotePack } from "./remote";

export type { Message } from "./chat";
export type { DeviceChoice, DeviceSpeed } from "./choose";
export { type ErrorCode, SnugError } from "./errors";
export type { GenerateOptions, GenerateResult, Speed } from "./generation";
export type { SpareMemory } from "./host";
export type { Info } from "./info";
export type { LoadOptions, LoadProgress } from "./load";
export type { ChatOptions, FitOptions, Fitted, Overflow } from "./overflow";
export type { Shape } from "./pack";
export { type LayerPlan, type Plan, type PlanOptions, parseSize, type StackPlan } from "./plan";
export type { Port } from "./port";
export { type RemoteModel, RemotePack, RemotePacks } from "./remote";
export type { RemoteGeneration } from "./remote-generation";
export type { RemoteSession } from "./remote-session";
export { forgetSession, keepSession, readSession, type StoredPack, type StoredSession, stored, storedSessions };

export interface OpenOptions {
  /** Where browser-worker.js is, or what starts it as a module worker. Default: beside this file. */
  readonly worker?: string | URL | (() => Worker);
  /** The folder of the core's .wasm files. Default: that of the worker. */
  readonly wasm?: string | URL;
  /** Keep what is fetched on this device, and use what is kept. Default true. */
  readonly cache?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Opens a pack: a web address, relative to the page or whole, or a File or Blob. Only the header is read. The bytes of a
 * plan are fetched when it is loaded.
 */
export async function open(source: string | URL | Blob, options: OpenOptions = {}): Promise<RemotePack> {
  const location = source instanceof Blob ? source : new URL(source, document.baseURI).href;
  const remote: BrowserOpenOptions = { cache: options.cache ?? true };
  if (options.wasm !== undefined)
    Object.assign(remote, { wasm: new URL(`${options.wasm}`.replace(/\/?$/, "/"), document.baseURI).href });
  const start = async (signal?: AbortSignal) => {
    const worker = new PackWorker(options.worker);
    try {
      return { worker, opened: await worker.caller.call<OpenedPack>("open", [location, remote], { signal }) };
    } catch (error) {
      void worker.leave(error as SnugError);
      throw error;
    }
  };
  const { worker, opened } = await start(options.signal);
  return new BrowserPack(worker, { ...opened, spare: lessThanFatal(opened.spare) }, async () => (await start()).worker);
}

/** Removes a pack from this device, by the address that it was opened with. */
export function forget(location: string | URL): Promise<void> {
  return forgetStored(new URL(location, document.baseURI).href);
}

/** A worker that has not ended its threads by then is busy with something else. */
const END_MS = 1000;

/** A worker that has the pack open, and the line to it. */
class PackWorker {
  readonly caller: Caller;
  readonly #worker: Worker;

  constructor(file: OpenOptions["worker"]) {
    const worker = typeof file === "function" ? file() : startWorker(file);
    this.#worker = worker;
    this.caller = new Caller({
      post: (message) => worker.postMessage(message),
      listen(hear) {
        worker.onmessage = ({ data }) => hear(data);
      },
    });
    worker.onerror = (event) => {
      event.preventDefault();
      const reason = event.message ? `: ${event.message}` : ", its file is missing or the page may not use it";
      const where = "open()'s option worker says where browser-worker.js is";
      this.caller.fail(new SnugError("source", `snug's worker does not run${reason}; ${where}`));
    };
  }

  /** Ends the worker, and frees all that it had at once. Its threads end with their model, not with the worker. */
  async leave(reason: SnugError): Promise<void> {
    const late = new Promise((resolve) => setTimeout(resolve, END_MS));
    await Promise.race([this.caller.call("end", []).catch(() => {}), late]);
    this.#worker.terminate();
    this.caller.fail(reason);
  }
}

function startWorker(file: string | URL | undefined): Worker {
  // Bundlers look for this very form.
  if (file === undefined) return new Worker(new URL("./browser-worker.js", import.meta.url), { type: "module" });
  return new Worker(new URL(file, document.baseURI), { type: "module" });
}

/**
 * A pack with a worker for each model. Engines give memory back when they please, and until then two models would be in
 * memory; a worker that is ended gives it back at once. All workers open the same pack, so what one answers all would.
 */
class BrowserPack extends RemotePack {
  readonly #openWorker: () => Promise<PackWorker>;
  readonly #taken = new Set<PackWorker>();
  #free: Promise<PackWorker> | undefined;
  #closed = false;

  constructor(worker: PackWorker, opened: OpenedPack, openWorker: () => Promise<PackWorker>) {
    super(worker.caller, opened);
    this.#openWorker = openWorker;
    this.#free = Promise.resolve(worker);
  }

  override async plan(options: PlanOptions = {}): Promise<Plan> {
    const { caller } = await this.#anyWorker();
    return caller.call("plan", [FIRST_HANDLE, options]);
  }

  override async load(plan?: Plan, options: LoadOptions = {}): Promise<RemoteModel> {
    const chosen = plan ?? (await this.plan({ memory: this.spare.bytes }));
    const free = this.#freeWorker();
    this.#free = undefined;
    const worker = await free;
    this.#taken.add(worker);
    const survive = risk(chosen.totalBytes);
    const leave = () => {
      survive();
      this.#taken.delete(worker);
      return worker.leave(new SnugError("usage", "this model was disposed"));
    };
    try {
      const model = await loadRemote(worker.caller, FIRST_HANDLE, this.info, chosen, options);
      return Object.assign(model, { dispose: leave });
    } catch (error) {
      await leave();
      throw error;
    }
  }

  /** Ends all workers: models that were loaded are disposed of. */
  override async close(): Promise<void> {
    this.#closed = true;
    const free = await this.#free?.catch(() => undefined);
    const workers = free === undefined ? [...this.#taken] : [free, ...this.#taken];
    await Promise.all(workers.map((worker) => worker.leave(closed())));
  }

  /** A worker that answers. */
  async #anyWorker(): Promise<PackWorker> {
    if (this.#closed) throw closed();
    const [taken] = this.#taken;
    return this.#free === undefined && taken !== undefined ? taken : this.#freeWorker();
  }

  /** A worker without a model. */
  #freeWorker(): Promise<PackWorker> {
    if (this.#closed) throw closed();
    if (this.#free === undefined) {
      const free = this.#openWorker();
      this.#free = free;
      free.catch(() => {
        if (this.#free === free) this.#free = undefined;
      });
    }
    return this.#free;
  }
}

const closed = () => new SnugError("usage", "this pack was closed");

// A page that takes more than the device has is ended without a word. So what a model takes is written down before it is
// loaded, and crossed out when the page goes in peace: what is found at the next visit was too much, and is remembered as
// long as the tab lives.
const RISK = "snug.risk";
const FATAL = "snug.fatal";
const FATAL_SHARE = 0.5;

const found = recall(RISK);
if (found > 0) {
  remember(FATAL, found);
  remember(RISK, 0);
}
const fatalBytes = recall(FATAL);

/** Writes down what is tried; the function that comes back crosses it out. */
function risk(bytes: number): () => void {
  const survive = () => {
    removeEventListener("pagehide", survive);
    remember(RISK, 0);
  };
  addEventListener("pagehide", survive);
  remember(RISK, bytes);
  return survive;
}

function lessThanFatal(spare: SpareMemory): SpareMemory {
  const bytes = Math.floor(fatalBytes * FATAL_SHARE);
  if (bytes === 0 || bytes >= spare.bytes) return spare;
  const tried = `${Math.round(fatalBytes / 1e6)} MB`;
  return { bytes, how: `half of the ${tried} that this page took before the browser ended it` };
}

/** A number that lasts as long as the tab; 0 where there is none, or a page may keep nothing. */
function recall(name: string): number {
  try {
    return Number(sessionStorage.getItem(name)) || 0;
  } catch {
    return 0;
  }
}

function remember(name: string, bytes: number): void {
  try {
    sessionStorage.setItem(name, String(bytes));
  } catch {} // a page that may keep nothing learns nothing
}
