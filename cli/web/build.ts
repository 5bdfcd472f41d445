// Makes the page: bundles its code, copies what is built already, and tells the service worker what there is to keep.

import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { build } from "esbuild";

const COPIED = ["cli/web/index.html", "cli/web/icon.svg", "cli/web/page.webmanifest"];
/** The runtime looks for these beside the page's code. */
const RUNTIME = [
  ...["browser-worker.js", "browser-thread.js", "browser-gpu.js"],
  ...["core.wasm", "core.relaxed.wasm", "core.threads.wasm", "core.relaxed.threads.wasm"],
];
const BUNDLED = ["cli/web/page.ts", "cli/web/page.css"];

/** Builds into a folder, from the repository's root and the runtime in dist. Returns the names of the files. */
export async function buildPage(folder: string): Promise<string[]> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const options = {
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    outdir: folder,
    entryNames: "[name]",
    logLevel: "warning",
  } as const;
  await build({ ...options, entryPoints: BUNDLED });
  const copied = [...COPIED, ...RUNTIME.map((file) => join("dist", file))];
  for (const path of copied) await copyFile(path, join(folder, basename(path)));

  const files = [...BUNDLED, ...copied].map((path) => basename(path).replace(/\.ts$/, ".js"));
  const hash = createHash("sha256");
  for (const file of files) hash.update(file).update(await readFile(join(folder, file)));
  const define = { FILES: JSON.stringify(files), BUILD: JSON.stringify(hash.digest("hex").slice(0, 16)) };
  await build({ ...options, entryPoints: ["cli/web/service-worker.ts"], define, format: "iife" });
  return [...files, "service-worker.js"];
}
