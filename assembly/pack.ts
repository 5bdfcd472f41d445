// Reads a pack's prelude and header. Everything is checked here, once: whoever asks later for a tensor, a stack or a
// unit gets numbers that can be trusted. What a family needs of them is for assembly/models/ to check.

import {
  ALIGN,
  BLOCK_COLS,
  CURVE_BYTES,
  CURVE_PERPLEXITY,
  CURVE_TOP_ONE,
  CURVE_UNITS,
  DTYPE_BYTES,
  DTYPE_F32,
  DTYPE_Q4,
  DTYPE_Q8,
  DTYPE_VECTOR,
  END_TOKENS_MAX,
  FIXED_CHUNK_BYTES,
  GROUP_MAX,
  GROUP_MIN,
  HEADER_BEGIN_TOKEN,
  HEADER_CHUNKS,
  HEADER_CONTEXT,
  HEADER_CURVE,
  HEADER_END_TOKENS,
  HEADER_FIELDS_BYTES,
  HEADER_FIXED_TENSORS,
  HEADER_HEAD_DIM,
  HEADER_HEADS,
  HEADER_INFO,
  HEADER_KV_HEADS,
  HEADER_LAYERS,
  HEADER_MINIMUM_UNITS,
  HEADER_NORM_EPS,
  HEADER_SSM_GROUPS,
  HEADER_SSM_HEAD_DIM,
  HEADER_SSM_HEADS,
  HEADER_SSM_NORM_GROUPS,
  HEADER_SSM_STATE,
  HEADER_SSM_STEP_LEAST,
  HEADER_SSM_STEP_MOST,
  HEADER_SSM_TAPS,
  HEADER_STACKS,
  HEADER_TENSORS,
  HEADER_UNITS,
  HEADER_VOCABULARY,
  HEADER_WIDTH,
  KIND_MAX,
  NONE,
  PACK_MAGIC_HIGH,
  PACK_MAGIC_LOW,
  PACK_VERSION,
  PACK_VERSION_OLDEST,
  PRELUDE_BYTES,
  PRELUDE_FILE_BYTES,
  PRELUDE_FIXED_BYTES,
  PRELUDE_HASH,
  PRELUDE_HEADER_BYTES,
  PRELUDE_HEADER_HASH,
  PRELUDE_MAGIC,
  PRELUDE_VERSION,
  ROW_TILE,
  STACK_BYTES,
  STACK_CHANNELS,
  STACK_KIND,
  STACK_LAYER,
  STACK_TENSOR,
  STACK_TENSORS,
  STACK_UNIT_BYTES,
  STACK_UNITS,
  TENSOR_BYTES,
  TENSOR_COLS,
  TENSOR_DTYPE,
  TENSOR_GROUP,
  TENSOR_LAYER,
  TENSOR_LENGTH,
  TENSOR_OFFSET,
  TENSOR_ROLE,
  TENSOR_ROWS,
  UNIT_BYTES,
  UNIT_HASH,
  UNIT_INDEX,
  UNIT_LOSS,
  UNIT_STACK,
} from "../packs/format";
import {
  STATUS_CHECKSUM,
  STATUS_CORRUPT,
  STATUS_MEMORY,
  STATUS_NOT_A_PACK,
  STATUS_STATE,
  STATUS_TRUNCATED,
  STATUS_VERSION,
} from "./abi";
import { arena_base, memory_reach } from "./memory";
import { fail } from "./status";
import { xxh64 } from "./xxhash";

// No pack needs more; a count above them is damage, and products of counts below them fit in 64 bits.
const HEADER_BYTES_MAX: u32 = 64 << 20;
const LAYERS_MAX: u32 = 1024;
const DIMENSION_MAX: u32 = 1 << 24;
const UNIT_BYTES_MAX: u32 = 1 << 30;
const LAYER_TENSORS_MAX: u32 = 32;
const UNIT_TENSORS_MAX: u32 = 16;
const CURVE_MAX: u32 = 4096;
const HEAD_NUMBERS_MAX: u32 = 65535;
const TAPS_MAX: u32 = 64;

