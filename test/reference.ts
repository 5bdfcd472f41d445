// What every op means, and one whole forward pass: f64, plain loops, no tricks. Executors are compared with this file,
// this file with the goldens of transformers. It takes the weights of a cut model as they are: each layer has its own
// number of dimensions, and any of them may be 0. Arrays are row-major; shapes are in the comments.

import type { Checkpoint } from "../packs/checkpoint";
import { type Role, readOptionalTensor, readTensor } from "../packs/families";

export interface ReferenceModel {
  width: number;
  vocabulary: number;
  heads: number;
  kvHeads: number;
  /** Of the uncut head: the softmax scale is 1 / √headDim at every cut. */
  headDim: number;
  normEps: number;
  embedding: Float64Array; // [vocabulary][width]
  head: Float64Array | null; // [vocabulary][width]; null = the embedding
  finalNorm: Float64Array; // [width]
  layers: ReferenceLayer[];
}

/** `attention` or `mlp` = null: nothing is added to the residual stream. */
export interface ReferenceLayer {
  attentionNorm: Float64Array; // [width]
  attention: ReferenceAttention | null;
  mlpNorm: Float64Array; // [width]
  mlp: ReferenceMlp | null;
}

/** dims = 0: every key scores alike. vDims = 0: only the bias of o is added. */
export interface ReferenceAttention {
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
  ropeAngles: Float64Array; // [kvHeads][dims / 2] per position, radians; the pair is (i, i + dims / 2)
}

/** channels = 0: only the bias of down is added. */
export interface ReferenceMlp {
  channels: number;
  gate: Float64Array; // [channels][width]
  up: Float64Array; // [channels][width]
  down: Float64Array; // [width][channels]
  gateBias: Float64Array | null; // [channels]
  upBias: Float64Array | null; // [channels]
  downBias: Float64Array | null; // [width]
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
    if (layer.attention) x = add(x, attentionBlock(model, layer.attention, rmsNorm(x, layer.attentionNorm, normEps)));
    if (layer.mlp) x = add(x, mlpBlock(layer.mlp, rmsNorm(x, layer.mlpNorm, normEps), width));
  }
  x = rmsNorm(x, model.finalNorm, normEps);
  hidden.push(x);
  return { logits: matmul(x, model.head ?? model.embedding, tokens.length, model.vocabulary, width), hidden };
}

/** out[tokens][width]: q, k, v of the normed x, rope, attention, o. */
export function attentionBlock(model: ReferenceModel, weights: ReferenceAttention, x: Float64Array): Float64Array {
  const { width, heads, kvHeads } = model;
  const { dims, vDims } = weights;
  const tokens = x.length / width;
  const positions = Float64Array.from({ length: tokens }, (_, position) => position);
  const q = matmul(x, weights.q, tokens, heads * dims, width, weights.qBias);
  const k = matmul(x, weights.k, tokens, kvHeads * dims, width, weights.kBias);
  const v = matmul(x, weights.v, tokens, kvHeads * vDims, width, weights.vBias);
  const rotatedQ = rope(q, positions, weights.ropeAngles, heads, kvHeads, dims);
  const rotatedK = rope(k, positions, weights.ropeAngles, kvHeads, kvHeads, dims);
  const sizes = { queries: tokens, keys: tokens, heads, kvHeads, dims, vDims, scale: 1 / Math.sqrt(model.headDim) };
  return matmul(attention(rotatedQ, rotatedK, v, sizes), weights.o, tokens, width, heads * vDims, weights.oBias);
}

/** out[tokens][width]: down(swiglu(gate x, up x)) of the normed x. */
export function mlpBlock(weights: ReferenceMlp, x: Float64Array, width: number): Float64Array {
  const tokens = x.length / width;
  const gate = matmul(x, weights.gate, tokens, weights.channels, width, weights.gateBias);
  const up = matmul(x, weights.up, tokens, weights.channels, width, weights.upBias);
  return matmul(swiglu(gate, up), weights.down, tokens, width, weights.channels, weights.downBias);
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

/** out[i] = silu(gate[i]) · up[i], where silu(x) = x / (1 + exp(−x)). */
export function swiglu(gate: Float64Array, up: Float64Array): Float64Array {
  return gate.map((value, i) => (value / (1 + Math.exp(-value))) * up[i]);
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

// A whole checkpoint, uncut

/** All weights of a checkpoint as a reference model. */
export async function readReference(checkpoint: Checkpoint): Promise<ReferenceModel> {
  const { config } = checkpoint;
  const { kvHeads, headDim } = config;
  const weights = async (role: Role, layer = 0) => Float64Array.from(await readTensor(checkpoint, role, layer));
  const optional = async (role: Role, layer = 0) => {
    const values = await readOptionalTensor(checkpoint, role, layer);
    return values && Float64Array.from(values);
  };
  const ropeAngles = new Float64Array((kvHeads * headDim) / 2);
  for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
    ropeAngles.set(config.ropeInverseFrequencies, (kvHead * headDim) / 2);
  }
  const layers: ReferenceLayer[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    layers.push({
      attentionNorm: await weights("attentionNorm", layer),
      attention: {
        dims: headDim,
        vDims: headDim,
        q: await weights("q", layer),
        k: await weights("k", layer),
        v: await weights("v", layer),
        o: await weights("o", layer),
        qBias: await optional("qBias", layer),
        kBias: await optional("kBias", layer),
        vBias: await optional("vBias", layer),
        oBias: await optional("oBias", layer),
        ropeAngles,
      },
      mlpNorm: await weights("mlpNorm", layer),
      mlp: {
        channels: config.mlpWidth,
        gate: await weights("gate", layer),
        up: await weights("up", layer),
        down: await weights("down", layer),
        gateBias: await optional("gateBias", layer),
        upBias: await optional("upBias", layer),
        downBias: await optional("downBias", layer),
      },
    });
  }
  return {
    width: config.width,
    vocabulary: config.vocabulary,
    heads: config.heads,
    kvHeads,
    headDim,
    normEps: config.normEps,
    embedding: await weights("embedding"),
    head: await optional("head"),
    finalNorm: await weights("finalNorm"),
    layers,
  };
}
