// Folders of the origin private file system (OPFS). A lock of a file's name goes before whatever is done with the file, so
// that tabs wait for each other instead of failing.

/** Null where there is no such file system: an insecure page, a private window, an engine without. */
export async function openFolder(name: string, create: boolean): Promise<FileSystemDirectoryHandle | null> {
  if (navigator.storage?.getDirectory === undefined || navigator.locks === undefined) return null;
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(name, { create });
  } catch {
    return null;
  }
}

/** The name of the file for an address, or whatever else a thing goes by. */
export async function fileName(of: string, ending: string): Promise<string> {
  return `${(await sha256(new TextEncoder().encode(of))).slice(0, 32)}.${ending}`;
}

/** In hexadecimal digits. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Waits for the lock of this name; the function that comes back lets it go. */
export function lock(name: string, signal?: AbortSignal): Promise<() => void> {
  return new Promise((resolve, reject) => {
    const options: LockOptions = signal === undefined ? {} : { signal };
    navigator.locks
      .request(`snug ${name}`, options, () => new Promise<void>((unlock) => resolve(() => unlock())))
      .catch(reject);
  });
}

/** One that is in use is removed after that; one that is not there is as good as removed. */
export async function removeFile(folderName: string, name: string): Promise<void> {
  const folder = await openFolder(folderName, false);
  if (folder === null) return;
  const unlock = await lock(name);
  try {
    await folder.removeEntry(name).catch((error: DOMException) => {
      if (error.name !== "NotFoundError") throw error;
    });
  } finally {
    unlock();
  }
}
