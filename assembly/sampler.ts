// Chooses the next token from logits. The same settings and seed give the same tokens on every machine. There is one
// sampler; a host with several sequences swaps its SAMPLER_BYTES at sampler_state(), which are settings and seed alike.
//
// In this order, as transformers does: repetition penalty, temperature, top-k, top-p, min-p; each works on what the one
// before it kept, with probabilities that add up to 1 again. Equal logits: the lower id comes first.

import { SAMPLER_BYTES, STATUS_ARGUMENT, STATUS_OK } from "./abi";
import { fail } from "./status";

const sampler = memory.data(SAMPLER_BYTES, 8);
const TEMPERATURE: usize = 0; // f32; 0 until configured: the best token
const TOP_K: usize = 4; // u32
const TOP_P: usize = 8; // f32
const MIN_P: usize = 12; // f32
const PENALTY: usize = 16; // f32
const RANDOM: usize = 24; // u32 [4]

const NOTHING: f32 = -Infinity;
const LN2_HIGH: f64 = 0.6931471803691238;
const LN2_LOW: f64 = 1.9082149292705877e-10;
const EXP_MIN: f64 = -50; // next to the best one's 1, less is nothing: a sum has 53 bits

const GOLDEN_RATIO: u64 = ((0x9e3779b9 as u64) << 32) | 0x7f4a7c15;
const SPLITMIX_FIRST: u64 = ((0xbf58476d as u64) << 32) | 0x1ce4e5b9;
const SPLITMIX_SECOND: u64 = ((0x94d049bb as u64) << 32) | 0x133111eb;

let logits: usize = 0; // f32 [vocabulary], after the penalty; no NaN
let weights: usize = 0; // f32 [vocabulary]: probability as a share of the best one's, where it has been asked for
let order: usize = 0; // u32 [vocabulary], a heap with the best at its root
let heapCount: u32 = 0;
let highest: f64 = 0;
let sharpness: f64 = 0; // 1 / temperature

/** Address of the sampler, SAMPLER_BYTES long: copied out and in again, it goes on as if nothing had been between. */
export function sampler_state(): usize {
  return sampler;
}

/**
 * Sets the sampler up. temperature ≥ 0; 0 takes the best token. topK: how many are
 * kept, 0 for all. topP in (0, 1]: the least number of best ones that make up this probability. minP in [0, 1]: the
 * least probability, as a share of the best one's. repetitionPenalty > 0; 1 for none. The seed is one number of 64 bits.
 */
export function sampler_configure(
  temperature: f32,
  topK: u32,
  topP: f32,
  minP: f32,
  repetitionPenalty: f32,
  seedLow: u32,
  seedHigh: u32,
): i32 {
  if (!(temperature >= 0 && temperature < Infinity)) return fail(STATUS_ARGUMENT, 0, temperature);
  if (!(topP > 0 && topP <= 1)) return fail(STATUS_ARGUMENT, 2, topP);
  if (!(minP >= 0 && minP <= 1)) return fail(STATUS_ARGUMENT, 3, minP);
  if (!(repetitionPenalty > 0 && repetitionPenalty < Infinity)) return fail(STATUS_ARGUMENT, 4, repetitionPenalty);
  store<f32>(sampler, temperature, TEMPERATURE);
  store<u32>(sampler, topK, TOP_K);
  store<f32>(sampler, topP, TOP_P);
  store<f32>(sampler, minP, MIN_P);
  store<f32>(sampler, repetitionPenalty, PENALTY);
  let seed = ((seedHigh as u64) << 32) | seedLow;
  for (let i: usize = 0; i < 16; i += 8) {
    seed += GOLDEN_RATIO;
    store<u64>(sampler + RANDOM + i, splitmix(seed));
  }
  return STATUS_OK;
}

/** Working memory, 4-aligned, that sampler_choose needs. */
export function sampler_scratch_bytes(vocabulary: u32): u32 {
  return vocabulary * 12;
}

/**
 * The next token. logits: f32 [vocabulary > 0], left as they are; NaN and −∞ are never chosen, unless nothing else is
 * there: then it is token 0. history: u32 [historyLength] ids, those that the repetition penalty is for; ids that are
 * not in the vocabulary do not count. Takes one random number, none at temperature 0.
 */
