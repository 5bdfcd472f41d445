// What every op means, and one whole forward pass: f64, plain loops, no tricks. Executors are compared with this file,
// this file with the goldens of transformers. It takes the weights of a cut model as they are: each layer has its own
// number of dimensions, and any of them may be 0. Arrays are row-major; shapes are in the comments.

export interface ReferenceModel {
  width: number;
  vocabulary: number;
  normEps: number;
  embedding: Float64Array; // [vocabulary][width]
  head: Float64Array | null; // [vocabulary][width]; null = the embedding
  finalNorm: Float64Array; // [width]
  /** What each layer adds to the residual stream, in order. */
  layers: ReferenceSublayer[][];
}

/** Adds block(rmsNorm(x)). */
export interface ReferenceSublayer {
  norm: Float64Array; // [width]
  block: ReferenceBlock;
}

export type ReferenceBlock = ReferenceAttention | ReferenceMlp | ReferenceMamba;

/** dims = 0: every key scores alike. vDims = 0: only the bias of o is added. */
export interface ReferenceAttention {
  kind: "attention";
  heads: number;
  kvHeads: number;
  /** Of the uncut head: the softmax scale is 1 / √headDim at every cut. */
  headDim: number;
  dims: number; // of a q or k head; even
  vDims: number; // of a v head
  q: Float64Array; // [heads][dims][width]
  k: Float64Array; // [kvHeads][dims][width]
  v: Float64Array; // [kvHeads][vDims][width]
  o: Float64Array; // [width][heads][vDims]
  qBias: Float64Array | null; // [heads][dims]
  kBias: Float64Array | null; // [kvHeads][dims]
  vBias: Float64Array | null; // [kvHeads][vDims]
  oBias: Float64Array | null; // [width]
  ropeAngles: Float64Array; // [kvHeads][dims / 2] per position, radians; the pair is (i, i + dims / 2); 0 = not rotated
}

/** channels = 0: only the bias of down is added. */
export interface ReferenceMlp {
  kind: "mlp";
  channels: number;
  gate: Float64Array | null; // [channels][width]; null = down(squaredRelu(up x))
  up: Float64Array; // [channels][width]
  down: Float64Array; // [width][channels]
  gateBias: Float64Array | null; // [channels]
  upBias: Float64Array | null; // [channels]
  downBias: Float64Array | null; // [width]
}

/** Mamba-2. dims = 0: only the bias of out is added. state = 0: a head's input goes past its state only. */
export interface ReferenceMamba {
  kind: "mamba";
  heads: number;
  dims: number; // of a head
  groups: number; // heads / groups neighbouring heads share b and c
  state: number; // dimensions
  taps: number;
  normGroups: number; // the gated norm is over heads / normGroups heads each
  normDivisor: number; // channels of a norm group in the uncut model
  stepLeast: number;
  stepMost: number;
  z: Float64Array; // [heads][dims][width]
  x: Float64Array; // [heads][dims][width]
  b: Float64Array; // [groups][state][width]
  c: Float64Array; // [groups][state][width]
  dt: Float64Array; // [heads][width]
  zBias: Float64Array | null; // [heads][dims]
  xBias: Float64Array | null; // [heads][dims]
  bBias: Float64Array | null; // [groups][state]
  cBias: Float64Array | null; // [groups][state]
  xConv: Float64Array; // [heads][dims][taps]
  bConv: Float64Array; // [groups][state][taps]
  cConv: Float64Array; // [groups][state][taps]
  xConvBias: Float64Array | null; // [heads][dims]
  bConvBias: Float64Array | null; // [groups][state]
  cConvBias: Float64Array | null; // [groups][state]
  dtBias: Float64Array; // [heads]
  a: Float64Array; // [heads]; negative
  d: Float64Array; // [heads]
  gatedNorm: Float64Array; // [heads][dims]
  out: Float64Array; // [width][heads][dims]
  outBias: Float64Array | null; // [width]
}

export interface ReferenceResult {
  logits: Float64Array; // [tokens][vocabulary]
  /** The input of each layer, then the output of the final norm: [layers + 1] of [tokens][width]. */
  hidden: Float64Array[];
}

/** Runs one sequence of tokens from position 0. */
export function forward(model: ReferenceModel, tokens: ArrayLike<number>): ReferenceResult {
  const { width, normEps } = model;
  const hidden: Float64Array[] = [];
  let x = embed(model.embedding, width, tokens); // [tokens][width]
  for (const layer of model.layers) {
    hidden.push(x);
    for (const { norm, block } of layer) {
      const normed = rmsNorm(x, norm, normEps);
      if (block.kind === "attention") x = add(x, attentionBlock(block, normed, width));
      else if (block.kind === "mlp") x = add(x, mlpBlock(block, normed, width));
      else x = add(x, mambaBlock(block, normed, width, normEps));
    }
  }
  x = rmsNorm(x, model.finalNorm, normEps);
  hidden.push(x);
  return { logits: matmul(x, model.head ?? model.embedding, tokens.length, model.vocabulary, width), hidden };
}

