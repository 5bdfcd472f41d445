// A synthetic pack that lies nowhere: its units are made when they are read, so that a pack of any size takes no disk.

import { SnugError, type Source } from "../runtime/index";
import { Linalg } from "./linalg";
import { type SyntheticOptions, type SyntheticShape, syntheticContent } from "./synthetic";
import { frontPieces } from "./write";

/**
 * The pack that writeSyntheticPack() writes, byte for byte. Makes every unit once for its checksum, which is most of the
 * time that this takes; what it keeps in memory are the embedding, the head and one unit.
 */
export async function syntheticSource(shape: SyntheticShape, options: SyntheticOptions = {}): Promise<Source> {
  const content = syntheticContent(shape, options);
  const linalg = await Linalg.load();
  const front: Uint8Array[] = [];
  for await (const piece of frontPieces(content, (bytes) => linalg.xxh64(bytes))) front.push(piece);

  // The pieces of the front, then the units.
  const starts = [0];
  const place = (bytes: number) => starts.push(starts[starts.length - 1] + bytes);
  for (const { length } of front) place(length);
  for (const { stack } of content.order) place(content.stacks[stack].layout.bytes);
  const size = starts.pop() as number;

  // The last one is kept, as the tensors of a unit may be read one by one.
  const make = (at: number) => {
    const { stack, index } = content.order[at];
    return { at, bytes: content.unit(stack, index) };
  };
  let last = make(0);
  const unit = (at: number) => {
    if (last.at !== at) last = make(at);
    return last.bytes;
  };
  const name = "a synthetic pack";
  return {
    name,
    size,
    async read(offset, target) {
      if (offset + target.length > size) throw new SnugError("source", `${name} ends at byte ${size}`);
      for (let done = 0; done < target.length; ) {
        const at = lastAtMost(starts, offset + done);
        const piece = front[at] ?? (await unit(at - front.length));
        const from = offset + done - starts[at];
        const taken = piece.subarray(from, from + target.length - done);
        target.set(taken, done);
        done += taken.length;
      }
    },
  };
}

/** Index of the last of ascending numbers that is at most `value`; the first one is. */
function lastAtMost(ascending: readonly number[], value: number): number {
  let [low, high] = [0, ascending.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (ascending[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
