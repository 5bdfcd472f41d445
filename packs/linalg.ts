// The packer's linear algebra: the only file that touches linalg.wasm. Matrices live in that module's memory, laid out
// like a stack (mark, release), so that large ones stay inside over many calls. What is computed with them is for the
// callers to decide; how, for assembly/linalg/.

import { readFile } from "node:fs/promises";
import { SnugError } from "../runtime/index";
import { assetInside, assetPath } from "../runtime/node-assets";

const ALIGN = 64;
const PAGE_BYTES = 65536;
const ADDRESS_END = 2 ** 32;
const HASH_BYTES_MAX = 2 ** 30;

/** f32 values inside the module, row-major without gaps; valid until a mark made before it is released. */
export interface Matrix {
  readonly ptr: number;
  readonly rows: number;
  readonly cols: number;
}

/** What happens to the old values of a product's result; the index is the code in assembly/linalg/gemm.ts. */
const MODES = ["set", "add", "subtract"] as const;
export type Mode = (typeof MODES)[number];

export interface ProductOptions {
  /** Default "set". */
  readonly mode?: Mode;
  /** A is stored as [k, m]. Default false. */
  readonly transposeA?: boolean;
  /** B is stored as [n, k]. Default false. */
  readonly transposeB?: boolean;
  /** Compute the upper triangle only; values below the diagonal become undefined. Default false. */
  readonly upper?: boolean;
}

/** One call of assembly/linalg/gptq.ts, which says what the fields are. */
export interface QuantizeJob {
  readonly w: Matrix;
  readonly group: number;
  readonly bits: number;
  readonly rule: number;
  readonly factor: Matrix | null;
  /** One a column. */
  readonly weights: Matrix;
}

interface Exports {
  readonly workspace_end: () => number;
  readonly gram_add: (x: number, rows: number, cols: number, c: number) => void;
  readonly matrix_multiply: (
    ...args: [
      mode: number,
      part: number,
      m: number,
      n: number,
      k: number,
      a: number,
      lda: number,
      aLies: number,
      b: number,
      ldb: number,
      bLies: number,
      c: number,
      ldc: number,
    ]
  ) => void;
  readonly matrix_mirror: (c: number, n: number) => void;
  readonly cholesky_factor: (m: number, n: number, ld: number) => number;
  readonly cholesky_solve: (r: number, n: number, ld: number, b: number, m: number, ldb: number) => void;
  readonly cholesky_invert: (r: number, n: number, ld: number, scratch: number) => void;
  readonly cholesky_inverse_diagonal: (r: number, n: number, ld: number, out: number, scratch: number) => void;
  readonly inverse_scratch_bytes: (n: number) => number;
  readonly eigen_symmetric: (a: number, n: number, v: number) => number;
  readonly quantize_matrix: (
    ...args: [
      w: number,
      rows: number,
      cols: number,
      group: number,
      bits: number,
      rule: number,
      r: number,
      weights: number,
      sums: number,
      levels: number,
      scales: number,
    ]
  ) => number;
  readonly hash_xxh64: (ptr: number, bytes: number, out: number) => void;
}

export class Linalg {
  readonly #memory: WebAssembly.Memory;
  readonly #exports: Exports;
  #end: number;

  private constructor(memory: WebAssembly.Memory, exports: Exports) {
    this.#memory = memory;
    this.#exports = exports;
    this.#end = exports.workspace_end() >>> 0;
    this.#reach(this.#end);
  }

  /** `wasm`: where linalg.wasm is, or its bytes. Default: where the product's files are. */
  static async load(wasm: string | Uint8Array = assetPath("linalg.wasm")): Promise<Linalg> {
    const bytes = wasm instanceof Uint8Array ? wasm : await readModule(wasm);
    const memory = new WebAssembly.Memory({ initial: 1, maximum: ADDRESS_END / PAGE_BYTES });
    const { instance } = await WebAssembly.instantiate(bytes as BufferSource, { env: { memory } });
    (instance.exports._initialize as (() => void) | undefined)?.();
    return new Linalg(memory, instance.exports as unknown as Exports);
  }

  // Memory

  /** The top of the stack, for `release`. */
  mark(): number {
    return this.#end;
  }

  /** Drops every matrix made since the mark. */
  release(mark: number): void {
    this.#end = mark;
  }

  /** Runs `work`, which may not be async, and drops every matrix that it made. */
  scope<T>(work: () => T): T {
    const mark = this.mark();
    try {
      return work();
    } finally {
      this.release(mark);
    }
  }

  /** A matrix of zeros. */
  zeros(rows: number, cols: number): Matrix {
    const matrix = this.#take(rows, cols);
    this.view(matrix).fill(0);
    return matrix;
  }

