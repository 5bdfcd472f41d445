// What is kept of a pack, and where everything lies: the only place that rounds. A plan is the load's own layout, run
// without touching memory, so that what is planned is what is used.

import {
  CURVE_PERPLEXITY,
  CURVE_UNITS,
  DTYPE_F32,
  HEADER_CONTEXT,
  HEADER_CURVE,
  HEADER_MINIMUM_UNITS,
  HEADER_SSM_HEADS,
  HEADER_STACKS,
  HEADER_UNITS,
  HEADER_VOCABULARY,
  NONE,
  ROLE_EMBEDDING,
  ROLE_TOKENIZER,
  TENSOR_DTYPE,
  UNIT_STACK,
} from "../packs/format";
import {
  KV_CODES,
  KV_DEFAULT,
  OP_BYTES,
  PLAN_BYTES,
  PLAN_CODED,
  PLAN_CONTEXT,
  PLAN_CORE_BYTES,
  PLAN_DEVICE_BYTES,
  PLAN_KEPT_UNITS,
  PLAN_KV_BYTES,
  PLAN_MAXIMUM_BYTES,
  PLAN_MEMORY_BYTES,
  PLAN_MINIMUM_BYTES,
  PLAN_OUTPUTS,
  PLAN_PERPLEXITY,
  PLAN_PRUNING_RATE,
  PLAN_READ_BYTES,
  PLAN_ROWS,
  PLAN_SCRATCH_BYTES,
  PLAN_SEQUENCES,
  PLAN_SNAPSHOTS,
  PLAN_STATE_BYTES,
  PLAN_TOTAL_BYTES,
  PLAN_UNITS,
  PLAN_WEIGHTS_BYTES,
  ROW_BYTES,
  STATUS_ARGUMENT,
  STATUS_BUDGET,
  STATUS_CONTEXT,
  STATUS_MEMORY,
  STATUS_STATE,
} from "./abi";
import {
  cut_keep,
  cut_kept,
  cut_load,
  cut_loaded,
  fixed_bytes,
  fixed_check,
  fixed_place,
  fixed_ptr,
  stack_place,
} from "./cut";
import { cache_table_reset, cache_table_take } from "./kv-cache";
import {
  ADDRESS_END,
  arena_at_least,
  arena_device_end,
  arena_end,
  arena_extend,
  arena_mark,
  arena_part,
  arena_start,
  arena_take,
  core_take,
  DEVICE_END,
  memory_reach,
  PAGE_BYTES,
  PART_CORE,
  PART_KV,
  PART_SCRATCH,
  PART_STATE,
  PART_WEIGHTS,
  part_address,
  part_span,
} from "./memory";
import { model_buffers, model_check, model_ops, model_program } from "./models/index";
import {
  curve_ptr,
  fixed_tensor,
  pack_count,
  pack_field,
  pack_fixed_bytes,
  pack_header_bytes,
  pack_opened,
  pack_units_offset,
  STACK_TABLE_BYTES,
  stack_unit_bytes,
  unit_ptr,
} from "./pack";
import { program_start } from "./program";
import { sampler_scratch_bytes } from "./sampler";
import {
  shape_coded,
  shape_context,
  shape_device,
  shape_outputs,
  shape_rows,
  shape_rows_fewest,
  shape_rows_most,
  shape_sequences,
  shape_set,
  shape_snapshots,
  shape_use_rows,
} from "./shape";
import { staging_bytes, staging_place } from "./staging";
import { fail } from "./status";
import { text_bytes, text_place } from "./text";

/** Of weights that a rehearsal works on: more than caches hold. */
const REHEARSED_BYTES: u32 = 1 << 27;

const plan = memory.data(PLAN_BYTES, 8);
let planned = false;
let placed = false;
let rehearsed = false;

let rowsPtr: usize = 0;
let logitsPtr: usize = 0;
let historyPtr: usize = 0;
let samplerPtr: usize = 0;

