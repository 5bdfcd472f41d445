// Serves one pack over an Electron port: the one that the main process names, whatever the page asks for.

import { basename } from "node:path";
import { open, type Port, SnugError, servePacks } from "snug";

/** What is used of Electron's MessagePortMain. */
export interface ElectronPort {
  on(event: "message", hear: (event: { data: unknown }) => void): unknown;
  postMessage(message: unknown): void;
  /** Nothing is heard before this. */
  start(): void;
}

/** The page opens the pack by its file's name. It is refused every other name, and never gives a path. */
export function servePack(port: ElectronPort, path: string): void {
  const name = basename(path);
  servePacks(portOf(port), async (wanted: unknown) => {
    if (wanted !== name) throw new SnugError("usage", `this process serves ${name}, not ${JSON.stringify(wanted)}`);
    return open(path);
  });
}

function portOf(port: ElectronPort): Port {
  return {
    post: (message) => port.postMessage(message),
    listen(hear) {
      port.on("message", ({ data }) => hear(data));
      port.start();
    },
  };
}