/** Bytes of the planner's tables for one stack, see plan.ts. */
export const STACK_TABLE_BYTES: u32 = 12;

const prelude = memory.data(64, 8);
let header: usize = 0;
let headerBytes: u32 = 0;
let fixedBytes: u64 = 0;
let sourceBytes: u64 = 0;
let opened = false;

/** Address at which a host puts the first PRELUDE_BYTES of the file. */
export function pack_prelude_ptr(): usize {
  return prelude;
}

/** Checks the prelude against the file's size and makes room for the header. Returns the header's bytes. */
export function pack_prelude(fileBytes: f64): i32 {
  opened = false;
  if (load<u32>(prelude, PRELUDE_MAGIC) != PACK_MAGIC_LOW || load<u32>(prelude, PRELUDE_MAGIC + 4) != PACK_MAGIC_HIGH)
    return fail(STATUS_NOT_A_PACK, load<u32>(prelude, PRELUDE_MAGIC), load<u32>(prelude, PRELUDE_MAGIC + 4));
  if (!(fileBytes >= PRELUDE_BYTES)) return fail(STATUS_TRUNCATED, PRELUDE_BYTES, fileBytes);
  const version = load<u32>(prelude, PRELUDE_VERSION);
  if (version < PACK_VERSION_OLDEST || version > PACK_VERSION) return fail(STATUS_VERSION, version, PACK_VERSION);
  if (xxh64(prelude, PRELUDE_HASH) != load<u64>(prelude, PRELUDE_HASH)) return fail(STATUS_CHECKSUM, 0, PRELUDE_BYTES);

  headerBytes = load<u32>(prelude, PRELUDE_HEADER_BYTES);
  fixedBytes = load<u64>(prelude, PRELUDE_FIXED_BYTES);
  sourceBytes = load<u64>(prelude, PRELUDE_FILE_BYTES);
  if (headerBytes < HEADER_FIELDS_BYTES || headerBytes > HEADER_BYTES_MAX || headerBytes % ALIGN != 0)
    return fail(STATUS_CORRUPT, PRELUDE_HEADER_BYTES, headerBytes);
  if (sourceBytes > 1 << 50) return fail(STATUS_CORRUPT, PRELUDE_FILE_BYTES, sourceBytes as f64);
  if (fixedBytes % ALIGN != 0 || fixedBytes > sourceBytes)
    return fail(STATUS_CORRUPT, PRELUDE_FIXED_BYTES, fixedBytes as f64);
  if (pack_units_offset() > sourceBytes) return fail(STATUS_CORRUPT, PRELUDE_FILE_BYTES, sourceBytes as f64);
  if (fileBytes < (sourceBytes as f64)) return fail(STATUS_TRUNCATED, sourceBytes as f64, fileBytes);

  header = arena_base();
  const end = (header as u64) + headerBytes;
  if (!memory_reach(end)) return fail(STATUS_MEMORY, end as f64, 0);
  return headerBytes as i32;
}

/** Address at which a host puts the header. */
export function pack_header_ptr(): usize {
  return header;
}

/** Checks the header, which the host has read to pack_header_ptr(). */
export function pack_header(): i32 {
  if (header == 0) return fail(STATUS_STATE, 0, 0);
  if (xxh64(header, headerBytes) != load<u64>(prelude, PRELUDE_HEADER_HASH))
    return fail(STATUS_CHECKSUM, PRELUDE_BYTES, headerBytes);
  let status = check_fields();
  if (status == 0) status = make_tables();
  if (status == 0) status = check_tensors();
  if (status == 0) status = check_stacks();
  if (status == 0) status = check_units();
  if (status == 0) status = check_curve();
  opened = status == 0;
  return status;
}

export function pack_opened(): bool {
  return opened;
}

export function pack_header_bytes(): u32 {
  return headerBytes;
}

export function pack_fixed_bytes(): u64 {
  return fixedBytes;
}

/** Where the fixed part starts in the file. */
export function pack_fixed_offset(): u64 {
  return (PRELUDE_BYTES as u64) + headerBytes;
}

/** Where the first unit starts in the file. */
export function pack_units_offset(): u64 {
  return pack_fixed_offset() + fixedBytes;
}

