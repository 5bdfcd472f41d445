// The cache of keys and values: f32, one array [sequences, context, floats] for each of k and v of a layer. The only
// home of its addresses.

import { arena_take, PART_KV } from "./memory";

let sequences: u32 = 0;
let context: u32 = 0;

/** Sets the shape of the caches that a layout is about to take. */
export function cache_shape(sequenceCount: u32, positions: u32): void {
  sequences = sequenceCount;
  context = positions;
}

/** Takes one cache with `floats` numbers a position. */
export function cache_take(floats: u32): usize {
  return arena_take(PART_KV, (sequences as u64) * context * floats * 4);
}

/** Address of a sequence's first position in a cache; positions follow each other, `floats` numbers each. */
export function cache_ptr(cache: usize, sequence: u32, floats: u32): usize {
  return cache + (sequence as usize) * context * floats * 4;
}
