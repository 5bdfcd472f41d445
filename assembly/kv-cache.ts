// The cache of keys and values: f32, one array [sequences, context, floats] for each of k and v of a layer. The only
// home of its addresses.

import { arena_take, PART_KV } from "./memory";
import { shape_context, shape_sequences } from "./shape";

/** Takes one cache with `floats` numbers a position. */
export function cache_take(floats: u32): usize {
  return arena_take(PART_KV, (shape_sequences() as u64) * shape_context() * floats * 4);
}

/** Address of a sequence's first position in a cache; positions follow each other, `floats` numbers each. */
export function cache_ptr(cache: usize, sequence: u32, context: u32, floats: u32): usize {
  return cache + (sequence as usize) * context * floats * 4;
}
