// What a host must provide. One file a host fills this in: node.ts.

/** Where a pack's bytes come from. */
export interface Source {
  /** What to call it in messages. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /** Fills `target` with the bytes from `offset` on; rejects if they are not all there. */
  read(offset: number, target: Uint8Array): Promise<void>;
  close?(): Promise<void>;
}

/** How much memory a device can spare, and how that was found out, in words. */
export interface SpareMemory {
  readonly bytes: number;
  readonly how: string;
}

export interface Host {
  openSource(location: string): Promise<Source>;
  /** Compiles one of the product's modules: "core.wasm". */
  loadModule(file: string): Promise<WebAssembly.Module>;
  spareMemory(): SpareMemory;
  /** Lets everything else that waits on this thread run. */
  pause(): Promise<void>;
}