/** Address of the plan, PLAN_*. */
export function plan_ptr(): usize {
  return plan;
}

/**
 * Sets what a plan must make room for; 0 is the default. positions of a sequence (2048, or the model's most if that is
 * less); sequences: 1; rows of a step: 64, in a device 512 or what plan_memory() says; outputs, rows of a step that want logits: 1; threads of a
 * step: 1. exact: 1 keeps all activations f32, 0 lets matrices of 4 and 8 bit work on activations of 8 bit. device: 1
 * lays weights, caches, states and scratch out in a device's memory; the program is for the host to execute then.
 * kv: KV_F32 or KV_CODES, of which a device has the first only; 0 is codes where matrices work on codes.
 * snapshots: as many more states as a host wants to copy states to, where the model has some and the core can be seen.
 */
export function plan_shape(
  positions: u32,
  sequences: u32,
  rows: u32,
  outputs: u32,
  threads: u32,
  exact: u32,
  device: u32,
  kv: u32,
  snapshots: u32,
): i32 {
  planned = false;
  if (!pack_opened() || placed) return fail(STATUS_STATE, 1, 0);
  let status = model_check();
  if (status == 0 && device != 0) status = fixed_check();
  if (status != 0) return status;
  const most = pack_field(HEADER_CONTEXT);
  if (positions > most) return fail(STATUS_CONTEXT, positions, most);
  const coded = kv == KV_CODES || (kv == KV_DEFAULT && exact == 0 && is_quantized());
  const states = pack_field(HEADER_SSM_HEADS) == 0 ? 0 : snapshots;
  const refused = shape_set(positions, most, sequences, rows, outputs, threads, exact != 0, device != 0, coded, states);
  if (refused == 2) return fail(STATUS_ARGUMENT, 1, sequences);
  if (refused == 3) return fail(STATUS_ARGUMENT, 2, rows);
  if (refused == 4) return fail(STATUS_ARGUMENT, 3, outputs);
  if (refused == 5) return fail(STATUS_ARGUMENT, 4, threads);
  if (refused == 8) return fail(STATUS_ARGUMENT, 7, snapshots);
  return 0;
}

/** Are the matrices of 4 or 8 bit? */
function is_quantized(): bool {
  return load<u32>(fixed_tensor(ROLE_EMBEDDING, NONE), TENSOR_DTYPE) != DTYPE_F32;
}

/**
 * Keeps as many units as `bytes` hold. Rows of a step that nobody asked for leave room for them: halved down to those of
 * the core until everything fits.
 */
export function plan_memory(bytes: f64): i32 {
  if (shape_context() == 0) return fail(STATUS_STATE, 2, 0);
  const least = least_bytes();
  if (!(bytes >= (least as f64))) return fail(STATUS_BUDGET, bytes, least as f64);
  const budget = min<f64>(bytes, (shape_device() ? DEVICE_END : ADDRESS_END) as f64) as u64;
  let units = pack_count(HEADER_UNITS);
  let rows = shape_rows_most();
  while (measure_with(rows, units) > budget && rows > shape_rows_fewest()) rows = max(rows / 2, shape_rows_fewest());
  if (measure(units) > budget) {
    let low = pack_field(HEADER_MINIMUM_UNITS);
    while (units - low > 1) {
      const middle = low + (units - low) / 2;
      if (measure(middle) <= budget) low = middle;
      else units = middle;
    }
    units = low;
  }
  // What is left of the budget below the next unit stays scratch, so that a plan that had to cut takes all that it was
  // given: never less memory for a longer context, nor for a larger budget. A device's memory is not taken for nothing.
  const end = measure(units);
  if (units < pack_count(HEADER_UNITS) && !shape_device())
    arena_extend(PART_SCRATCH, max(end, budget & ~((PAGE_BYTES - 1) as u64)));
  write_plan(units, bytes, least);
  return 0;
}

