// A pack in a Blob, such as a file that somebody picked on a page.

import type { Source } from "./host";

/** Reads slices of the blob: what is read at a time is in memory twice for a moment, the blob itself never. */
export function blobSource(blob: Blob): Source {
  return {
    name: blob instanceof File ? blob.name : "the pack",
    size: blob.size,
    async read(offset, target) {
      const bytes = new Uint8Array(await blob.slice(offset, offset + target.length).arrayBuffer());
      if (bytes.length < target.length) throw new Error(`it ends at byte ${offset + bytes.length}`);
      target.set(bytes);
    },
  };
}
