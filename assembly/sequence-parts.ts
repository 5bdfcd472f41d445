// Where what is kept of a sequence lies, piece by piece, for a host that copies it, saves it or brings it back: the parts
// of a block of the KV cache, and those of a sequence's state. Not in a device plan.

import { HEADER_KV_HEADS } from "../packs/format";
import {
  ATTENTION_CODED,
  ATTENTION_CONTEXT,
  ATTENTION_K_CACHE,
  ATTENTION_QK_CHANNELS,
  ATTENTION_QK_UNITS,
  ATTENTION_V_CACHE,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  CONV_CHANNELS,
  CONV_STATE,
  CONV_TAPS,
  CONV_UNITS,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_CONV,
  OP_SCAN,
  SCAN_BC_CHANNELS,
  SCAN_BC_UNITS,
  SCAN_HEADS,
  SCAN_STATE,
  SCAN_XZ_CHANNELS,
  SCAN_XZ_UNITS,
} from "./abi";
import { cache_block_bytes, cache_block_ptr, cache_slab_blocks, cache_value_dims, place_of } from "./kv-cache";
import { pack_field } from "./pack";
import { program_length, program_ptr } from "./program";
import { state_ptr } from "./state";

/** Parts of a block: of each layer with attention, and each of its kv heads, the keys and then the values. */
export function kv_parts(): u32 {
  return count_of(OP_ATTENTION) * pack_field(HEADER_KV_HEADS) * 2;
}

/** Address of a part of a block of the pool. */
export function kv_part_ptr(part: u32, block: u32): usize {
  const op = attention_of(part);
  const cache = load<u32>(op + (is_value(part) ? ATTENTION_V_CACHE : ATTENTION_K_CACHE));
  const blocks = cache_slab_blocks(load<u32>(op, ATTENTION_CONTEXT));
  const kvHead = (part / 2) % pack_field(HEADER_KV_HEADS);
  return cache_block_ptr(cache, blocks, kv_part_bytes(part), place_of(block), kvHead);
}

/** Bytes of a part; 0 where a head has no dims left. */
export function kv_part_bytes(part: u32): u32 {
  return cache_block_bytes(dims_of(part), load<u32>(attention_of(part) + ATTENTION_CODED) != 0);
}

/** Parts of a sequence's state: of each layer that has one, that of its convolutions and that of its scan. */
export function state_parts(): u32 {
  return count_of(OP_CONV) + count_of(OP_SCAN);
}

/** Address of a part of a sequence's state, or of a snapshot's: they are counted on behind the sequences. */
export function state_part_ptr(part: u32, sequence: u32): usize {
  const op = stateful(part);
  const state = load<u32>(op + (load<u32>(op, OP_CODE) == OP_CONV ? CONV_STATE : SCAN_STATE));
  return state_ptr(state, sequence, floats_of(op));
}

export function state_part_bytes(part: u32): u32 {
  return floats_of(stateful(part)) * 4;
}

function is_value(part: u32): bool {
  return part % 2 == 1;
}

function attention_of(part: u32): usize {
  return nth_of(OP_ATTENTION, OP_ATTENTION, part / 2 / pack_field(HEADER_KV_HEADS));
}

function stateful(part: u32): usize {
  return nth_of(OP_CONV, OP_SCAN, part);
}

/** A head's dims in the cache. */
function dims_of(part: u32): u32 {
  const op = attention_of(part);
  return is_value(part)
    ? cache_value_dims(load<u32>(op, ATTENTION_VO_UNITS) * load<u32>(op, ATTENTION_VO_CHANNELS))
    : load<u32>(op, ATTENTION_QK_UNITS) * load<u32>(op, ATTENTION_QK_CHANNELS);
}

/** f32 of a sequence's state that an op keeps. */
function floats_of(op: usize): u32 {
  if (load<u32>(op, OP_CODE) == OP_CONV)
    return (load<u32>(op, CONV_TAPS) - 1) * load<u32>(op, CONV_UNITS) * load<u32>(op, CONV_CHANNELS);
  const headDim = load<u32>(op, SCAN_XZ_UNITS) * load<u32>(op, SCAN_XZ_CHANNELS);
  return load<u32>(op, SCAN_HEADS) * headDim * load<u32>(op, SCAN_BC_UNITS) * load<u32>(op, SCAN_BC_CHANNELS);
}

function count_of(code: u32): u32 {
  let count: u32 = 0;
  for (let i: u32 = 0; i < program_length(); i++) if (load<u32>(program_ptr() + i * OP_BYTES, OP_CODE) == code) count++;
  return count;
}

/** The index-th op of two kinds; the program's first op if there are fewer. */
function nth_of(code: u32, other: u32, index: u32): usize {
  for (let i: u32 = 0; i < program_length(); i++) {
    const op = program_ptr() + i * OP_BYTES;
    const own = load<u32>(op, OP_CODE);
    if ((own == code || own == other) && index-- == 0) return op;
  }
  return program_ptr();
}
