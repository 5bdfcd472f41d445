// Loading: what a host must read, where it goes, and whether what came is what the packer wrote. Reads go straight to
// their final addresses; nothing is repacked. In a device plan they go to slots of the core's memory (staging.ts), and
// from there, once they are verified, the host moves them to the device.

import {
  DTYPE_BYTES,
  DTYPE_F32,
  DTYPE_VECTOR,
  FIXED_CHUNK_BYTES,
  HEADER_FIXED_TENSORS,
  NONE,
  ROLE_TOKENIZER,
  ROW_TILE,
  STACK_TENSOR,
  STACK_TENSORS,
  STACK_UNIT_BYTES,
  TENSOR_DTYPE,
  TENSOR_GROUP,
  TENSOR_LENGTH,
  TENSOR_OFFSET,
  UNIT_INDEX,
  UNIT_STACK,
} from "../packs/format";
import {
  DEVICE_UNIT,
  PLAN_KEPT_UNITS,
  READ_ADDRESS,
  READ_BYTES,
  READ_DEVICE,
  READ_LENGTH,
  READ_OFFSET,
  READ_PIECES,
  STATUS_ARGUMENT,
  STATUS_CHECKSUM,
  STATUS_NUMBER,
  STATUS_STATE,
} from "./abi";
import {
  aside_bytes,
  aside_offset,
  fixed_distance,
  fixed_ptr,
  fixed_tensor_ptr,
  tokenizer_ptr,
  unit_part_offset,
  unit_part_ptr,
  unit_parts,
  unit_tensor_ptr,
} from "./cut";
import {
  chunk_hash,
  fixed_tensor,
  group_bytes,
  pack_field,
  pack_fixed_bytes,
  pack_fixed_offset,
  pack_units_offset,
  stack_ptr,
  tensor_ptr,
  unit_hash,
  unit_ptr,
} from "./pack";
import { plan_placed, plan_ptr, plan_rehearse } from "./plan";
import { shape_device } from "./shape";
import { staging_slot } from "./staging";
import { fail } from "./status";
import { text_open } from "./text";
import { xxh64, xxh64_add, xxh64_end, xxh64_start } from "./xxhash";

const read = memory.data(READ_BYTES, 8);
// The unit that was described last: from there it is not far to the next, or to the one before.
let lastUnit: u32 = 0;
let lastOffset: u64 = 0;
let ready = false;

/** Address of what load_read() and load_move() describe, READ_*. */
export function load_read_ptr(): usize {
  return read;
}

/** Number of reads that make up the load: the fixed part in chunks, then one for each kept unit. */
export function load_reads(): u32 {
  return chunks() + (load<f64>(plan_ptr(), PLAN_KEPT_UNITS) as u32);
}

/** Describes a piece of read `index`: a chunk of the fixed part is one piece, a unit has one for each of its tensors. */
export function load_read(index: u32, piece: u32): i32 {
  if (!plan_placed()) return fail(STATUS_STATE, 5, 0);
  if (index >= load_reads()) return fail(STATUS_ARGUMENT, 0, index);
  if (index < chunks()) {
    if (piece != 0) return fail(STATUS_ARGUMENT, 1, piece);
    const offset = (index as u64) * FIXED_CHUNK_BYTES;
    store<f64>(read, (pack_fixed_offset() + offset) as f64, READ_OFFSET);
    store<f64>(read, min<u64>(FIXED_CHUNK_BYTES, pack_fixed_bytes() - offset) as f64, READ_LENGTH);
    store<f64>(read, chunk_address(index) as f64, READ_ADDRESS);
    store<f64>(read, 1, READ_PIECES);
    return 0;
  }
  const unit = index - chunks();
  const stack = load<u32>(unit_ptr(unit), UNIT_STACK);
  const first = load<u32>(stack_ptr(stack), STACK_TENSOR);
  const end = first + load<u32>(stack_ptr(stack), STACK_TENSORS);
  let pieces: u32 = 0;
  let tensor: usize = 0;
  let part: u32 = 0;
  for (let t = first; t < end; t++) {
    const parts = unit_parts(tensor_ptr(t));
    if (tensor == 0 && piece < pieces + parts) {
      tensor = tensor_ptr(t);
      part = piece - pieces;
    }
    pieces += parts;
  }
  if (tensor == 0) return fail(STATUS_ARGUMENT, 1, piece);
  if (unit == 0 || lastOffset == 0) {
    lastUnit = 0;
    lastOffset = pack_units_offset();
  }
  for (; lastUnit < unit; lastUnit++) lastOffset += unit_bytes(lastUnit);
  for (; lastUnit > unit; lastUnit--) lastOffset -= unit_bytes(lastUnit - 1);
  const offset = unit_part_offset(tensor, part);
  store<f64>(read, (lastOffset + load<u64>(tensor, TENSOR_OFFSET) + offset) as f64, READ_OFFSET);
  store<f64>(read, part_bytes(tensor, part), READ_LENGTH);
  store<f64>(read, part_address_of(index, tensor, part) as f64, READ_ADDRESS);
  store<f64>(read, pieces, READ_PIECES);
  return 0;
}

