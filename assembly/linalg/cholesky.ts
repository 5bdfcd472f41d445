// Cholesky factors and what they solve. The factor is the upper one, M = R·Rᵀ, found from the last column to the first:
// its inverse is GPTQ's factor of M⁻¹, so one factorization serves solving and quantizing. Right-hand sides are rows,
// X·M = B. Everything is recursive over halves, so that nearly all work is large products.

import { ALL, element, multiply, PLAIN, SUBTRACT, TRANSPOSED, UPPER_PART } from "./gemm";
import { lanes_add, lanes_load, lanes_store } from "./lanes";
import { lanes_scratch } from "./workspace";

const BASE: u32 = 32; // order at which recursion ends
const INVERSE_ROWS: u32 = 128; // of an inverse, found at a time

/**
 * M [n, n], upper triangle → R, in place; the lower triangle is left undefined. Returns 0, or p if the pivot of
 * column p − 1 is not positive: then M is not positive definite, and is half overwritten.
 */
export function cholesky_factor(mPtr: usize, n: u32, ld: u32): u32 {
  if (n <= BASE) return factor_base(mPtr, n, ld);
  const head = halve(n);
  const tail = n - head;
  const corner = element(mPtr, ld, head, head);
  const side = element(mPtr, ld, 0, head);
  const failed = cholesky_factor(corner, tail, ld);
  if (failed) return head + failed;
  solve_right_transposed(corner, tail, ld, side, head, ld);
  multiply(SUBTRACT, UPPER_PART, head, head, tail, side, ld, PLAIN, side, ld, TRANSPOSED, mPtr, ld);
  return cholesky_factor(mPtr, head, ld);
}

function halve(n: u32): u32 {
  return ((n >> 1) + (BASE - 1)) & ~(BASE - 1);
}

function factor_base(mPtr: usize, n: u32, ld: u32): u32 {
  for (let p = n; p > 0; p--) {
    const j = p - 1;
    const rest = n - p;
    const jRow = element(mPtr, ld, j, p);
    const pivot = (load<f32>(element(mPtr, ld, j, j)) as f64) - dot(jRow, jRow, rest);
    if (!(pivot > 0)) return p;
    const root = Math.sqrt(pivot);
    store<f32>(element(mPtr, ld, j, j), root as f32);
    for (let i: u32 = 0; i < j; i++) {
      const at = element(mPtr, ld, i, j);
      store<f32>(at, (((load<f32>(at) as f64) - dot(at + 4, jRow, rest)) / root) as f32);
    }
  }
  return 0;
}

function dot(aPtr: usize, bPtr: usize, count: u32): f64 {
  let sum: f64 = 0;
  const end = aPtr + ((count as usize) << 2);
  while (aPtr < end) {
    sum += (load<f32>(aPtr) as f64) * (load<f32>(bPtr) as f64);
    aPtr += 4;
    bPtr += 4;
  }
  return sum;
}

/** B [m, n] → X with X·R·Rᵀ = B, in place. */
export function cholesky_solve(rPtr: usize, n: u32, ld: u32, bPtr: usize, m: u32, ldb: u32): void {
  solve_right_transposed(rPtr, n, ld, bPtr, m, ldb);
  solve_right(rPtr, n, ld, bPtr, m, ldb);
}

/** B [m, n] → X with X·R = B, in place; R upper. */
export function solve_right(rPtr: usize, n: u32, ld: u32, bPtr: usize, m: u32, ldb: u32): void {
  if (n <= BASE) {
    solve_right_base(rPtr, n, ld, bPtr, m, ldb);
    return;
  }
  const head = halve(n);
  const tail = n - head;
  const tailPtr = element(bPtr, ldb, 0, head);
  solve_right(rPtr, head, ld, bPtr, m, ldb);
  multiply(SUBTRACT, ALL, m, tail, head, bPtr, ldb, PLAIN, element(rPtr, ld, 0, head), ld, PLAIN, tailPtr, ldb);
  solve_right(element(rPtr, ld, head, head), tail, ld, tailPtr, m, ldb);
}

function solve_right_base(rPtr: usize, n: u32, ld: u32, bPtr: usize, m: u32, ldb: u32): void {
  const x = lanes_scratch(0);
  for (let row: u32 = 0; row < m; row += 4) {
    const b = element(bPtr, ldb, row, 0);
    lanes_load(b, ldb, m - row, n, x);
    for (let j: u32 = 0; j < n; j++) {
      const diagonal = element(rPtr, ld, j, j);
      const at = x + (j << 4);
      const value = f32x4.div(v128.load(at), v128.load32_splat(diagonal));
      v128.store(at, value);
      lanes_add(at + 16, f32x4.neg(value), diagonal + 4, n - 1 - j);
    }
    lanes_store(x, m - row, n, b, ldb);
  }
}

