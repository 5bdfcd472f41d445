// Which channels matter: the orders and bases that make any prefix of a layer's channels a good layer, and the weights
// that fit all prefixes best. Pure functions of second moments C = XᵀX / rows and of weights; where these come from and
// how an order is applied to a checkpoint is for the callers.

import { SnugError } from "../runtime/index";
import type { Linalg, Matrix } from "./linalg";

const VALUE_FLOOR = 1e-7; // of the largest eigenvalue of a covariance summed in f32: what lies below is noise
const JOINT_FLOOR = 1e-12; // of the largest eigenvalue of a product of two such
const TAIL_FLOOR = 1e-9; // a channel that is never kept still gets weights

/** Indices by descending score; ties keep their order. */
export function descending(scores: ArrayLike<number>): Uint32Array {
  return Uint32Array.from(scores, (_, i) => i).sort((i, j) => scores[j] - scores[i] || i - j);
}

/**
 * Order of the channels [n] that a matrix Wd [width, n] multiplies, most important first. Dropping the set D changes the
 * output by 1ᵀ·G·1 over D with G = C ∘ WdᵀWd, C [n, n] full.
 */
export function eliminationOrder(linalg: Linalg, c: Matrix, down: Float32Array, width: number): Uint32Array {
  const n = c.rows;
  return linalg.scope(() => {
    const weights = linalg.put(down, width, n);
    const g = linalg.zeros(n, n);
    linalg.gramAdd(g, weights);
    linalg.mirror(g);
    const loss = linalg.view(g);
    const moments = linalg.view(c);
    for (let i = 0; i < loss.length; i++) loss[i] *= moments[i];
    return eliminate(loss, n);
  });
}

/** Order of n channels, most important first: again and again the one is dropped that adds least to 1ᵀ·G·1 over those dropped. */
export function eliminate(g: Float32Array, n: number): Uint32Array {
  const added = Float64Array.from({ length: n }, (_, i) => g[i * (n + 1)]); // by dropping i now
  const order = new Uint32Array(n);
  let least = added.indexOf(added.reduce((low, value) => Math.min(low, value), Number.POSITIVE_INFINITY));
  for (let place = n - 1; place >= 0; place--) {
    const dropped = least;
    order[place] = dropped;
    added[dropped] = Number.POSITIVE_INFINITY;
    least = -1;
    for (let j = 0, at = dropped * n; j < n; j++, at++) {
      added[j] += 2 * g[at];
      if (added[j] < Number.POSITIVE_INFINITY && (least < 0 || added[j] < added[least])) least = j;
    }
  }
  return order;
}

export interface QkWeights {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** [heads × headDim, width] */
  readonly q: Float32Array;
  /** [kvHeads × headDim, width] */
  readonly k: Float32Array;
  /** Only of models that have them: [heads × headDim], [kvHeads × headDim], and the mean input [width]. */
  readonly biases?: { readonly q: Float32Array; readonly k: Float32Array; readonly mean: Float32Array };
}

/**
 * Ranks the dims of each KV head in pairs a, b, a, b …, best first, by √(energy of the pair in the group's queries × in
 * its key). `rotary` are the pairs of RoPE, which does not change their energy, so that positions do not matter; dims
 * that are in none are paired as they rank. C [width, width] full.
 */
export function rankPairs(
  linalg: Linalg,
  c: Matrix,
  weights: QkWeights,
  rotary: readonly (readonly [number, number])[],
): number[][] {
  const { heads, kvHeads, headDim, q, k, biases } = weights;
  const group = heads / kvHeads;
  const queries = outputEnergies(linalg, c, q, heads * headDim, biases?.q, biases?.mean);
  const keys = outputEnergies(linalg, c, k, kvHeads * headDim, biases?.k, biases?.mean);
  return Array.from({ length: kvHeads }, (_, kv) => {
    const queryEnergy = (dim: number) => {
      let sum = 0;
      for (let head = kv * group; head < (kv + 1) * group; head++) sum += queries[head * headDim + dim];
      return sum;
    };
    const score = (...dims: readonly number[]) => {
      const keyEnergy = dims.reduce((sum, dim) => sum + keys[kv * headDim + dim], 0);
      return Math.sqrt(dims.reduce((sum, dim) => sum + queryEnergy(dim), 0) * keyEnergy);
    };
    const pairs = rotary.map(([a, b]) => [a, b]);
    const rotated = new Set(rotary.flat());
    const plain = Array.from({ length: headDim }, (_, dim) => dim).filter((dim) => !rotated.has(dim));
    const ranked = [...descending(plain.map((dim) => score(dim)))].map((i) => plain[i]);
    for (let i = 0; i < ranked.length; i += 2) pairs.push([ranked[i], ranked[i + 1]]);
    return [...descending(pairs.map((dims) => score(...dims)))].flatMap((i) => pairs[i]);
  });
}

