// Second moments of activations, XᵀX / rows, and what is done with them between the order of a checkpoint and that of a
// pack.

import type { Linalg, Matrix } from "./linalg";

/** A sum of squares, upper triangle, as a full matrix of means. */
export function meanMoments(linalg: Linalg, sums: Float32Array, rows: number): Matrix {
  const n = Math.sqrt(sums.length);
  const matrix = linalg.put(sums, n, n);
  linalg.mirror(matrix);
  const view = linalg.view(matrix);
  for (let i = 0; i < view.length; i++) view[i] = (view[i] as number) / rows;
  return matrix;
}

/**
 * M [from.length, from.length], whose row and column i are those of channel from[i], with them in the order `to`. A
 * channel −1 is none: zeros.
 */
export function reordered(linalg: Linalg, m: Matrix, from: readonly number[], to: readonly number[]): Matrix {
  const places = new Map(from.map((channel, place) => [channel, place]));
  const order = to.map((channel) => (channel < 0 ? -1 : (places.get(channel) as number)));
  const out = linalg.zeros(to.length, to.length);
  const before = linalg.view(m);
  const after = linalg.view(out);
  order.forEach((row, i) => {
    if (row < 0) return;
    order.forEach((col, j) => {
      if (col >= 0) after[i * order.length + j] = before[row * m.cols + col] as number;
    });
  });
  return out;
}

/** 0 … count − 1. */
export function counting(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