/** A u32 field of the header, HEADER_*. */
export function pack_field(field: u32): u32 {
  return load<u32>(header + field);
}

/** An f32 field of the header, HEADER_*. */
export function pack_float(field: u32): f32 {
  return load<f32>(header + field);
}

/** Number of entries of a table, HEADER_TENSORS … HEADER_INFO. */
export function pack_count(table: u32): u32 {
  return load<u32>(header + table);
}

export function tensor_ptr(index: u32): usize {
  return entry(HEADER_TENSORS, index, TENSOR_BYTES);
}

export function stack_ptr(index: u32): usize {
  return entry(HEADER_STACKS, index, STACK_BYTES);
}

export function unit_ptr(index: u32): usize {
  return entry(HEADER_UNITS, index, UNIT_BYTES);
}

export function curve_ptr(index: u32): usize {
  return entry(HEADER_CURVE, index, CURVE_BYTES);
}

export function chunk_hash(index: u32): u64 {
  return load<u64>(entry(HEADER_CHUNKS, index, 8));
}

/** UTF-8 JSON for hosts, pack_count(HEADER_INFO) bytes. */
export function pack_info_ptr(): usize {
  return entry(HEADER_INFO, 0, 1);
}

/** The fixed part's tensor with this role in this layer (NONE: of no layer), as a record's address, or 0. */
export function fixed_tensor(role: u32, layer: u32): usize {
  const key = fixed_key(role, layer);
  let low: u32 = 0;
  let high = pack_field(HEADER_FIXED_TENSORS);
  while (low < high) {
    const middle = (low + high) >> 1;
    const tensor = tensor_ptr(middle);
    const found = fixed_key(load<u32>(tensor, TENSOR_ROLE), load<u32>(tensor, TENSOR_LAYER));
    if (found == key) return tensor;
    if (found < key) low = middle + 1;
    else high = middle;
  }
  return 0;
}

/** The stack of this kind in this layer, as an index, or NONE. */
export function stack_find(layer: u32, kind: u32): u32 {
  const key = stack_key(layer, kind);
  let low: u32 = 0;
  let high = pack_count(HEADER_STACKS);
  while (low < high) {
    const middle = (low + high) >> 1;
    const stack = stack_ptr(middle);
    const found = stack_key(load<u32>(stack, STACK_LAYER), load<u32>(stack, STACK_KIND));
    if (found == key) return middle;
    if (found < key) low = middle + 1;
    else high = middle;
  }
  return NONE;
}

/** Channels of one unit of a stack. */
export function stack_channels(stack: u32): u32 {
  return load<u32>(stack_ptr(stack), STACK_CHANNELS);
}

/** How many units a stack has, kept or not. */
export function stack_units(stack: u32): u32 {
  return load<u32>(stack_ptr(stack), STACK_UNITS);
}

/** Bytes of one unit of a stack. */
export function stack_unit_bytes(stack: u32): u32 {
  return load<u32>(stack_ptr(stack), STACK_UNIT_BYTES);
}

/** The tensor with this role in a stack's units, as a record's address, or 0. */
export function stack_tensor(stack: u32, role: u32): usize {
  const record = stack_ptr(stack);
  const first = load<u32>(record, STACK_TENSOR);
  const count = load<u32>(record, STACK_TENSORS);
  for (let i: u32 = 0; i < count; i++) {
    const tensor = tensor_ptr(first + i);
    if (load<u32>(tensor, TENSOR_ROLE) == role) return tensor;
  }
  return 0;
}

/** Is this tensor there as a matrix that a kernel can read, rows × cols? */
export function is_matrix(tensor: usize, rows: u32, cols: u32): bool {
  if (tensor == 0) return false;
  const dtype = load<u32>(tensor, TENSOR_DTYPE);
  return (
    (dtype == DTYPE_F32 || dtype == DTYPE_Q8 || dtype == DTYPE_Q4) &&
    load<u32>(tensor, TENSOR_ROWS) == rows &&
    load<u32>(tensor, TENSOR_COLS) == cols
  );
}

