// Threads on Node: worker threads, and how many of them the machine really has room for.

import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { Thread } from "./host";
import { startWorker } from "./node-assets";

/** What a worker gets: see node-thread.ts. */
export interface ThreadData {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
}

/** Starts one more instance of the core over the same memory. It holds the process up as little as it can. */
export function startThread(module: WebAssembly.Module, memory: WebAssembly.Memory): Thread {
  const workerData: ThreadData = { module, memory };
  const worker = startWorker("thread.js", { workerData });
  worker.unref();
  worker.on("error", () => {}); // one that cannot start is one less: the others do its share
  return { end: () => void worker.terminate() };
}

/** Physical cores that this process may use, within what its control groups allow; at least one. */
export function usableThreads(): number {
  return Math.max(1, Math.min(availableParallelism(), physicalCores(), Math.floor(cgroupCores())));
}

/** Two threads of one core share its arithmetic: they are not worth two. Infinity where that is not known. */
function physicalCores(): number {
  const root = "/sys/devices/system/cpu";
  const cores = new Set<string>();
  for (const name of names(root)) {
    if (!/^cpu\d+$/.test(name)) continue;
    const siblings = text(`${root}/${name}/topology/thread_siblings_list`)?.trim();
    if (siblings !== undefined) cores.add(siblings);
  }
  return cores.size === 0 ? Number.POSITIVE_INFINITY : cores.size;
}

/** Processors' worth of time that the control groups allow; Infinity without a limit. */
function cgroupCores(): number {
  let least = Number.POSITIVE_INFINITY;
  for (const line of (text("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = line.split(":", 3);
    if (path === undefined) continue;
    const v2 = controllers === "";
    if (!v2 && !controllers?.split(",").includes("cpu")) continue;
    const parts = path.split("/").filter((part) => part !== "" && part !== "..");
    for (let depth = parts.length; depth >= 0; depth--) {
      const folder = [v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu", ...parts.slice(0, depth)].join("/");
      const [quota, period] = v2
        ? (text(`${folder}/cpu.max`)?.split(" ").map(Number) ?? [])
        : [Number(text(`${folder}/cpu.cfs_quota_us`)), Number(text(`${folder}/cpu.cfs_period_us`))];
      if (quota !== undefined && period !== undefined && quota > 0 && period > 0)
        least = Math.min(least, quota / period);
    }
  }
  return least;
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
