// The module's own scratch: the block sizes of the routines and where their blocks lie, behind the static data. The
// host's matrices lie from workspace_end() on.

import { GROUP_MAX } from "../../packs/format";

/** Register tile of a product: C [TILE_ROWS, TILE_COLS]. */
export const TILE_ROWS: u32 = 4;
export const TILE_COLS: u32 = 8;
/** Products summed in registers before a tile goes to memory: a panel of 8 columns stays in the first cache. */
export const DEPTH_BLOCK: u32 = 256;
/** Rows of A packed at a time: the block stays in the second cache. */
export const ROW_BLOCK: u32 = 128;
export const COL_BLOCK: u32 = 2048;
/** Columns that a block of four lanes may have. */
export const LANES_COLS: u32 = GROUP_MAX;

const ALIGN: usize = 64;
const PANELS_A_BYTES: usize = (ROW_BLOCK * DEPTH_BLOCK) << 2;
const PANELS_B_BYTES: usize = (COL_BLOCK * DEPTH_BLOCK) << 2;
const TILE_BYTES: usize = (TILE_ROWS * TILE_COLS) << 2;
const LANES_BYTES: usize = LANES_COLS << 4;

/** f32 panels of A, [⌈rows / TILE_ROWS⌉][depth][TILE_ROWS]. */
export function panels_a(): usize {
  return (__heap_base + (ALIGN - 1)) & ~(ALIGN - 1);
}

/** f32 panels of B, [⌈cols / TILE_COLS⌉][depth][TILE_COLS]. */
export function panels_b(): usize {
  return panels_a() + PANELS_A_BYTES;
}

/** One f32 tile [TILE_ROWS, TILE_COLS]. */
export function tile_scratch(): usize {
  return panels_b() + PANELS_B_BYTES;
}

/** Block `index` (0 … 3) of f32 lanes, [LANES_COLS][4]. */
export function lanes_scratch(index: u32): usize {
  return tile_scratch() + TILE_BYTES + LANES_BYTES * index;
}

/** First address that is the host's. */
export function workspace_end(): usize {
  return lanes_scratch(4);
}