/** Is this tensor there as plain f32, rows × cols? */
export function is_vector(tensor: usize, rows: u32, cols: u32): bool {
  return (
    tensor != 0 &&
    load<u32>(tensor, TENSOR_DTYPE) == DTYPE_VECTOR &&
    load<u32>(tensor, TENSOR_ROWS) == rows &&
    load<u32>(tensor, TENSOR_COLS) == cols
  );
}

/** As is_vector, or not there at all. */
export function is_optional_vector(tensor: usize, cols: u32): bool {
  return tensor == 0 || is_vector(tensor, 1, cols);
}

/** STATUS_CORRUPT for a pack that lacks what this field of the header promises. */
export function missing(field: u32): i32 {
  return corrupt(header + field);
}

/** STATUS_CORRUPT for the u32 at this address of the header. */
export function corrupt(ptr: usize): i32 {
  return fail(STATUS_CORRUPT, (ptr - header + PRELUDE_BYTES) as f64, load<u32>(ptr));
}

/** Bytes of a tensor and of the zeros behind it. */
export function tensor_span(tensor: usize): u32 {
  return ((load<u64>(tensor, TENSOR_LENGTH) + (ALIGN - 1)) & ~((ALIGN - 1) as u64)) as u32;
}

/** Bytes of one group of a tile, scales included. */
export function group_bytes(dtype: u32, group: u32): u32 {
  return ROW_TILE * 2 + (dtype == DTYPE_Q4 ? (ROW_TILE * group) / 2 : ROW_TILE * group);
}

/** Bytes of one tile of ROW_TILE rows. */
export function tile_bytes(dtype: u32, cols: u32, group: u32): u32 {
  return dtype == DTYPE_F32 ? ROW_TILE * 4 * cols : (cols / group) * group_bytes(dtype, group);
}

function tensor_length(tensor: usize): u64 {
  const dtype = load<u32>(tensor, TENSOR_DTYPE);
  const rows = load<u32>(tensor, TENSOR_ROWS);
  const cols = load<u32>(tensor, TENSOR_COLS);
  if (dtype == DTYPE_BYTES) return cols;
  if (dtype == DTYPE_VECTOR) return (rows as u64) * cols * 4;
  const group = load<u32>(tensor, TENSOR_GROUP);
  const tiles = (rows + (ROW_TILE - 1)) / ROW_TILE;
  if (dtype == DTYPE_F32) return (tiles as u64) * (ROW_TILE * 4) * cols;
  return (tiles as u64) * (cols / group) * group_bytes(dtype, group);
}

/** Makes room behind the header for the tables of cut.ts. */
function make_tables(): i32 {
  const end = (header as u64) + headerBytes + (pack_count(HEADER_STACKS) as u64) * STACK_TABLE_BYTES;
  return memory_reach(end) ? 0 : fail(STATUS_MEMORY, end as f64, 0);
}

function entry(table: u32, index: u32, bytes: u32): usize {
  return header + load<u32>(header + table, 4) + index * bytes;
}

// What the records of the fixed tensors and of the stacks ascend by.
function fixed_key(role: u32, layer: u32): u64 {
  return (((layer + 1) as u64) << 32) | role;
}

function stack_key(layer: u32, kind: u32): u64 {
  return ((layer as u64) << 32) | kind;
}

function in_range(field: u32, least: u32, most: u32): bool {
  const value = pack_field(field);
  return value >= least && value <= most;
}

/** The fields of an attention: all, or none. Products of two of them fit in 32 bits. */
function check_attention(): i32 {
  const heads = pack_field(HEADER_HEADS);
  if (heads == 0) {
    if (pack_field(HEADER_KV_HEADS) != 0) return corrupt(header + HEADER_KV_HEADS);
    return pack_field(HEADER_HEAD_DIM) != 0 ? corrupt(header + HEADER_HEAD_DIM) : 0;
  }
  if (!in_range(HEADER_HEADS, 1, HEAD_NUMBERS_MAX)) return corrupt(header + HEADER_HEADS);
  if (!divides(HEADER_KV_HEADS, heads)) return corrupt(header + HEADER_KV_HEADS);
  return in_range(HEADER_HEAD_DIM, 1, HEAD_NUMBERS_MAX) ? 0 : corrupt(header + HEADER_HEAD_DIM);
}

