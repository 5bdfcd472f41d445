// node|deno|bun run-wasi.js MODULE FOLDERS [arguments of the command]: a WASI command under the engine's own node:wasi.

import { readFileSync } from "node:fs";
import process from "node:process";
import { WASI } from "node:wasi";

const [file, folders, ...args] = process.argv.slice(2) as [string, string, ...string[]];
const preopens = Object.fromEntries(folders.split(":").map((folder) => [folder, folder]));
const wasi = new WASI({ version: "preview1", args: ["snug.wasm", ...args], preopens, returnOnExit: true });
// Node 20 and 22 crash behind path_open unless the functions are wrapped: nodejs/node#53087.
const functions = Object.entries(wasi.wasiImport as Record<string, (...args: unknown[]) => unknown>);
const wrapped = Object.fromEntries(functions.map(([name, call]) => [name, (...all: unknown[]) => call(...all)]));
const module = new WebAssembly.Module(readFileSync(file));
process.exitCode = wasi.start(new WebAssembly.Instance(module, { wasi_snapshot_preview1: wrapped }));
