// The device's planned memory: one space of addresses, in as few buffers as the device allows. A buffer begins and ends
// where no binding goes across.

import { DEVICE_ALIGN } from "../assembly/abi";
import type { Window } from "./launch";
import { BUFFER_COPY_DST, BUFFER_COPY_SRC, BUFFER_STORAGE } from "./usage";

interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly buffer: GPUBuffer;
}

export class Memory {
  readonly #stretches: readonly Stretch[];
  readonly #device: GPUDevice;
  readonly #empty: GPUBuffer;
  readonly #emptyWeights: GPUBuffer;

  /** Makes the buffers that these windows lie in. bufferBytes: the largest that there may be. */
  constructor(device: GPUDevice, windows: readonly Window[], bufferBytes: number) {
    this.#device = device;
    const empty = () => device.createBuffer({ label: "snug empty", size: DEVICE_ALIGN, usage: BUFFER_STORAGE });
    this.#empty = empty();
    this.#emptyWeights = empty();
    this.#stretches = stretchesOf(windows, bufferBytes).map(({ start, end }) => ({
      start,
      end,
      buffer: device.createBuffer({
        label: `snug ${start}`,
        size: end - start,
        usage: BUFFER_STORAGE | BUFFER_COPY_DST | BUFFER_COPY_SRC,
      }),
    }));
  }

  /** The addresses that there are buffers for. */
  get ranges(): readonly { start: number; end: number }[] {
    return this.#stretches;
  }

  get bytes(): number {
    return this.#stretches.reduce((sum, { start, end }) => sum + end - start, 0);
  }

  /** What to bind for a window: for one that shows nothing, a buffer that nobody looks into. */
  binding({ start, bytes, isWeights }: Window): GPUBufferBinding {
    if (bytes === 0) return { buffer: isWeights ? this.#emptyWeights : this.#empty };
    const stretch = this.#stretches.find((one) => start >= one.start && start < one.end) as Stretch;
    return { buffer: stretch.buffer, offset: start - stretch.start, size: bytes };
  }

  /** Writes bytes, a multiple of 4, to an address; what no binding shows is left out. */
  write(address: number, bytes: Uint8Array<ArrayBuffer>): void {
    for (const { start, end, buffer } of this.#stretches) {
      const from = Math.max(address, start);
      const to = Math.min(address + bytes.length, end);
      if (from < to) this.#device.queue.writeBuffer(buffer, from - start, bytes, from - address, to - from);
    }
  }

  /** Copies a range into a buffer. */
  copy(encoder: GPUCommandEncoder, address: number, to: GPUBuffer, bytes: number, at = 0): void {
    const stretch = this.#stretches.find((one) => address >= one.start && address < one.end) as Stretch;
    encoder.copyBufferToBuffer(stretch.buffer, address - stretch.start, to, at, bytes);
  }

  destroy(): void {
    for (const { buffer } of this.#stretches) buffer.destroy();
    this.#empty.destroy();
    this.#emptyWeights.destroy();
  }
}

/** Ranges of at most `most` bytes that together hold all windows, each of them whole; weights have ranges of their own. */
export function stretchesOf(windows: readonly Window[], most: number): { start: number; end: number }[] {
  const sorted = windows
    .filter(({ bytes }) => bytes > 0)
    .map(({ start, bytes, isWeights }) => ({ start, end: aligned(start + bytes), isWeights }))
    .toSorted((a, b) => a.start - b.start);
  // Windows that overlap cannot be parted.
  const parts: { start: number; end: number; isWeights: boolean }[] = [];
  for (const window of sorted) {
    const last = parts.at(-1);
    if (last === undefined || window.start >= last.end) parts.push({ ...window });
    else if (last.isWeights === window.isWeights) last.end = Math.max(last.end, window.end);
    else throw new RangeError(`what lies at ${window.start} would be both weights and written`);
  }
  const stretches: typeof parts = [];
  for (const part of parts) {
    const { start, end, isWeights } = part;
    if (end - start > most)
      throw new RangeError(`${end - start} bytes that belong together are more than a buffer may have`);
    const last = stretches.at(-1);
    if (last !== undefined && last.isWeights === isWeights && end - last.start <= most) last.end = end;
    else stretches.push({ ...part });
  }
  return stretches;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / DEVICE_ALIGN) * DEVICE_ALIGN;
}
