// Attention of a step's rows over the KV cache: every row attends to the positions of its own sequence up to its own.
//
// A query is one head of one row. Queries of a kv head are taken in tiles: those of a sequence, and of sequences that begin
// alike, which attend to the blocks that they share at once (as in arXiv 2402.05099). Tiles go over the cache block by
// block, and a query's softmax is corrected whenever a block has a larger score (arXiv 2205.14135). Both products,
// queries × keys and weights × values, are one function over panels of eight columns. What is done for a query does not
// depend on its tile, so neither does it on the threads.

import {
  ATTENTION_CODED,
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
  ATTENTION_SCRATCH,
  ATTENTION_TABLE,
  ATTENTION_V,
  ATTENTION_V_CACHE,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  CACHE_BLOCK,
  ROW_BYTES,
  ROW_POSITION,
  ROW_SEQUENCE,
} from "../abi";
import {
  CACHE_LANES,
  cache_block_bytes,
  cache_block_ptr,
  cache_key,
  cache_scale,
  cache_slab_blocks,
  cache_value,
  cache_value_dims,
} from "../kv-cache";
import { madd4, power4, sum4 } from "../math";
import { share_end, share_start, thread_index, threads_meet } from "../threads";

/** Most queries of a tile. */
const TILE: u32 = 16;
const SCORES_BYTES: u32 = CACHE_BLOCK * 4; // of one query
const LANES_BYTES: u32 = CACHE_LANES * 4;
/** Of a code of the cache. */
const CODE_MAX: f32 = 127;
const ROUND: f32 = 12582912; // 1.5 × 2^23
const LOG2_E: f32 = 1.4426950408889634;

/** f32 of scratch that a thread wants for heads of so many kept dims; coded: with a cache of codes. */
export function attention_scratch_floats(qkDims: u32, voDims: u32, coded: bool): u32 {
  const outDims = cache_value_dims(voDims);
  return TILE * (qkDims + CACHE_BLOCK + outDims + 4) + (coded ? CACHE_BLOCK * max(qkDims, outDims) : 0);
}

/** OP_ATTENTION over `count` rows. */
export function attention(op: usize, steps: usize, count: u32): void {
  store_rows(op, steps, count);
  threads_meet();
  const heads = load<u32>(op, ATTENTION_HEADS);
  const kvHeads = load<u32>(op, ATTENTION_KV_HEADS);
  const share = heads / kvHeads;
  // Queries are numbered by kv head, row, head of the kv head.
  const end = share_end(count * heads);
  for (let first = share_start(count * heads); first < end; ) {
    const kvHead = first / (count * share);
    const query = first % (count * share);
    const most = min(min(count * share - query, end - first), TILE);
    let queries: u32 = 1;
    while (queries < most && go_together(op, steps, (query + queries - 1) / share, (query + queries) / share))
      queries++;
    attend(op, steps, kvHead, query, queries);
    first += queries;
  }
}

/** Are two rows of one sequence, or of two that begin with the same block? */
function go_together(op: usize, steps: usize, row: u32, next: u32): bool {
  return row == next || load<u32>(table_of(op, steps, row)) == load<u32>(table_of(op, steps, next));
}

/** Address of the places of the blocks of a row's sequence. */
function table_of(op: usize, steps: usize, row: u32): usize {
  const blocks = cache_slab_blocks(load<u32>(op, ATTENTION_CONTEXT));
  return load<u32>(op, ATTENTION_TABLE) + load<u32>(steps + row * ROW_BYTES, ROW_SEQUENCE) * blocks * 4;
}