/** Checks what came of read `index`: its checksum, and that the numbers of a unit, or of what goes to a device, are finite. */
export function load_verify(index: u32): i32 {
  const status = load_read(index, 0);
  if (status != 0) return status;
  const offset = load<f64>(read, READ_OFFSET);
  if (index < chunks()) {
    const length = load<f64>(read, READ_LENGTH);
    const hash = xxh64(load<f64>(read, READ_ADDRESS) as usize, length as usize);
    if (hash != chunk_hash(index)) return fail(STATUS_CHECKSUM, offset, length);
    return shape_device() ? take_chunk(index) : 0;
  }
  const stack = load<u32>(unit_ptr(index - chunks()), UNIT_STACK);
  const first = load<u32>(stack_ptr(stack), STACK_TENSOR);
  const end = first + load<u32>(stack_ptr(stack), STACK_TENSORS);
  const bytes = unit_bytes(index - chunks());
  xxh64_start();
  for (let t = first; t < end; t++) {
    const tensor = tensor_ptr(t);
    for (let part: u32 = 0; part < unit_parts(tensor); part++)
      xxh64_add(part_address_of(index, tensor, part), part_bytes(tensor, part));
  }
  if (xxh64_end(0, 0, bytes) != unit_hash(index - chunks())) return fail(STATUS_CHECKSUM, offset, bytes);
  for (let t = first; t < end; t++) {
    const tensor = tensor_ptr(t);
    for (let part: u32 = 0; part < unit_parts(tensor); part++) {
      const from = unit_part_offset(tensor, part);
      const to = min(from + part_bytes(tensor, part), load<u64>(tensor, TENSOR_LENGTH) as u32);
      if (!is_finite_between(tensor, from, to, part_address_of(index, tensor, part)))
        return fail(STATUS_NUMBER, offset, bytes);
    }
  }
  return 0;
}

/**
 * Describes a piece of what read `index`, verified, has for the device: of a unit one for each of its tensors, of a chunk
 * of the fixed part what lies before and behind the tokenizer. READ_LENGTH bytes at READ_ADDRESS go to READ_DEVICE; a
 * chunk that is all tokenizer has no pieces, and piece 0 of it no bytes.
 */
export function load_move(index: u32, piece: u32): i32 {
  if (!shape_device()) return fail(STATUS_STATE, 9, 0);
  const status = load_read(index, index < chunks() ? 0 : piece);
  if (status != 0) return status;
  if (index < chunks()) return move_chunk(index, piece);
  const unit = unit_ptr(index - chunks());
  const stack = load<u32>(unit, UNIT_STACK);
  const tensor = tensor_ptr(load<u32>(stack_ptr(stack), STACK_TENSOR) + piece);
  const device = unit_tensor_ptr(stack, tensor, load<u32>(unit, UNIT_INDEX)) as u64;
  store<f64>(read, (device * DEVICE_UNIT) as f64, READ_DEVICE);
  return 0;
}

/** Ends the load: checks the fixed part's numbers, if they have not been checked yet, and opens the tokenizer. */
export function load_finish(): i32 {
  if (!plan_placed()) return fail(STATUS_STATE, 5, 0);
  for (let i: u32 = 0; i < pack_field(HEADER_FIXED_TENSORS) && !shape_device(); i++) {
    const tensor = tensor_ptr(i);
    if (!is_finite(tensor, fixed_tensor_ptr(tensor))) return not_finite(tensor);
  }
  const tokenizer = fixed_tensor(ROLE_TOKENIZER, NONE);
  if (tokenizer != 0) {
    const status = text_open(tokenizer);
    if (status != 0) return status;
  }
  ready = true;
  return 0;
}

/** In place of a load: the plan's steps can run, on weights that are all zero. */
export function load_rehearsal(): i32 {
  const status = plan_rehearse();
  ready = status == 0;
  return status;
}

/** Has a load ended well? */
export function load_ready(): bool {
  return ready;
}

function chunks(): u32 {
  return ((pack_fixed_bytes() + (FIXED_CHUNK_BYTES - 1)) / FIXED_CHUNK_BYTES) as u32;
}

function unit_bytes(unit: u32): u32 {
  return load<u32>(stack_ptr(load<u32>(unit_ptr(unit), UNIT_STACK)), STACK_UNIT_BYTES);
}

/** Where read `index`, a chunk of the fixed part, goes. */
function chunk_address(index: u32): usize {
  return shape_device() ? staging_slot(index) : fixed_ptr() + (index as usize) * FIXED_CHUNK_BYTES;
}