/** B [m, n] → X with X·Rᵀ = B, in place; R upper. */
export function solve_right_transposed(rPtr: usize, n: u32, ld: u32, bPtr: usize, m: u32, ldb: u32): void {
  if (n <= BASE) {
    solve_right_transposed_base(rPtr, n, ld, bPtr, m, ldb);
    return;
  }
  const head = halve(n);
  const tail = n - head;
  const tailPtr = element(bPtr, ldb, 0, head);
  solve_right_transposed(element(rPtr, ld, head, head), tail, ld, tailPtr, m, ldb);
  multiply(SUBTRACT, ALL, m, head, tail, tailPtr, ldb, PLAIN, element(rPtr, ld, 0, head), ld, TRANSPOSED, bPtr, ldb);
  solve_right_transposed(rPtr, head, ld, bPtr, m, ldb);
}

function solve_right_transposed_base(rPtr: usize, n: u32, ld: u32, bPtr: usize, m: u32, ldb: u32): void {
  const x = lanes_scratch(0);
  const columns = transpose_base(rPtr, n, ld);
  for (let row: u32 = 0; row < m; row += 4) {
    const b = element(bPtr, ldb, row, 0);
    lanes_load(b, ldb, m - row, n, x);
    for (let p = n; p > 0; p--) {
      const j = p - 1;
      const at = x + (j << 4);
      const value = f32x4.div(v128.load(at), v128.load32_splat(element(columns, BASE, j, j)));
      v128.store(at, value);
      lanes_add(x, f32x4.neg(value), element(columns, BASE, j, 0), j);
    }
    lanes_store(x, m - row, n, b, ldb);
  }
}

/** Columns of R's upper triangle as rows [n, BASE] in scratch; n ≤ BASE, and BASE² values fit a block of lanes. */
function transpose_base(rPtr: usize, n: u32, ld: u32): usize {
  const columns = lanes_scratch(1);
  for (let i: u32 = 0; i < n; i++) {
    for (let j = i; j < n; j++) store<f32>(element(columns, BASE, j, i), load<f32>(element(rPtr, ld, i, j)));
  }
  return columns;
}

/** Scratch that the two functions below need. */
export function inverse_scratch_bytes(n: u32): usize {
  return ((INVERSE_ROWS as usize) * n) << 2;
}

/** R → U = R⁻¹ in place, so that M⁻¹ = Uᵀ·U; the lower triangle becomes zero. */
export function cholesky_invert(rPtr: usize, n: u32, ld: u32, scratch: usize): void {
  for (let row: u32 = 0; row < n; row += INVERSE_ROWS) {
    const rows = min<u32>(INVERSE_ROWS, n - row);
    inverse_rows(rPtr, n, ld, row, rows, scratch);
    for (let i: u32 = 0; i < rows; i++) {
      memory.fill(element(rPtr, ld, row + i, 0), 0, (row as usize) << 2);
      memory.copy(element(rPtr, ld, row + i, row), element(scratch, n - row, i, 0), ((n - row) as usize) << 2);
    }
  }
}

/** out f64 [n] = diagonal of M⁻¹ from R. */
export function cholesky_inverse_diagonal(rPtr: usize, n: u32, ld: u32, out: usize, scratch: usize): void {
  memory.fill(out, 0, (n as usize) << 3);
  for (let row: u32 = 0; row < n; row += INVERSE_ROWS) {
    const rows = min<u32>(INVERSE_ROWS, n - row);
    inverse_rows(rPtr, n, ld, row, rows, scratch);
    let from = scratch;
    for (let i: u32 = 0; i < rows; i++) {
      for (let j = row; j < n; j++) {
        const at = out + ((j as usize) << 3);
        const value = load<f32>(from) as f64;
        store<f64>(at, load<f64>(at) + value * value);
        from += 4;
      }
    }
  }
}

/** Rows of R⁻¹, columns row … n−1 (the others are zero): out [rows, n − row]. */
function inverse_rows(rPtr: usize, n: u32, ld: u32, row: u32, rows: u32, out: usize): void {
  const cols = n - row;
  memory.fill(out, 0, ((rows as usize) * cols) << 2);
  for (let i: u32 = 0; i < rows; i++) store<f32>(element(out, cols, i, i), 1);
  solve_right(element(rPtr, ld, row, row), cols, ld, out, rows, cols);
}
