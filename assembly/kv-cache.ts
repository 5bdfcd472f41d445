// The cache of keys and values, f32, one array for each of k and v of a layer. Both are laid out as attention reads them,
// eight numbers side by side, from the first to the last:
//   keys:   [sequences, kvHeads, blocks, CACHE_BLOCK / 8, dims, 8 positions]
//   values: [sequences, kvHeads, blocks, dims / 8 rounded up, CACHE_BLOCK positions, 8 dims]
// Dims are a head's kept ones, in the order of the units. The only home of its addresses.

import { arena_take, PART_KV } from "./memory";
import { shape_context, shape_sequences } from "./shape";

/** Positions that attention takes at once; a sequence has room for a multiple of it. */
export const CACHE_BLOCK: u32 = 32;
/** Numbers side by side. */
export const CACHE_LANES: u32 = 8;

/** A head's dims in the cache of values: filled up with what means nothing. */
export function cache_value_dims(dims: u32): u32 {
  return (dims + (CACHE_LANES - 1)) & ~(CACHE_LANES - 1);
}

/** Takes one cache; dims of a head, as the cache has them. */
export function cache_take(kvHeads: u32, dims: u32): usize {
  return arena_take(PART_KV, (shape_sequences() as u64) * kvHeads * cache_positions(shape_context()) * dims * 4);
}

/** Address of the first block of a sequence and kv head. */
export function cache_ptr(cache: usize, context: u32, kvHeads: u32, dims: u32, sequence: u32, kvHead: u32): usize {
  return cache + ((sequence as usize) * kvHeads + kvHead) * cache_positions(context) * dims * 4;
}

/** Address, from the first block on, of one key's number at dim 0; those of the other dims are CACHE_LANES × 4 bytes apart. */
export function cache_key(position: u32, dims: u32): usize {
  return ((position / CACHE_LANES) * dims * CACHE_LANES + (position % CACHE_LANES)) * 4;
}

/** Address, from the first block on, of one value's number at a dim. */
export function cache_value(position: u32, dims: u32, dim: u32): usize {
  const inBlock = ((dim / CACHE_LANES) * CACHE_BLOCK + (position % CACHE_BLOCK)) * CACHE_LANES + (dim % CACHE_LANES);
  return ((position / CACHE_BLOCK) * CACHE_BLOCK * dims + inBlock) * 4;
}

/** Positions of a sequence in whole blocks. */
function cache_positions(context: u32): usize {
  return (context + (CACHE_BLOCK - 1)) & ~(CACHE_BLOCK - 1);
}
