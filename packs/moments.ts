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

/** M with rows and columns taken in this order; −1 takes zeros. */
export function permuted(linalg: Linalg, m: Matrix, order: readonly number[]): Matrix {
  const out = linalg.zeros(order.length, order.length);
  const from = linalg.view(m);
  const to = linalg.view(out);
  order.forEach((row, i) => {
    if (row < 0) return;
    order.forEach((col, j) => {
      if (col >= 0) to[i * order.length + j] = from[row * m.cols + col] as number;
    });
  });
  return out;
}

/** Where each of `count` channels lies in a stored order: the inverse of a list that may have −1s in it. */
export function placesOf(stored: readonly number[], count: number): number[] {
  const places = new Array<number>(count).fill(-1);
  stored.forEach((channel, place) => {
    if (channel >= 0) places[channel] = place;
  });
  return places;
}
