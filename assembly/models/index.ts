// The program of a model: embedding, the sublayers of every layer, final norm, head. A family says what its layers are
// made of, in one file beside this one and one line in model_sublayer().

import {
  FAMILY_BAMBA,
  FAMILY_LLAMA,
  FAMILY_MAMBA2,
  FAMILY_NEMOTRON_H,
  FAMILY_QWEN2,
  HEADER_FAMILY,
  HEADER_LAYERS,
  HEADER_VOCABULARY,
  HEADER_WIDTH,
  NONE,
  PRELUDE_BYTES,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_HEAD,
} from "../../packs/format";
import { FLAG_OUTPUTS, STATUS_UNSUPPORTED } from "../abi";
import { arena_take, PART_SCRATCH, scratch_again, scratch_end, scratch_start } from "../memory";
import { fixed_tensor, is_matrix, is_vector, missing, pack_field } from "../pack";
import { emit_embed, emit_matmul, emit_norm, emit_select, program_buffers, program_layer } from "../program";
import { shape_outputs, shape_rows } from "../shape";
import { fail } from "../status";
import { SUBLAYER_NONE, sublayer_buffers, sublayer_check, sublayer_emit, sublayer_ops } from "../sublayers/index";
import { bamba_sublayer } from "./bamba";
import { llama_sublayer } from "./llama";
import { mamba2_sublayer } from "./mamba2";
import { nemotron_h_sublayer } from "./nemotron-h";
import { qwen2_sublayer } from "./qwen2";

const END_OPS: u32 = 5; // embedding, selection, norm, codes, head

/** SUBLAYER_* `index` of a layer; SUBLAYER_NONE past the last, and for families that this core does not know. */
function model_sublayer(layer: u32, index: u32): u32 {
  const family = pack_field(HEADER_FAMILY);
  if (family == FAMILY_LLAMA) return llama_sublayer(index);
  if (family == FAMILY_QWEN2) return qwen2_sublayer(index);
  if (family == FAMILY_MAMBA2) return mamba2_sublayer(index);
  if (family == FAMILY_BAMBA) return bamba_sublayer(layer, index);
  if (family == FAMILY_NEMOTRON_H) return nemotron_h_sublayer(layer, index);
  return SUBLAYER_NONE;
}

/** Checks that this core knows the pack's family and that the pack has every tensor that the program uses. */
export function model_check(): i32 {
  if (model_sublayer(0, 0) == SUBLAYER_NONE)
    return fail(STATUS_UNSUPPORTED, PRELUDE_BYTES + HEADER_FAMILY, pack_field(HEADER_FAMILY));
  const width = pack_field(HEADER_WIDTH);
  const vocabulary = pack_field(HEADER_VOCABULARY);
  const head = fixed_tensor(ROLE_HEAD, NONE);
  if (!is_matrix(fixed_tensor(ROLE_EMBEDDING, NONE), vocabulary, width)) return missing(HEADER_VOCABULARY);
  if (head != 0 && !is_matrix(head, vocabulary, width)) return missing(HEADER_VOCABULARY);
  if (!is_vector(fixed_tensor(ROLE_FINAL_NORM, NONE), 1, width)) return missing(HEADER_WIDTH);
  for (let layer: u32 = 0; layer < pack_field(HEADER_LAYERS); layer++) {
    let sublayer = model_sublayer(layer, 0);
    for (let i: u32 = 1; sublayer != SUBLAYER_NONE; i++) {
      const status = sublayer_check(sublayer, layer);
      if (status != 0) return status;
      sublayer = model_sublayer(layer, i);
    }
  }
  return 0;
}

/** Most op records of a program. */
export function model_ops(): u32 {
  let ops = END_OPS;
  for (let layer: u32 = 0; layer < pack_field(HEADER_LAYERS); layer++) {
    let sublayer = model_sublayer(layer, 0);
    for (let i: u32 = 1; sublayer != SUBLAYER_NONE; i++) {
      ops += sublayer_ops(sublayer);
      sublayer = model_sublayer(layer, i);
    }
  }
  return ops;
}

let x: usize = 0; // [rows, width]: the residual stream
let y: usize = 0; // [rows, width]
let selected: usize = 0; // [outputs, width]

/** Lays out the scratch of a step at the present cut: what the sublayers need lies in the same place for all of them. */
export function model_buffers(): void {
  const width = pack_field(HEADER_WIDTH);
  x = arena_take(PART_SCRATCH, (shape_rows() as u64) * width * 4);
  y = arena_take(PART_SCRATCH, (shape_rows() as u64) * width * 4);
  selected = arena_take(PART_SCRATCH, (shape_outputs() as u64) * width * 4);
  scratch_start();
  for (let layer: u32 = 0; layer < pack_field(HEADER_LAYERS); layer++) {
    let sublayer = model_sublayer(layer, 0);
    for (let i: u32 = 1; sublayer != SUBLAYER_NONE; i++) {
      scratch_again();
      sublayer_buffers(sublayer, layer);
      sublayer = model_sublayer(layer, i);
    }
  }
  scratch_end();
  program_buffers();
}

/** Appends the program and takes caches and states at the present cut. logits: [outputs, vocabulary]. */
export function model_program(logits: usize): void {
  emit_embed(fixed_tensor(ROLE_EMBEDDING, NONE), x);
  for (let layer: u32 = 0; layer < pack_field(HEADER_LAYERS); layer++) {
    program_layer(layer);
    let sublayer = model_sublayer(layer, 0);
    for (let i: u32 = 1; sublayer != SUBLAYER_NONE; i++) {
      scratch_again();
      sublayer_buffers(sublayer, layer);
      sublayer_emit(sublayer, layer, x, y);
      sublayer = model_sublayer(layer, i);
    }
  }
  program_layer(NONE);
  emit_select(x, selected, pack_field(HEADER_WIDTH));
  emit_norm(FLAG_OUTPUTS, selected, selected, fixed_tensor(ROLE_FINAL_NORM, NONE));
  const head = fixed_tensor(ROLE_HEAD, NONE);
  emit_matmul(
    FLAG_OUTPUTS,
    head != 0 ? head : fixed_tensor(ROLE_EMBEDDING, NONE),
    selected,
    logits,
    pack_field(HEADER_VOCABULARY),
  );
}
