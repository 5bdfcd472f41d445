// A worker thread's entry.

import { workerData } from "node:worker_threads";
import type { ThreadData } from "./node-threads";
import { serveSteps } from "./thread";

const { module, memory } = workerData as ThreadData;
serveSteps(module, memory);