export function sampler_choose(
  logitsPtr: usize,
  vocabulary: u32,
  historyPtr: usize,
  historyLength: u32,
  scratchPtr: usize,
): i32 {
  logits = scratchPtr;
  weights = scratchPtr + (vocabulary << 2);
  order = scratchPtr + (vocabulary << 3);
  penalize(logitsPtr, vocabulary, historyPtr, historyLength, load<f32>(sampler, PENALTY));
  const best = best_of(logits, vocabulary);
  const temperature = load<f32>(sampler, TEMPERATURE);
  if (temperature === 0) return best;
  const random = random_unit(sampler + RANDOM);
  if (logit(best) === NOTHING) return best;
  highest = logit(best);
  sharpness = 1 / (temperature as f64);
  const topK = load<u32>(sampler, TOP_K);
  const limit = topK === 0 ? vocabulary : min(topK, vocabulary);
  const topP: f64 = load<f32>(sampler, TOP_P);
  const minP: f64 = load<f32>(sampler, MIN_P);
  if (limit === vocabulary && topP === 1) return draw_by_id(vocabulary, minP, random);
  return draw_by_rank(vocabulary, limit, topP, minP, random);
}

/** Copies the logits without NaN; those of ids in the history lose: positive ones are divided, negative ones multiplied. */
function penalize(from: usize, vocabulary: u32, historyPtr: usize, historyLength: u32, penalty: f32): void {
  let id: u32 = 0;
  const nothing = f32x4.splat(NOTHING);
  const most = f32x4.splat(f32.MAX_VALUE);
  for (; id + 4 <= vocabulary; id += 4) {
    const some = v128.load(from + (id << 2));
    const known = v128.bitselect(some, nothing, f32x4.gt(some, nothing));
    v128.store(logits + (id << 2), f32x4.pmin(known, most));
  }
  for (; id < vocabulary; id++) store_logit(id, load<f32>(from + (id << 2)));
  if (penalty === 1 || penalty === 0) return;
  for (let i: u32 = 0; i < historyLength; i++) {
    const id = load<u32>(historyPtr + (i << 2));
    if (id >= vocabulary) continue;
    const raw = load<f32>(from + (id << 2)); // not the copy: an id that comes twice loses once
    store_logit(id, raw > 0 ? raw / penalty : raw * penalty);
  }
}

/** The first of the largest of `count` f32, NaN left out; 0 if there is nothing above −∞. */
export function best_of(values: usize, count: u32): u32 {
  let i: u32 = 0;
  let most4 = f32x4.splat(NOTHING);
  for (; i + 4 <= count; i += 4) most4 = f32x4.pmax(most4, v128.load(values + (i << 2)));
  let most = max<f32>(
    max<f32>(f32x4.extract_lane(most4, 0), f32x4.extract_lane(most4, 1)),
    max<f32>(f32x4.extract_lane(most4, 2), f32x4.extract_lane(most4, 3)),
  );
  for (; i < count; i++) if (load<f32>(values + (i << 2)) > most) most = load<f32>(values + (i << 2));
  if (most === NOTHING) return 0;
  most4 = f32x4.splat(most);
  for (i = 0; i + 4 <= count; i += 4) if (v128.any_true(f32x4.eq(v128.load(values + (i << 2)), most4))) break;
  while (load<f32>(values + (i << 2)) !== most) i++;
  return i;
}

/** Draws among all tokens of at least minP; the random number goes along the ids. */
function draw_by_id(vocabulary: u32, minP: f64, random: f64): u32 {
  weigh_all(vocabulary);
  let total: f64 = 0;
  for (let id: u32 = 0; id < vocabulary; id++) if (weight(id) >= minP) total += weight(id);
  let rest = random * total;
  let last: u32 = 0;
  for (let id: u32 = 0; id < vocabulary; id++) {
    const share = weight(id);
    if (share === 0 || share < minP) continue;
    if (rest < share) return id;
    rest -= share;
    last = id; // where rounding runs past the end
  }
  return last;
}

/** Draws among the best tokens, at most `limit`, cut by topP and minP; the random number goes from the best down. */
function draw_by_rank(vocabulary: u32, limit: u32, topP: f64, minP: f64, random: f64): u32 {
  let total: f64 = 0;
  let least: f64 = 0;
  if (limit === vocabulary) {
    total = weigh_all(vocabulary);
    // All that weigh less are together less than what topP leaves out.
    least = ((1 - topP) * total) / vocabulary;
  }
  heap_build(vocabulary, least);
  // Popping frees the end of the heap's array: the best goes to order[last], the next before it, and so on.
  const last = heapCount - 1;
  const count = min(limit, heapCount);
  if (limit < vocabulary) for (let i: u32 = 0; i < count; i++) total += weigh(heap_pop());
  let kept: u32 = 0;
  let sum: f64 = 0;
  while (kept < count && sum < topP * total) {
    if (limit === vocabulary) heap_pop();
    const share = weight(ranked(last, kept));
    if (share === 0 || share < minP) break;
    sum += share;
    kept++;
  }
  let rest = random * sum;
  for (let i: u32 = 0; i + 1 < kept; i++) {
    const id = ranked(last, i);
    if (rest < weight(id)) return id;
    rest -= weight(id);
  }
  return ranked(last, kept - 1);
}

