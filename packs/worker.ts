// A worker thread's entry: one Shard, called by message. Calls are answered in the order in which they come.

import { parentPort } from "node:worker_threads";
import { SnugError } from "../runtime/index";
import { Shard } from "./shard";
import type { Answer, Call } from "./shards";

const shard = Shard.create();
let last: Promise<void> = Promise.resolve();

parentPort?.on("message", ({ id, method, args }: Call) => {
  last = last.then(async () => {
    let answer: Answer;
    try {
      const work = (await shard)[method] as (...values: unknown[]) => Promise<unknown>;
      answer = { id, value: await work.apply(await shard, args) };
    } catch (error) {
      // Errors lose their class and their code on the way between threads.
      answer = { id, error: error instanceof SnugError ? { code: error.code, message: error.message } : error };
    }
    parentPort?.postMessage(answer);
  });
});
