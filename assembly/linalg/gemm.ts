// Matrix products in f32: the one routine in which the packer spends its time. Operands are copied in cache-sized
// blocks into panels that a 4 × 8 register tile reads front to back; every other file here is built to call this one.
// Sums run over at most DEPTH_BLOCK products in a register before they are added to memory, so that the error of a
// total over 100k rows grows with the number of blocks, not of rows.

import { COL_BLOCK, DEPTH_BLOCK, panels_a, panels_b, ROW_BLOCK, TILE_COLS, TILE_ROWS, tile_scratch } from "./workspace";

/** What happens to the old values of C. */
export const SET: u32 = 0;
export const ADD: u32 = 1;
export const SUBTRACT: u32 = 2;

/** How an operand lies in memory; rows of C are lines of A, columns of C are lines of B. */
export const PLAIN: u32 = 0; // A is [m, k], B is [k, n]
export const TRANSPOSED: u32 = 1; // A is [k, m], B is [n, k]

/** Which part of C is wanted. UPPER_PART leaves undefined values below the diagonal. */
export const ALL: u32 = 0;
export const UPPER_PART: u32 = 1;

/**
 * C (SET, ADD or SUBTRACT) A·B. C [m, n]; lda, ldb, ldc: distance of stored rows, in elements; any alignment. C may
 * not overlap A or B.
 */
export function multiply(
  mode: u32,
  part: u32,
  m: u32,
  n: u32,
  k: u32,
  aPtr: usize,
  lda: u32,
  aLies: u32,
  bPtr: usize,
  ldb: u32,
  bLies: u32,
  cPtr: usize,
  ldc: u32,
): void {
  for (let col: u32 = 0; col < n; col += COL_BLOCK) {
    const cols = min<u32>(COL_BLOCK, n - col);
    for (let from: u32 = 0; from < k; from += DEPTH_BLOCK) {
      const depth = min<u32>(DEPTH_BLOCK, k - from);
      const b = bLies === TRANSPOSED ? element(bPtr, ldb, col, from) : element(bPtr, ldb, from, col);
      pack(b, ldb, bLies === TRANSPOSED, cols, depth, TILE_COLS, panels_b());
      const rowEnd = part === UPPER_PART ? min<u32>(m, col + cols) : m;
      for (let row: u32 = 0; row < rowEnd; row += ROW_BLOCK) {
        const rows = min<u32>(ROW_BLOCK, rowEnd - row);
        const a = aLies === TRANSPOSED ? element(aPtr, lda, from, row) : element(aPtr, lda, row, from);
        pack(a, lda, aLies === PLAIN, rows, depth, TILE_ROWS, panels_a());
        // Where C's block starts relative to the diagonal; tiles wholly below it are skipped.
        const below = part === UPPER_PART ? (row as i32) - (col as i32) : i32.MIN_VALUE;
        multiply_block(
          from === 0 ? mode : max<u32>(mode, ADD),
          rows,
          cols,
          depth,
          below,
          element(cPtr, ldc, row, col),
          ldc,
        );
      }
    }
  }
}

export function element(ptr: usize, ld: u32, row: u32, col: u32): usize {
  return ptr + (((row as usize) * ld + col) << 2);
}

/** One block of C from the packed panels. */
function multiply_block(mode: u32, rows: u32, cols: u32, depth: u32, below: i32, cPtr: usize, ldc: u32): void {
  const ldcBytes = (ldc as usize) << 2;
  const aStep = (depth * TILE_ROWS) << 2;
  const bStep = (depth * TILE_COLS) << 2;
  let b = panels_b();
  for (let col: u32 = 0; col < cols; col += TILE_COLS) {
    const wide = min<u32>(TILE_COLS, cols - col);
    let a = panels_a();
    for (let row: u32 = 0; row < rows; row += TILE_ROWS) {
      if (below + (row as i32) >= ((col + TILE_COLS) as i32)) break;
      const high = min<u32>(TILE_ROWS, rows - row);
      const c = element(cPtr, ldc, row, col);
      if (wide === TILE_COLS && high === TILE_ROWS) {
        multiply_tile(a, b, depth, c, ldcBytes, mode);
      } else {
        multiply_tile(a, b, depth, tile_scratch(), TILE_COLS << 2, SET);
        for (let i: u32 = 0; i < high; i++) {
          for (let j: u32 = 0; j < wide; j++) {
            const sum = load<f32>(element(tile_scratch(), TILE_COLS, i, j));
            const at = element(c, ldc, i, j);
            store<f32>(at, mode === SET ? sum : mode === ADD ? load<f32>(at) + sum : load<f32>(at) - sum);
          }
        }
      }
      a += aStep;
    }
    b += bStep;
  }
}