/** Mean square of each row of W·x + b: diag(W·C·Wᵀ), and with a bias the cross term through the mean of x. */
function outputEnergies(
  linalg: Linalg,
  c: Matrix,
  w: Float32Array,
  rows: number,
  bias?: Float32Array,
  mean?: Float32Array,
): Float64Array {
  const n = c.rows;
  return linalg.scope(() => {
    const product = linalg.view(linalg.multiply(linalg.zeros(rows, n), linalg.put(w, rows, n), c));
    const energies = new Float64Array(rows);
    for (let row = 0, at = 0; row < rows; row++) {
      let middle = 0;
      for (let j = 0; j < n; j++, at++) {
        energies[row] += product[at] * w[at];
        if (mean) middle += w[at] * mean[j];
      }
      if (bias) energies[row] += 2 * bias[row] * middle + bias[row] ** 2;
      energies[row] = Math.max(energies[row], 0);
    }
    return energies;
  });
}

// Bases of the values of one KV group

/** T_v and T_o, f64 [D, D], T_o·T_v = I: v rows become T_v·Wv, each head's o columns Wo·T_o. The product stays. */
export interface ValueBasis {
  readonly v: Float64Array;
  readonly o: Float64Array;
  /** What each channel is worth, descending; dropping channels from k on costs the sum from k on. */
  readonly worth: Float64Array;
}

/** Σ_h Wo_hᵀ·Wo_h, f64 [D, D], over `heads` heads of Wo [width, allHeads × D] from `firstHead` on. */
export function outputGram(
  linalg: Linalg,
  o: Float32Array,
  width: number,
  headDim: number,
  firstHead: number,
  heads: number,
): Float64Array {
  const cols = o.length / width;
  return linalg.scope(() => {
    const gram = linalg.zeros(headDim, headDim);
    for (let head = firstHead; head < firstHead + heads; head++) {
      const columns = new Float32Array(width * headDim);
      for (let row = 0; row < width; row++) {
        const from = row * cols + head * headDim;
        columns.set(o.subarray(from, from + headDim), row * headDim);
      }
      linalg.gramAdd(gram, columns);
    }
    linalg.mirror(gram);
    return symmetric(linalg.view(gram));
  });
}

/**
 * The basis in which the first k channels give the best rank-k outputs of the group's heads together, for values of
 * covariance K: with M = K^½·[Wo_1ᵀ … Wo_Gᵀ] and M·Mᵀ = P·Λ·Pᵀ, T_v = Λ^½·Pᵀ·K^−½ and T_o = K^½·P·Λ^−½. Λ goes to the
 * v side, where a scale for each row absorbs it, and all columns of o get the same norm. Eigenvalues of K below 1e-7 of
 * its largest are raised to that, those of M·Mᵀ below 1e-12; the pair stays exactly inverse.
 */
export function jointBasis(
  linalg: Linalg,
  covariance: Float64Array,
  output: Float64Array,
  headDim: number,
): ValueBasis {
  const own = linalg.eigen(covariance, headDim);
  const root = floored(own.values, VALUE_FLOOR).map(Math.sqrt);
  // K^½ = Vᵀ·root·V and K^−½, where row i of V is eigenvector i.
  const axes = transposed(own.vectors, headDim);
  const spread = product(scaledCols(axes, root, headDim), own.vectors, headDim);
  const gather = product(scaledCols(axes, root.map(inverseOf), headDim), own.vectors, headDim);
  const joint = product(product(spread, output, headDim), spread, headDim);
  const { values, vectors } = linalg.eigen(symmetric(joint), headDim);
  const length = floored(values, JOINT_FLOOR).map(Math.sqrt);
  return {
    v: scaledRows(product(vectors, gather, headDim), length, headDim),
    o: scaledCols(product(spread, transposed(vectors, headDim), headDim), length.map(inverseOf), headDim),
    worth: values.map((value) => Math.max(value, 0)),
  };
}

