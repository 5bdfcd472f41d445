// The core's one arena. Everything has its address from here, in the order in which it is laid out; the plan lays out
// without touching memory, the load lays out the same way after memory has grown. Nothing is ever freed.
//
// Where the shape is a device's there are two layouts, that of the core's own memory and that of the device's. An address
// in the device counts in units of DEVICE_UNIT bytes, and none is 0.

import { ALIGN } from "../packs/format";
import { DEVICE_ALIGN, DEVICE_UNIT } from "./abi";
import { shape_device } from "./shape";

export const PAGE_BYTES: u32 = 65536;
/** What 32 bits can address: no plan is larger. */
export const ADDRESS_END: u64 = 0x100000000;
/** What 32 bits can address in a device. */
export const DEVICE_END: u64 = ADDRESS_END * DEVICE_UNIT;
/** The end of a device's layout that is past all reason. */
const UNREACHABLE: u64 = 1 << 62;

/** Where a laid-out part is counted in the plan. */
export const PART_CORE: u32 = 0;
export const PART_WEIGHTS: u32 = 1;
export const PART_KV: u32 = 2;
export const PART_STATE: u32 = 3;
export const PART_SCRATCH: u32 = 4;
const PARTS: u32 = 5;

const partBytes = memory.data(40, 8); // u64 [PARTS]
let cursor: u64 = 0;
let deviceCursor: u64 = 0; // 0 where no device is planned for
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
  deviceCursor = shape_device() ? DEVICE_ALIGN : 0;
  store<u64>(partBytes, cursor);
  count(PART_SCRATCH, deviceCursor);
}

/** Lays out `bytes` of a part where the shape has it: in the device if there is one, but for PART_CORE. */
export function arena_take(part: u32, bytes: u64): usize {
  return shape_device() && part != PART_CORE ? device_take(part, bytes) : core_take(part, bytes);
}

/**
 * Lays out `bytes` in the core's own memory, whatever the shape, at the next multiple of ALIGN, and returns the address.
 * Past the end of the address space the address is meaningless, and arena_end() says so: the plan refuses such a layout
 * before anything is stored.
 */
export function core_take(part: u32, bytes: u64): usize {
  const address = cursor;
  const padded = (bytes + (ALIGN - 1)) & ~(ALIGN - 1);
  cursor = padded < bytes || address + padded < address ? u64.MAX_VALUE - ADDRESS_END : address + padded;
  count(part, padded);
  return address as usize;
}

/** The same in the device, at the next multiple of DEVICE_ALIGN; arena_device_end() says what is past the end. */
function device_take(part: u32, bytes: u64): usize {
  const address = deviceCursor;
  deviceCursor = bytes > UNREACHABLE ? UNREACHABLE : min(UNREACHABLE, address + part_span(bytes));
  count(part, deviceCursor - address);
  return (address / DEVICE_UNIT) as usize;
}

/** `bytes`, and what is left free behind them, in the memory that arena_take() takes a part of the step from. */
export function part_span(bytes: u64): u64 {
  const align: u64 = shape_device() ? DEVICE_ALIGN : ALIGN;
  return (bytes + (align - 1)) & ~(align - 1);
}

/** The address `bytes` behind one of arena_take()'s; in a device they are a multiple of DEVICE_UNIT. */
export function part_address(address: usize, bytes: u64): usize {
  return address + ((shape_device() ? bytes / DEVICE_UNIT : bytes) as usize);
}

/** End of the core's layout so far, in whole pages. */
export function arena_end(): u64 {
  return (cursor + (PAGE_BYTES - 1)) & ~((PAGE_BYTES - 1) as u64);
}

/** End of the device's layout so far, in bytes; 0 where no device is planned for. */
export function arena_device_end(): u64 {
  return deviceCursor;
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

/** Position of the core's layout, for arena_at_least(). */
export function arena_mark(): u64 {
  return cursor;
}

/** Makes the core's layout reach at least `bytes` past an earlier position; what that takes belongs to the part. */
export function arena_at_least(part: u32, mark: u64, bytes: u64): void {
  if (cursor < mark + bytes) core_take(part, mark + bytes - cursor);
}

/** Sets the end of a part, and of the core's layout, to `end`: what lies between belongs to the part. */
export function arena_extend(part: u32, end: u64): void {
  let others: u64 = 0;
  for (let i: u32 = 0; i < PARTS; i++) if (i != part) others += arena_part(i);
  store<u64>(partBytes + part * 8, end + deviceCursor - others);
  cursor = end;
}

/** Counts `bytes` of one part as another's. */
export function arena_recount(from: u32, to: u32, bytes: u64): void {
  count(from, -bytes);
  count(to, bytes);
}

function count(part: u32, bytes: u64): void {
  store<u64>(partBytes + part * 8, arena_part(part) + bytes);
}

// Scratch that is not needed at the same time lies in the same place: between scratch_start() and scratch_end() each
// scratch_again() begins at the same address, and the longest stretch counts.

let scratchStart: u64 = 0;
let scratchCursor: u64 = 0;
let scratchLast: u64 = 0;

export function scratch_start(): void {
  scratchStart = shape_device() ? deviceCursor : cursor;
  scratchCursor = scratchStart;
  scratchLast = scratchStart;
}

export function scratch_again(): void {
  scratchCursor = scratchStart;
}

/** Takes f32 [rows, floats] of scratch. */
export function scratch_take(rows: u32, floats: u64): usize {
  const address = scratchCursor;
  scratchCursor += part_span((rows as u64) * floats * 4);
  scratchLast = max(scratchLast, scratchCursor);
  return part_address(0, address);
}

/** Takes the longest stretch from the arena. */
export function scratch_end(): void {
  arena_take(PART_SCRATCH, scratchLast - scratchStart);
}
