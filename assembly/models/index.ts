// Which builder makes a family's program. An architecture is one file beside this one, and one line in each function.

import { FAMILY_LLAMA, HEADER_FAMILY } from "../../packs/format";
import { STATUS_UNSUPPORTED } from "../abi";
import { pack_field } from "../pack";
import { fail } from "../status";
import { llama_buffers, llama_check, llama_ops, llama_program } from "./llama";

/** Checks that this core knows the pack's family and that the pack has all of its tensors. */
export function model_check(): i32 {
  const family = pack_field(HEADER_FAMILY);
  if (family == FAMILY_LLAMA) return llama_check();
  return fail(STATUS_UNSUPPORTED, HEADER_FAMILY, family);
}

/** Most op records of a program. */
export function model_ops(): u32 {
  return llama_ops();
}

/** Lays out the scratch of a step at the present cut. */
export function model_buffers(rows: u32, outputs: u32): void {
  llama_buffers(rows, outputs);
}

/** Appends the program and takes caches and state at the present cut. scores: [context]; logits: [outputs, vocabulary]. */
export function model_program(scores: usize, logits: usize): void {
  llama_program(scores, logits);
}
