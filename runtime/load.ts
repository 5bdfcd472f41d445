// Carries out a plan's reads: from the source straight to their places in the core's memory, the next ones under way
// while the last one is checked.

import { READ_ADDRESS, READ_BYTES, READ_LENGTH, READ_OFFSET } from "../assembly/abi";
import { type Core, guarded } from "./core";
import { SnugError } from "./errors";
import type { Host, Source } from "./host";
import type { Plan } from "./plan";

/** Enough to keep a disk, and the processors that copy from its cache, busy beside the checksums. */
const READS_AT_ONCE = 8;

export interface LoadProgress {
  readonly readBytes: number;
  readonly totalBytes: number;
}

export interface LoadOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
}

export async function loadPlan(core: Core, source: Source, host: Host, plan: Plan, options: LoadOptions) {
  const { exports } = core;
  throwIfAborted(options.signal);
  guarded(() => core.check(exports.plan_place()));
  const reads = exports.load_reads();
  const describe = (index: number) => {
    guarded(() => core.check(exports.load_read(index)));
    const read = core.view(exports.load_read_ptr(), READ_BYTES);
    return {
      offset: read.getFloat64(READ_OFFSET, true),
      length: read.getFloat64(READ_LENGTH, true),
      address: read.getFloat64(READ_ADDRESS, true),
    };
  };
  const start = (index: number) => {
    const { offset, length, address } = describe(index);
    const done = readSource(source, offset, core.bytes(address, length));
    done.catch(() => {}); // awaited below: a failure before that is not unhandled
    return { done, length };
  };
  // The prelude and the header were read when the pack was opened.
  let readBytes = plan.readBytes;
  for (let i = 0; i < reads; i++) readBytes -= describe(i).length;
  const underWay: ReturnType<typeof start>[] = [];
  for (let index = 0, started = 0; index < reads; index++) {
    while (started < reads && underWay.length < READS_AT_ONCE) underWay.push(start(started++));
    const { done, length } = underWay.shift() as ReturnType<typeof start>;
    await done;
    throwIfAborted(options.signal);
    guarded(() => core.check(exports.load_verify(index)));
    readBytes += length;
    options.onProgress?.({ readBytes, totalBytes: plan.readBytes });
  }
  await host.pause();
  guarded(() => core.check(exports.load_finish()));
}

/** Reads; whatever else a source throws becomes a SnugError. */
export async function readSource(source: Source, offset: number, target: Uint8Array): Promise<void> {
  try {
    await source.read(offset, target);
  } catch (cause) {
    if (cause instanceof SnugError) throw cause;
    throw new SnugError("source", `cannot read ${source.name}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    });
  }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new SnugError("aborted", "stopped by the caller", { cause: signal.reason });
}
