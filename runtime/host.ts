// What a host must provide. One file a host fills this in: node.ts, browser-host.ts.

/** Where a pack's bytes come from. */
export interface Source {
  /** What to call it in messages. */
  readonly name: string;
  /** Bytes in all; Infinity where nobody knows beforehand. */
  readonly size: number;
  /** Bytes that came over a network so far. Absent: none ever do. */
  readonly downloadedBytes?: number;
  /** Fills `target` with the bytes from `offset` on; rejects if they are not all there. */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** As read(), for consecutive bytes that go to several places. Absent: a read for each place. */
  readPieces?(offset: number, targets: readonly Uint8Array[]): Promise<void>;
  /**
   * Says that bytes below `end` are read next, in ascending order, until the function that comes back is called; the
   * signal stops such reads. Absent: reads need no preparation.
   */
  prepare?(end: number, signal?: AbortSignal): Promise<() => Promise<void>>;
  /** Fetches anew what was kept on the device and turned out damaged; false: nothing was kept of it. While prepared. */
  repair?(offset: number, length: number): Promise<boolean>;
  /** Forgets all that is kept on the device: it cannot be mended, or was never a pack. While prepared. */
  discard?(): void;
  close?(): Promise<void>;
}

/** How much memory a device can spare, and how that was found out, in words. */
export interface SpareMemory {
  readonly bytes: number;
  readonly how: string;
}

/** relaxed: relaxed SIMD; turbo: 128-bit vectors fused to wider ones. */
export type Feature = "relaxed" | "turbo";

export interface Thread {
  end(): void;
}

export interface Host {
  openSource(location: string): Promise<Source>;
  /** Compiles one of the product's modules, such as "core.wasm". */
  loadModule(file: string): Promise<WebAssembly.Module>;
  spareMemory(): SpareMemory;
  /**
   * Asks the engine for what it has but does not offer by itself, once it is sure that it works; false: it is not there,
   * or does not. Concerns what is compiled next.
   */
  enable?(feature: Feature): boolean;
  /** WebGPU where it is no part of the engine; rejects where it is not there either. Absent: there is the engine's own only. */
  webgpu?(): Promise<GPU>;
  /** How many threads are worth having. Absent: one. */
  usableThreads?(): number;
  /** Starts a thread that serves the steps of an instance over this memory: see serveSteps(). */
  startThread?(module: WebAssembly.Module, memory: WebAssembly.Memory): Thread;
  /** Lets everything else that waits on this thread run. */
  pause(): Promise<void>;
}