/** C tile [4, 8] (SET, ADD, SUBTRACT) Σ_d a[d]ᵀ·b[d]. a: [depth, 4], b: [depth, 8], depth > 0. */
function multiply_tile(aPtr: usize, bPtr: usize, depth: u32, cPtr: usize, ldcBytes: usize, mode: u32): void {
  let c00 = f32x4.splat(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  const end = bPtr + ((depth * TILE_COLS) << 2);
  while (bPtr < end) {
    const b0 = v128.load(bPtr);
    const b1 = v128.load(bPtr, 16);
    const a0 = v128.load32_splat(aPtr);
    c00 = f32x4.add(c00, f32x4.mul(a0, b0));
    c01 = f32x4.add(c01, f32x4.mul(a0, b1));
    const a1 = v128.load32_splat(aPtr, 4);
    c10 = f32x4.add(c10, f32x4.mul(a1, b0));
    c11 = f32x4.add(c11, f32x4.mul(a1, b1));
    const a2 = v128.load32_splat(aPtr, 8);
    c20 = f32x4.add(c20, f32x4.mul(a2, b0));
    c21 = f32x4.add(c21, f32x4.mul(a2, b1));
    const a3 = v128.load32_splat(aPtr, 12);
    c30 = f32x4.add(c30, f32x4.mul(a3, b0));
    c31 = f32x4.add(c31, f32x4.mul(a3, b1));
    aPtr += 16;
    bPtr += 32;
  }
  finish_row(cPtr, c00, c01, mode);
  finish_row(cPtr + ldcBytes, c10, c11, mode);
  finish_row(cPtr + 2 * ldcBytes, c20, c21, mode);
  finish_row(cPtr + 3 * ldcBytes, c30, c31, mode);
}

function finish_row(cPtr: usize, left: v128, right: v128, mode: u32): void {
  if (mode === ADD) {
    left = f32x4.add(v128.load(cPtr), left);
    right = f32x4.add(v128.load(cPtr, 16), right);
  } else if (mode === SUBTRACT) {
    left = f32x4.sub(v128.load(cPtr), left);
    right = f32x4.sub(v128.load(cPtr, 16), right);
  }
  v128.store(cPtr, left);
  v128.store(cPtr, right, 16);
}

/**
 * Copies `lines` lines of `depth` values into panels [⌈lines / width⌉][depth][width], zeros past the last line.
 * `along`: a line's values are neighbours in memory and lines are ld apart; otherwise the other way round.
 */
function pack(src: usize, ld: u32, along: bool, lines: u32, depth: u32, width: u32, dst: usize): void {
  const stepBytes = (ld as usize) << 2;
  const end = ((lines + width - 1) / width) * width;
  let line: u32 = 0;
  for (; line + 4 <= lines; line += 4) {
    const to = place(dst, line, depth, width);
    if (along) pack_along(src + stepBytes * line, stepBytes, depth, to, width);
    else pack_across(src + (line << 2), stepBytes, depth, to, width);
  }
  const lineStep: usize = along ? stepBytes : 4;
  const depthStep: usize = along ? 4 : stepBytes;
  for (; line < end; line++) {
    pack_line(src + lineStep * line, depthStep, line < lines, depth, place(dst, line, depth, width), width);
  }
}

/** Where the first value of a line lies in the panels; the next ones follow `width` values apart. */
function place(dst: usize, line: u32, depth: u32, width: u32): usize {
  return dst + (((line / width) * depth * width + (line % width)) << 2);
}

/** Four lines whose values are neighbours: 4 × 4 transposes. */
function pack_along(src: usize, lineStep: usize, depth: u32, dst: usize, width: u32): void {
  const dstStep = (width as usize) << 2;
  let d: u32 = 0;
  for (; d + 4 <= depth; d += 4) {
    const a = v128.load(src);
    const b = v128.load(src + lineStep);
    const c = v128.load(src + 2 * lineStep);
    const e = v128.load(src + 3 * lineStep);
    const abLow = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
    const abHigh = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
    const ceLow = v128.shuffle<f32>(c, e, 0, 4, 1, 5);
    const ceHigh = v128.shuffle<f32>(c, e, 2, 6, 3, 7);
    v128.store(dst, v128.shuffle<f64>(abLow, ceLow, 0, 2));
    v128.store(dst + dstStep, v128.shuffle<f64>(abLow, ceLow, 1, 3));
    v128.store(dst + 2 * dstStep, v128.shuffle<f64>(abHigh, ceHigh, 0, 2));
    v128.store(dst + 3 * dstStep, v128.shuffle<f64>(abHigh, ceHigh, 1, 3));
    src += 16;
    dst += 4 * dstStep;
  }
  for (let i: u32 = 0; i < 4; i++) pack_line(src + lineStep * i, 4, true, depth - d, dst + (i << 2), width);
}

/** Four lines that are neighbours: plain copies. */
function pack_across(src: usize, depthStep: usize, depth: u32, dst: usize, width: u32): void {
  for (let d: u32 = 0; d < depth; d++) {
    v128.store(dst, v128.load(src));
    src += depthStep;
    dst += width << 2;
  }
}

/** One line value by value; zeros if it is not there. */
function pack_line(src: usize, depthStep: usize, there: bool, depth: u32, dst: usize, width: u32): void {
  for (let d: u32 = 0; d < depth; d++) {
    store<f32>(dst, there ? load<f32>(src) : 0);
    src += depthStep;
    dst += width << 2;
  }
}
