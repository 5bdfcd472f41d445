// npm run bench:gpu-peers: what a GPU can do at most through WebGPU, what onnxruntime does on it, and what snug does. In Node,
// on Dawn.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { brotliDecompressSync } from "node:zlib";
import { type CeilingSizes, measureCeilings } from "./ceilings";
import { openDawn, TOGGLES } from "./dawn";
import { measureOnnxruntime } from "./onnxruntime";
import { type Report, renderText, type SnugFigures } from "./report";
import { type ModelTime, measureModels, measureProducts } from "./snug";

const USAGE = `npm run bench:gpu-peers -- [options]
  --parts A,B       ceilings, onnxruntime, snug       (default: all)
  --sizes NAME      full, products, small             (default: full, and small on a software adapter)
  --toggles A,B     of Dawn                           (default: ${TOGGLES.join()})
  --wasm FILE       onnxruntime's ort-wasm-simd-threaded.asyncify.wasm, or FILE.br
                                                      (default: the one that is installed)
  --json FILE                                         (default: printed only)
Dawn is found where DAWN_NODE says, or else in the package "webgpu".`;

interface Sizes {
  readonly ceilings: CeilingSizes;
  readonly chain: { readonly layers: number; readonly size: number; readonly rows: number };
  readonly models: readonly {
    readonly shape: string;
    readonly rates: readonly number[];
    readonly groups: readonly number[];
    /** Absent: the shape's own. */
    readonly layers?: number;
  }[];
}

const SIZES: Readonly<Record<string, Sizes>> = {
  full: {
    ceilings: {
      readBytes: 2 ** 32,
      readWorkgroups: [1056, 2112, 4224, 8448, 16896],
      gemms: [
        { rows: 4096, cols: 4096, inner: 4096 },
        { rows: 512, cols: 4096, inner: 4096 },
      ],
      dispatches: 2000,
    },
    chain: { layers: 32, size: 4096, rows: 512 },
    models: [
      { shape: "qwen2.5-0.5b", rates: [0], groups: [32] },
      { shape: "llama-3.2-1b", rates: [0], groups: [32] },
      { shape: "llama-3.1-8b", rates: [0, 0.35], groups: [32, 128] },
    ],
  },
  products: {
    ceilings: { readBytes: 2 ** 30, readWorkgroups: [8448], gemms: [], dispatches: 500 },
    chain: { layers: 32, size: 4096, rows: 512 },
    models: [],
  },
  small: {
    ceilings: {
      readBytes: 2 ** 22,
      readWorkgroups: [16, 64],
      gemms: [{ rows: 128, cols: 256, inner: 64 }],
      dispatches: 100,
    },
    chain: { layers: 3, size: 256, rows: 40 },
    models: [],
  },
};
const PARTS = ["ceilings", "onnxruntime", "snug"];
const WASM = "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm";

const { values: options } = parseArgs({
  options: {
    parts: { type: "string", default: PARTS.join() },
    sizes: { type: "string" },
    toggles: { type: "string", default: TOGGLES.join() },
    wasm: { type: "string" },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

async function main(): Promise<void> {
  const parts = list(options.parts);
  refuse("part", parts, PARTS);
  if (options.sizes !== undefined) refuse("set of sizes", [options.sizes], Object.keys(SIZES));
  const gpu = await openDawn(list(options.toggles));
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) throw new Error("there is no GPU that Dawn can use");
  const { vendor, architecture, description, isFallbackAdapter } = adapter.info;
  const sizes = SIZES[options.sizes ?? (isFallbackAdapter ? "small" : "full")];
  const machine = {
    adapter: [vendor, architecture, description].join(" ").trim(),
    features: [...adapter.features].sort(),
    node: process.versions.node,
    date: new Date().toISOString().slice(0, 10),
  };
  const report: Report = {
    machine,
    ceilings: parts.includes("ceilings") ? await ceilingsOf(adapter, sizes) : null,
    onnxruntime: parts.includes("onnxruntime") ? await measureOnnxruntime(readWasm(options.wasm), sizes.chain) : null,
    snug: parts.includes("snug") ? await snugOf(gpu, sizes) : null,
  };
  console.log(renderText(report));
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
}

async function snugOf(gpu: GPU, { chain, models }: Sizes): Promise<SnugFigures> {
  const { layers, size, rows } = chain;
  const products = [await measureProducts(gpu, layers, size, 1), await measureProducts(gpu, layers, size, rows)];
  const times: ModelTime[] = [];
  for (const { shape, rates, groups, layers } of models)
    for (const group of groups) times.push(...(await measureModels(shape, rates, group, layers)));
  return { products, models: times };
}

async function ceilingsOf(adapter: GPUAdapter, sizes: Sizes) {
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const device = await adapter.requestDevice({
    requiredFeatures: adapter.features.has("timestamp-query") ? ["timestamp-query"] : [],
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize },
  });
  const ceilings = await measureCeilings(device, sizes.ceilings);
  device.destroy();
  return ceilings;
}

function readWasm(path = createRequire(import.meta.url).resolve(WASM)): Uint8Array {
  const bytes = readFileSync(path);
  return path.endsWith(".br") ? brotliDecompressSync(bytes) : bytes;
}

function refuse(what: string, names: readonly string[], known: readonly string[]): void {
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`no ${what} is called "${unknown}": there are ${known.join(", ")}`);
}

function list(text: string): string[] {
  return text.split(",").filter((item) => item !== "");
}

if (options.help) console.log(USAGE);
else await main();