/** The popped id of this rank, 0 for the best. */
function ranked(last: u32, rank: u32): u32 {
  return load<u32>(order + ((last - rank) << 2));
}

/** Weighs every token and returns the sum. */
function weigh_all(vocabulary: u32): f64 {
  let total: f64 = 0;
  for (let id: u32 = 0; id < vocabulary; id++) total += weigh(id);
  return total;
}

function weigh(id: u32): f64 {
  store<f32>(weights + (id << 2), exp(((logit(id) as f64) - highest) * sharpness) as f32);
  return weight(id);
}

function weight(id: u32): f64 {
  return load<f32>(weights + (id << 2));
}

/**
 * e^x for x ≤ 0, from additions and products alone, which round alike on every machine: x = k·ln 2 + r, |r| ≤ ½ ln 2,
 * and the series of e^r up to r¹¹.
 */
function exp(x: f64): f64 {
  if (!(x > EXP_MIN)) return 0;
  const k = nearest<f64>(x * Math.LOG2E);
  const r = x - k * LN2_HIGH - k * LN2_LOW;
  let sum: f64 = 1 / 39916800.0;
  sum = sum * r + 1 / 3628800.0;
  sum = sum * r + 1 / 362880.0;
  sum = sum * r + 1 / 40320.0;
  sum = sum * r + 1 / 5040.0;
  sum = sum * r + 1 / 720.0;
  sum = sum * r + 1 / 120.0;
  sum = sum * r + 1 / 24.0;
  sum = sum * r + 1 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1;
  sum = sum * r + 1;
  return sum * reinterpret<f64>(((k as i64) + 1023) << 52);
}

/** Collects the tokens of at least this weight, or all where it is 0, as a heap. */
function heap_build(vocabulary: u32, least: f64): void {
  heapCount = 0;
  for (let id: u32 = 0; id < vocabulary; id++) {
    if (logit(id) === NOTHING || (least > 0 && weight(id) < least)) continue;
    store<u32>(order + (heapCount++ << 2), id);
  }
  for (let at = heapCount >>> 1; at-- > 0; ) heap_sink(at, load<u32>(order + (at << 2)));
}

/** Takes the best id out, and puts it where the heap no longer reaches. */
function heap_pop(): u32 {
  const best = load<u32>(order);
  heapCount--;
  const id = load<u32>(order + (heapCount << 2));
  if (heapCount) heap_sink(0, id);
  store<u32>(order + (heapCount << 2), best);
  return best;
}

/** Puts an id at place `at` of the heap, or below. */
function heap_sink(at: u32, id: u32): void {
  for (;;) {
    let child = at * 2 + 1;
    if (child >= heapCount) break;
    let below = load<u32>(order + (child << 2));
    if (child + 1 < heapCount) {
      const other = load<u32>(order + ((child + 1) << 2));
      if (is_better(other, below)) {
        below = other;
        child++;
      }
    }
    if (!is_better(below, id)) break;
    store<u32>(order + (at << 2), below);
    at = child;
  }
  store<u32>(order + (at << 2), id);
}

function is_better(a: u32, b: u32): bool {
  const first = logit(a);
  const second = logit(b);
  return first > second || (first === second && a < b);
}

function logit(id: u32): f32 {
  return load<f32>(logits + (id << 2));
}

/** NaN counts as −∞, +∞ as the largest number. */
function store_logit(id: u32, value: f32): void {
  store<f32>(logits + (id << 2), value > NOTHING ? min(value, f32.MAX_VALUE) : NOTHING);
}

/** A random number in [0, 1) of 53 bits. */
function random_unit(state: usize): f64 {
  const high = (next_random(state) >>> 5) as f64;
  const low = (next_random(state) >>> 6) as f64;
  return (high * 67108864 + low) / 9007199254740992;
}

/** xoshiro128** 1.1 (https://prng.di.unimi.it). state: u32 [4], not all 0. */
function next_random(state: usize): u32 {
  const s0 = load<u32>(state);
  const s1 = load<u32>(state, 4);
  const s2 = load<u32>(state, 8) ^ s0;
  const s3 = load<u32>(state, 12) ^ s1;
  store<u32>(state, s0 ^ s3);
  store<u32>(state, s1 ^ s2, 4);
  store<u32>(state, s2 ^ (s1 << 9), 8);
  store<u32>(state, rotl<u32>(s3, 11), 12);
  return rotl<u32>(s1 * 5, 7) * 9;
}

/** Output function of SplitMix64, which turns any seed into good random bits. */
function splitmix(seed: u64): u64 {
  seed = (seed ^ (seed >>> 30)) * SPLITMIX_FIRST;
  seed = (seed ^ (seed >>> 27)) * SPLITMIX_SECOND;
  return seed ^ (seed >>> 31);
}