/** The same for an SSM; version 1 has none, and zeros there. */
function check_ssm(): i32 {
  const heads = pack_field(HEADER_SSM_HEADS);
  if (heads == 0) return 0;
  if (!in_range(HEADER_SSM_HEADS, 1, HEAD_NUMBERS_MAX)) return corrupt(header + HEADER_SSM_HEADS);
  if (!in_range(HEADER_SSM_HEAD_DIM, 1, HEAD_NUMBERS_MAX)) return corrupt(header + HEADER_SSM_HEAD_DIM);
  if (!divides(HEADER_SSM_GROUPS, heads)) return corrupt(header + HEADER_SSM_GROUPS);
  if (!in_range(HEADER_SSM_STATE, 1, HEAD_NUMBERS_MAX)) return corrupt(header + HEADER_SSM_STATE);
  if (!in_range(HEADER_SSM_TAPS, 1, TAPS_MAX)) return corrupt(header + HEADER_SSM_TAPS);
  if (!divides(HEADER_SSM_NORM_GROUPS, heads)) return corrupt(header + HEADER_SSM_NORM_GROUPS);
  const least = pack_float(HEADER_SSM_STEP_LEAST);
  if (!(least >= 0)) return corrupt(header + HEADER_SSM_STEP_LEAST);
  return pack_float(HEADER_SSM_STEP_MOST) >= least ? 0 : corrupt(header + HEADER_SSM_STEP_MOST);
}

/** Is a field at least 1 and a divisor of `whole`? */
function divides(field: u32, whole: u32): bool {
  const value = pack_field(field);
  return value > 0 && whole % value == 0;
}

function check_table(table: u32, bytes: u32, align: u32): i32 {
  const count = load<u32>(header + table);
  const offset = load<u32>(header + table, 4);
  if (count > headerBytes / bytes) return corrupt(header + table);
  if (offset < HEADER_FIELDS_BYTES || offset % align != 0) return corrupt(header + table + 4);
  if ((offset as u64) + (count as u64) * bytes > headerBytes) return corrupt(header + table + 4);
  return 0;
}

function check_fields(): i32 {
  if (!in_range(HEADER_LAYERS, 1, LAYERS_MAX)) return corrupt(header + HEADER_LAYERS);
  if (!in_range(HEADER_WIDTH, 1, DIMENSION_MAX)) return corrupt(header + HEADER_WIDTH);
  if (!in_range(HEADER_VOCABULARY, 1, DIMENSION_MAX)) return corrupt(header + HEADER_VOCABULARY);
  if (!in_range(HEADER_CONTEXT, 1, 1 << 30)) return corrupt(header + HEADER_CONTEXT);
  const eps = pack_float(HEADER_NORM_EPS);
  if (!(eps >= 0 && eps < 1)) return corrupt(header + HEADER_NORM_EPS);
  const vocabulary = pack_field(HEADER_VOCABULARY);
  const begin = pack_field(HEADER_BEGIN_TOKEN);
  if (begin != NONE && begin >= vocabulary) return corrupt(header + HEADER_BEGIN_TOKEN);
  const ends = pack_field(HEADER_END_TOKENS);
  if (ends > END_TOKENS_MAX) return corrupt(header + HEADER_END_TOKENS);
  for (let i: u32 = 0; i < ends; i++) {
    if (pack_field(HEADER_END_TOKENS + 4 + i * 4) >= vocabulary) return corrupt(header + HEADER_END_TOKENS + 4 + i * 4);
  }
  let status = check_attention();
  if (status == 0) status = check_ssm();
  if (status == 0) status = check_table(HEADER_TENSORS, TENSOR_BYTES, 8);
  if (status == 0) status = check_table(HEADER_STACKS, STACK_BYTES, 4);
  if (status == 0) status = check_table(HEADER_UNITS, UNIT_BYTES, 8);
  if (status == 0) status = check_table(HEADER_CHUNKS, 8, 8);
  if (status == 0) status = check_table(HEADER_CURVE, CURVE_BYTES, 4);
  if (status == 0) status = check_table(HEADER_INFO, 1, 1);
  if (status != 0) return status;
  const layers = pack_field(HEADER_LAYERS);
  if (
    pack_field(HEADER_FIXED_TENSORS) > pack_count(HEADER_TENSORS) ||
    pack_field(HEADER_FIXED_TENSORS) > (layers + 1) * LAYER_TENSORS_MAX
  )
    return corrupt(header + HEADER_FIXED_TENSORS);
  if (pack_count(HEADER_STACKS) > layers * KIND_MAX) return corrupt(header + HEADER_STACKS);
  if (pack_count(HEADER_CURVE) > CURVE_MAX) return corrupt(header + HEADER_CURVE);
  if (pack_field(HEADER_MINIMUM_UNITS) > pack_count(HEADER_UNITS)) return corrupt(header + HEADER_MINIMUM_UNITS);
  const chunks = (fixedBytes + (FIXED_CHUNK_BYTES - 1)) / FIXED_CHUNK_BYTES;
  if ((pack_count(HEADER_CHUNKS) as u64) != chunks) return corrupt(header + HEADER_CHUNKS);
  return 0;
}

