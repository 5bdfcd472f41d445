// Finished units on disk, until their order is known: the packer holds one layer at a time.

import { type FileHandle, open, rm } from "node:fs/promises";
import type { StoredStack } from "./layer-pack";
import type { Stack } from "./write";

export class UnitStore {
  readonly stacks: Stack[] = [];
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #offsets: number[] = [];
  #bytes = 0;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  static async create(path: string): Promise<UnitStore> {
    return new UnitStore(path, await open(path, "w+"));
  }

  /** Takes a layer's stacks, the next in the order of layers. */
  async add(layer: number, stacks: readonly StoredStack[]): Promise<void> {
    for (const { kind, channels, layout, units } of stacks) {
      this.stacks.push({ layer, kind, channels, units: units.length, layout });
      this.#offsets.push(this.#bytes);
      for (const unit of units) {
        for (let done = 0; done < unit.length; )
          done += (await this.#file.write(unit, done, unit.length - done, this.#bytes + done)).bytesWritten;
        this.#bytes += unit.length;
      }
    }
  }

  async read(stack: number, index: number): Promise<Uint8Array> {
    const { bytes } = (this.stacks[stack] as Stack).layout;
    const unit = new Uint8Array(bytes);
    const from = (this.#offsets[stack] as number) + index * bytes;
    for (let done = 0; done < bytes; ) done += (await this.#file.read(unit, done, bytes - done, from + done)).bytesRead;
    return unit;
  }

  /** Deletes the file. */
  async remove(): Promise<void> {
    await this.#file.close();
    await rm(this.#path, { force: true });
  }
}
