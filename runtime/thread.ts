// A thread's life, whatever the host: an instance of the core that does its share of the steps that another begins.

import { instantiate } from "./core";

/** Serves steps until the model is disposed of. Blocks. */
export function serveSteps(module: WebAssembly.Module, memory: WebAssembly.Memory): void {
  const exports = instantiate(module, memory);
  if (exports.thread_join() === 0) return;
  try {
    while (exports.thread_serve() !== 0);
  } catch (error) {
    exports.threads_trapped(); // whoever waits for this thread learns that it need not
    throw error;
  }
}