/** Stores k and v of the rows in the cache: this thread's share of them. */
function store_rows(op: usize, steps: usize, count: u32): void {
  const coded = load<u32>(op, ATTENTION_CODED) != 0;
  const blocks = cache_slab_blocks(load<u32>(op, ATTENTION_CONTEXT));
  const table: usize = load<u32>(op, ATTENTION_TABLE);
  const kvHeads = load<u32>(op, ATTENTION_KV_HEADS);
  const qkUnits = load<u32>(op, ATTENTION_QK_UNITS);
  const qkChannels = load<u32>(op, ATTENTION_QK_CHANNELS);
  const voUnits = load<u32>(op, ATTENTION_VO_UNITS);
  const voChannels = load<u32>(op, ATTENTION_VO_CHANNELS);
  const qkDims = qkUnits * qkChannels;
  const voDims = cache_value_dims(voUnits * voChannels);
  const end = share_end(count * kvHeads);
  for (let i = share_start(count * kvHeads); i < end; i++) {
    const t = i / kvHeads;
    const kvHead = i % kvHeads;
    const position = load<u32>(steps + t * ROW_BYTES, ROW_POSITION);
    const sequence = load<u32>(steps + t * ROW_BYTES, ROW_SEQUENCE);
    const place = load<u32>(table + (sequence * blocks + position / CACHE_BLOCK) * 4);
    const keyBytes = cache_block_bytes(qkDims, coded);
    const valueBytes = cache_block_bytes(voDims, coded);
    const keys = cache_block_ptr(load<u32>(op, ATTENTION_K_CACHE), blocks, keyBytes, place, kvHead);
    const values = cache_block_ptr(load<u32>(op, ATTENTION_V_CACHE), blocks, valueBytes, place, kvHead);
    let from: usize = load<u32>(op, ATTENTION_K) + (t * qkUnits * kvHeads + kvHead) * qkChannels * 4;
    let inverse = coded ? take_scale(from, qkUnits, qkChannels, kvHeads, keys + cache_scale(position, qkDims)) : 0;
    let key = cache_key(position, qkDims);
    for (let u: u32 = 0; u < qkUnits; u++) {
      for (let c: u32 = 0; c < qkChannels; c++) {
        put(keys, key, load<f32>(from + c * 4), inverse, coded);
        key += CACHE_LANES;
      }
      from += kvHeads * qkChannels * 4;
    }
    from = load<u32>(op, ATTENTION_V) + (t * voUnits * kvHeads + kvHead) * voChannels * 4;
    inverse = coded ? take_scale(from, voUnits, voChannels, kvHeads, values + cache_scale(position, voDims)) : 0;
    for (let u: u32 = 0; u < voUnits; u++) {
      for (let c: u32 = 0; c < voChannels; c++)
        put(values, cache_value(position, u * voChannels + c), load<f32>(from + c * 4), inverse, coded);
      from += kvHeads * voChannels * 4;
    }
  }
}

/** Stores the scale of a head's key or value, a stretch of `channels` for each unit; what makes codes of its numbers. */
function take_scale(from: usize, units: u32, channels: u32, kvHeads: u32, scale: usize): f32 {
  if (units == 0) return 0;
  let most: f32 = 0;
  for (let u: u32 = 0; u < units; u++) {
    for (let c: u32 = 0; c < channels; c++) most = max<f32>(most, abs<f32>(load<f32>(from + c * 4)));
    from += kvHeads * channels * 4;
  }
  store<f32>(scale, most / CODE_MAX);
  return most > 0 ? CODE_MAX / most : 0;
}

/** The index-th number of a block. */
function put(block: usize, index: u32, value: f32, inverse: f32, coded: bool): void {
  // A sum this large has no fraction: it is rounded, and its low bits are the code.
  if (coded) store<u8>(block + index, reinterpret<u32>(value * inverse + ROUND) as u8);
  else store<f32>(block + index * 4, value);
}

/** Keys of the first `positions` of a block of codes, as a block of f32 has them. */
function expand_keys(block: usize, dims: u32, positions: u32, to: usize): void {
  if (dims == 0) return;
  let codes = block;
  for (let p: u32 = 0; p < positions; p += CACHE_LANES) {
    const scales = block + cache_scale(p, dims);
    const low = v128.load(scales);
    const high = v128.load(scales, 16);
    for (const end = codes + dims * CACHE_LANES; codes < end; codes += CACHE_LANES) {
      const some = v128.load8x8_s(codes);
      v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(some)), low));
      v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(some)), high), 16);
      to += LANES_BYTES;
    }
  }
}