/** Cuts as many units as have at most this share of the units' bytes. */
export function plan_pruning(rate: f64): i32 {
  if (shape_context() == 0) return fail(STATUS_STATE, 2, 0);
  if (!(rate >= 0 && rate <= 1)) return fail(STATUS_ARGUMENT, 0, rate);
  // Half a byte for the rounding of a rate that was a quotient of bytes.
  const most = rate * (unit_bytes_after(0) as f64) + 0.5;
  let units = pack_count(HEADER_UNITS);
  let cutBytes: u64 = 0;
  while (units > pack_field(HEADER_MINIMUM_UNITS)) {
    cutBytes += bytes_of(units - 1);
    if ((cutBytes as f64) > most) break;
    units--;
  }
  const least = least_bytes();
  const end = measure_with(shape_rows_most(), units);
  write_plan(units, end as f64, least);
  return 0;
}

/** Grows memory to the plan and lays everything out; what is to be read comes next (load.ts). */
export function plan_place(): i32 {
  if (!planned || placed) return fail(STATUS_STATE, 3, 0);
  const inDevice = load<f64>(plan, PLAN_DEVICE_BYTES);
  if (inDevice > (DEVICE_END as f64)) return fail(STATUS_MEMORY, inDevice, 0);
  const inCore = load<f64>(plan, PLAN_TOTAL_BYTES) - inDevice;
  if (!memory_reach(inCore as u64)) return fail(STATUS_MEMORY, inCore, 0);
  keep_prefix(load<f64>(plan, PLAN_KEPT_UNITS) as u32);
  lay_out(true);
  placed = true;
  return 0;
}

/**
 * In place of plan_place(), for a rehearsal: the same layout, but all stacks lie in the same few bytes, which are zero
 * like all the rest. What a step takes can be measured before there are weights, in a fraction of the memory. A device's
 * layout has those few bytes only, and what is in them is the host's business: see device_bytes().
 */
export function plan_rehearse(): i32 {
  rehearsed = true;
  const status = plan_place();
  if (status != 0 || shape_device()) return status;
  // Pages that nobody has written are one page of zeros, which would stay in a cache.
  const weights = min<u64>(load<f64>(plan, PLAN_WEIGHTS_BYTES) as u64, rehearsed_bytes());
  memory.fill(fixed_ptr(), 0, weights as usize);
  return 0;
}

/** Bytes of a device's memory that are laid out: PLAN_DEVICE_BYTES once the plan is placed, less in a rehearsal. */
export function device_bytes(): f64 {
  return arena_device_end() as f64;
}

export function plan_placed(): bool {
  return placed;
}

/** Address of the rows of a step: ROW_* [rows]. */
export function rows_ptr(): usize {
  return rowsPtr;
}

/**
 * Address of the logits of the last step: f32 [outputs, vocabulary]. In a device plan the program's lie in the device,
 * and the host brings them here.
 */
export function logits_ptr(): usize {
  return logitsPtr;
}

/** Address of the tokens that the repetition penalty looks at: u32 [context], written by the host. */
export function history_ptr(): usize {
  return historyPtr;
}

/** Address of the sampler's working memory. */
export function sampler_scratch_ptr(): usize {
  return samplerPtr;
}

/**
 * Uses only the first `units` of a loaded stack from the next narrow_apply() on: a smaller cut without loading again.
 * Whatever the cache holds is void then.
 */
export function narrow_stack(stack: u32, units: u32): i32 {
  if (!placed) return fail(STATUS_STATE, 4, 0);
  if (stack >= pack_count(HEADER_STACKS)) return fail(STATUS_ARGUMENT, 0, stack);
  if (units > cut_loaded(stack)) return fail(STATUS_ARGUMENT, 1, units);
  cut_keep(stack, units);
  return 0;
}

/** Makes the program of the narrowed cut, in the memory that the plan has. */
export function narrow_apply(): i32 {
  if (!placed) return fail(STATUS_STATE, 4, 0);
  lay_out(true);
  return 0;
}

