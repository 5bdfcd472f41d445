// Eigenvalues and eigenvectors of symmetric matrices in f64: cyclic Jacobi rotations, for orders up to a few hundred.

const SWEEPS_MAX: u32 = 60;
const NEGLIGIBLE: f64 = 1e-16; // of the matrix's norm

/**
 * A f64 [n, n], symmetric → its diagonal holds the eigenvalues, unordered; row i of V f64 [n, n] becomes the unit
 * eigenvector of eigenvalue i. Returns how many sweeps it took, or 0 if it did not settle (A is not finite).
 */
export function eigen_symmetric(aPtr: usize, n: u32, vPtr: usize): u32 {
  const rowBytes = (n as usize) << 3;
  memory.fill(vPtr, 0, rowBytes * n);
  for (let i: u32 = 0; i < n; i++) store<f64>(vPtr + (rowBytes + 8) * i, 1);
  const threshold = NEGLIGIBLE * norm(aPtr, n);
  for (let sweep: u32 = 1; sweep <= SWEEPS_MAX; sweep++) {
    let rotated = false;
    for (let p: u32 = 0; p + 1 < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const off = load<f64>(aPtr + rowBytes * p + (q << 3));
        if (abs(off) <= threshold) continue;
        rotated = true;
        rotate(aPtr, n, p, q, off, vPtr);
      }
    }
    if (!rotated) return sweep;
  }
  return 0;
}

function norm(aPtr: usize, n: u32): f64 {
  let sum: f64 = 0;
  for (let i: usize = 0; i < (n as usize) * n; i++) {
    const value = load<f64>(aPtr + (i << 3));
    sum += value * value;
  }
  return Math.sqrt(sum);
}

/** Makes A_pq zero: A ← JᵀAJ, V ← JᵀV. */
function rotate(aPtr: usize, n: u32, p: u32, q: u32, off: f64, vPtr: usize): void {
  const rowBytes = (n as usize) << 3;
  const pRow = aPtr + rowBytes * p;
  const qRow = aPtr + rowBytes * q;
  const pp = load<f64>(pRow + (p << 3));
  const qq = load<f64>(qRow + (q << 3));
  const half = (qq - pp) / (2 * off);
  const tangent = (half < 0 ? -1.0 : 1.0) / (abs(half) + Math.sqrt(half * half + 1));
  const cosine = 1 / Math.sqrt(tangent * tangent + 1);
  const sine = tangent * cosine;
  rotate_rows(pRow, qRow, n, cosine, sine);
  rotate_rows(vPtr + rowBytes * p, vPtr + rowBytes * q, n, cosine, sine);
  store<f64>(pRow + (p << 3), pp - tangent * off);
  store<f64>(qRow + (q << 3), qq + tangent * off);
  store<f64>(pRow + (q << 3), 0);
  store<f64>(qRow + (p << 3), 0);
  let at = aPtr;
  for (let k: u32 = 0; k < n; k++) {
    if (k !== p && k !== q) {
      store<f64>(at + (p << 3), load<f64>(pRow + (k << 3)));
      store<f64>(at + (q << 3), load<f64>(qRow + (k << 3)));
    }
    at += rowBytes;
  }
}

/** p ← c·p − s·q, q ← s·p + c·q. */
function rotate_rows(pPtr: usize, qPtr: usize, n: u32, c: f64, s: f64): void {
  const cosine = f64x2.splat(c);
  const sine = f64x2.splat(s);
  const end = pPtr + ((n as usize) << 3);
  while (pPtr + 16 <= end) {
    const p = v128.load(pPtr);
    const q = v128.load(qPtr);
    v128.store(pPtr, f64x2.sub(f64x2.mul(cosine, p), f64x2.mul(sine, q)));
    v128.store(qPtr, f64x2.add(f64x2.mul(sine, p), f64x2.mul(cosine, q)));
    pPtr += 16;
    qPtr += 16;
  }
  if (pPtr < end) {
    const p = load<f64>(pPtr);
    const q = load<f64>(qPtr);
    store<f64>(pPtr, c * p - s * q);
    store<f64>(qPtr, s * p + c * q);
  }
}
