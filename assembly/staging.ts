// The slots through which a device plan's reads pass on their way to the device. They lie where rows, logits and text do,
// which nobody needs while loading.

import { FIXED_CHUNK_BYTES, HEADER_STACKS } from "../packs/format";
import { LOAD_SLOTS } from "./abi";
import { cut_loaded } from "./cut";
import { pack_count, pack_fixed_bytes, stack_unit_bytes } from "./pack";

let slots: usize = 0;

/** Bytes of all slots, each as large as the largest read of the present cut. */
export function staging_bytes(): u64 {
  return LOAD_SLOTS * slot_bytes();
}

/** Sets where they lie. */
export function staging_place(ptr: usize): void {
  slots = ptr;
}

/** Address at which read `index` of a load begins. */
export function staging_slot(index: u32): usize {
  return slots + ((index % LOAD_SLOTS) as usize) * (slot_bytes() as usize);
}

function slot_bytes(): u64 {
  let most = min<u64>(FIXED_CHUNK_BYTES, pack_fixed_bytes());
  for (let s: u32 = 0; s < pack_count(HEADER_STACKS); s++)
    if (cut_loaded(s) > 0) most = max<u64>(most, stack_unit_bytes(s));
  return most;
}
