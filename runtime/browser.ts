// The public API in a browser: a pack and its model live in a module worker of their own, so that the page never waits.
// Closing the pack ends the worker, and with it every byte that the model took.

import { forget, type StoredPack, stored } from "./browser-store";
import type { BrowserOpenOptions } from "./browser-worker";
import { SnugError } from "./errors";
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
    const close = pack.close.bind(pack);
    pack.close = async () => {
      await close();
      worker.terminate();
      packs.fail(new SnugError("usage", "this pack was closed"));
    };
    return pack;
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

function startWorker(file: string | URL | undefined): Worker {
  // Bundlers look for this very form.
  if (file === undefined) return new Worker(new URL("./browser-worker.js", import.meta.url), { type: "module" });
  return new Worker(new URL(file, document.baseURI), { type: "module" });
}
