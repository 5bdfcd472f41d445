// The public API in a browser: a pack and its model live in a module worker of their own, so that the page never waits.
// Closing the pack ends the worker, and with it every byte that the model took.

import { forget, type StoredPack, stored } from "./browser-store";
import type { BrowserOpenOptions } from "./browser-worker";
import { SnugError } from "./errors";
import type { SpareMemory } from "./host";
import type { LoadOptions } from "./load";
import type { Plan } from "./plan";
import { type RemotePack, RemotePacks } from "./remote";

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
  /** Where browser-worker.js is, or the worker that it runs in. Default: beside this file. */
  readonly worker?: string | URL | Worker;
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
  const worker = options.worker instanceof Worker ? options.worker : startWorker(options.worker);
  const packs = new RemotePacks({
    post: (message) => worker.postMessage(message),
    listen(hear) {
      worker.onmessage = ({ data }) => hear(data);
    },
  });
  worker.onerror = (event) => {
    event.preventDefault();
    const reason = event.message ? `: ${event.message}` : ", its file is missing or the page may not use it";
    packs.fail(new SnugError("internal", `snug's worker does not run${reason}`));
  };
  const location = source instanceof Blob ? source : new URL(source, document.baseURI).href;
  const remote: BrowserOpenOptions = { cache: options.cache ?? true };
  if (options.wasm !== undefined) Object.assign(remote, { wasm: new URL(options.wasm, document.baseURI).href });
  try {
    const pack = await packs.open(location, remote, options.signal);
    const load = pack.load.bind(pack);
    const close = pack.close.bind(pack);
    return Object.assign(pack, {
      spare: lessThanFatal(pack.spare),
      async load(plan?: Plan, options?: LoadOptions) {
        const chosen = plan ?? (await pack.plan({ memory: pack.spare.bytes }));
        const survive = risk(chosen.totalBytes);
        try {
          return await load(chosen, options);
        } catch (error) {
          survive();
          throw error;
        }
      },
      async close() {
        await close();
        worker.terminate();
        packs.fail(new SnugError("usage", "this pack was closed"));
      },
    });
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

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

function startWorker(file: string | URL | undefined): Worker {
  // Bundlers look for this very form.
  if (file === undefined) return new Worker(new URL("./browser-worker.js", import.meta.url), { type: "module" });
  return new Worker(new URL(file, document.baseURI), { type: "module" });
}
