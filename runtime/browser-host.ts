// A browser's worker as a host: modules and packs over HTTP, what memory a page may take, and threads where the page is
// isolated from others.

import { browserStore } from "./browser-store";
import { Download } from "./download";
import { SnugError } from "./errors";
import type { Host, SpareMemory, Thread } from "./host";

/** What a thread's worker gets: see browser-thread.ts. */
export interface ThreadData {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
}

/** Written out one by one: bundlers look for this very form, and take the files along. */
const MODULES: Readonly<Record<string, URL>> = {
  "core.wasm": new URL("./core.wasm", import.meta.url),
  "core.relaxed.wasm": new URL("./core.relaxed.wasm", import.meta.url),
  "core.threads.wasm": new URL("./core.threads.wasm", import.meta.url),
  "core.relaxed.threads.wasm": new URL("./core.relaxed.threads.wasm", import.meta.url),
};

const GIGABYTE = 2 ** 30;
/** Taken for the device's memory where the browser does not say. */
const ASSUMED_BYTES = 4 * GIGABYTE;
/** A page is ended without a word where it takes too much, and nobody says how much that is: these are safe guesses. */
const DEVICE_SHARE = 1 / 8;
const SPARE_MOST_BYTES = GIGABYTE / 2;
const SPARE_LEAST_BYTES = 16 * 2 ** 20;
const PAGE_BYTES = 65536;
/** Phones have few fast cores, and the slowest thread sets the pace. */
const THREADS_MOST = 4;

/** `wasm`: the folder of the core's modules; absent: beside this file. `cache`: keep downloads on the device? */
export function browserHost(wasm: string | undefined, cache: boolean): Host {
  const pauses = new MessageChannel();
  const waiting: (() => void)[] = [];
  pauses.port1.onmessage = () => waiting.shift()?.();
  const host: Host = {
    openSource: async (location) => new Download(location, cache ? browserStore(location) : undefined),
    loadModule: (file) => loadModule(wasm === undefined ? (MODULES[file] as URL) : new URL(file, wasm)),
    spareMemory,
    // A timer would be held back to milliseconds.
    pause: () =>
      new Promise((resolve) => {
        waiting.push(resolve);
        pauses.port2.postMessage(null);
      }),
  };
  return hasSharedMemory() ? { ...host, usableThreads, startThread } : host;
}

async function loadModule(url: URL): Promise<WebAssembly.Module> {
  const refused = (reason: string, cause?: Error) =>
    new SnugError("source", `cannot read ${url}: ${reason}; open()'s option wasm says where snug's .wasm files are`, {
      cause,
    });
  const response = await fetch(url).catch((cause: Error) => {
    throw refused(cause.message, cause);
  });
  if (!response.ok) throw refused(`the server answered ${response.status}`);
  return WebAssembly.compile(await response.arrayBuffer());
}

/** Browsers give shared memory to pages only that are isolated from others (COOP and COEP). */
function hasSharedMemory(): boolean {
  return globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer === "function";
}

function usableThreads(): number {
  return Math.max(1, Math.min(THREADS_MOST, Math.floor((navigator.hardwareConcurrency ?? 1) / 2)));
}

function startThread(module: WebAssembly.Module, memory: WebAssembly.Memory): Thread {
  const worker = new Worker(new URL("./browser-thread.js", import.meta.url), { type: "module" });
  worker.onerror = (event) => event.preventDefault(); // one that cannot start is one less: the others do its share
  worker.postMessage({ module, memory } satisfies ThreadData);
  return { end: () => worker.terminate() };
}

/** A share of the device's memory, as far as the browser says what that is, and no more than the engine gives. */
function spareMemory(): SpareMemory {
  const { deviceMemory } = navigator as Navigator & { readonly deviceMemory?: number };
  const device = deviceMemory === undefined ? ASSUMED_BYTES : deviceMemory * GIGABYTE;
  const share = Math.min(SPARE_MOST_BYTES, device * DEVICE_SHARE);
  const size = `${device / GIGABYTE} GB`;
  const known =
    deviceMemory === undefined
      ? `this browser does not say how much memory the device has; ${size} is assumed`
      : `the device has ${size} of memory or a little more`;
  const kind = share === SPARE_MOST_BYTES ? "at most 512 MB for a page" : "an eighth of it for a page";
  const bytes = engineGives(share);
  const how = `${known}, ${kind}`;
  return { bytes, how: bytes < share ? `${how}, and less because the engine refused that much` : how };
}

/** Halves until the engine reserves that much. Nothing is touched, so nothing is taken from the device. */
function engineGives(bytes: number): number {
  for (let most = bytes; ; most /= 2) {
    try {
      const pages = Math.floor(most / PAGE_BYTES);
      new WebAssembly.Memory({ initial: pages, maximum: pages });
      return pages * PAGE_BYTES;
    } catch {
      if (most / 2 < SPARE_LEAST_BYTES) return SPARE_LEAST_BYTES;
    }
  }
}