/** out[tokens][width]: q, k, v of the normed x, rope, attention, o. */
export function attentionBlock(weights: ReferenceAttention, x: Float64Array, width: number): Float64Array {
  const { heads, kvHeads, dims, vDims, ropeAngles } = weights;
  const tokens = x.length / width;
  const positions = Float64Array.from({ length: tokens }, (_, position) => position);
  const q = matmul(x, weights.q, tokens, heads * dims, width, weights.qBias);
  const k = matmul(x, weights.k, tokens, kvHeads * dims, width, weights.kBias);
  const v = matmul(x, weights.v, tokens, kvHeads * vDims, width, weights.vBias);
  const rotatedQ = rope(q, positions, ropeAngles, heads, kvHeads, dims);
  const rotatedK = rope(k, positions, ropeAngles, kvHeads, kvHeads, dims);
  const sizes = { queries: tokens, keys: tokens, heads, kvHeads, dims, vDims, scale: 1 / Math.sqrt(weights.headDim) };
  return matmul(attention(rotatedQ, rotatedK, v, sizes), weights.o, tokens, width, heads * vDims, weights.oBias);
}

/** out[tokens][width]: down(swiglu(gate x, up x)), or down(squaredRelu(up x)), of the normed x. */
export function mlpBlock(weights: ReferenceMlp, x: Float64Array, width: number): Float64Array {
  const { channels } = weights;
  const tokens = x.length / width;
  const up = matmul(x, weights.up, tokens, channels, width, weights.upBias);
  const gate = weights.gate && matmul(x, weights.gate, tokens, channels, width, weights.gateBias);
  return matmul(gate ? swiglu(gate, up) : squaredRelu(up), weights.down, tokens, width, channels, weights.downBias);
}

/** out[tokens][width]: z, x, b, c, dt of the normed u, convolutions, scan, gated norm, out. */
export function mambaBlock(weights: ReferenceMamba, u: Float64Array, width: number, eps: number): Float64Array {
  const { heads, dims, groups, state, taps } = weights;
  const tokens = u.length / width;
  const inner = heads * dims;
  const shared = groups * state;
  const z = matmul(u, weights.z, tokens, inner, width, weights.zBias);
  const rawX = matmul(u, weights.x, tokens, inner, width, weights.xBias);
  const rawB = matmul(u, weights.b, tokens, shared, width, weights.bBias);
  const rawC = matmul(u, weights.c, tokens, shared, width, weights.cBias);
  const rawDt = matmul(u, weights.dt, tokens, heads, width);
  const x = silu(causalConv(rawX, weights.xConv, weights.xConvBias, inner, taps));
  const b = silu(causalConv(rawB, weights.bConv, weights.bConvBias, shared, taps));
  const c = silu(causalConv(rawC, weights.cConv, weights.cConvBias, shared, taps));
  const dt = stepSize(rawDt, weights.dtBias, weights.stepLeast, weights.stepMost);
  const y = scan(x, b, c, dt, weights.a, weights.d, weights);
  const { normGroups, normDivisor } = weights;
  const sizes = { channels: inner, groups: normGroups, divisor: normDivisor, eps };
  const normed = gatedNorm(y, z, weights.gatedNorm, sizes);
  return matmul(normed, weights.out, tokens, width, inner, weights.outBias);
}

// Ops

/** out[t] = row tokens[t] of the embedding [vocabulary][width]. */
export function embed(embedding: Float64Array, width: number, tokens: ArrayLike<number>): Float64Array {
  const out = new Float64Array(tokens.length * width);
  for (let t = 0; t < tokens.length; t++) {
    for (let c = 0; c < width; c++) out[t * width + c] = embedding[tokens[t] * width + c];
  }
  return out;
}

/** out[t] = weight · x[t] / √(mean(x[t]²) + eps), for x [tokens][weight.length]. */
export function rmsNorm(x: Float64Array, weight: Float64Array, eps: number): Float64Array {
  const width = weight.length;
  const out = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    let sum = 0;
    for (let c = 0; c < width; c++) sum += x[start + c] * x[start + c];
    const scale = 1 / Math.sqrt(sum / width + eps);
    for (let c = 0; c < width; c++) out[start + c] = weight[c] * (x[start + c] * scale);
  }
  return out;
}

