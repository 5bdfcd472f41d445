// The product's own files: beside the bundle, or inside the executable that they were made into (see cli/binary).

import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker, type WorkerOptions } from "node:worker_threads";

/** The part of node:sea that is used. Asked for at run time: Node before 20.12 and other engines do not have it. */
interface Executable {
  isSea(): boolean;
  /** The bytes as they lie in the executable: not copied, and not to be written to. */
  getRawAsset(key: string): ArrayBuffer;
}

const executable = within(process.getBuiltinModule?.("node:sea") as Executable | undefined);

function within(sea: Executable | undefined): Executable | undefined {
  return sea?.isSea() ? sea : undefined;
}

/**
 * Where one of the product's files is, such as "core.wasm"; `name` is relative to the bundle. A file inside the
 * executable has the executable's path and then its own name, which no other file can have: see assetInside().
 */
export function assetPath(name: string): string {
  return executable ? join(process.execPath, basename(name)) : fileURLToPath(new URL(name, import.meta.url));
}

/** The bytes behind a path from assetPath() if they are inside the executable; undefined: look for a file. */
export function assetInside(path: string): Uint8Array | undefined {
  if (!executable || dirname(path) !== process.execPath) return undefined;
  try {
    return new Uint8Array(executable.getRawAsset(basename(path)));
  } catch {
    return undefined; // nothing of that name is inside
  }
}

/** The bytes of one of the product's files. Rejects as readFile() does. */
export async function readAsset(name: string): Promise<Uint8Array> {
  const path = assetPath(name);
  return assetInside(path) ?? readFile(path);
}

/** Starts a worker thread from one of the product's scripts. */
export function startWorker(name: string, options: WorkerOptions = {}): Worker {
  const path = assetPath(name);
  const script = assetInside(path);
  if (script) return new Worker(new TextDecoder().decode(script), { ...options, eval: true });
  return new Worker(path, options);
}

/** The path of the pack that comes with the product, as open() takes it. */
export function demoPack(): string {
  return assetPath("../packs/demo/tale.snug");
}
