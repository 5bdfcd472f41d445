// Byte-pair encoding of one pre-token: merges neighbours, lowest rank first and leftmost among equals, until none is
// left. A heap keeps n bytes at n·log n steps, whatever they are. Which merges there are is for vocabulary.ts to say.

import { MERGE_MERGED, MERGE_RANK, NONE } from "../packs/format";
import { byte_token, merge_find } from "./vocabulary";

// Node: a token of the pre-token so far, in a list linked by node number; NONE ends it. A merged-away node's token is
// NONE.
const NODE_BYTES: u32 = 12;
const NODE_TOKEN: usize = 0;
const NODE_PREVIOUS: usize = 4;
const NODE_NEXT: usize = 8;
// Heap entry: rank << 32 | left node. A merge takes one entry out and puts at most two in, so 2 per byte are enough.
const ENTRY_SHIFT: u32 = 3;
const ENTRIES_PER_BYTE: u32 = 2;

let nodes: usize = 0;
let heap: usize = 0;
let heapCount: u32 = 0;

/** Working memory that a pre-token of so many bytes needs. */
export function bpe_work_bytes(bytes: u32): u32 {
  return bytes * (NODE_BYTES + (ENTRIES_PER_BYTE << ENTRY_SHIFT));
}

/** Encodes bytes [count > 0] within `work`; bpe_take hands out the tokens. Returns how many there are. */
export function bpe_encode(bytes: usize, count: u32, work: usize): u32 {
  heap = work; // first, for its entries are the wider
  nodes = work + (count << (ENTRY_SHIFT + 1));
  heapCount = 0;
  let left: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const token = byte_token(load<u8>(bytes + i));
    if (token === NONE) continue; // its neighbours become each other's
    const node = nodes + left * NODE_BYTES;
    store<u32>(node, token, NODE_TOKEN);
    store<u32>(node, left - 1, NODE_PREVIOUS); // NONE before the first
    store<u32>(node, ++left, NODE_NEXT);
  }
  if (left) store<u32>(nodes + (left - 1) * NODE_BYTES, NONE, NODE_NEXT);
  for (let i: u32 = 1; i < left; i++) offer(i - 1);
  while (heapCount) {
    const entry = heap_pop();
    if (merge(entry as u32, (entry >>> 32) as u32)) left--;
  }
  return left;
}

/** Writes the tokens of the last bpe_encode to out: u32 [as many as it returned]. */
export function bpe_take(out: usize): void {
  for (let i: u32 = 0; i !== NONE; out += 4) {
    const node = nodes + i * NODE_BYTES;
    store<u32>(out, load<u32>(node, NODE_TOKEN));
    i = load<u32>(node, NODE_NEXT);
  }
}

/** Merges node i with the next, unless they are no longer the pair that was offered at this rank. */
function merge(i: u32, rank: u32): bool {
  const node = nodes + i * NODE_BYTES;
  const token = load<u32>(node, NODE_TOKEN);
  const next = load<u32>(node, NODE_NEXT);
  if (token === NONE || next === NONE) return false;
  const right = nodes + next * NODE_BYTES;
  const found = merge_find(token, load<u32>(right, NODE_TOKEN));
  if (!found || load<u32>(found, MERGE_RANK) !== rank) return false;
  const after = load<u32>(right, NODE_NEXT);
  store<u32>(node, load<u32>(found, MERGE_MERGED), NODE_TOKEN);
  store<u32>(node, after, NODE_NEXT);
  store<u32>(right, NONE, NODE_TOKEN);
  if (after !== NONE) {
    store<u32>(nodes + after * NODE_BYTES, i, NODE_PREVIOUS);
    offer(i);
  }
  const previous = load<u32>(node, NODE_PREVIOUS);
  if (previous !== NONE) offer(previous);
  return true;
}

/** Puts the pair that begins at node i, which has a next, into the heap if it merges. */
function offer(i: u32): void {
  const node = nodes + i * NODE_BYTES;
  const right = nodes + load<u32>(node, NODE_NEXT) * NODE_BYTES;
  const found = merge_find(load<u32>(node, NODE_TOKEN), load<u32>(right, NODE_TOKEN));
  if (found) heap_push(((load<u32>(found, MERGE_RANK) as u64) << 32) | i);
}

function heap_push(entry: u64): void {
  let at = heapCount++;
  while (at > 0) {
    const parent = (at - 1) >>> 1;
    const above = load<u64>(heap + (parent << ENTRY_SHIFT));
    if (above <= entry) break;
    store<u64>(heap + (at << ENTRY_SHIFT), above);
    at = parent;
  }
  store<u64>(heap + (at << ENTRY_SHIFT), entry);
}

function heap_pop(): u64 {
  const top = load<u64>(heap);
  const entry = load<u64>(heap + (--heapCount << ENTRY_SHIFT));
  let at: u32 = 0;
  for (;;) {
    let child = at * 2 + 1;
    if (child >= heapCount) break;
    let below = load<u64>(heap + (child << ENTRY_SHIFT));
    if (child + 1 < heapCount) {
      const other = load<u64>(heap + ((child + 1) << ENTRY_SHIFT));
      if (other < below) {
        below = other;
        child++;
      }
    }
    if (entry <= below) break;
    store<u64>(heap + (at << ENTRY_SHIFT), below);
    at = child;
  }
  store<u64>(heap + (at << ENTRY_SHIFT), entry);
  return top;
}
