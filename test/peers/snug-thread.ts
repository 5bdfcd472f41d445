// One more thread of snug's, in a worker of its own.

import { serveSteps } from "../../runtime/thread";

interface Start {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
}

addEventListener("message", ({ data: { module, memory } }: MessageEvent<Start>) => serveSteps(module, memory));