/** Lays out everything for the first `units` units and returns its bytes, those of the core in whole pages. */
function measure(units: u32): u64 {
  keep_prefix(units);
  lay_out(false);
  return total_bytes();
}

/** As measure(), with `rows` as the most rows of a step from now on. */
function measure_with(rows: u32, units: u32): u64 {
  shape_use_rows(rows);
  return measure(units);
}

/** What the smallest cut takes. */
function least_bytes(): u64 {
  return measure_with(shape_rows_fewest(), pack_field(HEADER_MINIMUM_UNITS));
}

function total_bytes(): u64 {
  return arena_end() + arena_device_end();
}

function keep_prefix(units: u32): void {
  const stacks = pack_count(HEADER_STACKS);
  for (let s: u32 = 0; s < stacks; s++) cut_keep(s, 0);
  for (let i: u32 = 0; i < units; i++) {
    const stack = load<u32>(unit_ptr(i), UNIT_STACK);
    cut_keep(stack, cut_kept(stack) + 1);
  }
  for (let s: u32 = 0; s < stacks; s++) cut_load(s, cut_kept(s));
}

function lay_out(emit: bool): void {
  const stacks = pack_count(HEADER_STACKS);
  arena_start();
  arena_take(PART_CORE, pack_header_bytes());
  arena_take(PART_CORE, (stacks as u64) * STACK_TABLE_BYTES);
  fixed_place();
  if (rehearsed) share_stacks();
  else for (let s: u32 = 0; s < stacks; s++) stack_place(s, arena_take(PART_WEIGHTS, stack_bytes(s)));
  program_start(arena_take(PART_CORE, (model_ops() as u64) * OP_BYTES), emit);

  const vocabulary = pack_field(HEADER_VOCABULARY);
  const logitsBytes = (shape_outputs() as u64) * vocabulary * 4;
  const start = arena_mark();
  rowsPtr = core_take(PART_SCRATCH, (shape_rows() as u64) * ROW_BYTES);
  logitsPtr = core_take(PART_SCRATCH, logitsBytes);
  historyPtr = core_take(PART_SCRATCH, (shape_context() as u64) * 4);
  samplerPtr = core_take(PART_SCRATCH, sampler_scratch_bytes(vocabulary));
  // Text is encoded between steps, in the bytes that a step of the core's works in.
  const mark = arena_mark();
  model_buffers();
  if (fixed_tensor(ROLE_TOKENIZER, NONE) != 0) arena_at_least(PART_SCRATCH, mark, text_bytes());
  text_place(mark as usize);
  if (shape_device()) arena_at_least(PART_SCRATCH, start, staging_bytes());
  staging_place(start as usize);
  cache_table_take();
  model_program(shape_device() ? arena_take(PART_SCRATCH, logitsBytes) : logitsPtr);
  if (emit) cache_table_reset();
}

/** Lays out all stacks in the same few bytes, the fixed part among them; the core takes room for all none the less. */
function share_stacks(): void {
  let shared = part_span(fixed_bytes());
  let end = shared;
  for (let s: u32 = 0; s < pack_count(HEADER_STACKS); s++) {
    const bytes = part_span(stack_bytes(s));
    if (!shape_device()) arena_take(PART_WEIGHTS, bytes);
    if (shared + bytes > rehearsed_bytes()) shared = 0;
    stack_place(s, part_address(fixed_ptr(), shared));
    shared += bytes;
    end = max(end, shared);
  }
  if (shape_device()) arena_take(PART_WEIGHTS, end - part_span(fixed_bytes()));
}

/** Bytes of a stack's loaded units. */
function stack_bytes(stack: u32): u64 {
  return (cut_loaded(stack) as u64) * stack_unit_bytes(stack);
}

/** What a rehearsal's weights lie in. */
function rehearsed_bytes(): u64 {
  return max<u64>(pack_fixed_bytes(), REHEARSED_BYTES);
}

function bytes_of(unit: u32): u64 {
  return stack_unit_bytes(load<u32>(unit_ptr(unit), UNIT_STACK));
}

