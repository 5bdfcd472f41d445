// A thread's entry in a browser.

import type { ThreadData } from "./browser-host";
import { serveSteps } from "./thread";

addEventListener("message", ({ data: { module, memory } }: MessageEvent<ThreadData>) => serveSteps(module, memory));
