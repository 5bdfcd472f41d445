// Weight matrices times activations: tiles of ROW_TILE rows (layout: packs/format.ts), f32 activations, f32 sums.
// One row of activations goes straight through the packed weights; more rows first unpack CHUNK_COLS columns of a tile
// to f32 [col][row of the tile] and then run over all rows. Divisibility and lengths were checked by pack.ts.

import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, ROW_TILE } from "../../packs/format";
import {
  AXIS_COLS,
  FLAG_ADD,
  MATMUL_AXIS,
  MATMUL_BIAS,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_IN,
  MATMUL_IN_STRIDE,
  MATMUL_OUT,
  MATMUL_OUT_STRIDE,
  MATMUL_PANEL_BYTES,
  MATMUL_PANELS,
  MATMUL_ROWS,
  MATMUL_WEIGHT,
  OP_FLAGS,
} from "../abi";
import { load_half4 } from "../math";
import { group_bytes, tile_bytes } from "../pack";

const CHUNK_COLS: u32 = 256;
const TOKENS: u32 = 4; // rows of activations that one pass over a tile serves
const TILE_F32_BYTES: u32 = 64; // of one column of a tile

const unpacked = memory.data(16384, 16); // f32 [CHUNK_COLS][ROW_TILE]
const sums = memory.data(256, 16); // f32 [TOKENS][ROW_TILE]

/** OP_MATMUL over the first `count` rows of activations. */
export function matmul(op: usize, count: u32): void {
  const input: usize = load<u32>(op, MATMUL_IN);
  const out: usize = load<u32>(op, MATMUL_OUT);
  const weight: usize = load<u32>(op, MATMUL_WEIGHT);
  const inBytes = load<u32>(op, MATMUL_IN_STRIDE) * 4;
  const outBytes = load<u32>(op, MATMUL_OUT_STRIDE) * 4;
  const dtype = load<u32>(op, MATMUL_DTYPE);
  const group = load<u32>(op, MATMUL_GROUP);
  const rows = load<u32>(op, MATMUL_ROWS);
  const cols = load<u32>(op, MATMUL_COLS);
  const panels = load<u32>(op, MATMUL_PANELS);
  const panelBytes = load<u32>(op, MATMUL_PANEL_BYTES);
  const bias: usize = load<u32>(op, MATMUL_BIAS);
  const alongCols = load<u32>(op, MATMUL_AXIS) == AXIS_COLS;
  const add = (load<u32>(op, OP_FLAGS) & FLAG_ADD) != 0;

  if (alongCols) start_rows(out, outBytes, count, rows, bias, add);
  for (let p: u32 = 0; p < panels; p++) {
    const w = weight + p * panelBytes;
    const panelIn = alongCols ? input + p * cols * 4 : input;
    const panelOut = alongCols ? out : out + p * rows * 4;
    if (!alongCols) start_rows(panelOut, outBytes, count, rows, bias == 0 ? 0 : bias + p * panelBytes, add);
    if (count > 1) tiles_times_rows(w, dtype, group, rows, cols, panelIn, inBytes, panelOut, outBytes, count);
    else if (dtype == DTYPE_Q4) matvec_q4(w, panelIn, panelOut, rows, cols, group);
    else if (dtype == DTYPE_F32) matvec_f32(w, panelIn, panelOut, rows, cols);
    else matvec_q8(w, panelIn, panelOut, rows, cols, group);
  }
}

/** Sets (or adds to) `count` output rows what the products are added to: the bias, or zero. */
function start_rows(out: usize, outBytes: u32, count: u32, rows: u32, bias: usize, add: bool): void {
  for (let t: u32 = 0; t < count; t++) {
    const row = out + t * outBytes;
    if (!add) {
      if (bias == 0) memory.fill(row, 0, rows * 4);
      else memory.copy(row, bias, rows * 4);
    } else if (bias != 0) {
      for (let i: u32 = 0; i < rows; i++) store<f32>(row + i * 4, load<f32>(row + i * 4) + load<f32>(bias + i * 4));
    }
  }
}

/** out[0 … min(left, ROW_TILE)) += the four vectors. */
function add_tile(out: usize, left: u32, a0: v128, a1: v128, a2: v128, a3: v128): void {
  if (left >= ROW_TILE) {
    v128.store(out, f32x4.add(v128.load(out), a0));
    v128.store(out, f32x4.add(v128.load(out, 16), a1), 16);
    v128.store(out, f32x4.add(v128.load(out, 32), a2), 32);
    v128.store(out, f32x4.add(v128.load(out, 48), a3), 48);
    return;
  }
  v128.store(sums, a0);
  v128.store(sums, a1, 16);
  v128.store(sums, a2, 32);
  v128.store(sums, a3, 48);
  for (let i: u32 = 0; i < left; i++) store<f32>(out + i * 4, load<f32>(out + i * 4) + load<f32>(sums + i * 4));
}

