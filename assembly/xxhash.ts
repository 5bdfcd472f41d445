// biome-ignore-all lint/correctness/noPrecisionLoss: u64 literals, which JavaScript would round
// XXH64 with seed 0, as its public specification has it (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
// The checksum of everything in a pack.

const PRIME_1: u64 = 0x9e3779b185ebca87;
const PRIME_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME_3: u64 = 0x165667b19e3779f9;
const PRIME_4: u64 = 0x85ebca77c2b2ae63;
const PRIME_5: u64 = 0x27d4eb2f165667c5;
const STRIPE_BYTES: usize = 32;

/** Hash of `bytes` bytes at `ptr`; any alignment. */
export function xxh64(ptr: usize, bytes: usize): u64 {
  const end = ptr + bytes;
  let hash = PRIME_5;
  if (bytes >= STRIPE_BYTES) {
    let a = PRIME_1 + PRIME_2;
    let b = PRIME_2;
    let c: u64 = 0;
    let d: u64 = 0 - PRIME_1;
    // Here and below compared as distances, for an address wraps at the end of the address space.
    while (end - ptr >= STRIPE_BYTES) {
      a = mix(a, load<u64>(ptr));
      b = mix(b, load<u64>(ptr, 8));
      c = mix(c, load<u64>(ptr, 16));
      d = mix(d, load<u64>(ptr, 24));
      ptr += STRIPE_BYTES;
    }
    hash = rotl<u64>(a, 1) + rotl<u64>(b, 7) + rotl<u64>(c, 12) + rotl<u64>(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d);
  }
  hash += bytes as u64;
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