/** out[t][r] = bias[r] + Σ_c w[r][c] · x[t][c], for x [tokens][cols], w [rows][cols], out [tokens][rows]. */
export function matmul(
  x: Float64Array,
  w: Float64Array,
  tokens: number,
  rows: number,
  cols: number,
  bias: Float64Array | null = null,
): Float64Array {
  const out = new Float64Array(tokens * rows);
  for (let r = 0; r < rows; r++) {
    for (let t = 0; t < tokens; t++) {
      let sum = 0;
      for (let c = 0; c < cols; c++) sum += w[r * cols + c] * x[t * cols + c];
      out[t * rows + r] = bias ? bias[r] + sum : sum;
    }
  }
  return out;
}

/**
 * x rounded to 8 bit: each `group` consecutive numbers to multiples of their largest magnitude / 127. Computed in f32 as
 * stated, so that an executor rounds no number another way.
 */
export function quantizeActivations(x: Float64Array, group: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let from = 0; from < x.length; from += group) {
    const most = x.subarray(from, from + group).reduce((sofar, value) => Math.max(sofar, Math.abs(value)), 0);
    const inverse = most === 0 ? 0 : Math.fround(127 / most);
    for (let i = from; i < from + group; i++)
      out[i] = roundHalfToEven(Math.fround(x[i] * inverse)) * Math.fround(most / 127);
  }
  return out;
}

function roundHalfToEven(value: number): number {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}

/**
 * Rotates pair (i, i + dims / 2) of every head of x [tokens][heads][dims] by positions[t] · angles[kvHead][i], where
 * heads / kvHeads neighbouring heads share a kvHead. For k, heads = kvHeads.
 */
export function rope(
  x: Float64Array,
  positions: ArrayLike<number>,
  angles: Float64Array,
  heads: number,
  kvHeads: number,
  dims: number,
): Float64Array {
  const out = new Float64Array(x.length);
  const pairs = dims / 2;
  for (let t = 0; t < positions.length; t++) {
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      for (let i = 0; i < pairs; i++) {
        const angle = positions[t] * angles[kvHead * pairs + i];
        const at = (t * heads + head) * dims + i;
        out[at] = x[at] * Math.cos(angle) - x[at + pairs] * Math.sin(angle);
        out[at + pairs] = x[at + pairs] * Math.cos(angle) + x[at] * Math.sin(angle);
      }
    }
  }
  return out;
}

export interface AttentionSizes {
  queries: number;
  keys: number; // ≥ queries: query t stands at position keys − queries + t and sees the keys up to its own
  heads: number;
  kvHeads: number;
  dims: number;
  vDims: number;
  scale: number;
}

/** out[queries][heads][vDims] = Σ_s softmax_s(scale · q·k[s]) v[s]. q [queries][heads][dims], k and v [keys][kvHeads][…]. */
export function attention(q: Float64Array, k: Float64Array, v: Float64Array, sizes: AttentionSizes): Float64Array {
  const { queries, keys, heads, kvHeads, dims, vDims, scale } = sizes;
  const out = new Float64Array(queries * heads * vDims);
  const scores = new Float64Array(keys);
  for (let t = 0; t < queries; t++) {
    const seen = keys - queries + t + 1;
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / (heads / kvHeads));
      for (let s = 0; s < seen; s++) {
        let dot = 0;
        for (let d = 0; d < dims; d++) dot += q[(t * heads + head) * dims + d] * k[(s * kvHeads + kvHead) * dims + d];
        scores[s] = dot * scale;
      }
      const weights = softmax(scores.subarray(0, seen));
      for (let s = 0; s < seen; s++) {
        for (let d = 0; d < vDims; d++) {
          out[(t * heads + head) * vDims + d] += weights[s] * v[(s * kvHeads + kvHead) * vDims + d];
        }
      }
    }
  }
  return out;
}

/** out[i] = exp(x[i]) / Σ exp(x), over the whole array. */
export function softmax(x: Float64Array): Float64Array {
  let largest = -Infinity;
  for (let i = 0; i < x.length; i++) largest = Math.max(largest, x[i]);
  const out = x.map((value) => Math.exp(value - largest));
  let sum = 0;
  for (let i = 0; i < out.length; i++) sum += out[i];
  return out.map((value) => value / sum);
}

/** out[i] = x[i] / (1 + exp(−x[i])). */
export function silu(x: Float64Array): Float64Array {
  return x.map((value) => value / (1 + Math.exp(-value)));
}

/** out[i] = silu(gate[i]) · up[i]. */
export function swiglu(gate: Float64Array, up: Float64Array): Float64Array {
  return silu(gate).map((value, i) => value * up[i]);
}

/** out[i] = max(x[i], 0)². */
export function squaredRelu(x: Float64Array): Float64Array {
  return x.map((value) => Math.max(value, 0) ** 2);
}

