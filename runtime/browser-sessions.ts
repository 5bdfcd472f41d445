// Where a browser keeps saved sessions: the origin private file system (OPFS), one file a session, which holds a description
// and then what save() gave. What comes back is what was written, or it is refused; whether it is a session at all, and of
// this pack, restore() says.

import { fileName, lock, openFolder, removeFile, sha256 } from "./browser-folder";
import { SnugError } from "./errors";

/** A session that is kept on this device. */
export interface StoredSession {
  readonly name: string;
  readonly bytes: number;
}

interface Description {
  readonly name: string;
  /** Of what follows. */
  readonly sha256: string;
}

const FOLDER = "snug-sessions";
const ENDING = "session";
/** Of the description, in UTF-8, filled up with spaces. */
const DESCRIPTION_BYTES = 4096;

/** Keeps what save() gave on this device, under a name; what was there by that name stays if this fails. */
export async function keepSession(name: string, saved: Uint8Array): Promise<void> {
  const description = describe({ name, sha256: await sha256(saved) });
  const folder = await openFolder(FOLDER, true);
  if (folder === null)
    throw new SnugError("unsupported", "this page may keep no files: open it by https, in no private window");
  const file = await fileName(name, ENDING);
  const unlock = await lock(file);
  try {
    const handle = await folder.getFileHandle(file, { create: true });
    // What is written takes the file's place when it is closed.
    const writable = await handle.createWritable();
    try {
      await writable.write(description);
      await writable.write(saved as Uint8Array<ArrayBuffer>);
      await writable.close();
    } catch (error) {
      await writable.abort().catch(() => {});
      throw error;
    }
  } catch (cause) {
    throw new SnugError("source", `the session "${name}" cannot be kept: ${(cause as Error).message}`, { cause });
  } finally {
    unlock();
  }
}

/** The sessions that are kept on this device. */
export async function storedSessions(): Promise<StoredSession[]> {
  const folder = await openFolder(FOLDER, false);
  const found: StoredSession[] = [];
  for await (const entry of folder?.values() ?? []) {
    if (entry.kind !== "file") continue;
    const file = await (entry as FileSystemFileHandle).getFile();
    const name = (await descriptionOf(file))?.name;
    if (name === undefined || (await fileName(name, ENDING)) !== entry.name) continue;
    found.push({ name, bytes: file.size - DESCRIPTION_BYTES });
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** What was kept under a name, for restore(). */
export async function readSession(name: string): Promise<Uint8Array> {
  const folder = await openFolder(FOLDER, false);
  const fileIn = await fileName(name, ENDING);
  const unlock = folder === null ? () => {} : await lock(fileIn);
  try {
    const handle = await folder?.getFileHandle(fileIn).catch(() => undefined);
    const file = await handle?.getFile();
    // One that was begun and never written is empty.
    if (file === undefined || file.size === 0)
      throw new SnugError("source", `no session is kept on this device as "${name}"`);
    const description = await descriptionOf(file);
    const saved = new Uint8Array(await file.slice(DESCRIPTION_BYTES).arrayBuffer());
    if (description?.name !== name || description.sha256 !== (await sha256(saved)))
      throw new SnugError("source", `the session "${name}" that is kept on this device is damaged: it cannot be used`);
    return saved;
  } finally {
    unlock();
  }
}

/** Removes a session from this device. */
export async function forgetSession(name: string): Promise<void> {
  await removeFile(FOLDER, await fileName(name, ENDING));
}

function describe(description: Description): Uint8Array<ArrayBuffer> {
  const { name } = description;
  const bytes = new Uint8Array(DESCRIPTION_BYTES).fill(0x20);
  const json = new TextEncoder().encode(JSON.stringify(description));
  if (typeof name !== "string" || name === "" || !name.isWellFormed() || json.length > DESCRIPTION_BYTES)
    throw new SnugError("usage", "a session is kept under a name: a text of up to about 3900 letters");
  bytes.set(json);
  return bytes;
}

/** What describe() wrote, or null if it is anything else. */
async function descriptionOf(file: File): Promise<Description | null> {
  try {
    const { name, sha256 } = JSON.parse(await file.slice(0, DESCRIPTION_BYTES).text()) as Description;
    return typeof name === "string" && typeof sha256 === "string" ? { name, sha256 } : null;
  } catch {
    return null;
  }
}
