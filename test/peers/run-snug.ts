// snug in Node, as a user of the package gets it.

import { pathToFileURL } from "node:url";
import type * as Snug from "../../runtime/index";
import { type ModelRunner, type OpGroup, type OpRunner, serve } from "./runner";

export interface SnugOptions {
  readonly path: string;
  readonly threads: number;
  readonly turbo: boolean;
  /** Folder of the package's bundles: "dist", or a copy. */
  readonly dist: string;
}

const CONTEXT = 1024;
const OUTPUTS = 64;
const GROUPS: Readonly<Record<string, OpGroup>> = {
  q: "q, k, v",
  k: "q, k, v",
  v: "q, k, v",
  o: "o",
  gate: "gate, up",
  up: "gate, up",
  down: "down",
};

await serve(async ({ path, threads, turbo, dist }: SnugOptions): Promise<ModelRunner & OpRunner> => {
  const { open, Stopwatch } = (await import(pathToFileURL(`${dist}/index.js`).href)) as typeof Snug;
  const pack = await open(path, { turbo });
  const model = await pack.load(pack.plan({ context: CONTEXT, outputs: OUTPUTS, threads }));
  const generation = { temperature: 0, repeatPenalty: 1 };
  return {
    async about() {
      const { simd, turbo, passedOver } = pack.build;
      return `Node ${process.versions.node}, ${simd}${turbo ? ", turbo" : ""}${passedOver ? ` (${passedOver})` : ""}`;
    },
    async prompt(tokens) {
      const { prompt } = await model.generate(tokens, { ...generation, maxTokens: 1 }).result();
      return prompt.seconds;
    },
    async generate(tokens, count) {
      // The first token comes from the prompt's own step.
      const { decode } = await model.generate(tokens, { ...generation, maxTokens: count + 1 }).result();
      return decode.seconds;
    },
    async logits(tokens) {
      const all: number[][] = [];
      await model.logits(tokens, (logits) => all.push(Array.from(logits)));
      return all;
    },
    async products(rows) {
      const stopwatch = new Stopwatch(model);
      const seconds = await stopwatch.ops(rows);
      const totals = new Map<OpGroup, { products: number; seconds: number }>();
      let quantizing = 0;
      stopwatch.work().forEach(({ op, matrix, products }, i) => {
        if (op === "quantize") quantizing += seconds[i] as number;
        const group = GROUPS[matrix];
        if (group !== undefined) {
          const total = totals.get(group) ?? { products: 0, seconds: 0 };
          total.products += products * rows;
          total.seconds += (seconds[i] as number) + quantizing;
          totals.set(group, total);
        }
        if (matrix !== "") quantizing = 0;
      });
      const rates = [...totals].map(([group, total]) => [group, total.products / total.seconds]);
      return Object.fromEntries(rates) as Record<OpGroup, number>;
    },
  };
});