/** Where a part of a tensor of read `index`, a unit, goes. */
function part_address_of(index: u32, tensor: usize, part: u32): usize {
  if (shape_device()) return staging_slot(index) + (load<u64>(tensor, TENSOR_OFFSET) as usize);
  const unit = unit_ptr(index - chunks());
  return unit_part_ptr(load<u32>(unit, UNIT_STACK), tensor, load<u32>(unit, UNIT_INDEX), part);
}

function part_bytes(tensor: usize, part: u32): u32 {
  return unit_part_offset(tensor, part + 1) - unit_part_offset(tensor, part);
}

/** Of a chunk that goes to a device: checks its numbers, and copies what it has of the tokenizer. */
function take_chunk(index: u32): i32 {
  const start = (index as u64) * FIXED_CHUNK_BYTES;
  const end = min<u64>(start + FIXED_CHUNK_BYTES, pack_fixed_bytes());
  const chunk = chunk_address(index);
  for (let i: u32 = 0; i < pack_field(HEADER_FIXED_TENSORS); i++) {
    const tensor = tensor_ptr(i);
    const offset = load<u64>(tensor, TENSOR_OFFSET);
    const from = max<u64>(offset, start);
    const to = min<u64>(offset + load<u64>(tensor, TENSOR_LENGTH), end);
    if (from < to && !is_finite_between(tensor, from - offset, to - offset, chunk + ((from - start) as usize)))
      return not_finite(tensor);
  }
  const from = max<u64>(aside_offset(), start);
  const to = min<u64>(aside_offset() + aside_bytes(), end);
  if (from >= to) return 0;
  const place = tokenizer_ptr() + ((from - aside_offset()) as usize);
  memory.copy(place, chunk + ((from - start) as usize), (to - from) as usize);
  return 0;
}

/** load_move() of a chunk that load_read() has described. */
function move_chunk(index: u32, piece: u32): i32 {
  const start = (index as u64) * FIXED_CHUNK_BYTES;
  const end = start + (load<f64>(read, READ_LENGTH) as u64);
  const before = min<u64>(max<u64>(aside_offset(), start), end);
  const behind = min<u64>(max<u64>(aside_offset() + aside_bytes(), start), end);
  const pieces: u32 = (before > start ? 1 : 0) + (end > behind ? 1 : 0);
  if (piece >= max(pieces, 1)) return fail(STATUS_ARGUMENT, 1, piece);
  const isBefore = piece == 0 && before > start;
  const from = isBefore ? start : behind;
  const device = (fixed_ptr() as u64) * DEVICE_UNIT + fixed_distance(from);
  store<f64>(read, (pack_fixed_offset() + from) as f64, READ_OFFSET);
  store<f64>(read, ((isBefore ? before : end) - from) as f64, READ_LENGTH);
  store<f64>(read, (chunk_address(index) + ((from - start) as usize)) as f64, READ_ADDRESS);
  store<f64>(read, pieces, READ_PIECES);
  store<f64>(read, device as f64, READ_DEVICE);
  return 0;
}

/** STATUS_NUMBER for a tensor of the fixed part. */
function not_finite(tensor: usize): i32 {
  const offset = pack_fixed_offset() + load<u64>(tensor, TENSOR_OFFSET);
  return fail(STATUS_NUMBER, offset as f64, load<u64>(tensor, TENSOR_LENGTH) as f64);
}

/** Are all scales of the tensor at `at` finite and not negative, all its f32 finite? */
function is_finite(tensor: usize, at: usize): bool {
  return is_finite_between(tensor, 0, load<u64>(tensor, TENSOR_LENGTH), at);
}

/**
 * Are they in the tensor's bytes [from, to), which lie at `at`? Both are multiples of the bytes of a group's scales, or
 * the tensor's end.
 */
function is_finite_between(tensor: usize, from: u64, to: u64, at: usize): bool {
  const dtype = load<u32>(tensor, TENSOR_DTYPE);
  const end = at + ((to - from) as usize);
  if (dtype == DTYPE_BYTES) return true;
  if (dtype == DTYPE_VECTOR || dtype == DTYPE_F32) {
    // The exponent's bits are all ones in infinities and NaNs.
    for (; at < end; at += 4) if ((load<u32>(at) & 0x7f800000) == 0x7f800000) return false;
    return true;
  }
  const step = group_bytes(dtype, load<u32>(tensor, TENSOR_GROUP));
  at += ((step - (from % step)) % step) as usize;
  for (; at < end; at += step) {
    for (let i: u32 = 0; i < ROW_TILE; i++) {
      const bits = load<u16>(at + i * 2) as u32;
      if ((bits & 0x8000) != 0 || (bits & 0x7c00) == 0x7c00) return false;
    }
  }
  return true;
}