function check_tensors(): i32 {
  const count = pack_count(HEADER_TENSORS);
  const fixed = pack_field(HEADER_FIXED_TENSORS);
  for (let i: u32 = 0; i < count; i++) {
    const tensor = tensor_ptr(i);
    const dtype = load<u32>(tensor, TENSOR_DTYPE);
    const rows = load<u32>(tensor, TENSOR_ROWS);
    const cols = load<u32>(tensor, TENSOR_COLS);
    const group = load<u32>(tensor, TENSOR_GROUP);
    const layer = load<u32>(tensor, TENSOR_LAYER);
    if (dtype > DTYPE_VECTOR) return corrupt(tensor + TENSOR_DTYPE);
    if (layer != NONE && layer >= pack_field(HEADER_LAYERS)) return corrupt(tensor + TENSOR_LAYER);
    if (rows == 0 || rows > DIMENSION_MAX) return corrupt(tensor + TENSOR_ROWS);
    if (cols == 0 || (cols > DIMENSION_MAX && dtype != DTYPE_BYTES)) return corrupt(tensor + TENSOR_COLS);
    if (dtype == DTYPE_Q4 || dtype == DTYPE_Q8) {
      if (group < GROUP_MIN || group > GROUP_MAX || group % BLOCK_COLS != 0 || cols % group != 0)
        return corrupt(tensor + TENSOR_GROUP);
    } else if (group != 0) return corrupt(tensor + TENSOR_GROUP);
    const offset = load<u64>(tensor, TENSOR_OFFSET);
    const length = load<u64>(tensor, TENSOR_LENGTH);
    if (length != tensor_length(tensor)) return corrupt(tensor + TENSOR_LENGTH);
    if (offset % ALIGN != 0) return corrupt(tensor + TENSOR_OFFSET);
    if (i > 0 && i < fixed) {
      const before = tensor_ptr(i - 1);
      const key = fixed_key(load<u32>(tensor, TENSOR_ROLE), layer);
      if (key <= fixed_key(load<u32>(before, TENSOR_ROLE), load<u32>(before, TENSOR_LAYER)))
        return corrupt(tensor + TENSOR_ROLE);
    }
    if (i < fixed && (offset > fixedBytes || length > fixedBytes - offset)) return corrupt(tensor + TENSOR_OFFSET);
  }
  return 0;
}

