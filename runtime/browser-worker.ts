// The worker's entry: opens packs and runs models for the page that started it.

import { blobSource } from "./blob";
import { browserHost } from "./browser-host";
import { openPack } from "./pack";
import { servePacks } from "./serve";

/** What a page sends along with open(). */
export interface BrowserOpenOptions {
  /** Absolute address of the folder of the core's modules. Absent: beside this file. */
  readonly wasm?: string;
  readonly cache: boolean;
}

servePacks(
  {
    post: (message) => postMessage(message),
    listen(hear) {
      addEventListener("message", ({ data }) => hear(data));
    },
  },
  async (location: string | Blob, { wasm, cache }: BrowserOpenOptions, signal) => {
    const host = browserHost(wasm, cache);
    const source = typeof location === "string" ? await host.openSource(location) : blobSource(location);
    return openPack(source, host, { signal });
  },
);
