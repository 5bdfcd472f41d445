// What stands in for a browser's origin private file system and its locks: folders of files in memory. As in a browser, what
// is written to a file takes its place when it is closed, and all of it or nothing.

export class MemoryFolder {
  readonly kind = "directory";
  readonly folders = new Map<string, MemoryFolder>();
  readonly files = new Map<string, Uint8Array>();
  /** What a write fails with. */
  failure: Error | undefined;

  async getDirectoryHandle(name: string, { create = false } = {}): Promise<MemoryFolder> {
    const found = this.folders.get(name) ?? (create ? new MemoryFolder() : undefined);
    if (found === undefined) throw new DOMException("not found", "NotFoundError");
    this.folders.set(name, found);
    return found;
  }

  async getFileHandle(name: string, { create = false } = {}) {
    if (!this.files.has(name) && !create) throw new DOMException("not found", "NotFoundError");
    if (!this.files.has(name)) this.files.set(name, new Uint8Array());
    return this.#handle(name);
  }

  async removeEntry(name: string): Promise<void> {
    if (!this.files.delete(name)) throw new DOMException("not found", "NotFoundError");
  }

  async *values() {
    yield* this.folders.values();
    for (const name of this.files.keys()) yield this.#handle(name);
  }

  #handle(name: string) {
    return {
      ...{ kind: "file", name },
      getFile: async () => new File([(this.files.get(name) as Uint8Array<ArrayBuffer>).slice()], name),
      createWritable: async () => {
        const parts: Uint8Array[] = [];
        return {
          write: async (bytes: Uint8Array) => {
            if (this.failure !== undefined && parts.length > 0) throw this.failure;
            parts.push(bytes.slice());
          },
          close: async () => void this.files.set(name, new Uint8Array(Buffer.concat(parts))),
          abort: async () => {},
        };
      },
    };
  }
}

/** Puts it where a page finds it; without a folder there is none to be found. */
export function standIn(root?: MemoryFolder): void {
  const turns = new Map<string, Promise<unknown>>();
  const request = async (name: string, _: object, work: () => Promise<void>) => {
    const turn = (turns.get(name) ?? Promise.resolve()).then(work);
    turns.set(name, turn);
    return turn;
  };
  const value = { locks: { request }, storage: root && { getDirectory: async () => root } };
  Object.defineProperty(globalThis, "navigator", { value, configurable: true });
}
