// The public API in a browser: each model lives in a module worker of its own, so that the page never waits, and gives
// every byte back when it is disposed of.

import { forget, type StoredPack, stored } from "./browser-store";
import type { BrowserOpenOptions } from "./browser-worker";
import { SnugError } from "./errors";
import type { SpareMemory } from "./host";
import type { LoadOptions } from "./load";
import type { Plan, PlanOptions } from "./plan";
import { Caller } from "./port";
import { FIRST_HANDLE, loadRemote, type OpenedPack, type RemoteModel, RemotePack } from "./remote";

export type { Message } from "./chat";
export { type ErrorCode, SnugError } from "./errors";
export type { GenerateOptions, GenerateResult, Speed } from "./generation";
export type { SpareMemory } from "./host";
export type { Info } from "./info";
export type { LoadOptions, LoadProgress } from "./load";
export type { Shape } from "./pack";
export { type LayerPlan, type Plan, type PlanOptions, parseSize, type StackPlan } from "./plan";
export type { Port } from "./port";
export { type RemoteGeneration, type RemoteModel, RemotePack, RemotePacks } from "./remote";
export { forget, type StoredPack, stored };

export interface OpenOptions {
  /** Where browser-worker.js is, or what starts it as a module worker. Default: beside this file. */
  readonly worker?: string | URL | (() => Worker);
  /** The folder of the core's .wasm files, with a slash at its end. Default: that of the worker. */
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
  if (options.wasm !== undefined) Object.assign(remote, { wasm: new URL(options.wasm, document.baseURI).href });
  const start = async (signal?: AbortSignal) => {
    const desk = new Desk(options.worker);
    try {
      return { desk, opened: await desk.caller.call<OpenedPack>("open", [location, remote], { signal }) };
    } catch (error) {
      void desk.leave(error as SnugError);
      throw error;
    }
  };
  const { desk, opened } = await start(options.signal);
  return new BrowserPack(desk, { ...opened, spare: lessThanFatal(opened.spare) }, async () => (await start()).desk);
}

/** A worker that has not ended its threads by then is busy with something else. */
const END_MS = 1000;

/** A worker, and the line to it. */
class Desk {
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
      this.caller.fail(new SnugError("internal", `snug's worker does not run${reason}`));
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
  readonly #openDesk: () => Promise<Desk>;
  readonly #taken = new Set<Desk>();
  #free: Promise<Desk> | undefined;
  #closed = false;

  constructor(desk: Desk, opened: OpenedPack, openDesk: () => Promise<Desk>) {
    super(desk.caller, opened);
    this.#openDesk = openDesk;
    this.#free = Promise.resolve(desk);
  }

  override async plan(options: PlanOptions = {}): Promise<Plan> {
    const { caller } = await this.#anyDesk();
    return caller.call("plan", [FIRST_HANDLE, options]);
  }

  override async load(plan?: Plan, options: LoadOptions = {}): Promise<RemoteModel> {
    const chosen = plan ?? (await this.plan({ memory: this.spare.bytes }));
    const desk = await this.#freeDesk();
    this.#free = undefined;
    this.#taken.add(desk);
    const survive = risk(chosen.totalBytes);
    const leave = () => {
      survive();
      this.#taken.delete(desk);
      return desk.leave(new SnugError("usage", "this model was disposed"));
    };
    try {
      const model = await loadRemote(desk.caller, FIRST_HANDLE, this.info, chosen, options);
      return Object.assign(model, { dispose: leave });
    } catch (error) {
      await leave();
      throw error;
    }
  }

  override async close(): Promise<void> {
    this.#closed = true;
    const free = await this.#free?.catch(() => undefined);
    const desks = free === undefined ? [...this.#taken] : [free, ...this.#taken];
    await Promise.all(desks.map((desk) => desk.leave(closed())));
  }

  /** A worker that answers. */
  async #anyDesk(): Promise<Desk> {
    if (this.#closed) throw closed();
    const [taken] = this.#taken;
    return this.#free === undefined && taken !== undefined ? taken : this.#freeDesk();
  }

  /** A worker without a model. */
  #freeDesk(): Promise<Desk> {
    if (this.#closed) throw closed();
    if (this.#free === undefined) {
      const free = this.#openDesk();
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
// loaded, and crossed out when the page goes in peace: what is found at the next visit was too much.
const RISK = "snug.risk";
const FATAL_SHARE = 0.5;

/** Writes down what is tried; the function that comes back crosses it out. */
function risk(bytes: number): () => void {
  const storage = tabStorage();
  const survive = () => storage?.removeItem(RISK);
  storage?.setItem(RISK, String(bytes));
  addEventListener("pagehide", survive, { once: true });
  return survive;
}

function lessThanFatal(spare: SpareMemory): SpareMemory {
  const fatal = Number(tabStorage()?.getItem(RISK) ?? Number.NaN);
  const bytes = Math.floor(fatal * FATAL_SHARE);
  if (!(fatal > 0) || bytes >= spare.bytes) return spare;
  const tried = `${Math.round(fatal / 1e6)} MB`;
  return { bytes, how: `half of the ${tried} that this page took before the browser ended it` };
}

/** What lasts as long as the tab does; null where a page may keep nothing. */
function tabStorage(): Storage | null {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}
