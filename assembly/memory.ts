// The core's one arena. Everything has its address from here, in the order in which it is laid out; the plan lays out
// without touching memory, the load lays out the same way after memory has grown. Nothing is ever freed.

import { ALIGN } from "../packs/format";

export const PAGE_BYTES: u32 = 65536;
/** What 32 bits can address: no plan is larger. */
export const ADDRESS_END: u64 = 0x100000000;

/** Where a laid-out part is counted in the plan. */
export const PART_CORE: u32 = 0;
export const PART_WEIGHTS: u32 = 1;
export const PART_KV: u32 = 2;
export const PART_STATE: u32 = 3;
export const PART_SCRATCH: u32 = 4;
const PARTS: u32 = 5;

const partBytes = memory.data(40, 8); // u64 [PARTS]
let cursor: u64 = 0;
let reserved: usize = 0;

/** First address after the module's own data, and after what is reserved. */
export function arena_base(): usize {
  return (__heap_base + reserved + (ALIGN - 1)) & ~(ALIGN - 1);
}

/**
 * Takes `bytes` in front of the arena, for good: for what an entry of its own, such as a command, has to keep. To be
 * asked for before the header is read. Returns the address, or 0 if the engine refuses the memory.
 */
export function arena_reserve(bytes: usize): usize {
  const address = arena_base();
  if (!memory_reach((address as u64) + bytes)) return 0;
  reserved = address + bytes - __heap_base;
  return address;
}

/** Starts a layout at the arena's base; the module's data, and what is reserved, count as core. */
export function arena_start(): void {
  memory.fill(partBytes, 0, PARTS * 8);
  cursor = arena_base() as u64;
  store<u64>(partBytes, cursor);
}

/**
 * Lays out `bytes` at the next multiple of ALIGN and returns the address. Past the end of the address space the
 * address is meaningless, and arena_end() says so: the plan refuses such a layout before anything is stored.
 */
export function arena_take(part: u32, bytes: u64): usize {
  const address = cursor;
  const padded = (bytes + (ALIGN - 1)) & ~(ALIGN - 1);
  cursor = padded < bytes || address + padded < address ? u64.MAX_VALUE - ADDRESS_END : address + padded;
  const slot = partBytes + part * 8;
  store<u64>(slot, load<u64>(slot) + padded);
  return address as usize;
}

/** End of the layout so far, in whole pages. */
export function arena_end(): u64 {
  return (cursor + (PAGE_BYTES - 1)) & ~((PAGE_BYTES - 1) as u64);
}

export function arena_part(part: u32): u64 {
  return load<u64>(partBytes + part * 8);
}

/** Grows memory to hold addresses below `end`; false if the engine refuses or `end` is past the address space. */
export function memory_reach(end: u64): bool {
  if (end > ADDRESS_END) return false;
  const pages = ((end + (PAGE_BYTES - 1)) / PAGE_BYTES) as i32;
  const now = memory.size();
  return pages <= now || memory.grow(pages - now) >= 0;
}

/** Position of the layout, for arena_at_least(). */
export function arena_mark(): u64 {
  return cursor;
}

/** Makes the layout reach at least `bytes` past an earlier position; what that takes belongs to the part. */
export function arena_at_least(part: u32, mark: u64, bytes: u64): void {
  if (cursor < mark + bytes) arena_take(part, mark + bytes - cursor);
}

/** Sets the end of a part, and of the layout, to `end`: what lies between belongs to the part. */
export function arena_extend(part: u32, end: u64): void {
  const slot = partBytes + part * 8;
  let others: u64 = 0;
  for (let i: u32 = 0; i < PARTS; i++) if (i != part) others += load<u64>(partBytes + i * 8);
  store<u64>(slot, end - others);
  cursor = end;
}

/** Counts `bytes` of one part as another's. */
export function arena_recount(from: u32, to: u32, bytes: u64): void {
  store<u64>(partBytes + from * 8, load<u64>(partBytes + from * 8) - bytes);
  store<u64>(partBytes + to * 8, load<u64>(partBytes + to * 8) + bytes);
}

// Scratch that is not needed at the same time lies in the same place: between scratch_start() and scratch_end() each
// scratch_again() begins at the same address, and the longest stretch counts.

let scratchStart: u64 = 0;
let scratchCursor: u64 = 0;
let scratchLast: u64 = 0;

export function scratch_start(): void {
  scratchStart = cursor;
  scratchCursor = cursor;
  scratchLast = cursor;
}

export function scratch_again(): void {
  scratchCursor = scratchStart;
}

/** Takes f32 [rows, floats] of scratch. */
export function scratch_take(rows: u32, floats: u64): usize {
  const address = scratchCursor;
  scratchCursor += ((rows as u64) * floats * 4 + (ALIGN - 1)) & ~((ALIGN - 1) as u64);
  scratchLast = max(scratchLast, scratchCursor);
  return address as usize;
}

/** Takes the longest stretch from the arena. */
export function scratch_end(): void {
  arena_take(PART_SCRATCH, scratchLast - scratchStart);
}
