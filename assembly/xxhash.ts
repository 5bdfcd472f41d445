// biome-ignore-all lint/correctness/noPrecisionLoss: u64 literals, which JavaScript would round
// XXH64 with seed 0, as its public specification has it (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
// The checksum of everything in a pack.

const PRIME_1: u64 = 0x9e3779b185ebca87;
const PRIME_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME_3: u64 = 0x165667b19e3779f9;
const PRIME_4: u64 = 0x85ebca77c2b2ae63;
const PRIME_5: u64 = 0x27d4eb2f165667c5;
const STRIPE_BYTES: usize = 32;

let a: u64 = 0;
let b: u64 = 0;
let c: u64 = 0;
let d: u64 = 0;

/** Hash of `bytes` bytes at `ptr`; any alignment. */
export function xxh64(ptr: usize, bytes: usize): u64 {
  xxh64_start();
  const whole = bytes & ~(STRIPE_BYTES - 1);
  xxh64_add(ptr, whole);
  return xxh64_end(ptr + whole, bytes - whole, bytes);
}

/** Starts a hash of bytes that lie in several places. */
export function xxh64_start(): void {
  a = PRIME_1 + PRIME_2;
  b = PRIME_2;
  c = 0;
  d = 0 - PRIME_1;
}

/** The next bytes, a multiple of 32. */
export function xxh64_add(ptr: usize, bytes: usize): void {
  let e = a;
  let f = b;
  let g = c;
  let h = d;
  // Counted down, for an address wraps at the end of the address space.
  for (; bytes != 0; bytes -= STRIPE_BYTES) {
    e = mix(e, load<u64>(ptr));
    f = mix(f, load<u64>(ptr, 8));
    g = mix(g, load<u64>(ptr, 16));
    h = mix(h, load<u64>(ptr, 24));
    ptr += STRIPE_BYTES;
  }
  a = e;
  b = f;
  c = g;
  d = h;
}

/** The hash, with the last `rest` bytes, fewer than 32. total: bytes in all. */
export function xxh64_end(ptr: usize, rest: usize, total: usize): u64 {
  const end = ptr + rest;
  let hash = PRIME_5;
  if (total >= STRIPE_BYTES) {
    hash = rotl<u64>(a, 1) + rotl<u64>(b, 7) + rotl<u64>(c, 12) + rotl<u64>(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d);
  }
  hash += total as u64;
  while (end - ptr >= 8) {
    hash = rotl<u64>(hash ^ mix(0, load<u64>(ptr)), 27) * PRIME_1 + PRIME_4;
    ptr += 8;
  }
  if (end - ptr >= 4) {
    hash = rotl<u64>(hash ^ ((load<u32>(ptr) as u64) * PRIME_1), 23) * PRIME_2 + PRIME_3;
    ptr += 4;
  }
  while (ptr !== end) {
    hash = rotl<u64>(hash ^ ((load<u8>(ptr) as u64) * PRIME_5), 11) * PRIME_1;
    ptr++;
  }
  hash = (hash ^ (hash >> 33)) * PRIME_2;
  hash = (hash ^ (hash >> 29)) * PRIME_3;
  return hash ^ (hash >> 32);
}

function mix(lane: u64, word: u64): u64 {
  return rotl<u64>(lane + word * PRIME_2, 31) * PRIME_1;
}

function merge(hash: u64, lane: u64): u64 {
  return (hash ^ mix(0, lane)) * PRIME_1 + PRIME_4;
}