/** out[r] += Σ_c w[r, c] · x[c]. w: Q4 [rows, cols], cols % group = 0; x: f32 [cols]; out: f32 [rows]. */
function matvec_q4(w: usize, x: usize, out: usize, rows: u32, cols: u32, group: u32): void {
  const low = i32x4.splat(15);
  const eight = f32x4.splat(8);
  const xEnd = x + cols * 4;
  for (let row: u32 = 0; row < rows; row += ROW_TILE) {
    let a0 = f32x4.splat(0);
    let a1 = f32x4.splat(0);
    let a2 = f32x4.splat(0);
    let a3 = f32x4.splat(0);
    for (let xp = x; xp < xEnd; ) {
      const scales = w;
      w += ROW_TILE * 2;
      // Σ code · x in g, Σ x in s: the weight is (code − 8) × scale.
      let g0 = f32x4.splat(0);
      let g1 = f32x4.splat(0);
      let g2 = f32x4.splat(0);
      let g3 = f32x4.splat(0);
      let s = f32x4.splat(0);
      for (const groupEnd = xp + group * 4; xp < groupEnd; xp += BLOCK_COLS * 4) {
        let q0 = v128.load(w);
        let q1 = v128.load(w, 16);
        let q2 = v128.load(w, 32);
        let q3 = v128.load(w, 48);
        w += 64;
        for (let i: usize = 0; i < 16; i += 4) {
          let xs = v128.load32_splat(xp + i);
          s = f32x4.add(s, xs);
          g0 = f32x4.add(g0, f32x4.mul(f32x4.convert_i32x4_s(v128.and(q0, low)), xs));
          g1 = f32x4.add(g1, f32x4.mul(f32x4.convert_i32x4_s(v128.and(q1, low)), xs));
          g2 = f32x4.add(g2, f32x4.mul(f32x4.convert_i32x4_s(v128.and(q2, low)), xs));
          g3 = f32x4.add(g3, f32x4.mul(f32x4.convert_i32x4_s(v128.and(q3, low)), xs));
          xs = v128.load32_splat(xp + i, 16);
          s = f32x4.add(s, xs);
          g0 = f32x4.add(g0, f32x4.mul(f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(q0, 4), low)), xs));
          g1 = f32x4.add(g1, f32x4.mul(f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(q1, 4), low)), xs));
          g2 = f32x4.add(g2, f32x4.mul(f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(q2, 4), low)), xs));
          g3 = f32x4.add(g3, f32x4.mul(f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(q3, 4), low)), xs));
          q0 = i32x4.shr_u(q0, 8);
          q1 = i32x4.shr_u(q1, 8);
          q2 = i32x4.shr_u(q2, 8);
          q3 = i32x4.shr_u(q3, 8);
        }
      }
      s = f32x4.mul(s, eight);
      a0 = f32x4.add(a0, f32x4.mul(f32x4.sub(g0, s), load_half4(scales)));
      a1 = f32x4.add(a1, f32x4.mul(f32x4.sub(g1, s), load_half4(scales + 8)));
      a2 = f32x4.add(a2, f32x4.mul(f32x4.sub(g2, s), load_half4(scales + 16)));
      a3 = f32x4.add(a3, f32x4.mul(f32x4.sub(g3, s), load_half4(scales + 24)));
    }
    add_tile(out, rows - row, a0, a1, a2, a3);
    out += ROW_TILE * 4;
  }
}

