// llama.cpp, native, through node-llama-cpp.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import type * as NodeLlama from "node-llama-cpp";
import { type ModelRunner, serve } from "./runner";

export interface LlamaOptions {
  readonly path: string;
  readonly threads: number;
  /** Folder "node_modules" to load it from. */
  readonly modules: string;
}

const CONTEXT = 1024;

await serve(async ({ path, threads, modules }: LlamaOptions): Promise<ModelRunner> => {
  const { getLlama } = (await import(
    pathToFileURL(`${modules}/node-llama-cpp/dist/index.js`).href
  )) as typeof NodeLlama;
  const { version } = JSON.parse(readFileSync(`${modules}/node-llama-cpp/package.json`, "utf8"));
  const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: threads });
  const model = await llama.loadModel({ modelPath: path });
  const context = await model.createContext({ contextSize: CONTEXT, batchSize: 512, threads, flashAttention: true });
  const sequence = context.getSequence();
  return {
    async about() {
      return `node-llama-cpp ${version}, llama.cpp ${llama.llamaCppRelease.release}, ${loadedBackend()}`;
    },
    async prompt(tokens) {
      await sequence.clearHistory();
      const started = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens([...tokens]);
      return (performance.now() - started) / 1000;
    },
    async generate(tokens, count) {
      await sequence.clearHistory();
      let made = 0;
      let started = 0;
      for await (const _ of sequence.evaluate([...tokens], { temperature: 0, yieldEogToken: true })) {
        if (made === 0) started = performance.now();
        if (made++ === count) break;
      }
      if (made <= count) throw new Error(`made ${made} tokens only`);
      return (performance.now() - started) / 1000;
    },
    async logits(tokens) {
      await sequence.clearHistory();
      const results = await sequence.controlledEvaluate(
        tokens.map((token) => [token, { generateNext: { logits: true } }]),
      );
      return results.map((result) => {
        const logits: number[] = [];
        for (const [token, value] of result?.next.logits ?? []) logits[token] = value;
        return logits;
      });
    },
  };
});

/** The library that ggml chose for this processor. */
function loadedBackend(): string {
  const maps = process.platform === "linux" ? readFileSync("/proc/self/maps", "utf8") : "";
  return /libggml-cpu[^/\s]*\.so/.exec(maps)?.[0] ?? "backend unknown";
}
