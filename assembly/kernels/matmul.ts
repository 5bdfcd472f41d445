// Weight matrices times activations: a matrix is a pile of panels, a panel is tiles of ROW_TILE rows (layout:
// packs/format.ts), a thread does a share of the tiles. Divisibility and lengths were checked by pack.ts.

import { DTYPE_Q4, ROW_TILE } from "../../packs/format";
import {
  AXIS_COLS,
  FLAG_ADD,
  MATMUL_AXIS,
  MATMUL_BIAS,
  MATMUL_BIAS_BYTES,
  MATMUL_CODES,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_IN,
  MATMUL_IN_STRIDE,
  MATMUL_OUT,
  MATMUL_OUT_STRIDE,
  MATMUL_PANEL_BYTES,
  MATMUL_PANELS,
  MATMUL_PARTS,
  MATMUL_ROOM,
  MATMUL_ROWS,
  MATMUL_SCRATCH,
  MATMUL_WEIGHT,
  MATMUL_WIDE,
  OP_FLAGS,
} from "../abi";
import { tile_bytes } from "../pack";
import { share, share_end, share_start, thread_index } from "../threads";
import { MATMUL_F32_SCRATCH_BYTES, tile_times_f32 } from "./matmul-f32";
import { tile_times_four } from "./matmul-four";
import { tile_times_pair } from "./matmul-pair";
import { MATMUL_ROWS_SCRATCH_BYTES, tile_times_rows } from "./matmul-rows";
import { matvec } from "./matvec";
import { codes_group_bytes } from "./quantize";

const TILE_BYTES: u32 = ROW_TILE * 4; // of a tile's f32 sums for one row of activations
/** As many rows, and fewer, meet weights in registers: two at a time, and four where vectors are wide. */
const FEW_ROWS: u32 = 5;
const FEW_ROWS_WIDE: u32 = 23;
const PART_ROWS: u32 = 64; // whose sums of a tile that is not full are held
const MATMUL_TILE_SCRATCH_BYTES: u32 = max(MATMUL_F32_SCRATCH_BYTES, MATMUL_ROWS_SCRATCH_BYTES);
/** Of scratch, for each thread. */
export const MATMUL_SCRATCH_BYTES: u32 = MATMUL_TILE_SCRATCH_BYTES + PART_ROWS * TILE_BYTES;

/** OP_MATMUL over the first `count` rows of activations. */
export function matmul(op: usize, count: u32): void {
  const weight: usize = load<u32>(op, MATMUL_WEIGHT);
  const rows = load<u32>(op, MATMUL_ROWS);
  const cols = load<u32>(op, MATMUL_COLS);
  const panels = load<u32>(op, MATMUL_PANELS);
  const panelBytes = load<u32>(op, MATMUL_PANEL_BYTES);
  const bias: usize = load<u32>(op, MATMUL_BIAS);
  const biasBytes = load<u32>(op, MATMUL_BIAS_BYTES);
  const tiles = (rows + (ROW_TILE - 1)) / ROW_TILE;
  if (load<u32>(op, MATMUL_AXIS) == AXIS_COLS) {
    const first = share_start(tiles);
    const end = share_end(tiles);
    if (first == end) return;
    start_rows(op, count, 0, bias, first, end);
    const tileBytes = tile_bytes(load<u32>(op, MATMUL_DTYPE), cols, load<u32>(op, MATMUL_GROUP));
    const parts = load<u32>(op, MATMUL_PARTS);
    for (let part: u32 = 0; part < parts; part++) {
      const partFirst = share(tiles, part, parts);
      const partEnd = share(tiles, part + 1, parts);
      const from = max(first, partFirst);
      const to = min(end, partEnd);
      if (from >= to) continue;
      // What fills up a panel belongs to its last part.
      const bytes = (part + 1 == parts ? panelBytes : partEnd * tileBytes) - partFirst * tileBytes;
      // Where the panel's first tile would lie, were the part all of it.
      let panel = weight + partFirst * tileBytes * (load<u32>(op, MATMUL_ROOM) - 1);
      for (let p: u32 = 0; p < panels; p++) {
        add_tiles(op, count, panel, p * cols, 0, from, to);
        panel += bytes;
      }
    }
    return;
  }
  // The share of all panels' tiles, panel after panel.
  const end = share_end(panels * tiles);
  for (let at = share_start(panels * tiles); at < end; ) {
    const panel = at / tiles;
    const first = at % tiles;
    const last = min(tiles, first + end - at);
    start_rows(op, count, panel * rows, bias == 0 ? 0 : bias + panel * biasBytes, first, last);
    add_tiles(op, count, weight + panel * panelBytes, 0, panel * rows, first, last);
    at += last - first;
  }
}