  /** A copy of `values` [rows, cols] inside. */
  put(values: Float32Array, rows: number, cols: number): Matrix {
    if (values.length !== rows * cols) {
      throw new SnugError("internal", `a ${rows} × ${cols} matrix needs ${rows * cols} values, not ${values.length}`);
    }
    const matrix = this.#take(rows, cols);
    this.view(matrix).set(values);
    return matrix;
  }

  /** A second matrix with the same values. */
  copy(matrix: Matrix): Matrix {
    const twin = this.#take(matrix.rows, matrix.cols);
    this.view(twin).set(this.view(matrix));
    return twin;
  }

  /** The values, copied out. */
  get(matrix: Matrix): Float32Array {
    return this.view(matrix).slice();
  }

  /** The values in place. Not to be kept: any call that makes a matrix may detach it. */
  view(matrix: Matrix): Float32Array {
    return new Float32Array(this.#memory.buffer, matrix.ptr, matrix.rows * matrix.cols);
  }

  // Products

  /**
   * C += XᵀX for rows X [rows, cols] and C [cols, cols], upper triangle. Below the diagonal C is undefined until
   * `mirror`; adding may go on after that.
   */
  gramAdd(c: Matrix, x: Float32Array | Matrix): void {
    if (x instanceof Float32Array) {
      const values = x;
      this.scope(() => this.gramAdd(c, this.put(values, values.length / c.cols, c.cols)));
      return;
    }
    requireShape(c, x.cols, x.cols);
    this.#exports.gram_add(x.ptr, x.rows, x.cols, c.ptr);
  }

  /** Copies the upper triangle over the lower one. */
  mirror(c: Matrix): void {
    requireShape(c, c.rows, c.rows);
    this.#exports.matrix_mirror(c.ptr, c.rows);
  }

  /** C [m, n] = A [m, k] · B [k, n]; C may not be A or B. */
  multiply(c: Matrix, a: Matrix, b: Matrix, options: ProductOptions = {}): Matrix {
    const { mode = "set", transposeA = false, transposeB = false, upper = false } = options;
    const [m, k] = transposeA ? [a.cols, a.rows] : [a.rows, a.cols];
    const n = transposeB ? b.rows : b.cols;
    requireShape(b, transposeB ? n : k, transposeB ? k : n);
    requireShape(c, m, n);
    if (k === 0 && mode === "set") this.view(c).fill(0);
    this.#exports.matrix_multiply(
      MODES.indexOf(mode),
      Number(upper),
      m,
      n,
      k,
      a.ptr,
      a.cols,
      Number(transposeA),
      b.ptr,
      b.cols,
      Number(transposeB),
      c.ptr,
      c.cols,
    );
    return c;
  }

  // Symmetric positive definite systems

  /**
   * M [n, n] (its upper triangle is read) becomes R, upper, with M = R·Rᵀ; the lower triangle becomes undefined.
   * Returns false if M is not positive definite, and then M is lost.
   */
  factor(m: Matrix): boolean {
    requireShape(m, m.rows, m.rows);
    return this.#exports.cholesky_factor(m.ptr, m.rows, m.rows) === 0;
  }

  /** B [m, n], right-hand sides as rows, becomes X with X·M = B; r is the factor of M. */
  solve(r: Matrix, b: Matrix): void {
    requireShape(b, b.rows, r.rows);
    this.#exports.cholesky_solve(r.ptr, r.rows, r.cols, b.ptr, b.rows, b.cols);
  }

  /** R becomes U = R⁻¹, upper with zeros below, so that M⁻¹ = Uᵀ·U: the factor that GPTQ is usually told with. */
  invertFactor(r: Matrix): void {
    this.scope(() => {
      const scratch = this.#takeBytes(this.#exports.inverse_scratch_bytes(r.rows));
      this.#exports.cholesky_invert(r.ptr, r.rows, r.cols, scratch);
    });
  }