/** Values of the first `positions` of a block of codes, as a block of f32 has them. */
function expand_values(block: usize, dims: u32, positions: u32, to: usize): void {
  const scales = block + cache_scale(0, dims);
  for (let d: u32 = 0; d < dims; d += CACHE_LANES) {
    const codes = block + d * CACHE_BLOCK;
    const panel = to + d * SCORES_BYTES;
    for (let p: u32 = 0; p < positions; p++) {
      const scale = v128.load32_splat(scales + p * 4);
      const some = v128.load8x8_s(codes + p * CACHE_LANES);
      const place = panel + p * LANES_BYTES;
      v128.store(place, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(some)), scale));
      v128.store(place, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(some)), scale), 16);
    }
  }
}

/** One tile: `queries` of a kv head, from number `first` on. */
function attend(op: usize, steps: usize, kvHead: u32, first: u32, queries: u32): void {
  const blocks = cache_slab_blocks(load<u32>(op, ATTENTION_CONTEXT));
  const share = load<u32>(op, ATTENTION_HEADS) / load<u32>(op, ATTENTION_KV_HEADS);
  const qkDims = load<u32>(op, ATTENTION_QK_UNITS) * load<u32>(op, ATTENTION_QK_CHANNELS);
  const voDims = load<u32>(op, ATTENTION_VO_UNITS) * load<u32>(op, ATTENTION_VO_CHANNELS);
  const outDims = cache_value_dims(voDims);
  const qBytes = qkDims * 4;
  const outBytes = outDims * 4;
  const coded = load<u32>(op, ATTENTION_CODED) != 0;
  const keyBytes = cache_block_bytes(qkDims, coded);
  const valueBytes = cache_block_bytes(outDims, coded);
  const q = load<u32>(op, ATTENTION_SCRATCH) + thread_index() * attention_scratch_floats(qkDims, voDims, coded) * 4;
  const scores: usize = q + TILE * qBytes; // [TILE][CACHE_BLOCK], then the weights
  const out: usize = scores + TILE * SCORES_BYTES; // [TILE][outDims]
  const mosts: usize = out + TILE * outBytes; // [TILE]: largest score so far
  const sums: usize = mosts + TILE * 4; // [TILE]: of the weights
  const ends: usize = sums + TILE * 4; // [TILE] of u32: positions that the query attends to
  const tables: usize = ends + TILE * 4; // [TILE] of u32: table_of()
  const expanded: usize = tables + TILE * 4; // keys, then values, of a block of codes

  gather(op, kvHead, first, queries, q);
  memory.fill(out, 0, queries * outBytes);
  let positions: u32 = 0;
  for (let i: u32 = 0; i < queries; i++) {
    const row = (first + i) / share;
    const end = load<u32>(steps + row * ROW_BYTES, ROW_POSITION) + 1;
    positions = max(positions, end);
    store<f32>(mosts + i * 4, -Infinity);
    store<f32>(sums + i * 4, 0);
    store<u32>(ends + i * 4, end);
    store<u32>(tables + i * 4, table_of(op, steps, row) as u32);
  }
  for (let start: u32 = 0; start < positions; start += CACHE_BLOCK) {
    for (let i: u32 = 0; i < queries; ) {
      if (load<u32>(ends + i * 4) <= start) {
        i++;
        continue;
      }
      // The queries from i on that attend to the same block.
      const place = place_at(tables + i * 4, start);
      let end: u32 = 0;
      let run: u32 = 0;
      while (i + run < queries) {
        const own = load<u32>(ends + (i + run) * 4);
        if (own <= start || place_at(tables + (i + run) * 4, start) != place) break;
        end = max(end, own);
        run++;
      }
      let keys = cache_block_ptr(load<u32>(op, ATTENTION_K_CACHE), blocks, keyBytes, place, kvHead);
      let values = cache_block_ptr(load<u32>(op, ATTENTION_V_CACHE), blocks, valueBytes, place, kvHead);
      const block = min(end - start, CACHE_BLOCK);
      const ownScores = scores + i * SCORES_BYTES;
      if (coded) {
        expand_keys(keys, qkDims, block, expanded);
        keys = expanded;
      }
      memory.fill(ownScores, 0, run * SCORES_BYTES);
      for (let p: u32 = 0; p < block; p += CACHE_LANES)
        multiply(run, q + i * qBytes, qBytes, keys + p * qBytes, qkDims, ownScores + p * 4, SCORES_BYTES);
      for (let j = i; j < i + run; j++) {
        const seen = load<u32>(ends + j * 4) - start;
        weigh(scores + j * SCORES_BYTES, seen, mosts + j * 4, sums + j * 4, out + j * outBytes, outBytes);
      }
      if (coded) {
        expand_values(values, outDims, block, expanded);
        values = expanded;
      }
      for (let d: u32 = 0; d < outDims; d += CACHE_LANES)
        multiply(run, ownScores, SCORES_BYTES, values + d * SCORES_BYTES, block, out + i * outBytes + d * 4, outBytes);
      i += run;
    }
  }
  scatter(op, kvHead, first, queries, out, outBytes, sums);
}

