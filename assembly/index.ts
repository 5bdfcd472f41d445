// What a host may call. The order of a life: pack_prelude → pack_header → plan_shape → plan_memory or plan_pruning →
// plan_place → reads → load_finish → steps.

export { cut_kept, cut_kept_ptr } from "./cut";
export { ceiling, step, step_begin, step_ops, thread_join, thread_serve } from "./exec";
export { ceiling_products } from "./kernels/ceilings";
export { cache_blocks, cache_map, cache_table } from "./kv-cache";
export { load_finish, load_move, load_read, load_read_ptr, load_reads, load_rehearsal, load_verify } from "./load";
export { arena_base } from "./memory";
export {
  pack_count,
  pack_field,
  pack_header,
  pack_header_bytes,
  pack_header_ptr,
  pack_info_ptr,
  pack_prelude,
  pack_prelude_ptr,
  stack_ptr,
  tensor_ptr,
} from "./pack";
export {
  device_bytes,
  history_ptr,
  logits_ptr,
  narrow_apply,
  narrow_stack,
  plan_memory,
  plan_place,
  plan_pruning,
  plan_ptr,
  plan_shape,
  rows_ptr,
} from "./plan";
export { program_length, program_ptr, program_wide } from "./program";
export { logits_best, logits_choose, logits_choose_among, logits_score } from "./sample";
export { sampler_configure as logits_configure, sampler_state as logits_sampler_ptr } from "./sampler";
export { self_test } from "./self-test";
export {
  kv_part_bytes,
  kv_part_ptr,
  kv_parts,
  state_part_bytes,
  state_part_ptr,
  state_parts,
} from "./sequence-parts";
export { status_detail_ptr } from "./status";
export {
  text_capacity,
  text_consumed,
  text_encode,
  text_ptr,
  text_token_length,
  text_token_ptr,
  text_tokens_ptr,
} from "./text";
export { threads_end, threads_ready, threads_trapped } from "./threads";