/** out[r] += Σ_c w[r, c] · x[c]. w: Q8 [rows, cols], cols % group = 0; x: f32 [cols]; out: f32 [rows]. */
function matvec_q8(w: usize, x: usize, out: usize, rows: u32, cols: u32, group: u32): void {
  const xEnd = x + cols * 4;
  for (let row: u32 = 0; row < rows; row += ROW_TILE) {
    let a0 = f32x4.splat(0);
    let a1 = f32x4.splat(0);
    let a2 = f32x4.splat(0);
    let a3 = f32x4.splat(0);
    for (let xp = x; xp < xEnd; ) {
      const scales = w;
      w += ROW_TILE * 2;
      let g0 = f32x4.splat(0);
      let g1 = f32x4.splat(0);
      let g2 = f32x4.splat(0);
      let g3 = f32x4.splat(0);
      for (const groupEnd = xp + group * 4; xp < groupEnd; ) {
        const q0 = v128.load(w);
        const q1 = v128.load(w, 16);
        const q2 = v128.load(w, 32);
        const q3 = v128.load(w, 48);
        w += 64;
        for (let shift: i32 = 24; shift >= 0; shift -= 8) {
          const xs = v128.load32_splat(xp);
          xp += 4;
          g0 = f32x4.add(g0, f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(q0, shift), 24)), xs));
          g1 = f32x4.add(g1, f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(q1, shift), 24)), xs));
          g2 = f32x4.add(g2, f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(q2, shift), 24)), xs));
          g3 = f32x4.add(g3, f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(q3, shift), 24)), xs));
        }
      }
      a0 = f32x4.add(a0, f32x4.mul(g0, load_half4(scales)));
      a1 = f32x4.add(a1, f32x4.mul(g1, load_half4(scales + 8)));
      a2 = f32x4.add(a2, f32x4.mul(g2, load_half4(scales + 16)));
      a3 = f32x4.add(a3, f32x4.mul(g3, load_half4(scales + 24)));
    }
    add_tile(out, rows - row, a0, a1, a2, a3);
    out += ROW_TILE * 4;
  }
}

/** out[r] += Σ_c w[r, c] · x[c]. w: F32 [rows, cols]; x: f32 [cols]; out: f32 [rows]. */
function matvec_f32(w: usize, x: usize, out: usize, rows: u32, cols: u32): void {
  const xEnd = x + cols * 4;
  for (let row: u32 = 0; row < rows; row += ROW_TILE) {
    let a0 = f32x4.splat(0);
    let a1 = f32x4.splat(0);
    let a2 = f32x4.splat(0);
    let a3 = f32x4.splat(0);
    for (let xp = x; xp < xEnd; xp += 4) {
      const xs = v128.load32_splat(xp);
      a0 = f32x4.add(a0, f32x4.mul(v128.load(w), xs));
      a1 = f32x4.add(a1, f32x4.mul(v128.load(w, 16), xs));
      a2 = f32x4.add(a2, f32x4.mul(v128.load(w, 32), xs));
      a3 = f32x4.add(a3, f32x4.mul(v128.load(w, 48), xs));
      w += TILE_F32_BYTES;
    }
    add_tile(out, rows - row, a0, a1, a2, a3);
    out += ROW_TILE * 4;
  }
}

/** out[t, r] += Σ_c w[r, c] · x[t, c] for all rows t of activations, any dtype. */
function tiles_times_rows(
  w: usize,
  dtype: u32,
  group: u32,
  rows: u32,
  cols: u32,
  x: usize,
  inBytes: u32,
  out: usize,
  outBytes: u32,
  count: u32,
): void {
  const tileBytes = tile_bytes(dtype, cols, group);
  const chunk = dtype == DTYPE_F32 ? CHUNK_COLS : (CHUNK_COLS / group) * group;
  for (let row: u32 = 0; row < rows; row += ROW_TILE) {
    for (let col: u32 = 0; col < cols; col += chunk) {
      const width = min(chunk, cols - col);
      let tile = unpacked;
      if (dtype == DTYPE_F32) tile = w + col * TILE_F32_BYTES;
      else if (dtype == DTYPE_Q4) unpack_q4(w + (col / group) * group_bytes(dtype, group), width, group);
      else unpack_q8(w + (col / group) * group_bytes(dtype, group), width, group);
      for (let t: u32 = 0; t < count; t += TOKENS) {
        const tokens = min(TOKENS, count - t);
        tile_times_tokens(tile, width, x + t * inBytes + col * 4, inBytes, tokens);
        let sum = sums;
        let to = out + t * outBytes + row * 4;
        for (let i: u32 = 0; i < tokens; i++) {
          add_tile(to, rows - row, v128.load(sum), v128.load(sum, 16), v128.load(sum, 32), v128.load(sum, 48));
          sum += TILE_F32_BYTES;
          to += outBytes;
        }
      }
    }
    w += tileBytes;
  }
}