/** Sets (or adds to) the rows of tiles [first, end) what the products are added to: the bias, or zero. */
function start_rows(op: usize, count: u32, outRow: u32, bias: usize, first: u32, end: u32): void {
  const add = (load<u32>(op, OP_FLAGS) & FLAG_ADD) != 0;
  const outBytes = load<u32>(op, MATMUL_OUT_STRIDE) * 4;
  const start = first * ROW_TILE;
  const bytes = (min(end * ROW_TILE, load<u32>(op, MATMUL_ROWS)) - start) * 4;
  let out = (load<u32>(op, MATMUL_OUT) as usize) + (outRow + start) * 4;
  if (bias != 0) bias += start * 4;
  for (let t: u32 = 0; t < count; t++) {
    if (!add) {
      if (bias == 0) memory.fill(out, 0, bytes);
      else memory.copy(out, bias, bytes);
    } else if (bias != 0) {
      for (let i: u32 = 0; i < bytes; i += 4) store<f32>(out + i, load<f32>(out + i) + load<f32>(bias + i));
    }
    out += outBytes;
  }
}

/** Adds to the output, from row outRow on, the products of tiles [first, end) of a panel with the input from inCol on. */
function add_tiles(op: usize, count: u32, panel: usize, inCol: u32, outRow: u32, first: u32, end: u32): void {
  const rows = load<u32>(op, MATMUL_ROWS);
  const outBytes = load<u32>(op, MATMUL_OUT_STRIDE) * 4;
  const tileBytes = tile_bytes(load<u32>(op, MATMUL_DTYPE), load<u32>(op, MATMUL_COLS), load<u32>(op, MATMUL_GROUP));
  const scratch = (load<u32>(op, MATMUL_SCRATCH) as usize) + thread_index() * MATMUL_SCRATCH_BYTES;
  const out = (load<u32>(op, MATMUL_OUT) as usize) + outRow * 4;
  const whole = min(end, rows / ROW_TILE);
  if (first < whole) {
    const to = out + first * TILE_BYTES;
    add_whole_tiles(op, 0, count, panel + first * tileBytes, whole - first, inCol, to, outBytes, scratch);
  }
  if (whole == end) return;
  // The last tile is not full, and what lies behind the output is not ours.
  const sums = scratch + MATMUL_TILE_SCRATCH_BYTES;
  for (let t: u32 = 0; t < count; t += PART_ROWS) {
    const some = min(PART_ROWS, count - t);
    memory.fill(sums, 0, some * TILE_BYTES);
    add_whole_tiles(op, t, some, panel + whole * tileBytes, 1, inCol, sums, TILE_BYTES, scratch);
    add_part(sums, out + whole * TILE_BYTES + t * outBytes, outBytes, some, rows - whole * ROW_TILE);
  }
}

/** out[t][r] += the products of `tiles` tiles at w with `count` rows of the input, from row t0 and column inCol on. */
function add_whole_tiles(
  op: usize,
  t0: u32,
  count: u32,
  w: usize,
  tiles: u32,
  inCol: u32,
  out: usize,
  outBytes: u32,
  scratch: usize,
): void {
  const dtype = load<u32>(op, MATMUL_DTYPE);
  const group = load<u32>(op, MATMUL_GROUP);
  const cols = load<u32>(op, MATMUL_COLS);
  const stride = load<u32>(op, MATMUL_IN_STRIDE);
  const codes: usize = load<u32>(op, MATMUL_CODES);
  const tileBytes = tile_bytes(dtype, cols, group);
  if (codes == 0) {
    const x = (load<u32>(op, MATMUL_IN) as usize) + (t0 * stride + inCol) * 4;
    for (let i: u32 = 0; i < tiles; i++) {
      tile_times_f32(dtype, group, w, cols, x, stride * 4, out, outBytes, count, scratch);
      w += tileBytes;
      out += TILE_BYTES;
    }
    return;
  }
  const groups = cols / group;
  const recordBytes = codes_group_bytes(dtype, group);
  const xBytes = (stride / group) * recordBytes;
  const x = codes + t0 * xBytes + (inCol / group) * recordBytes;
  if (count == 1) {
    matvec(dtype, group, w, tiles, groups, x, recordBytes, out);
    return;
  }
  const pairs = count & ~1;
  const wide = load<u32>(op, MATMUL_WIDE) != 0;
  const few = ASC_FEATURE_RELAXED_SIMD && dtype == DTYPE_Q4 && count <= (wide ? FEW_ROWS_WIDE : FEW_ROWS);
  const fours = wide ? count & ~3 : 0;
  for (let i: u32 = 0; i < tiles; i++) {
    if (few) {
      for (let t: u32 = 0; t < fours; t += 4)
        tile_times_four(group, w, groups, x + t * xBytes, xBytes, recordBytes, out + t * outBytes, outBytes);
      for (let t = fours; t < pairs; t += 2)
        tile_times_pair(group, w, groups, x + t * xBytes, xBytes, recordBytes, out + t * outBytes, outBytes);
    } else tile_times_rows(dtype, group, w, groups, x, xBytes, out, outBytes, pairs, scratch);
    if (pairs < count) matvec(dtype, group, w, 1, groups, x + pairs * xBytes, recordBytes, out + pairs * outBytes);
    w += tileBytes;
    out += TILE_BYTES;
  }
}

/** out[t][r] += sums[t][r] for the `left` rows r that the last tile has. */
function add_part(sums: usize, out: usize, outBytes: u32, count: u32, left: u32): void {
  for (let t: u32 = 0; t < count; t++) {
    for (let i: u32 = 0; i < left * 4; i += 4) store<f32>(out + i, load<f32>(out + i) + load<f32>(sums + i));
    sums += TILE_BYTES;
    out += outBytes;
  }
}