function check_stacks(): i32 {
  const count = pack_count(HEADER_STACKS);
  const fixed = pack_field(HEADER_FIXED_TENSORS);
  const tensors = pack_count(HEADER_TENSORS);
  for (let i: u32 = 0; i < count; i++) {
    const stack = stack_ptr(i);
    const layer = load<u32>(stack, STACK_LAYER);
    const kind = load<u32>(stack, STACK_KIND);
    const units = load<u32>(stack, STACK_UNITS);
    const channels = load<u32>(stack, STACK_CHANNELS);
    const bytes = load<u32>(stack, STACK_UNIT_BYTES);
    const first = load<u32>(stack, STACK_TENSOR);
    if (layer >= pack_field(HEADER_LAYERS)) return corrupt(stack + STACK_LAYER);
    if (kind == 0 || kind > KIND_MAX) return corrupt(stack + STACK_KIND);
    if (i > 0) {
      const before = stack_ptr(i - 1);
      if (stack_key(layer, kind) <= stack_key(load<u32>(before, STACK_LAYER), load<u32>(before, STACK_KIND)))
        return corrupt(stack + STACK_KIND);
    }
    if (units == 0 || units > pack_count(HEADER_UNITS)) return corrupt(stack + STACK_UNITS);
    if (channels == 0 || channels > DIMENSION_MAX / units) return corrupt(stack + STACK_CHANNELS);
    if (bytes == 0 || bytes > UNIT_BYTES_MAX || bytes % ALIGN != 0) return corrupt(stack + STACK_UNIT_BYTES);
    if (first < fixed || first > tensors) return corrupt(stack + STACK_TENSOR);
    const inside = load<u32>(stack, STACK_TENSORS);
    if (inside > tensors - first || inside > UNIT_TENSORS_MAX) return corrupt(stack + STACK_TENSORS);
    // One behind the other, and nothing between them.
    let end: u64 = 0;
    for (let t = first; t < first + inside; t++) {
      const tensor = tensor_ptr(t);
      if (load<u64>(tensor, TENSOR_OFFSET) != end) return corrupt(tensor + TENSOR_OFFSET);
      if (load<u64>(tensor, TENSOR_LENGTH) > bytes - end) return corrupt(tensor + TENSOR_OFFSET);
      end += tensor_span(tensor);
    }
    if (end != bytes) return corrupt(stack + STACK_UNIT_BYTES);
  }
  return 0;
}

function check_units(): i32 {
  const stacks = pack_count(HEADER_STACKS);
  const count = pack_count(HEADER_UNITS);
  const next = header + headerBytes; // u32 [stacks]: the room that make_tables() made
  memory.fill(next, 0, stacks * 4);
  let offset = pack_units_offset();
  for (let i: u32 = 0; i < count; i++) {
    const unit = unit_ptr(i);
    const stack = load<u32>(unit, UNIT_STACK);
    if (stack >= stacks) return corrupt(unit + UNIT_STACK);
    const index = load<u32>(unit, UNIT_INDEX);
    if (index != load<u32>(next + stack * 4)) return corrupt(unit + UNIT_INDEX);
    store<u32>(next + stack * 4, index + 1);
    if (!isFinite<f32>(load<f32>(unit, UNIT_LOSS))) return corrupt(unit + UNIT_LOSS);
    offset += load<u32>(stack_ptr(stack), STACK_UNIT_BYTES);
  }
  for (let s: u32 = 0; s < stacks; s++) {
    const stack = stack_ptr(s);
    if (load<u32>(next + s * 4) != load<u32>(stack, STACK_UNITS)) return corrupt(stack + STACK_UNITS);
  }
  if (offset != sourceBytes) return fail(STATUS_CORRUPT, PRELUDE_FILE_BYTES, sourceBytes as f64);
  return 0;
}

function check_curve(): i32 {
  const count = pack_count(HEADER_CURVE);
  for (let i: u32 = 0; i < count; i++) {
    const point = curve_ptr(i);
    const units = load<u32>(point, CURVE_UNITS);
    const perplexity = load<f32>(point, CURVE_PERPLEXITY);
    if (units > pack_count(HEADER_UNITS)) return corrupt(point + CURVE_UNITS);
    if (i > 0 && units <= load<u32>(curve_ptr(i - 1), CURVE_UNITS)) return corrupt(point + CURVE_UNITS);
    if (!(perplexity >= 1 && isFinite<f32>(perplexity))) return corrupt(point + CURVE_PERPLEXITY);
    const topOne = load<f32>(point, CURVE_TOP_ONE);
    if (!(topOne >= 0 && topOne <= 1)) return corrupt(point + CURVE_TOP_ONE);
  }
  return 0;
}

/** Stored XXH64 of a unit. */
export function unit_hash(index: u32): u64 {
  return load<u64>(unit_ptr(index), UNIT_HASH);
}
