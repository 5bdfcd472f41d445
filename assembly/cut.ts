// The cut: how many units of each stack are loaded and kept, and where they lie. Three tables behind the header, of
// one u32 per stack; plan.ts fills them, everyone else reads them.

import { HEADER_STACKS, NONE, STACK_CHANNELS, TENSOR_OFFSET } from "../packs/format";
import { pack_count, pack_header_bytes, pack_header_ptr, stack_ptr, tensor_span } from "./pack";

let fixedPtr: usize = 0;

/** Where the fixed part lies, or is to lie. */
export function fixed_ptr(): usize {
  return fixedPtr;
}

export function fixed_place(ptr: usize): void {
  fixedPtr = ptr;
}

/** Address of a tensor of the fixed part. */
export function fixed_tensor_ptr(tensor: usize): usize {
  return fixedPtr + (load<u64>(tensor, TENSOR_OFFSET) as usize);
}

/** Address of the table of kept units: u32 [stacks]. */
export function cut_kept_ptr(): usize {
  return pack_header_ptr() + pack_header_bytes();
}

/** Units of a stack that the program uses; 0 for NONE, a stack that is not there. */
export function cut_kept(stack: u32): u32 {
  return stack == NONE ? 0 : load<u32>(cut_kept_ptr() + stack * 4);
}

export function cut_keep(stack: u32, units: u32): void {
  store<u32>(cut_kept_ptr() + stack * 4, units);
}

/** Kept channels of a stack: of each head, or of the MLP. */
export function cut_channels(stack: u32): u32 {
  return stack == NONE ? 0 : cut_kept(stack) * load<u32>(stack_ptr(stack), STACK_CHANNELS);
}

/** Units of a stack that are in memory: at least as many as are kept. */
export function cut_loaded(stack: u32): u32 {
  return load<u32>(cut_kept_ptr() + (pack_count(HEADER_STACKS) + stack) * 4);
}

export function cut_load(stack: u32, units: u32): void {
  store<u32>(cut_kept_ptr() + (pack_count(HEADER_STACKS) + stack) * 4, units);
}

/**
 * Address of a tensor of a stack's unit. The panels of one matrix lie behind each other, unit after unit, and those of
 * the next matrix behind them: a step reads a matrix from its start to its end.
 */
export function unit_tensor_ptr(stack: u32, tensor: usize, unit: u32): usize {
  const before = (load<u64>(tensor, TENSOR_OFFSET) as usize) * cut_loaded(stack);
  return stack_address(stack) + before + unit * tensor_span(tensor);
}

/** Address of a stack's units. */
function stack_address(stack: u32): usize {
  return load<u32>(cut_kept_ptr() + (2 * pack_count(HEADER_STACKS) + stack) * 4);
}

export function stack_place(stack: u32, ptr: usize): void {
  store<u32>(cut_kept_ptr() + (2 * pack_count(HEADER_STACKS) + stack) * 4, ptr as u32);
}
