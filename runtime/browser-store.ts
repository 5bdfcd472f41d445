// Where a browser keeps packs: the origin private file system (OPFS), one file a pack, which holds a description and then
// the first bytes of the pack.

import { PRELUDE_BYTES, PRELUDE_FILE_BYTES } from "../packs/format";
import { fileName, lock, openFolder, removeFile } from "./browser-folder";
import type { OpenStore, Store, Version } from "./download";

/** A pack that is kept on this device, in whole or in part. */
export interface StoredPack {
  /** The address that it was fetched from. */
  readonly location: string;
  /** How much is kept. */
  readonly bytes: number;
  /** Bytes of the whole pack. */
  readonly size: number;
}

/** What TypeScript's library for pages leaves out: workers have it. */
interface AccessHandle {
  read(target: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(length: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface Description extends Version {
  readonly location: string;
}

const FOLDER = "snug";
/** Of the description, in UTF-8, filled up with spaces. */
const DESCRIPTION_BYTES = 4096;
/** A worker that was ended a moment ago may not have let go of the file yet. */
const OPEN_TRIES = 20;
const OPEN_WAIT_MS = 50;

/** The store of one address. */
export function browserStore(location: string): Store {
  return {
    async open(signal) {
      const folder = await openFolder(FOLDER, true);
      if (folder === null) return null;
      const name = await fileName(location, "part");
      const unlock = await lock(name, signal);
      try {
        const file = await folder.getFileHandle(name, { create: true });
        return openFile(location, await accessHandle(file), unlock);
      } catch (error) {
        unlock();
        throw error;
      }
    },
  };
}

/** The packs that are kept on this device. */
export async function stored(): Promise<StoredPack[]> {
  const folder = await openFolder(FOLDER, false);
  const found: StoredPack[] = [];
  for await (const entry of folder?.values() ?? []) {
    if (entry.kind !== "file") continue;
    const file = await (entry as FileSystemFileHandle).getFile();
    const bytes = file.size - DESCRIPTION_BYTES;
    if (bytes < PRELUDE_BYTES) continue;
    const start = await file.slice(0, DESCRIPTION_BYTES + PRELUDE_BYTES).arrayBuffer();
    const location = parse(start.slice(0, DESCRIPTION_BYTES))?.location;
    const size = Number(new DataView(start, DESCRIPTION_BYTES).getBigUint64(PRELUDE_FILE_BYTES, true));
    if (location !== undefined) found.push({ location, bytes, size });
  }
  return found.sort((a, b) => (a.location < b.location ? -1 : 1));
}

/** Removes a pack from this device. One that is being loaded is removed after that. */
export async function forget(location: string): Promise<void> {
  await removeFile(FOLDER, await fileName(location, "part"));
}

async function accessHandle(file: FileSystemFileHandle): Promise<AccessHandle> {
  const worker = file as FileSystemFileHandle & { createSyncAccessHandle(): Promise<AccessHandle> };
  for (let tries = 1; ; tries++) {
    try {
      return await worker.createSyncAccessHandle();
    } catch (error) {
      if (tries === OPEN_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, OPEN_WAIT_MS));
    }
  }
}

function openFile(location: string, file: AccessHandle, unlock: () => void): OpenStore {
  const start = new Uint8Array(DESCRIPTION_BYTES);
  const described = file.read(start, { at: 0 }) === DESCRIPTION_BYTES ? parse(start.buffer) : null;
  let version: Version | null = described?.location === location ? described : null;
  let length = version === null ? 0 : file.getSize() - DESCRIPTION_BYTES;
  return {
    get version() {
      return version;
    },
    get length() {
      return length;
    },
    read(offset, target) {
      const bytes = file.read(target, { at: DESCRIPTION_BYTES + offset });
      if (bytes < target.length) throw new Error(`what is kept on this device ended at byte ${offset + bytes}`);
    },
    write(offset, bytes) {
      const written = file.write(bytes, { at: DESCRIPTION_BYTES + offset });
      if (written < bytes.length) throw new Error("the device has no room");
      length = Math.max(length, offset + written);
    },
    reset(next) {
      file.truncate(0);
      length = 0;
      version = next;
      if (next !== null) file.write(describe({ location, ...next }), { at: 0 });
    },
    close() {
      file.flush();
      file.close();
      unlock();
    },
  };
}

function describe(description: Description): Uint8Array {
  const bytes = new Uint8Array(DESCRIPTION_BYTES).fill(0x20);
  const json = new TextEncoder().encode(JSON.stringify(description));
  if (json.length > DESCRIPTION_BYTES) throw new Error("the address is too long to be kept");
  bytes.set(json);
  return bytes;
}

/** What describe() wrote, or null if it is anything else. */
function parse(bytes: ArrayBuffer): Description | null {
  try {
    const { location, size, etag, lastModified } = JSON.parse(new TextDecoder().decode(bytes)) as Description;
    const textOrNull = (value: unknown) => value === null || typeof value === "string";
    if (typeof location !== "string" || !textOrNull(etag) || !textOrNull(lastModified)) return null;
    if (size !== null && !(Number.isSafeInteger(size) && size >= 0)) return null;
    return { location, size, etag, lastModified };
  } catch {
    return null;
  }
}
