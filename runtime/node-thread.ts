// The entry of a worker thread; as a process of its own, of the self-test of wider vectors.

import { isMainThread, workerData } from "node:worker_threads";
import type { ThreadData } from "./node-threads";
import { TURBO_TEST, testTurbo } from "./node-turbo";
import { serveSteps } from "./thread";

if (isMainThread && process.argv[2] === TURBO_TEST) testTurbo();

const { module, memory } = workerData as ThreadData;
serveSteps(module, memory);