/**
 * out[t][i] = bias[i] + Σ_j weight[i][j] · x[t − taps + 1 + j][i], for x [tokens][channels], weight [channels][taps].
 * `before` [taps − 1][channels] are the rows before the first, oldest first; zeros, where absent.
 */
export function causalConv(
  x: Float64Array,
  weight: Float64Array,
  bias: Float64Array | null,
  channels: number,
  taps: number,
  before: Float64Array = new Float64Array((taps - 1) * channels),
): Float64Array {
  const rows = new Float64Array(before.length + x.length);
  rows.set(before);
  rows.set(x, before.length);
  const out = new Float64Array(x.length);
  for (let at = 0; at < x.length; at++) {
    const i = at % channels;
    let sum = bias ? bias[i] : 0;
    for (let j = 0; j < taps; j++) sum += weight[i * taps + j] * rows[at + j * channels];
    out[at] = sum;
  }
  return out;
}

/** out[t][h] = softplus(dt[t][h] + bias[h]), not below `least` nor above `most`; softplus(x) = ln(1 + exp(x)). */
export function stepSize(dt: Float64Array, bias: Float64Array, least: number, most: number): Float64Array {
  return dt.map((value, i) => {
    const x = value + bias[i % bias.length];
    const softplus = Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))); // no power that overflows
    return Math.min(Math.max(softplus, least), most);
  });
}

export interface ScanSizes {
  heads: number;
  dims: number;
  groups: number; // heads / groups neighbouring heads share b and c
  state: number;
}

/**
 * Of each head, token by token: h = exp(dt · a) · h + dt · x ⊗ b; out = h · c + d · x. x and out [tokens][heads][dims],
 * b and c [tokens][groups][state], dt [tokens][heads], a and d [heads]. It goes on from h [heads][dims][state], and
 * leaves there what comes out.
 */
export function scan(
  x: Float64Array,
  b: Float64Array,
  c: Float64Array,
  dt: Float64Array,
  a: Float64Array,
  d: Float64Array,
  { heads, dims, groups, state }: ScanSizes,
  h: Float64Array = new Float64Array(heads * dims * state),
): Float64Array {
  const out = new Float64Array(x.length);
  for (let t = 0; t < dt.length / heads; t++) {
    for (let head = 0; head < heads; head++) {
      const group = Math.floor(head / (heads / groups));
      const step = dt[t * heads + head];
      const decay = Math.exp(step * a[head]);
      for (let p = 0; p < dims; p++) {
        const at = (t * heads + head) * dims + p;
        let sum = 0;
        for (let n = 0; n < state; n++) {
          const cell = (head * dims + p) * state + n;
          const shared = (t * groups + group) * state + n;
          h[cell] = decay * h[cell] + step * x[at] * b[shared];
          sum += h[cell] * c[shared];
        }
        out[at] = sum + d[head] * x[at];
      }
    }
  }
  return out;
}

export interface GatedNormSizes {
  channels: number;
  groups: number; // of channels / groups neighbouring channels each
  divisor: number;
  eps: number;
}

/** With v = y · silu(z): out = weight · v / √(Σ v² / divisor + eps), the sum over v's group; y and z [tokens][channels]. */
export function gatedNorm(
  y: Float64Array,
  z: Float64Array,
  weight: Float64Array,
  { channels, groups, divisor, eps }: GatedNormSizes,
): Float64Array {
  const v = swiglu(z, y);
  const out = new Float64Array(v.length);
  const size = channels / groups;
  for (let start = 0; start < v.length; start += size) {
    let sum = 0;
    for (let i = 0; i < size; i++) sum += v[start + i] * v[start + i];
    const scale = 1 / Math.sqrt(sum / divisor + eps);
    for (let i = 0; i < size; i++) out[start + i] = weight[(start + i) % channels] * (v[start + i] * scale);
  }
  return out;
}

/** out[i] = a[i] + b[i]. */
export function add(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + b[i]);
}

/** Index of the largest value of row `row` of x [rows][cols]; the first, where several tie. */
export function argmax(x: ArrayLike<number>, cols: number, row: number): number {
  let best = 0;
  for (let c = 1; c < cols; c++) if (x[row * cols + c] > x[row * cols + best]) best = c;
  return best;
}

/** Mean of −log softmax(logits[t])[tokens[t + 1]] over t = 0 … tokens − 2; perplexity is its exponential. */
export function meanLoss(logits: Float64Array, tokens: ArrayLike<number>, vocabulary: number): number {
  let sum = 0;
  for (let t = 0; t + 1 < tokens.length; t++) {
    sum -= Math.log(softmax(logits.subarray(t * vocabulary, (t + 1) * vocabulary))[tokens[t + 1]]);
  }
  return sum / (tokens.length - 1);
}
