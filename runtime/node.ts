// Node as a host: files, the product's modules, and what memory the machine can spare.

import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { freemem } from "node:os";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { SnugError } from "./errors";
import type { Feature, Host, Source, SpareMemory } from "./host";
import { assetInside, readAsset } from "./node-assets";
import { webgpu } from "./node-gpu";
import { startThread, usableThreads } from "./node-threads";
import { enableTurbo } from "./node-turbo";

// Of what is free, this share is left to the rest of the machine; of that, NODE_BYTES to Node itself.
const SPARE_SHARE = 0.8;
const NODE_BYTES = 100e6;

export const nodeHost: Host = {
  openSource,
  loadModule,
  spareMemory,
  enable,
  webgpu,
  usableThreads,
  startThread,
  pause: () => setImmediate(),
};

const NODE_MAJOR = Number(process.versions.node.split(".")[0]);

async function openSource(address: string): Promise<Source> {
  const location = /^file:/i.test(address) ? fileURLToPath(address) : address;
  const inside = assetInside(location);
  if (inside) return bytesSource(location, inside);
  const file = await open(location, "r").catch((cause: NodeJS.ErrnoException) => {
    throw new SnugError("source", `cannot read ${location}: ${reason(cause)}`, { cause });
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw new SnugError("source", `${location} is not a file: give the path of a .snug pack`);
    return {
      name: location,
      size: stat.size,
      async read(offset, target) {
        for (let done = 0; done < target.length; ) {
          const { bytesRead } = await file.read(target, done, target.length - done, offset + done);
          if (bytesRead === 0)
            throw new SnugError("source", `${location} ended at byte ${offset + done} while it was being read`);
          done += bytesRead;
        }
      },
      async readPieces(offset, targets) {
        for (let left = [...targets]; left.length > 0; ) {
          const { bytesRead } = await file.readv(left, offset);
          if (bytesRead === 0)
            throw new SnugError("source", `${location} ended at byte ${offset} while it was being read`);
          offset += bytesRead;
          left = behind(left, bytesRead);
        }
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function bytesSource(name: string, bytes: Uint8Array): Source {
  return {
    name,
    size: bytes.length,
    async read(offset, target) {
      if (offset + target.length > bytes.length) throw new SnugError("source", `${name} ends at byte ${bytes.length}`);
      target.set(bytes.subarray(offset, offset + target.length));
    },
  };
}

/** What is left of the places when the first `bytes` bytes have come. */
function behind(targets: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let done = bytes;
  return targets.flatMap((target) => {
    const here = Math.min(done, target.length);
    done -= here;
    return here === target.length ? [] : [target.subarray(here)];
  });
}

async function loadModule(file: string): Promise<WebAssembly.Module> {
  const bytes = await readAsset(file).catch((cause: NodeJS.ErrnoException) => {
    throw new SnugError("source", `cannot read ${file} beside the program (${reason(cause)}): run npm run build`, {
      cause,
    });
  });
  return WebAssembly.compile(bytes as BufferSource);
}

/** Node 20 has relaxed SIMD behind a flag; from Node 24 on 128-bit vectors can be fused to 256 bits. */
function enable(feature: Feature): boolean {
  if (feature === "turbo") return enableTurbo();
  if (NODE_MAJOR < 22) setFlagsFromString("--experimental-wasm-relaxed-simd");
  return true;
}

/** The least of what the machine, the cgroup and the process limit leave free. */
function spareMemory(): SpareMemory {
  let free = available();
  let how = "free memory of the machine";
  const group = cgroupFree();
  if (group !== undefined && group < free) {
    free = group;
    how = "what the control group's limit leaves";
  }
  const bytes = Math.max(0, Math.floor(free * SPARE_SHARE - NODE_BYTES));
  return {
    bytes,
    how: `${SPARE_SHARE * 100} % of ${how} (${Math.round(free / 1e6)} MB) less ${NODE_BYTES / 1e6} MB for Node`,
  };
}

/** Memory that can be had without swapping. os.freemem() leaves out what caches would give back. */
function available(): number {
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readText("/proc/meminfo") ?? "");
  return line?.[1] === undefined ? freemem() : Number(line[1]) * 1024;
}

/** What the limits of the control groups that hold this process leave free, or undefined without limits. */
function cgroupFree(): number | undefined {
  let least: number | undefined;
  for (const line of (readText("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = line.split(":", 3);
    if (path === undefined) continue;
    const v2 = controllers === "";
    if (!v2 && !controllers?.split(",").includes("memory")) continue;
    const root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    // A parent's limit counts too; in a container the path may be the outer one, and the root is what is mounted.
    const parts = path.split("/").filter((part) => part !== "" && part !== "..");
    for (let depth = parts.length; depth >= 0; depth--) {
      const folder = [root, ...parts.slice(0, depth)].join("/");
      const limit = readNumber(`${folder}/${v2 ? "memory.max" : "memory.limit_in_bytes"}`);
      const used = readNumber(`${folder}/${v2 ? "memory.current" : "memory.usage_in_bytes"}`);
      if (limit === undefined || used === undefined || limit > 2 ** 50) continue;
      // Cached files count as used but are given back when memory runs short.
      const cached = /^(?:total_)?inactive_file (\d+)$/m.exec(readText(`${folder}/memory.stat`) ?? "");
      const free = Math.max(0, limit - used + Number(cached?.[1] ?? 0));
      least = Math.min(least ?? free, free);
    }
  }
  return least;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function readNumber(path: string): number | undefined {
  const text = readText(path)?.trim();
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

function reason(cause: NodeJS.ErrnoException): string {
  if (cause.code === "ENOENT") return "there is no such file";
  if (cause.code === "EACCES") return "permission denied";
  if (cause.code === "EISDIR") return "it is a folder";
  return cause.message;
}