  /** The diagonal of M⁻¹; r is the factor of M. */
  inverseDiagonal(r: Matrix): Float64Array {
    return this.scope(() => {
      const out = this.#takeBytes(r.rows * Float64Array.BYTES_PER_ELEMENT);
      const scratch = this.#takeBytes(this.#exports.inverse_scratch_bytes(r.rows));
      this.#exports.cholesky_inverse_diagonal(r.ptr, r.rows, r.cols, out, scratch);
      return new Float64Array(this.#memory.buffer, out, r.rows).slice();
    });
  }

  /**
   * Eigenvalues of the symmetric A [n, n], descending, and unit eigenvectors: row i of `vectors` belongs to value i.
   * Time grows with n³: 0.1 s for n = 128.
   */
  eigen(a: Float64Array, n: number): { values: Float64Array; vectors: Float64Array } {
    return this.scope(() => {
      const aPtr = this.#takeBytes(n * n * Float64Array.BYTES_PER_ELEMENT);
      const vPtr = this.#takeBytes(n * n * Float64Array.BYTES_PER_ELEMENT);
      new Float64Array(this.#memory.buffer, aPtr, n * n).set(a);
      if (this.#exports.eigen_symmetric(aPtr, n, vPtr) === 0) {
        throw new SnugError("internal", `the eigenvalues of a ${n} × ${n} matrix did not settle: is it finite?`);
      }
      const diagonal = new Float64Array(this.#memory.buffer, aPtr, n * n);
      const found = new Float64Array(this.#memory.buffer, vPtr, n * n);
      const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => diagonal[j * n + j] - diagonal[i * n + i]);
      const values = Float64Array.from(order, (i) => diagonal[i * n + i]);
      const vectors = new Float64Array(n * n);
      order.forEach((from, to) => {
        vectors.set(found.subarray(from * n, from * n + n), to * n);
      });
      return { values, vectors };
    });
  }

  // Rounding and hashing

  /** Quantizes job.w, which becomes W − Q. Levels are [rows, cols], scales [rows, cols / group]. */
  quantize(job: QuantizeJob): { levels: Int8Array; scales: Float32Array; loss: number } {
    const { w, group, bits, rule, factor, weights } = job;
    return this.scope(() => {
      const scales = this.#take(w.rows, w.cols / group);
      const levels = this.#takeBytes(w.rows * w.cols);
      const sums = factor ? this.#take(w.rows, w.cols).ptr : 0;
      const loss = this.#exports.quantize_matrix(
        w.ptr,
        w.rows,
        w.cols,
        group,
        bits,
        rule,
        factor?.ptr ?? 0,
        weights.ptr,
        sums,
        levels,
        scales.ptr,
      );
      return {
        levels: new Int8Array(this.#memory.buffer, levels, w.rows * w.cols).slice(),
        scales: this.get(scales),
        loss,
      };
    });
  }

  /** XXH64 with seed 0. */
  xxh64(bytes: Uint8Array): bigint {
    if (bytes.length > HASH_BYTES_MAX) {
      throw new SnugError("internal", `at most ${HASH_BYTES_MAX} bytes are hashed at once, not ${bytes.length}`);
    }
    return this.scope(() => {
      const out = this.#takeBytes(BigUint64Array.BYTES_PER_ELEMENT);
      const ptr = this.#takeBytes(bytes.length);
      new Uint8Array(this.#memory.buffer, ptr, bytes.length).set(bytes);
      this.#exports.hash_xxh64(ptr, bytes.length, out);
      return new BigUint64Array(this.#memory.buffer, out, 1)[0];
    });
  }

  #take(rows: number, cols: number): Matrix {
    return { ptr: this.#takeBytes(rows * cols * Float32Array.BYTES_PER_ELEMENT), rows, cols };
  }

  #takeBytes(bytes: number): number {
    const ptr = Math.ceil(this.#end / ALIGN) * ALIGN;
    this.#reach(ptr + bytes);
    this.#end = ptr + bytes;
    return ptr;
  }

  #reach(end: number): void {
    const missing = end - this.#memory.buffer.byteLength;
    if (missing <= 0) return;
    try {
      if (end > ADDRESS_END) throw new RangeError("past the address space");
      this.#memory.grow(Math.ceil(missing / PAGE_BYTES));
    } catch (cause) {
      const have = Math.round(this.#memory.buffer.byteLength / 1e6);
      throw new SnugError(
        "memory",
        `packing needs ${Math.round(end / 1e6)} MB for its matrices, and the engine gives no more than ${have} MB ` +
          `of at most ${Math.round(ADDRESS_END / 1e6)} MB; pack on a larger machine, or a smaller model`,
        { cause },
      );
    }
  }
}

async function readModule(place: string): Promise<Uint8Array> {
  try {
    return assetInside(place) ?? (await readFile(place));
  } catch (cause) {
    throw new SnugError("source", `cannot read the packer's module ${place}; npm run build makes it`, {
      cause,
    });
  }
}

function requireShape(matrix: Matrix, rows: number, cols: number): void {
  if (matrix.rows !== rows || matrix.cols !== cols) {
    throw new SnugError("internal", `expected a ${rows} × ${cols} matrix, got ${matrix.rows} × ${matrix.cols}`);
  }
}
