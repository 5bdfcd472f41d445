// Attention of a step's rows over the KV cache: every row attends to the positions of its own sequence up to its own.

import {
  ATTENTION_CONTEXT,
  ATTENTION_HEADS,
  ATTENTION_K,
  ATTENTION_K_CACHE,
  ATTENTION_KV_HEADS,
  ATTENTION_OUT,
  ATTENTION_Q,
  ATTENTION_QK_CHANNELS,
  ATTENTION_QK_UNITS,
  ATTENTION_SCALE,
  ATTENTION_SCORES,
  ATTENTION_V,
  ATTENTION_V_CACHE,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  ROW_BYTES,
  ROW_POSITION,
  ROW_SEQUENCE,
} from "../abi";
import { cache_ptr } from "../kv-cache";
import { exp1, exp4, sum4 } from "../math";

/** OP_ATTENTION over `count` rows. */
export function attention(op: usize, steps: usize, count: u32): void {
  const heads = load<u32>(op, ATTENTION_HEADS);
  const kvHeads = load<u32>(op, ATTENTION_KV_HEADS);
  const qkUnits = load<u32>(op, ATTENTION_QK_UNITS);
  const qkChannels = load<u32>(op, ATTENTION_QK_CHANNELS);
  const voUnits = load<u32>(op, ATTENTION_VO_UNITS);
  const voChannels = load<u32>(op, ATTENTION_VO_CHANNELS);
  const kCache: usize = load<u32>(op, ATTENTION_K_CACHE);
  const vCache: usize = load<u32>(op, ATTENTION_V_CACHE);
  const scores: usize = load<u32>(op, ATTENTION_SCORES);
  const scale = load<f32>(op, ATTENTION_SCALE);
  const context = load<u32>(op, ATTENTION_CONTEXT);
  const kFloats = kvHeads * qkUnits * qkChannels;
  const vFloats = kvHeads * voUnits * voChannels;
  const qBytes = heads * qkUnits * qkChannels * 4;
  const outBytes = heads * voUnits * voChannels * 4;

  const k: usize = load<u32>(op, ATTENTION_K);
  const v: usize = load<u32>(op, ATTENTION_V);
  for (let t: u32 = 0; t < count; t++) {
    const row = steps + t * ROW_BYTES;
    const position = load<u32>(row, ROW_POSITION);
    const sequence = load<u32>(row, ROW_SEQUENCE);
    memory.copy(
      cache_ptr(kCache, sequence, context, kFloats) + position * kFloats * 4,
      k + t * kFloats * 4,
      kFloats * 4,
    );
    memory.copy(
      cache_ptr(vCache, sequence, context, vFloats) + position * vFloats * 4,
      v + t * vFloats * 4,
      vFloats * 4,
    );
  }

  const share = heads / kvHeads;
  let q: usize = load<u32>(op, ATTENTION_Q);
  let out: usize = load<u32>(op, ATTENTION_OUT);
  for (let t: u32 = 0; t < count; t++) {
    const row = steps + t * ROW_BYTES;
    const positions = load<u32>(row, ROW_POSITION) + 1;
    const sequence = load<u32>(row, ROW_SEQUENCE);
    const keys = cache_ptr(kCache, sequence, context, kFloats);
    const values = cache_ptr(vCache, sequence, context, vFloats);
    memory.fill(out, 0, outBytes);
    for (let h: u32 = 0; h < heads; h++) {
      const kvHead = h / share;
      for (let i: u32 = 0; i < positions; i++) store<f32>(scores + i * 4, 0);
      for (let u: u32 = 0; u < qkUnits; u++) {
        const head = q + (u * heads + h) * qkChannels * 4;
        const key = keys + (u * kvHeads + kvHead) * qkChannels * 4;
        add_scores(scores, head, key, kFloats * 4, qkChannels, positions);
      }
      const sum = softmax(scores, positions, scale);
      for (let u: u32 = 0; u < voUnits; u++) {
        const value = values + (u * kvHeads + kvHead) * voChannels * 4;
        add_values(out + (u * heads + h) * voChannels * 4, scores, value, vFloats * 4, voChannels, positions, 1 / sum);
      }
    }
    q += qBytes;
    out += outBytes;
  }
}

