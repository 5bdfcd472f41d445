// Which channels matter: the orders and bases that make any prefix of a layer's channels a good layer, and the weights
// that fit all prefixes best. Pure functions of second moments C = XᵀX / rows and of weights; where these come from and
// how an order is applied to a checkpoint is for the callers.

import { SnugError } from "../runtime/index";
import type { Linalg, Matrix } from "./linalg";

const VALUE_FLOOR = 1e-7; // of the largest eigenvalue of a covariance summed in f32: what lies below is noise
const JOINT_FLOOR = 1e-12; // of the largest eigenvalue of a product of two such
const TAIL_FLOOR = 1e-9; // a channel that is never kept still gets weights
const RIDGE_FLOOR = 1e-6; // of the mean diagonal: less is nothing to f32
const RIDGE_RETRIES = 4; // each with ten times the ridge

/** Indices by descending score; ties keep their order. */
export function descending(scores: ArrayLike<number>): Uint32Array {
  return Uint32Array.from(scores, (_, i) => i).sort((i, j) => scores[j] - scores[i] || i - j);
}

/**
 * diag(C·(C + λI)⁻¹) for C [n, n]: how badly each channel is predicted by the others. λ is at least 1e-6 of the mean
 * diagonal, and is raised tenfold as often as it takes for f32 to find C + λI positive definite.
 */
export function ridgeLeverage(linalg: Linalg, c: Matrix, lambda: number): Float64Array {
  return linalg.scope(() => {
    const r = linalg.copy(c);
    const least = Math.max(lambda, RIDGE_FLOOR * meanDiagonal(linalg.view(c), c.rows));
    for (let retry = 0; retry <= RIDGE_RETRIES; retry++) {
      const ridge = least * 10 ** retry;
      addToDiagonal(linalg.view(r), c.rows, ridge);
      if (linalg.factor(r)) return linalg.inverseDiagonal(r).map((value) => 1 - ridge * value);
      linalg.view(r).set(linalg.view(c));
    }
    throw new SnugError(
      "internal",
      `a second moment of ${c.rows} channels is not positive definite with a ridge: is it finite?`,
    );
  });
}

/** C_ii·‖column i of Wd‖² for C [n, n] and Wd [width, n]: each channel's share of the output if all were independent. */
export function channelEnergy(linalg: Linalg, c: Matrix, down: Float32Array, width: number): Float64Array {
  const n = c.rows;
  const energy = new Float64Array(n);
  for (let row = 0; row < width; row++) for (let i = 0; i < n; i++) energy[i] += down[row * n + i] ** 2;
  const moments = linalg.view(c);
  return energy.map((value, i) => value * moments[i * (n + 1)]);
}

/**
 * Order of the channels of an MLP, most important first. Dropping the set D changes the output by 1ᵀ·G·1 over D with
 * G = C ∘ WdᵀWd; again and again the channel is dropped that adds least to it. C [n, n] full, Wd [width, n].
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

    const added = Float64Array.from({ length: n }, (_, i) => loss[i * (n + 1)]); // by dropping i now
    const order = new Uint32Array(n);
    let least = added.indexOf(added.reduce((low, value) => Math.min(low, value), Number.POSITIVE_INFINITY));
    for (let place = n - 1; place >= 0; place--) {
      const dropped = least;
      order[place] = dropped;
      added[dropped] = Number.POSITIVE_INFINITY;
      least = -1;
      for (let j = 0, at = dropped * n; j < n; j++, at++) {
        added[j] += 2 * loss[at];
        if (added[j] < Number.POSITIVE_INFINITY && (least < 0 || added[j] < added[least])) least = j;
      }
    }
    return order;
  });
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
 * Scores [kvHeads, headDim / 2] of the RoPE pairs (c, c + headDim / 2): √(energy of the pair in the group's queries ×
 * in its key). A rotation does not change a pair's energy, so positions do not matter. C [width, width] full.
 */
export function qkPairScores(linalg: Linalg, c: Matrix, weights: QkWeights): Float64Array {
  const { heads, kvHeads, headDim, q, k, biases } = weights;
  const half = headDim / 2;
  const group = heads / kvHeads;
  const queries = outputEnergies(linalg, c, q, heads * headDim, biases?.q, biases?.mean);
  const keys = outputEnergies(linalg, c, k, kvHeads * headDim, biases?.k, biases?.mean);
  const scores = new Float64Array(kvHeads * half);
  for (let kv = 0; kv < kvHeads; kv++) {
    for (let pair = 0; pair < half; pair++) {
      let queryEnergy = 0;
      for (let head = kv * group; head < (kv + 1) * group; head++) {
        queryEnergy += queries[head * headDim + pair] + queries[head * headDim + pair + half];
      }
      const keyEnergy = keys[kv * headDim + pair] + keys[kv * headDim + pair + half];
      scores[kv * half + pair] = Math.sqrt(queryEnergy * keyEnergy);
    }
  }
  return scores;
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

/** K = Wv·C·Wvᵀ, f64 [D, D], of one KV head's rows Wv [D, width] and C [width, width] full. */
export function valueCovariance(linalg: Linalg, c: Matrix, v: Float32Array, headDim: number): Float64Array {
  return linalg.scope(() => {
    const rows = linalg.put(v, headDim, c.rows);
    const product = linalg.multiply(linalg.zeros(headDim, c.rows), rows, c);
    return symmetric(linalg.view(linalg.multiply(linalg.zeros(headDim, headDim), product, rows, { transposeB: true })));
  });
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

/** The principal axes of the values themselves: an orthogonal basis, which knows nothing of o. */
export function valueBasis(linalg: Linalg, covariance: Float64Array, headDim: number): ValueBasis {
  const { values, vectors } = linalg.eigen(covariance, headDim);
  return { v: vectors, o: transposed(vectors, headDim), worth: values.map((value) => Math.max(value, 0)) };
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
    addToDiagonal(moments, n, damp * meanDiagonal(moments, n));
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