/** The place of the block with the position `start`, by a query's table. */
function place_at(table: usize, start: u32): u32 {
  return load<u32>((load<u32>(table) as usize) + (start / CACHE_BLOCK) * 4);
}

/** q[i] = query first + i × scale × log2 e, the units' dims side by side: scores are powers of 2. */
function gather(op: usize, kvHead: u32, first: u32, queries: u32, q: usize): void {
  const heads = load<u32>(op, ATTENTION_HEADS);
  const share = heads / load<u32>(op, ATTENTION_KV_HEADS);
  const units = load<u32>(op, ATTENTION_QK_UNITS);
  const bytes = load<u32>(op, ATTENTION_QK_CHANNELS) * 4;
  const scale = load<f32>(op, ATTENTION_SCALE) * LOG2_E;
  for (let i = first; i < first + queries; i++) {
    let from: usize = load<u32>(op, ATTENTION_Q) + ((i / share) * units * heads + kvHead * share + (i % share)) * bytes;
    for (let u: u32 = 0; u < units; u++) {
      scaled(from, bytes, scale, q);
      from += heads * bytes;
      q += bytes;
    }
  }
}

/** Query first + i of the op's output = out[i] / sums[i]. */
function scatter(op: usize, kvHead: u32, first: u32, queries: u32, out: usize, outBytes: u32, sums: usize): void {
  const heads = load<u32>(op, ATTENTION_HEADS);
  const share = heads / load<u32>(op, ATTENTION_KV_HEADS);
  const units = load<u32>(op, ATTENTION_VO_UNITS);
  const bytes = load<u32>(op, ATTENTION_VO_CHANNELS) * 4;
  for (let i = first; i < first + queries; i++) {
    let to: usize = load<u32>(op, ATTENTION_OUT) + ((i / share) * units * heads + kvHead * share + (i % share)) * bytes;
    const scale: f32 = 1 / load<f32>(sums);
    for (let u: u32 = 0; u < units; u++) {
      scaled(out + u * bytes, bytes, scale, to);
      to += heads * bytes;
    }
    out += outBytes;
    sums += 4;
  }
}

/** to = from × scale, `bytes` of f32. */
function scaled(from: usize, bytes: u32, scale: f32, to: usize): void {
  const scale4 = f32x4.splat(scale);
  let i: u32 = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(to + i, f32x4.mul(v128.load(from + i), scale4));
  for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(from + i) * scale);
}

/**
 * scores ← 2^(score − most), or 0 from `seen` on, where most is the largest so far; if this block has a larger one, what
 * was added up before, `sum` and `out`, is made smaller by as much. scores: f32 [CACHE_BLOCK].
 */
function weigh(scores: usize, seen: u32, most: usize, sum: usize, out: usize, outBytes: u32): void {
  for (let i = seen; i < CACHE_BLOCK; i++) store<f32>(scores + i * 4, -Infinity);
  let most4 = v128.load(scores);
  for (let i: u32 = 16; i < SCORES_BYTES; i += 16) most4 = f32x4.pmax(most4, v128.load(scores + i));
  const before = load<f32>(most);
  const after = max<f32>(before, max4(most4));
  if (after > before) {
    const factor = f32x4.extract_lane(power4(f32x4.splat(before - after)), 0);
    store<f32>(most, after);
    store<f32>(sum, load<f32>(sum) * factor);
    scaled(out, outBytes, factor, out);
  }
  const after4 = f32x4.splat(after);
  let sum4s = f32x4.splat(0);
  for (let i: u32 = 0; i < SCORES_BYTES; i += 16) {
    const weight = power4(f32x4.sub(v128.load(scores + i), after4));
    v128.store(scores + i, weight);
    sum4s = f32x4.add(sum4s, weight);
  }
  store<f32>(sum, load<f32>(sum) + sum4(sum4s));
}

