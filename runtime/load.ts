// Carries out a plan's reads: from the source straight to their places in the core's memory, the next ones under way
// while the last one is checked. What a device is to have is uploaded from there.

import {
  LOAD_SLOTS,
  READ_ADDRESS,
  READ_BYTES,
  READ_DEVICE,
  READ_LENGTH,
  READ_OFFSET,
  READ_PIECES,
} from "../assembly/abi";
import { type Core, guarded } from "./core";
import { SnugError } from "./errors";
import type { Host, Source } from "./host";
import type { Plan } from "./plan";

/** Enough to keep a disk, and the processors that copy from its cache, busy beside the checksums. */
const READS_AT_ONCE = LOAD_SLOTS;

/**
 * Takes verified bytes of a plan whose weights lie in a device, to `offset` of the device's memory. They are there until
 * the promise resolves, or until the function returns.
 */
export type Upload = (offset: number, bytes: Uint8Array) => void | Promise<void>;

export interface LoadProgress {
  readonly readBytes: number;
  readonly totalBytes: number;
  /** What has come over a network since the pack was opened: 0 where all of it is on the device. */
  readonly downloadedBytes: number;
}

export interface LoadOptions {
  /**
   * Whose memory the weights go to, instead of what the plan says; "auto" times both and takes the faster one, the CPU where
   * no GPU works. The plan is made anew for it: the model's own plan says what it came to, its `choice` why.
   */
  readonly device?: "cpu" | "gpu" | "auto";
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
  /** The engine refused the memory of a plan that was made for a budget: this smaller one is tried now. */
  readonly onSmaller?: (plan: Plan, error: SnugError) => void;
}

/** Loads what a plan keeps; `begin`: where the plan is for a device, takes its memory once all has its place. */
export async function loadPlan(
  core: Core,
  source: Source,
  host: Host,
  plan: Plan,
  options: LoadOptions,
  begin?: () => Promise<Upload>,
): Promise<void> {
  throwIfAborted(options.signal);
  guarded(() => core.check(core.exports.plan_place()));
  await readPlan(core, source, plan, options, await begin?.());
  await host.pause();
  guarded(() => core.check(core.exports.load_finish()));
}

/** Carries out the reads of a plan that has its place; where it is for a device, once more if that was lost. */
export async function readPlan(
  core: Core,
  source: Source,
  plan: Plan,
  options: LoadOptions,
  upload: Upload | undefined,
): Promise<void> {
  if (plan.deviceBytes > 0 && upload === undefined)
    throw new SnugError("internal", "a plan for a device, and nothing that uploads to it: please report this");
  const release = await source.prepare?.(plan.readBytes, options.signal);
  try {
    await carryOut(core, source, plan, options, upload);
  } finally {
    await release?.();
  }
}

async function carryOut(
  core: Core,
  source: Source,
  plan: Plan,
  options: LoadOptions,
  upload: Upload | undefined,
): Promise<void> {
  const { exports } = core;
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
  const move = async (index: number, to: Upload) => {
    for (let piece = 0, pieces = 1; piece < pieces; piece++) {
      guarded(() => core.check(exports.load_move(index, piece)));
      const read = core.view(exports.load_read_ptr(), READ_BYTES);
      const at = (offset: number) => read.getFloat64(offset, true);
      pieces = at(READ_PIECES);
      if (pieces > 0) await to(at(READ_DEVICE), core.bytes(at(READ_ADDRESS), at(READ_LENGTH)));
    }
  };
  const start = (index: number) => {
    const pieces = piecesOf(index);
    const targets = pieces.map(({ address, length }) => core.bytes(address, length));
    const offset = (pieces[0] as { offset: number }).offset;
    const read = () => readPieces(source, offset, targets);
    const done = read();
    done.catch(() => {}); // awaited below: a failure before that is not unhandled
    return { done, read, offset, length: targets.reduce((sum, { length }) => sum + length, 0) };
  };
  // The prelude and the header were read when the pack was opened.
  let readBytes = plan.readBytes;
  for (let i = 0; i < reads; i++) for (const { length } of piecesOf(i)) readBytes -= length;
  const underWay: ReturnType<typeof start>[] = []; // never more than there are slots: the next one's is free
  for (let index = 0, started = 0; index < reads; index++) {
    while (started < reads && underWay.length < READS_AT_ONCE) underWay.push(start(started++));
    const { done, read, offset, length } = underWay.shift() as ReturnType<typeof start>;
    await done;
    throwIfAborted(options.signal);
    await checked(source, offset, length, () => guarded(() => core.check(exports.load_verify(index))), read);
    if (upload !== undefined) await move(index, upload);
    readBytes += length;
    options.onProgress?.({ readBytes, totalBytes: plan.readBytes, downloadedBytes: source.downloadedBytes ?? 0 });
  }
}

/**
 * Checks what was read. Where a source kept it on the device and it is damaged, it is fetched anew, read again and
 * checked again; what is damaged even then is not kept.
 */
export async function checked<T>(
  source: Source,
  offset: number,
  length: number,
  check: () => T,
  readAgain: () => Promise<void>,
): Promise<T> {
  const isDamage = (error: unknown) => error instanceof SnugError && error.code === "pack";
  try {
    return check();
  } catch (error) {
    if (!isDamage(error)) throw error;
    const repaired = await source.repair?.(offset, length).catch((cause: Error) => {
      const message = `what is kept of ${source.name} on this device is damaged, and ${cause.message}`;
      throw new SnugError("source", message, { cause });
    });
    if (!repaired) {
      source.discard?.();
      throw error;
    }
  }
  await readAgain();
  try {
    return check();
  } catch (error) {
    if (isDamage(error)) source.discard?.();
    throw error;
  }
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
  if (signal?.aborted) throw aborted(signal);
}

export function aborted(signal: AbortSignal | undefined): SnugError {
  return new SnugError("aborted", "stopped by the caller", { cause: signal?.reason });
}
