// Makes a Node process that child_process.fork() started into one that Electron would have: process.parentPort, which
// brings one port. What passes that port is sent to and from the parent as it is.

import { EventEmitter } from "node:events";

/** What the parent sends. */
export type ToChild =
  /** What parentPort brings, with the port. */
  | { readonly first: unknown }
  | { readonly message: unknown }
  /** The other end of the port is gone. */
  | { readonly closed: true };

class PortMain extends EventEmitter {
  readonly #early: unknown[] = [];
  #isStarted = false;

  postMessage(message: unknown): void {
    process.send?.(message);
  }

  start(): void {
    this.#isStarted = true;
    for (const message of this.#early.splice(0)) this.arrive(message);
  }

  arrive(message: unknown): void {
    if (this.#isStarted) this.emit("message", { data: message, ports: [] });
    else this.#early.push(message);
  }
}

const port = new PortMain();
const parentPort = new EventEmitter();
// What comes before somebody listens waits.
parentPort.once("newListener", () => {
  process.on("message", (told: ToChild) => {
    if ("first" in told) parentPort.emit("message", { data: told.first, ports: [port] });
    else if ("message" in told) port.arrive(told.message);
    else port.emit("close");
  });
});
process.once("disconnect", () => process.exit());
Object.assign(process, { parentPort });
