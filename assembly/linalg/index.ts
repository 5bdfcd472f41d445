// What packs/linalg.ts calls. Addresses are bytes, strides and counts are elements.

import { xxh64 } from "../xxhash";
import { ADD, element, multiply, PLAIN, TRANSPOSED, UPPER_PART } from "./gemm";

export {
  cholesky_factor,
  cholesky_inverse_diagonal,
  cholesky_invert,
  cholesky_solve,
  inverse_scratch_bytes,
} from "./cholesky";
export { eigen_symmetric } from "./eigen";
export { multiply as matrix_multiply } from "./gemm";
export { quantize_matrix } from "./gptq";
export { workspace_end } from "./workspace";

const MIRROR_BLOCK: u32 = 16; // columns: a cache line of each row read

/** C [cols, cols] += Xᵀ·X of X f32 [rows, cols], upper triangle; what lies below is undefined until mirrored. */
export function gram_add(xPtr: usize, rows: u32, cols: u32, cPtr: usize): void {
  multiply(ADD, UPPER_PART, cols, cols, rows, xPtr, cols, TRANSPOSED, xPtr, cols, PLAIN, cPtr, cols);
}

/** Lower triangle of C [n, n] ← upper triangle. */
export function matrix_mirror(cPtr: usize, n: u32): void {
  for (let block: u32 = 0; block < n; block += MIRROR_BLOCK) {
    const blockEnd = min<u32>(n, block + MIRROR_BLOCK);
    for (let i = block; i < n; i++) {
      const end = min<u32>(i, blockEnd);
      for (let j = block; j < end; j++) store<f32>(element(cPtr, n, i, j), load<f32>(element(cPtr, n, j, i)));
    }
  }
}

/** XXH64 (seed 0) as u64 at out. */
export function hash_xxh64(ptr: usize, bytes: usize, out: usize): void {
  store<u64>(out, xxh64(ptr, bytes));
}