/** sums[t][r] = Σ_c tile[c][r] · x[t, c]; past `tokens`, sums of the last token again. */
function tile_times_tokens(tile: usize, cols: u32, x: usize, inBytes: u32, tokens: u32): void {
  const end = tile + cols * TILE_F32_BYTES;
  for (let half: u32 = 0; half < 2; half++) {
    let p0 = x;
    let p1 = x + min(1, tokens - 1) * inBytes;
    let p2 = x + min(2, tokens - 1) * inBytes;
    let p3 = x + min(3, tokens - 1) * inBytes;
    let a0 = f32x4.splat(0);
    let b0 = f32x4.splat(0);
    let a1 = f32x4.splat(0);
    let b1 = f32x4.splat(0);
    let a2 = f32x4.splat(0);
    let b2 = f32x4.splat(0);
    let a3 = f32x4.splat(0);
    let b3 = f32x4.splat(0);
    for (let w = tile + half * 32; w < end; w += TILE_F32_BYTES) {
      const wa = v128.load(w);
      const wb = v128.load(w, 16);
      let xs = v128.load32_splat(p0);
      a0 = f32x4.add(a0, f32x4.mul(wa, xs));
      b0 = f32x4.add(b0, f32x4.mul(wb, xs));
      xs = v128.load32_splat(p1);
      a1 = f32x4.add(a1, f32x4.mul(wa, xs));
      b1 = f32x4.add(b1, f32x4.mul(wb, xs));
      xs = v128.load32_splat(p2);
      a2 = f32x4.add(a2, f32x4.mul(wa, xs));
      b2 = f32x4.add(b2, f32x4.mul(wb, xs));
      xs = v128.load32_splat(p3);
      a3 = f32x4.add(a3, f32x4.mul(wa, xs));
      b3 = f32x4.add(b3, f32x4.mul(wb, xs));
      p0 += 4;
      p1 += 4;
      p2 += 4;
      p3 += 4;
    }
    const sum = sums + half * 32;
    v128.store(sum, a0);
    v128.store(sum, b0, 16);
    v128.store(sum, a1, 64);
    v128.store(sum, b1, 80);
    v128.store(sum, a2, 128);
    v128.store(sum, b2, 144);
    v128.store(sum, a3, 192);
    v128.store(sum, b3, 208);
  }
}

/** unpacked[c][r] = the weights of `cols` columns of a Q4 tile, cols % group = 0. */
function unpack_q4(w: usize, cols: u32, group: u32): void {
  const low = i32x4.splat(15);
  const eight = f32x4.splat(8);
  const end = unpacked + cols * TILE_F32_BYTES;
  for (let to = unpacked; to < end; ) {
    const scales = w;
    w += ROW_TILE * 2;
    const groupEnd = to + group * TILE_F32_BYTES;
    for (let v: usize = 0; v < 4; v++) {
      const scale = load_half4(scales + v * 8);
      let q = w + v * 16;
      for (let at = to + v * 16; at < groupEnd; at += BLOCK_COLS * TILE_F32_BYTES) {
        let codes = v128.load(q);
        q += 64;
        for (let i: usize = 0; i < 4 * TILE_F32_BYTES; i += TILE_F32_BYTES) {
          const front = f32x4.convert_i32x4_s(v128.and(codes, low));
          const back = f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(codes, 4), low));
          v128.store(at + i, f32x4.mul(f32x4.sub(front, eight), scale));
          v128.store(at + i, f32x4.mul(f32x4.sub(back, eight), scale), 4 * TILE_F32_BYTES);
          codes = i32x4.shr_u(codes, 8);
        }
      }
    }
    w += (group / BLOCK_COLS) * 64;
    to = groupEnd;
  }
}

/** unpacked[c][r] = the weights of `cols` columns of a Q8 tile, cols % group = 0. */
function unpack_q8(w: usize, cols: u32, group: u32): void {
  const end = unpacked + cols * TILE_F32_BYTES;
  for (let to = unpacked; to < end; ) {
    const scales = w;
    w += ROW_TILE * 2;
    const groupEnd = to + group * TILE_F32_BYTES;
    for (let v: usize = 0; v < 4; v++) {
      const scale = load_half4(scales + v * 8);
      let q = w + v * 16;
      for (let at = to + v * 16; at < groupEnd; ) {
        const codes = v128.load(q);
        q += 64;
        for (let shift: i32 = 24; shift >= 0; shift -= 8) {
          v128.store(at, f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(codes, shift), 24)), scale));
          at += TILE_F32_BYTES;
        }
      }
    }
    w += (group / (BLOCK_COLS / 2)) * 64;
    to = groupEnd;
  }
}
