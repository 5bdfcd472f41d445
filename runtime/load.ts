// Carries out a plan's reads: from the source straight to their places in the core's memory, the next ones under way
// while the last one is checked.

import { READ_ADDRESS, READ_BYTES, READ_LENGTH, READ_OFFSET, READ_PIECES } from "../assembly/abi";
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
  const describe = (index: number, piece: number) => {
    guarded(() => core.check(exports.load_read(index, piece)));
    const read = core.view(exports.load_read_ptr(), READ_BYTES);
    return {
      offset: read.getFloat64(READ_OFFSET, true),
      length: read.getFloat64(READ_LENGTH, true),
      address: read.getFloat64(READ_ADDRESS, true),
      pieces: read.getFloat64(READ_PIECES, true),
    };
  };
  const piecesOf = (index: number) => {
    const first = describe(index, 0);
    return [first, ...Array.from({ length: first.pieces - 1 }, (_, i) => describe(index, i + 1))];
  };
  const start = (index: number) => {
    const pieces = piecesOf(index);
    const targets = pieces.map(({ address, length }) => core.bytes(address, length));
    const done = readPieces(source, (pieces[0] as { offset: number }).offset, targets);
    done.catch(() => {}); // awaited below: a failure before that is not unhandled
    return { done, length: targets.reduce((sum, { length }) => sum + length, 0) };
  };
  // The prelude and the header were read when the pack was opened.
  let readBytes = plan.readBytes;
  for (let i = 0; i < reads; i++) for (const { length } of piecesOf(i)) readBytes -= length;
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

/** Reads consecutive bytes to several places. */
async function readPieces(source: Source, offset: number, targets: readonly Uint8Array[]): Promise<void> {
  if (targets.length > 1 && source.readPieces !== undefined)
    return named(source, () => source.readPieces?.(offset, targets));
  let at = offset;
  const reads = targets.map((target) => {
    at += target.length;
    return readSource(source, at - target.length, target);
  });
  for (const { status, reason } of (await Promise.allSettled(reads)) as PromiseRejectedResult[])
    if (status === "rejected") throw reason;
}

/** Reads; whatever else a source throws becomes a SnugError. */
export function readSource(source: Source, offset: number, target: Uint8Array): Promise<void> {
  return named(source, () => source.read(offset, target));
}

async function named(source: Source, read: () => Promise<void> | undefined): Promise<void> {
  try {
    await read();
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
