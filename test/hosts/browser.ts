// What all browsers have in common: a server for the page, a window that opens it, and time that runs out.

import { setTimeout } from "node:timers/promises";
import { HOST_MILLISECONDS, type Host } from "./host";
import { PageServer } from "./page-server";

export interface Window {
  /** Of the browser. */
  readonly version: string;
  /** Opens a page; rejects if that fails or, later on, if the page or its browser crashes. */
  visit(address: string): Promise<never>;
  close(): Promise<void>;
}

export interface Settings {
  /** Is the page isolated from others, so that it may have threads? */
  readonly isolated: boolean;
  readonly build: string;
}

/** Two hosts: the browser with a page that is isolated, and with one that is not. Both ask for two threads. */
export function browserHosts(name: string, launch: (settings: Settings) => Promise<Window>): readonly Host[] {
  return [true, false].map((isolated) => ({
    name: isolated ? `${name}, isolated` : name,
    threads: isolated ? 2 : 1,
    async run(cases, places) {
      const window = await launch({ isolated, build: places.build });
      const server = await PageServer.start(cases, 2, isolated, places);
      const timer = new AbortController();
      const late = async (): Promise<never> => {
        await setTimeout(HOST_MILLISECONDS, undefined, { signal: timer.signal });
        throw new Error(`no report after ${HOST_MILLISECONDS / 1000} s; the last request was for ${server.asked}`);
      };
      try {
        const visit = window.visit(server.address);
        const page = await Promise.race([server.report, visit, late()]);
        if (page.isolated !== isolated) throw new Error(`the page is ${isolated ? "not " : ""}isolated`);
        return { about: `${window.version}, ${page.simd}`, results: page.results };
      } finally {
        timer.abort();
        server.stop();
        await window.close();
      }
    },
  }));
}
