// Runs snug.wasm in this process, under node:wasi: arguments and stdin in, exit code and what was written out. And packs
// for it.

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WASI } from "node:wasi";
import { writeCheckpoint } from "./write-checkpoint";
import { packCheckpoint } from "./write-pack";

export type WasiImports = Record<string, (...args: never[]) => unknown>;

export interface WasiRun {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  /** What the program's memory has grown to, in bytes. */
  readonly memoryBytes: number;
}

export interface WasiOptions {
  /** Folders as the program sees them, and where they are. Default: the root. */
  readonly preopens?: Record<string, string>;
  /** What can be read from stdin. Default: nothing, as from a terminal. */
  readonly stdin?: string | Uint8Array;
  /** Puts functions of its own in the place of the host's. */
  readonly imports?: (host: WasiImports, memory: () => DataView) => WasiImports;
}

/** Throws if the program traps. */
export function runWasi(module: WebAssembly.Module, args: readonly string[], options: WasiOptions = {}): WasiRun {
  const folder = mkdtempSync(join(tmpdir(), "snug-wasi-"));
  const files = ["in", "out", "err"].map((name) => join(folder, name));
  const [inFile, outFile, errFile] = files as [string, string, string];
  if (options.stdin !== undefined) writeFileSync(inFile, options.stdin);
  const stdin = openSync(options.stdin === undefined ? "/dev/null" : inFile, "r");
  const stdout = openSync(outFile, "w");
  const stderr = openSync(errFile, "w");
  try {
    const wasi = new WASI({
      version: "preview1",
      args: ["snug.wasm", ...args],
      preopens: options.preopens ?? { "/": "/" },
      returnOnExit: true,
      ...{ stdin, stdout, stderr },
    });
    // Node 20 and 22 crash after path_open where its functions are called without one of JavaScript between.
    const host: WasiImports = Object.fromEntries(
      Object.entries(wasi.wasiImport as WasiImports).map(([name, call]) => [name, (...given) => call(...given)]),
    );
    let instance: WebAssembly.Instance;
    const memory = () => (instance.exports.memory as WebAssembly.Memory).buffer;
    const imports = options.imports?.(host, () => new DataView(memory())) ?? host;
    instance = new WebAssembly.Instance(module, { wasi_snapshot_preview1: imports as WebAssembly.ModuleImports });
    const code = Number(wasi.start(instance));
    const [out, err] = [outFile, errFile].map((file) => readFileSync(file, "utf8")) as [string, string];
    return { code, out, err, memoryBytes: memory().byteLength };
  } finally {
    for (const file of [stdin, stdout, stderr]) closeSync(file);
    rmSync(folder, { recursive: true });
  }
}

/** Small packs in a folder of their own: `words` with a tokenizer, `ids` without. */
export function smallPacks() {
  const folder = mkdtempSync(join(tmpdir(), "snug-wasi-packs-"));
  const words = join(folder, "words.snug");
  const ids = join(folder, "ids.snug");
  const write = async () => {
    const files = { "tokenizer.json": readFileSync("test/fixtures/tokenizer.json", "utf8") };
    writeCheckpoint(join(folder, "words"), { vocab_size: 600, max_position_embeddings: 100_000 }, 1, { files });
    writeCheckpoint(join(folder, "ids"));
    writeFileSync(words, await packCheckpoint(join(folder, "words"), { endTokens: [] }));
    writeFileSync(ids, await packCheckpoint(join(folder, "ids"), { endTokens: [] }));
  };
  return { folder, words, ids, write, remove: () => rmSync(folder, { recursive: true }) };
}