/** scores[i] += Σ_c q[c] · k[i][c]; k's positions are `stride` bytes apart. */
function add_scores(scores: usize, q: usize, k: usize, stride: u32, channels: u32, positions: u32): void {
  const bytes = channels * 4;
  const wide = (channels & ~3) * 4;
  let i: u32 = 0;
  if (wide == bytes) {
    // Four positions at once: their four sums are added up crosswise.
    for (; i + 4 <= positions; i += 4) {
      let s0 = f32x4.splat(0);
      let s1 = f32x4.splat(0);
      let s2 = f32x4.splat(0);
      let s3 = f32x4.splat(0);
      let k0 = k;
      let k1 = k + stride;
      let k2 = k1 + stride;
      let k3 = k2 + stride;
      for (let c: u32 = 0; c < wide; c += 16) {
        const query = v128.load(q + c);
        s0 = f32x4.add(s0, f32x4.mul(query, v128.load(k0)));
        s1 = f32x4.add(s1, f32x4.mul(query, v128.load(k1)));
        s2 = f32x4.add(s2, f32x4.mul(query, v128.load(k2)));
        s3 = f32x4.add(s3, f32x4.mul(query, v128.load(k3)));
        k0 += 16;
        k1 += 16;
        k2 += 16;
        k3 += 16;
      }
      const a = f32x4.add(v128.shuffle<f32>(s0, s1, 0, 4, 1, 5), v128.shuffle<f32>(s0, s1, 2, 6, 3, 7));
      const b = f32x4.add(v128.shuffle<f32>(s2, s3, 0, 4, 1, 5), v128.shuffle<f32>(s2, s3, 2, 6, 3, 7));
      const sums = f32x4.add(v128.shuffle<f32>(a, b, 0, 1, 4, 5), v128.shuffle<f32>(a, b, 2, 3, 6, 7));
      v128.store(scores, f32x4.add(v128.load(scores), sums));
      scores += 16;
      k += stride << 2;
    }
  }
  for (; i < positions; i++) {
    let sums = f32x4.splat(0);
    let c: u32 = 0;
    for (; c < wide; c += 16) sums = f32x4.add(sums, f32x4.mul(v128.load(q + c), v128.load(k + c)));
    let sum = sum4(sums);
    for (; c < bytes; c += 4) sum += load<f32>(q + c) * load<f32>(k + c);
    store<f32>(scores, load<f32>(scores) + sum);
    scores += 4;
    k += stride;
  }
}

/** scores[i] ← e^(scale × (scores[i] − max)); returns their sum. */
function softmax(scores: usize, positions: u32, scale: f32): f32 {
  let most: f32 = -Infinity;
  for (let i: u32 = 0; i < positions; i++) most = max<f32>(most, load<f32>(scores + i * 4));
  const wide = (positions & ~3) * 4;
  const scales = f32x4.splat(scale);
  const mosts = f32x4.splat(most);
  let sums = f32x4.splat(0);
  let i: u32 = 0;
  for (; i < wide; i += 16) {
    const e = exp4(f32x4.mul(f32x4.sub(v128.load(scores + i), mosts), scales));
    v128.store(scores + i, e);
    sums = f32x4.add(sums, e);
  }
  let sum = sum4(sums);
  for (; i < positions * 4; i += 4) {
    const e = exp1((load<f32>(scores + i) - most) * scale);
    store<f32>(scores + i, e);
    sum += e;
  }
  return sum;
}

/** out[c] = Σ_i p[i] · v[i][c] × factor; v's positions are `stride` bytes apart. */
function add_values(out: usize, p: usize, v: usize, stride: u32, channels: u32, positions: u32, factor: f32): void {
  const wide = (channels & ~3) * 4;
  const bytes = channels * 4;
  const factors = f32x4.splat(factor);
  let c: u32 = 0;
  for (; c + 64 <= wide; c += 64) {
    let s0 = f32x4.splat(0);
    let s1 = f32x4.splat(0);
    let s2 = f32x4.splat(0);
    let s3 = f32x4.splat(0);
    let value = v + c;
    for (let i: u32 = 0; i < positions; i++) {
      const share = v128.load32_splat(p + i * 4);
      s0 = f32x4.add(s0, f32x4.mul(share, v128.load(value)));
      s1 = f32x4.add(s1, f32x4.mul(share, v128.load(value, 16)));
      s2 = f32x4.add(s2, f32x4.mul(share, v128.load(value, 32)));
      s3 = f32x4.add(s3, f32x4.mul(share, v128.load(value, 48)));
      value += stride;
    }
    v128.store(out + c, f32x4.mul(s0, factors));
    v128.store(out + c, f32x4.mul(s1, factors), 16);
    v128.store(out + c, f32x4.mul(s2, factors), 32);
    v128.store(out + c, f32x4.mul(s3, factors), 48);
  }
  for (; c < wide; c += 16) {
    let sums = f32x4.splat(0);
    let value = v + c;
    for (let i: u32 = 0; i < positions; i++) {
      sums = f32x4.add(sums, f32x4.mul(v128.load32_splat(p + i * 4), v128.load(value)));
      value += stride;
    }
    v128.store(out + c, f32x4.mul(sums, factors));
  }
  for (; c < bytes; c += 4) {
    let sum: f32 = 0;
    for (let i: u32 = 0; i < positions; i++) sum += load<f32>(p + i * 4) * load<f32>(v + c + i * stride);
    store<f32>(out + c, sum * factor);
  }
}
