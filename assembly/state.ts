// The state of sequences in layers that have one: f32, one array [sequences + snapshots, floats] for each convolution and
// each scan. The only home of its addresses. A row at position 0 begins with zeros, so nobody has to clear it; no row
// reaches a snapshot, which the host copies from a sequence's state and back.

import { arena_take, PART_STATE } from "./memory";
import { shape_sequences, shape_snapshots } from "./shape";

/** Takes one state with `floats` numbers a sequence, and as many a snapshot. */
export function state_take(floats: u64): usize {
  return arena_take(PART_STATE, ((shape_sequences() + shape_snapshots()) as u64) * floats * 4);
}

/** Address of a sequence's numbers in a state; the snapshots are counted on behind the sequences. */
export function state_ptr(state: usize, sequence: u32, floats: u32): usize {
  return state + (sequence as usize) * floats * 4;
}