/** c[r][0 … 8) += Σ_i a[r][i] · b[i][0 … 8). aBytes, cBytes: from row to row; b: [k][8]. */
function multiply(rows: u32, a: usize, aBytes: u32, b: usize, k: u32, c: usize, cBytes: u32): void {
  while (rows >= 4) {
    multiply_4(a, aBytes, b, k, c, cBytes);
    a += aBytes << 2;
    c += cBytes << 2;
    rows -= 4;
  }
  if (rows > 0) multiply_3(rows, a, aBytes, b, k, c, cBytes);
}

function multiply_4(a: usize, aBytes: u32, b: usize, k: u32, c: usize, cBytes: u32): void {
  const c1 = c + cBytes;
  const c2 = c1 + cBytes;
  const c3 = c2 + cBytes;
  let l0 = v128.load(c);
  let h0 = v128.load(c, 16);
  let l1 = v128.load(c1);
  let h1 = v128.load(c1, 16);
  let l2 = v128.load(c2);
  let h2 = v128.load(c2, 16);
  let l3 = v128.load(c3);
  let h3 = v128.load(c3, 16);
  let a1 = a + aBytes;
  let a2 = a1 + aBytes;
  let a3 = a2 + aBytes;
  for (const end = a + k * 4; a < end; a += 4) {
    const low = v128.load(b);
    const high = v128.load(b, 16);
    b += 32;
    const x0 = v128.load32_splat(a);
    l0 = madd4(x0, low, l0);
    h0 = madd4(x0, high, h0);
    const x1 = v128.load32_splat(a1);
    l1 = madd4(x1, low, l1);
    h1 = madd4(x1, high, h1);
    const x2 = v128.load32_splat(a2);
    l2 = madd4(x2, low, l2);
    h2 = madd4(x2, high, h2);
    const x3 = v128.load32_splat(a3);
    l3 = madd4(x3, low, l3);
    h3 = madd4(x3, high, h3);
    a1 += 4;
    a2 += 4;
    a3 += 4;
  }
  v128.store(c, l0);
  v128.store(c, h0, 16);
  v128.store(c1, l1);
  v128.store(c1, h1, 16);
  v128.store(c2, l2);
  v128.store(c2, h2, 16);
  v128.store(c3, l3);
  v128.store(c3, h3, 16);
}

/** Three rows, or one or two: those that are not there are the last one once more. */
function multiply_3(rows: u32, a: usize, aBytes: u32, b: usize, k: u32, c: usize, cBytes: u32): void {
  const c1 = rows > 1 ? c + cBytes : c;
  const c2 = rows > 2 ? c1 + cBytes : c1;
  let l0 = v128.load(c);
  let h0 = v128.load(c, 16);
  let l1 = v128.load(c1);
  let h1 = v128.load(c1, 16);
  let l2 = v128.load(c2);
  let h2 = v128.load(c2, 16);
  let a1 = rows > 1 ? a + aBytes : a;
  let a2 = rows > 2 ? a1 + aBytes : a1;
  for (const end = a + k * 4; a < end; a += 4) {
    const low = v128.load(b);
    const high = v128.load(b, 16);
    b += 32;
    const x0 = v128.load32_splat(a);
    l0 = madd4(x0, low, l0);
    h0 = madd4(x0, high, h0);
    const x1 = v128.load32_splat(a1);
    l1 = madd4(x1, low, l1);
    h1 = madd4(x1, high, h1);
    const x2 = v128.load32_splat(a2);
    l2 = madd4(x2, low, l2);
    h2 = madd4(x2, high, h2);
    a1 += 4;
    a2 += 4;
  }
  v128.store(c, l0);
  v128.store(c, h0, 16);
  v128.store(c1, l1);
  v128.store(c1, h1, 16);
  v128.store(c2, l2);
  v128.store(c2, h2, 16);
}

function max4(v: v128): f32 {
  return max<f32>(
    max<f32>(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)),
    max<f32>(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)),
  );
}