function floored(descendingValues: Float64Array, share: number): Float64Array {
  const floor = descendingValues[0] > 0 ? descendingValues[0] * share : 1;
  return descendingValues.map((value) => Math.max(value, floor));
}

function inverseOf(value: number): number {
  return 1 / value;
}

/** The mean of A [n, n] and its transpose. */
function symmetric(a: ArrayLike<number>): Float64Array {
  const n = Math.sqrt(a.length);
  return Float64Array.from(a, (value, at) => (value + a[(at % n) * n + Math.floor(at / n)]) / 2);
}

function transposed(a: Float64Array, n: number): Float64Array {
  return a.map((_, at) => a[(at % n) * n + Math.floor(at / n)]);
}

function scaledRows(a: Float64Array, factors: Float64Array, n: number): Float64Array {
  return a.map((value, at) => value * factors[Math.floor(at / n)]);
}

function scaledCols(a: Float64Array, factors: Float64Array, n: number): Float64Array {
  return a.map((value, at) => value * factors[at % n]);
}

function product(a: Float64Array, b: Float64Array, n: number): Float64Array {
  const c = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < n; k++) {
      const factor = a[i * n + k];
      for (let j = 0; j < n; j++) c[i * n + j] += factor * b[k * n + j];
    }
  }
  return c;
}

// Weights for all prefixes

/**
 * The W* [m, n] that minimises the expected error ‖X·(Wᵀ − P_k·W*ᵀ)‖² when only the first k channels are kept, k drawn
 * so that tail[i] = P(channel i is kept), not increasing. With M_ij = C_ij·T(max(i, j)) it solves W*·M = W·C·diag(T);
 * what is computed is the correction Δ = W* − W from Δ·M = W·N, N_ji = C_ji·(T(i) − T(j)) for j > i, so that a tail of
 * ones returns W itself. `damp` × mean(diagonal) is added to C's diagonal. C [n, n] full.
 * `hessian` [n, n] is M, for the quantizer; it stays on the module's stack.
 */
export function nestedRefit(
  linalg: Linalg,
  c: Matrix,
  tail: ArrayLike<number>,
  w: Float32Array,
  m: number,
  damp: number,
): { weights: Float32Array; hessian: Matrix } {
  const n = c.rows;
  requireTail(tail, n);
  const kept = Float64Array.from(tail, (share) => Math.max(share, TAIL_FLOOR));
  const hessian = linalg.copy(c);
  const weights = linalg.scope(() => {
    const change = linalg.zeros(m, n);
    linalg.scope(() => {
      const missing = linalg.copy(c);
      fillMissing(linalg.view(missing), kept);
      linalg.multiply(change, linalg.put(w, m, n), missing);
    });
    const moments = linalg.view(hessian);
    addToDiagonal(moments, n, damp * (meanDiagonal(moments, n) || 1)); // or 1: a sublayer that is always silent
    weighByTail(moments, kept);
    const factor = linalg.copy(hessian);
    if (!linalg.factor(factor)) {
      throw new SnugError("internal", `the refit of ${n} channels is not positive definite with ${damp} damping`);
    }
    linalg.solve(factor, change);
    const refit = linalg.get(change);
    for (let i = 0; i < refit.length; i++) refit[i] += w[i];
    return refit;
  });
  return { weights, hessian };
}

function requireTail(tail: ArrayLike<number>, n: number): void {
  if (tail.length !== n) throw new SnugError("internal", `${n} channels need ${n} shares, not ${tail.length}`);
  for (let i = 0; i < n; i++) {
    if (!(tail[i] >= 0 && tail[i] <= (i > 0 ? tail[i - 1] : 1))) {
      throw new SnugError("internal", `channel ${i} is kept with ${tail[i]}: shares go down from 1 to 0`);
    }
  }
}

/** C → N, see `nestedRefit`. */
function fillMissing(c: Float32Array, kept: Float64Array): void {
  const n = kept.length;
  for (let j = 0; j < n; j++) for (let i = 0; i < n; i++) c[j * n + i] *= i < j ? kept[i] - kept[j] : 0;
}

/** C → M, see `nestedRefit`. */
function weighByTail(c: Float32Array, kept: Float64Array): void {
  const n = kept.length;
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) c[i * n + j] *= kept[Math.max(i, j)];
}

function meanDiagonal(c: Float32Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += c[i * (n + 1)];
  return sum / n;
}

function addToDiagonal(c: Float32Array, n: number, value: number): void {
  for (let i = 0; i < n; i++) c[i * (n + 1)] += value;
}
