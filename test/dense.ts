// Plain dense algebra in f64, row-major, for the tests of the packer: slow, and obviously right.

/** A [m, k] · B [k, n]. */
export function multiply(a: ArrayLike<number>, b: ArrayLike<number>, m: number, k: number, n: number): Float64Array {
  const c = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let d = 0; d < k; d++) for (let j = 0; j < n; j++) c[i * n + j] += a[i * k + d] * b[d * n + j];
  }
  return c;
}

/** A [cols, rows] → Aᵀ [rows, cols]. */
export function transpose(a: ArrayLike<number>, rows: number, cols: number): Float64Array {
  return Float64Array.from({ length: rows * cols }, (_, at) => a[(at % cols) * rows + Math.floor(at / cols)]);
}

/** XᵀX of X [rows, n]. */
export function gram(x: ArrayLike<number>, n: number): Float64Array {
  return multiply(transpose(x, n, x.length / n), x, n, x.length / n, n);
}

export function identity(n: number): Float64Array {
  return Float64Array.from({ length: n * n }, (_, at) => (at % (n + 1) === 0 ? 1 : 0));
}

export function diagonal(a: ArrayLike<number>, n: number): Float64Array {
  return Float64Array.from({ length: n }, (_, i) => a[i * (n + 1)]);
}

/** A + value·I. */
export function shifted(a: ArrayLike<number>, n: number, value: number): Float64Array {
  return Float64Array.from(a, (element, at) => element + (at % (n + 1) === 0 ? value : 0));
}

/** X with A·X = B by Gauss-Jordan elimination without pivoting, for positive definite A [n, n]; B [n, m]. */
export function solve(a: ArrayLike<number>, b: ArrayLike<number>, n: number, m: number): Float64Array {
  const left = Float64Array.from(a);
  const x = Float64Array.from(b);
  for (let p = 0; p < n; p++) {
    for (let i = 0; i < n; i++) {
      if (i === p) continue;
      const factor = left[i * n + p] / left[p * n + p];
      for (let j = p; j < n; j++) left[i * n + j] -= factor * left[p * n + j];
      for (let j = 0; j < m; j++) x[i * m + j] -= factor * x[p * m + j];
    }
  }
  return x.map((value, at) => value / left[Math.floor(at / m) * (n + 1)]);
}

/** Largest magnitude. */
export function largest(a: ArrayLike<number>): number {
  return Array.prototype.reduce.call<ArrayLike<number>, [(most: number, value: number) => number, number], number>(
    a,
    (most, value) => Math.max(most, Math.abs(value)),
    0,
  );
}
