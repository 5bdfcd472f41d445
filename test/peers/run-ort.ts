// onnxruntime's MatMulNBits in Node: the native library, or its WebAssembly.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type * as Ort from "onnxruntime-common";
import type { OpModel } from "./onnx";
import { type OpGroup, type OpRunner, serve } from "./runner";

export interface OrtOptions {
  readonly library: "onnxruntime-node" | "onnxruntime-web";
  readonly models: readonly OpModel[];
  readonly threads: number;
}

const TOLERANCE = 0.02; // of the outputs' root mean square: activations are rounded to 8 bits

await serve(async ({ library, models, threads }: OrtOptions): Promise<OpRunner> => {
  const require = createRequire(import.meta.url);
  const ort = require(library) as typeof Ort;
  const { version } = JSON.parse(readFileSync(require.resolve(library).replace(/dist.*/, "package.json"), "utf8"));
  const isWeb = library === "onnxruntime-web";
  if (isWeb) ort.env.wasm.numThreads = threads;
  const options = {
    executionProviders: [isWeb ? "wasm" : "cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
  } as const;
  const load = (path: string) =>
    ort.InferenceSession.create(isWeb ? new Uint8Array(readFileSync(path)) : path, options);
  const sessions: Record<"one" | "any", Ort.InferenceSession>[] = [];
  for (const { paths } of models) sessions.push({ one: await load(paths.one), any: await load(paths.any) });

  const inputs = new Map<string, Ort.Tensor>();
  const input = (rows: number, cols: number) => {
    const key = `${rows} ${cols}`;
    const values = () => Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i));
    const x = inputs.get(key) ?? new ort.Tensor("float32", values(), [rows, cols]);
    inputs.set(key, x);
    return x;
  };
  const run = async (index: number, rows: number) => {
    const x = input(rows, (models[index] as OpModel).cols);
    const session = sessions[index]?.[rows === 1 ? "one" : "any"] as Ort.InferenceSession;
    const started = performance.now();
    const { y } = await session.run({ x });
    return { seconds: (performance.now() - started) / 1000, y: y?.data as Float32Array };
  };
  for (const [i, { group, expected }] of models.entries())
    for (const rows of [1, 2]) {
      const { y } = await run(i, rows);
      const size = Math.sqrt(expected.reduce((sum, value) => sum + value ** 2, 0) / expected.length);
      const isRight = expected.every((value, at) => Math.abs(value - (y[at] as number)) < TOLERANCE * size);
      if (!isRight) throw new Error(`${group}: computes ${y.subarray(0, 3)} instead of ${expected.slice(0, 3)}`);
    }
  return {
    async about() {
      return `${library} ${version}${isWeb ? ` in Node ${process.versions.node}` : ""}`;
    },
    async products(rows) {
      const rates: [OpGroup, number][] = [];
      for (const [i, { group, products }] of models.entries())
        rates.push([group, (products * rows) / (await run(i, rows)).seconds]);
      return Object.fromEntries(rates) as Record<OpGroup, number>;
    },
  };
});
