// A weight matrix times rows of f32 activations: for f32 weights, and where activations are to stay exact. CHUNK_COLS
// columns of a tile are unpacked to f32 [col][row of the tile] and then meet all rows, four at a time.

import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, ROW_TILE } from "../../packs/format";
import { load_half4, madd4 } from "../math";
import { group_bytes } from "../pack";

const TILE_BYTES: u32 = ROW_TILE * 4; // of one column of a tile, and of its sums
const CHUNK_COLS: u32 = 256;

/** Of scratch: CHUNK_COLS unpacked columns. */
export const MATMUL_F32_SCRATCH_BYTES: u32 = CHUNK_COLS * TILE_BYTES;

/**
 * out[t][r] += Σ_c w[r, c] · x[t, c] for one tile and `count` rows t. w: a tile of any dtype; x: f32, rows xBytes apart;
 * out: rows of ROW_TILE f32, outBytes apart.
 */
export function tile_times_f32(
  dtype: u32,
  group: u32,
  w: usize,
  cols: u32,
  x: usize,
  xBytes: u32,
  out: usize,
  outBytes: u32,
  count: u32,
  scratch: usize,
): void {
  const chunk = dtype == DTYPE_F32 ? CHUNK_COLS : (CHUNK_COLS / group) * group;
  for (let col: u32 = 0; col < cols; col += chunk) {
    const width = min(chunk, cols - col);
    let tile = scratch;
    if (dtype == DTYPE_F32) tile = w + col * TILE_BYTES;
    else if (dtype == DTYPE_Q4) unpack_q4(w + (col / group) * group_bytes(dtype, group), width, group, scratch);
    else unpack_q8(w + (col / group) * group_bytes(dtype, group), width, group, scratch);
    const from = x + col * 4;
    let t: u32 = 0;
    for (; t + 4 <= count; t += 4) add_four(tile, width, from + t * xBytes, xBytes, out + t * outBytes, outBytes);
    for (; t < count; t++) add_one(tile, width, from + t * xBytes, out + t * outBytes);
  }
}

/** out[r] += Σ_c tile[c][r] · x[c]. */
function add_one(tile: usize, cols: u32, x: usize, out: usize): void {
  const end = tile + cols * TILE_BYTES;
  let a0 = v128.load(out);
  let a1 = v128.load(out, 16);
  let a2 = v128.load(out, 32);
  let a3 = v128.load(out, 48);
  for (let w = tile; w < end; w += TILE_BYTES) {
    const xs = v128.load32_splat(x);
    a0 = madd4(v128.load(w), xs, a0);
    a1 = madd4(v128.load(w, 16), xs, a1);
    a2 = madd4(v128.load(w, 32), xs, a2);
    a3 = madd4(v128.load(w, 48), xs, a3);
    x += 4;
  }
  v128.store(out, a0);
  v128.store(out, a1, 16);
  v128.store(out, a2, 32);
  v128.store(out, a3, 48);
}

/** out[t][r] += Σ_c tile[c][r] · x[t, c] for four rows, half a tile at a time. */
function add_four(tile: usize, cols: u32, x: usize, xBytes: u32, out: usize, outBytes: u32): void {
  const end = tile + cols * TILE_BYTES;
  for (let half: u32 = 0; half < 64; half += 32) {
    let p0 = x;
    let p1 = p0 + xBytes;
    let p2 = p1 + xBytes;
    let p3 = p2 + xBytes;
    const s0 = out + half;
    const s1 = s0 + outBytes;
    const s2 = s1 + outBytes;
    const s3 = s2 + outBytes;
    let a0 = v128.load(s0);
    let b0 = v128.load(s0, 16);
    let a1 = v128.load(s1);
    let b1 = v128.load(s1, 16);
    let a2 = v128.load(s2);
    let b2 = v128.load(s2, 16);
    let a3 = v128.load(s3);
    let b3 = v128.load(s3, 16);
    for (let w = tile + half; w < end; w += TILE_BYTES) {
      const wa = v128.load(w);
      const wb = v128.load(w, 16);
      let xs = v128.load32_splat(p0);
      a0 = madd4(wa, xs, a0);
      b0 = madd4(wb, xs, b0);
      xs = v128.load32_splat(p1);
      a1 = madd4(wa, xs, a1);
      b1 = madd4(wb, xs, b1);
      xs = v128.load32_splat(p2);
      a2 = madd4(wa, xs, a2);
      b2 = madd4(wb, xs, b2);
      xs = v128.load32_splat(p3);
      a3 = madd4(wa, xs, a3);
      b3 = madd4(wb, xs, b3);
      p0 += 4;
      p1 += 4;
      p2 += 4;
      p3 += 4;
    }
    v128.store(s0, a0);
    v128.store(s0, b0, 16);
    v128.store(s1, a1);
    v128.store(s1, b1, 16);
    v128.store(s2, a2);
    v128.store(s2, b2, 16);
    v128.store(s3, a3);
    v128.store(s3, b3, 16);
  }
}

/** unpacked[c][r] = the weights of `cols` columns of a Q4 tile, cols % group = 0. */
function unpack_q4(w: usize, cols: u32, group: u32, unpacked: usize): void {
  const low = i32x4.splat(15);
  const eight = f32x4.splat(8);
  const end = unpacked + cols * TILE_BYTES;
  for (let to = unpacked; to < end; ) {
    const scales = w;
    w += ROW_TILE * 2;
    const groupEnd = to + group * TILE_BYTES;
    for (let v: usize = 0; v < 4; v++) {
      const scale = load_half4(scales + v * 8);
      let q = w + v * 16;
      for (let at = to + v * 16; at < groupEnd; at += BLOCK_COLS * TILE_BYTES) {
        let codes = v128.load(q);
        q += 64;
        for (let i: usize = 0; i < 4 * TILE_BYTES; i += TILE_BYTES) {
          const front = f32x4.convert_i32x4_s(v128.and(codes, low));
          const back = f32x4.convert_i32x4_s(v128.and(i32x4.shr_u(codes, 4), low));
          v128.store(at + i, f32x4.mul(f32x4.sub(front, eight), scale));
          v128.store(at + i, f32x4.mul(f32x4.sub(back, eight), scale), 4 * TILE_BYTES);
          codes = i32x4.shr_u(codes, 8);
        }
      }
    }
    w += (group / BLOCK_COLS) * 64;
    to = groupEnd;
  }
}

/** unpacked[c][r] = the weights of `cols` columns of a Q8 tile, cols % group = 0. */
function unpack_q8(w: usize, cols: u32, group: u32, unpacked: usize): void {
  const end = unpacked + cols * TILE_BYTES;
  for (let to = unpacked; to < end; ) {
    const scales = w;
    w += ROW_TILE * 2;
    const groupEnd = to + group * TILE_BYTES;
    for (let v: usize = 0; v < 4; v++) {
      const scale = load_half4(scales + v * 8);
      let q = w + v * 16;
      for (let at = to + v * 16; at < groupEnd; ) {
        const codes = v128.load(q);
        q += 64;
        for (let shift: i32 = 24; shift >= 0; shift -= 8) {
          v128.store(at, f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(codes, shift), 24)), scale));
          at += TILE_BYTES;
        }
      }
    }
    w += (group / (BLOCK_COLS / 2)) * 64;
    to = groupEnd;
  }
}
