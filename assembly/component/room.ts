// Memory for what is passed in and out: behind the arena, where only one call's arguments and results lie at a time. What
// is asked for while the component starts, by the adapter between WASI preview 1 and 2, stays for good, before the arena.

import { HEADER_STACKS } from "../../packs/format";
import { PLAN_TOTAL_BYTES } from "../abi";
import { arena_base, arena_reserve, memory_reach } from "../memory";
import { pack_count, pack_header_bytes, pack_header_ptr, pack_opened, STACK_TABLE_BYTES } from "../pack";
import { plan_placed, plan_ptr } from "../plan";

const ROOM_ALIGN: u64 = 8;

let starting = true;
let over = true; // the last call is: what it was given and gave is void
let cursor: u64 = 0;

/** The start has ended. */
export function room_open(): void {
  starting = false;
}

/** The call has ended; its results stay until the next one begins. */
export function room_close(): void {
  over = true;
}

/** Takes bytes at an address that 8 divides; 0 if the engine refuses. */
export function room_take(bytes: u64): usize {
  if (over) cursor = arena_top();
  over = false;
  const address = (cursor + (ROOM_ALIGN - 1)) & ~(ROOM_ALIGN - 1);
  if (!memory_reach(address + bytes)) return 0;
  cursor = address + bytes;
  return address as usize;
}

/** Adds bytes to what was taken last; false if the engine refuses. */
export function room_more(bytes: u64): bool {
  if (!memory_reach(cursor + bytes)) return false;
  cursor += bytes;
  return true;
}

/** Of the canonical ABI: memory for arguments. Alignments are 8 at most, which all of this has. */
export function cabi_realloc(old: usize, oldBytes: usize, _align: usize, bytes: usize): usize {
  const address = starting ? arena_reserve(bytes) : room_take(bytes);
  if (address == 0) unreachable();
  memory.copy(address, old, min(oldBytes, bytes));
  return address;
}

/** Where nothing of the model lies any more. */
function arena_top(): u64 {
  if (plan_placed()) return load<f64>(plan_ptr(), PLAN_TOTAL_BYTES) as u64;
  if (!pack_opened()) return arena_base();
  return (pack_header_ptr() as u64) + pack_header_bytes() + (pack_count(HEADER_STACKS) as u64) * STACK_TABLE_BYTES;
}
