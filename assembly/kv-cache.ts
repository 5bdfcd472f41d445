// The cache of keys and values, one array for each of k and v of a layer. It is a pool of blocks of CACHE_BLOCK positions,
// in as many slabs as there may be sequences: [slabs, kvHeads, blocks]. A block is laid out as attention reads it, eight
// numbers side by side, from the first to the last:
//   keys:   [CACHE_BLOCK / 8, dims, 8 positions]
//   values: [dims / 8 rounded up, CACHE_BLOCK positions, 8 dims]
// The numbers are f32; or codes of 8 bit, and behind them a scale for each position: f32 [CACHE_BLOCK], the largest
// magnitude of a head's key, or value, / 127. Dims are a head's kept ones, in the order of the units. Which blocks a
// sequence's positions lie in is the host's to say, cache_map(); until it does, they are those of the sequence's own slab in
// order. A block holds the same positions in all layers, so one table is for all. The only home of these addresses.

import { HEADER_HEADS, HEADER_KV_HEADS } from "../packs/format";
import { CACHE_BLOCK, STATUS_ARGUMENT } from "./abi";
import { arena_take, PART_CORE, PART_KV } from "./memory";
import { pack_field } from "./pack";
import { shape_coded, shape_context, shape_sequences } from "./shape";
import { fail } from "./status";

/** Numbers side by side. */
export const CACHE_LANES: u32 = 8;
const SCALE_BYTES: u32 = 4;

// u32 [sequences, blocks]: the place of each block, that is its number among the blocks of kv head 0 of an array; the same
// block of the next kv head is as many places on as a slab has blocks.
let table: usize = 0;

/** A head's dims in the cache of values: filled up with what means nothing. */
export function cache_value_dims(dims: u32): u32 {
  return (dims + (CACHE_LANES - 1)) & ~(CACHE_LANES - 1);
}

/** Blocks that a sequence has room for, and a slab. */
export function cache_slab_blocks(context: u32): u32 {
  return (context + (CACHE_BLOCK - 1)) / CACHE_BLOCK;
}

/** Bytes of a block of one kv head; dims of a head, as the cache has them. */
export function cache_block_bytes(dims: u32, coded: bool): u32 {
  if (dims == 0) return 0;
  return coded ? CACHE_BLOCK * (dims + SCALE_BYTES) : CACHE_BLOCK * dims * 4;
}

/** Takes one cache; dims of a head, as the cache has them. */
export function cache_take(kvHeads: u32, dims: u32): usize {
  const blocks = cache_slab_blocks(shape_context()) as u64;
  return arena_take(PART_KV, (shape_sequences() as u64) * kvHeads * blocks * cache_block_bytes(dims, shape_coded()));
}

/** Takes the table, if there is attention. */
export function cache_table_take(): void {
  const entries = (shape_sequences() as u64) * cache_slab_blocks(shape_context());
  table = pack_field(HEADER_HEADS) > 0 ? arena_take(PART_CORE, entries * 4) : 0;
}

/** Address of the table, u32 [sequences, blocks of a slab]; 0 if there is none. */
export function cache_table(): usize {
  return table;
}

/** Gives each sequence the blocks of its own slab. */
export function cache_table_reset(): void {
  if (table == 0) return;
  const blocks = cache_slab_blocks(shape_context());
  for (let block: u32 = 0; block < shape_sequences() * blocks; block++) store<u32>(table + block * 4, place_of(block));
}

/** Blocks of the pool: as many as all sequences have room for. */
export function cache_blocks(): u32 {
  return shape_sequences() * cache_slab_blocks(shape_context());
}

/** Lets a block of the pool be the index-th of a sequence, from the next step on. */
export function cache_map(sequence: u32, index: u32, block: u32): i32 {
  const blocks = cache_slab_blocks(shape_context());
  if (table == 0 || sequence >= shape_sequences()) return fail(STATUS_ARGUMENT, 0, sequence);
  if (index >= blocks) return fail(STATUS_ARGUMENT, 1, index);
  if (block >= cache_blocks()) return fail(STATUS_ARGUMENT, 2, block);
  store<u32>(table + (sequence * blocks + index) * 4, place_of(block));
  return 0;
}

/** The place of a block of the pool. */
export function place_of(block: u32): u32 {
  const blocks = cache_slab_blocks(shape_context());
  return (block / blocks) * pack_field(HEADER_KV_HEADS) * blocks + (block % blocks);
}

/** Address of the block at a place, of a kv head; `blocks` of a slab, `blockBytes` of each. */
export function cache_block_ptr(cache: usize, blocks: u32, blockBytes: u32, place: u32, kvHead: u32): usize {
  return cache + ((place as usize) + kvHead * blocks) * blockBytes;
}

/** Where in a block one key's number at dim 0 is, counted in numbers; those of the other dims are CACHE_LANES on each. */
export function cache_key(position: u32, dims: u32): u32 {
  const inBlock = position % CACHE_BLOCK;
  return (inBlock / CACHE_LANES) * dims * CACHE_LANES + (inBlock % CACHE_LANES);
}

/** Where in a block one value's number at a dim is, counted in numbers. */
export function cache_value(position: u32, dim: u32): u32 {
  return ((dim / CACHE_LANES) * CACHE_BLOCK + (position % CACHE_BLOCK)) * CACHE_LANES + (dim % CACHE_LANES);
}

/** Where in a block of codes the scale of a position is, in bytes. */
export function cache_scale(position: u32, dims: u32): u32 {
  return CACHE_BLOCK * dims + (position % CACHE_BLOCK) * SCALE_BYTES;
}
