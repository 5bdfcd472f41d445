// Stands for gpu/index.ts in a browser's worker: that is a file of its own there, fetched when a GPU is asked for.

import { SnugError } from "./errors";

type Gpu = typeof import("../gpu/index");

// Bundlers look for this very form, and take the file along as it is: it must not become a part of theirs.
const file = new URL("./browser-gpu.js", import.meta.url);

async function load(): Promise<Gpu> {
  try {
    return await import(file.href);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : cause;
    throw new SnugError("gpu", `cannot read ${file}, which belongs beside snug's worker: ${reason}`, { cause });
  }
}

export const { Executor, findGpu, GpuError, requestDevice, selfTest } = await load();

// The compiler says so where gpu/index.ts has more.
({ Executor, findGpu, GpuError, requestDevice, selfTest }) satisfies Gpu;