/** Bytes of the units from `first` on. */
function unit_bytes_after(first: u32): u64 {
  let bytes: u64 = 0;
  for (let i = first; i < pack_count(HEADER_UNITS); i++) bytes += bytes_of(i);
  return bytes;
}

/** Fills the plan from the layout that was measured last. */
function write_plan(units: u32, memoryBytes: f64, least: u64): void {
  const all = unit_bytes_after(0);
  const left = unit_bytes_after(units);
  store<f64>(plan, memoryBytes, PLAN_MEMORY_BYTES);
  store<f64>(plan, total_bytes() as f64, PLAN_TOTAL_BYTES);
  store<f64>(plan, arena_device_end() as f64, PLAN_DEVICE_BYTES);
  store<f64>(plan, arena_part(PART_CORE) as f64, PLAN_CORE_BYTES);
  store<f64>(plan, arena_part(PART_WEIGHTS) as f64, PLAN_WEIGHTS_BYTES);
  store<f64>(plan, arena_part(PART_KV) as f64, PLAN_KV_BYTES);
  store<f64>(plan, arena_part(PART_STATE) as f64, PLAN_STATE_BYTES);
  // The last page's rest is scratch too: the parts add up to the total.
  arena_extend(PART_SCRATCH, arena_end());
  store<f64>(plan, arena_part(PART_SCRATCH) as f64, PLAN_SCRATCH_BYTES);
  store<f64>(plan, (pack_units_offset() + all - left) as f64, PLAN_READ_BYTES);
  store<f64>(plan, least as f64, PLAN_MINIMUM_BYTES);
  store<f64>(plan, all == 0 ? 0 : (left as f64) / (all as f64), PLAN_PRUNING_RATE);
  store<f64>(plan, expected_perplexity(units), PLAN_PERPLEXITY);
  store<f64>(plan, units, PLAN_KEPT_UNITS);
  store<f64>(plan, pack_count(HEADER_UNITS), PLAN_UNITS);
  store<f64>(plan, shape_context(), PLAN_CONTEXT);
  store<f64>(plan, shape_sequences(), PLAN_SEQUENCES);
  store<f64>(plan, shape_rows(), PLAN_ROWS);
  store<f64>(plan, shape_outputs(), PLAN_OUTPUTS);
  store<f64>(plan, shape_coded() ? 1 : 0, PLAN_CODED);
  store<f64>(plan, shape_snapshots(), PLAN_SNAPSHOTS);
  const rows = shape_rows();
  store<f64>(plan, measure_with(shape_rows_most(), pack_count(HEADER_UNITS)) as f64, PLAN_MAXIMUM_BYTES);
  shape_use_rows(rows);
  keep_prefix(units);
  planned = true;
}

/** Interpolates the logarithm of the curve's perplexity in the kept bytes; NaN without a curve. */
function expected_perplexity(units: u32): f64 {
  const points = pack_count(HEADER_CURVE);
  if (points == 0) return NaN;
  let at: u32 = 0;
  while (at < points && load<u32>(curve_ptr(at), CURVE_UNITS) < units) at++;
  if (at == points) return load<f32>(curve_ptr(points - 1), CURVE_PERPLEXITY);
  const above = curve_ptr(at);
  if (at == 0 || load<u32>(above, CURVE_UNITS) == units) return load<f32>(above, CURVE_PERPLEXITY);
  const below = curve_ptr(at - 1);
  const low = unit_bytes_after(load<u32>(below, CURVE_UNITS)) as f64;
  const high = unit_bytes_after(load<u32>(above, CURVE_UNITS)) as f64;
  const share = (low - (unit_bytes_after(units) as f64)) / (low - high);
  const from = Math.log(load<f32>(below, CURVE_PERPLEXITY));
  const to = Math.log(load<f32>(above, CURVE_PERPLEXITY));
  return Math.exp(from + share * (to - from));
}
