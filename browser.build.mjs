// npm run build:browser: what a page loads. All that a GPU needs is a file of its own, with the shaders' text shortened.

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { build } from "esbuild";

const options = {
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  logLevel: "warning",
  outdir: "dist",
};

/** Comments and indentation are left out; lines that begin with `//#` are for gpu/wgsl.ts. */
const shaders = {
  name: "shaders",
  setup({ onLoad }) {
    onLoad({ filter: /\.wgsl$/ }, async ({ path }) => {
      const lines = (await readFile(path, "utf8"))
        .split("\n")
        .map((line) => (line.startsWith("//#") ? line : line.replace(/\/\/.*$/, "").trim()));
      return { contents: lines.filter((line) => line !== "").join("\n"), loader: "text" };
    });
  },
};

/** In the worker, runtime/browser-gpu.ts fetches the GPU's part. */
const apart = {
  name: "apart",
  setup({ onResolve }) {
    onResolve({ filter: /^\.\.\/gpu\/index$/ }, () => ({ path: resolve("runtime/browser-gpu.ts") }));
  },
};

const browser = ["browser", "browser-worker", "browser-thread"].map((name) => `runtime/${name}.ts`);
await build({ ...options, entryPoints: browser, plugins: [apart] });
await build({ ...options, entryPoints: { "browser-gpu": "gpu/index.ts" }, plugins: [shaders] });
