// The cut: how many units of each stack are loaded and kept, and where they lie. Three tables behind the header, of
// one u32 per stack; plan.ts fills them, everyone else reads them.

import {
  ALIGN,
  HEADER_FIXED_TENSORS,
  HEADER_STACKS,
  NONE,
  ROLE_DOWN,
  ROLE_O,
  ROLE_OUT,
  ROLE_TOKENIZER,
  ROW_TILE,
  STACK_CHANNELS,
  TENSOR_COLS,
  TENSOR_DTYPE,
  TENSOR_GROUP,
  TENSOR_LENGTH,
  TENSOR_OFFSET,
  TENSOR_ROLE,
  TENSOR_ROWS,
} from "../packs/format";
import { arena_recount, arena_take, PART_CORE, PART_WEIGHTS, part_address } from "./memory";
import {
  corrupt,
  fixed_tensor,
  pack_count,
  pack_field,
  pack_fixed_bytes,
  pack_header_bytes,
  pack_header_ptr,
  stack_ptr,
  tensor_ptr,
  tensor_span,
  tile_bytes,
} from "./pack";
import { shape_device, shape_threads } from "./shape";
import { share } from "./threads";

let fixedPtr: usize = 0;
// The tokenizer's place in the file's fixed part, if a device plan sets it aside; else nothing, behind all the rest.
let asideOffset: u64 = 0;
let asideBytes: u64 = 0;
let tokenizerPtr: usize = 0;

/** Lays out the fixed part. A device plan sets the tokenizer aside: it lies in the core's memory, the rest closes up. */
export function fixed_place(): void {
  const tokenizer = fixed_tensor(ROLE_TOKENIZER, NONE);
  const aside = tokenizer != 0 && shape_device();
  asideOffset = aside ? load<u64>(tokenizer, TENSOR_OFFSET) : pack_fixed_bytes();
  asideBytes = aside ? (load<u64>(tokenizer, TENSOR_LENGTH) + (ALIGN - 1)) & ~((ALIGN - 1) as u64) : 0;
  if (aside) tokenizerPtr = arena_take(PART_CORE, asideBytes);
  fixedPtr = arena_take(PART_WEIGHTS, fixed_bytes());
  if (tokenizer == 0 || aside) return;
  tokenizerPtr = fixed_tensor_ptr(tokenizer);
  arena_recount(PART_WEIGHTS, PART_CORE, load<u64>(tokenizer, TENSOR_LENGTH));
}

/** Checks that nothing of the fixed part lies in the tokenizer, so that this can be set aside. */
export function fixed_check(): i32 {
  const tokenizer = fixed_tensor(ROLE_TOKENIZER, NONE);
  if (tokenizer == 0) return 0;
  const start = load<u64>(tokenizer, TENSOR_OFFSET);
  const end = start + load<u64>(tokenizer, TENSOR_LENGTH);
  for (let i: u32 = 0; i < pack_field(HEADER_FIXED_TENSORS); i++) {
    const tensor = tensor_ptr(i);
    const offset = load<u64>(tensor, TENSOR_OFFSET);
    if (tensor != tokenizer && offset < end && offset + load<u64>(tensor, TENSOR_LENGTH) > start)
      return corrupt(tensor + TENSOR_OFFSET);
  }
  return 0;
}

/** Where the fixed part lies, or is to lie. */
export function fixed_ptr(): usize {
  return fixedPtr;
}

/** Its bytes there. */
export function fixed_bytes(): u64 {
  return pack_fixed_bytes() - asideBytes;
}

/** How far behind fixed_ptr() a byte lies that is not set aside. offset: in the file's fixed part. */
export function fixed_distance(offset: u64): u64 {
  return offset < asideOffset ? offset : offset - asideBytes;
}

/** Where in the file's fixed part that begins which is set aside, and how long it is: 0 if there is nothing. */
export function aside_offset(): u64 {
  return asideOffset;
}

export function aside_bytes(): u64 {
  return asideBytes;
}

/** Address of a tensor of the fixed part, which is not the tokenizer. */
export function fixed_tensor_ptr(tensor: usize): usize {
  return part_address(fixedPtr, fixed_distance(load<u64>(tensor, TENSOR_OFFSET)));
}

/** Address of the tokenizer, if there is one: in the core's memory. */
export function tokenizer_ptr(): usize {
  return tokenizerPtr;
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
  const before = load<u64>(tensor, TENSOR_OFFSET) * cut_loaded(stack);
  return part_address(stack_address(stack), before + (unit as u64) * tensor_span(tensor));
}

/** Are the panels of this matrix columns of it? */
export function is_stacked_along_cols(tensor: usize): bool {
  const role = load<u32>(tensor, TENSOR_ROLE);
  return role == ROLE_O || role == ROLE_DOWN || role == ROLE_OUT;
}

/**
 * Parts that a tensor of a unit is laid out in. Of a matrix whose panels are columns a thread works on the same tiles of
 * each panel: they are a part, and those of all units lie behind each other, so that a thread too reads from a start to an
 * end. All else is one part.
 */
export function unit_parts(tensor: usize): u32 {
  return shape_device() || !is_stacked_along_cols(tensor) ? 1 : min(shape_threads(), panel_tiles(tensor));
}

/** How far into a tensor of a unit a part begins; of the part behind the last: the tensor's bytes. */
export function unit_part_offset(tensor: usize, part: u32): u32 {
  if (part == 0) return 0;
  const parts = unit_parts(tensor);
  if (part == parts) return tensor_span(tensor);
  const bytes = tile_bytes(
    load<u32>(tensor, TENSOR_DTYPE),
    load<u32>(tensor, TENSOR_COLS),
    load<u32>(tensor, TENSOR_GROUP),
  );
  return share(panel_tiles(tensor), part, parts) * bytes;
}

/** Address of a part of a tensor of a stack's unit. */
export function unit_part_ptr(stack: u32, tensor: usize, unit: u32, part: u32): usize {
  const offset = unit_part_offset(tensor, part);
  const bytes = unit_part_offset(tensor, part + 1) - offset;
  return part_address(unit_tensor_ptr(stack, tensor, 0), (offset as u64) * cut_loaded(stack) + (unit as u64) * bytes);
}

function panel_tiles(tensor: usize): u32 {
  return (load<u32>(tensor, TENSOR_ROWS) + (ROW_TILE - 1)) / ROW_TILE;
}

/** Address of a stack's units. */
function stack_address(stack: u32): usize {
  return load<u32>(cut_kept_ptr() + (2 * pack_count(HEADER_STACKS) + stack) * 4);
}

export function stack_place(stack: u32, ptr: usize): void {
  store<u32>(cut_kept_ptr() + (2 * pack_count(HEADER_STACKS) + stack) * 4, ptr as u32);
}
