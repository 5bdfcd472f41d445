// What is done with logits: choosing the next token, and scoring a known one.

import { HEADER_VOCABULARY } from "../packs/format";
import { STATUS_ARGUMENT } from "./abi";
import { pack_field } from "./pack";
import { history_ptr, logits_ptr, sampler_scratch_ptr } from "./plan";
import { best_of, sampler_choose } from "./sampler";
import { shape_context, shape_outputs } from "./shape";
import { fail } from "./status";

/** Chooses a token from row `output` of the logits; the history is the first `historyLength` ids at history_ptr(). */
export function logits_choose(output: u32, historyLength: u32): i32 {
  if (output >= shape_outputs()) return fail(STATUS_ARGUMENT, 0, output);
  if (historyLength > shape_context()) return fail(STATUS_ARGUMENT, 1, historyLength);
  return sampler_choose(
    row(output),
    pack_field(HEADER_VOCABULARY),
    history_ptr(),
    historyLength,
    sampler_scratch_ptr(),
  );
}

/**
 * As logits_choose(), among a few: `count` logits lie where row 0 begins, and what comes back is the place of one of them.
 * The history at history_ptr() is of places too.
 */
export function logits_choose_among(count: u32, historyLength: u32): i32 {
  if (count == 0 || count > pack_field(HEADER_VOCABULARY)) return fail(STATUS_ARGUMENT, 0, count);
  if (historyLength > shape_context()) return fail(STATUS_ARGUMENT, 1, historyLength);
  return sampler_choose(row(0), count, history_ptr(), historyLength, sampler_scratch_ptr());
}

/** ln of the probability of a token in row `output` of the logits; NaN for a token or row that is not there. */
export function logits_score(output: u32, token: u32): f64 {
  const vocabulary = pack_field(HEADER_VOCABULARY);
  if (output >= shape_outputs() || token >= vocabulary) return NaN;
  const logits = row(output);
  const most = load<f32>(logits + logits_best(output) * 4) as f64;
  let sum: f64 = 0;
  for (let i: u32 = 0; i < vocabulary; i++) sum += Math.exp((load<f32>(logits + i * 4) as f64) - most);
  return (load<f32>(logits + token * 4) as f64) - most - Math.log(sum);
}

/** The likeliest token of row `output`; the lowest id of equals. */
export function logits_best(output: u32): u32 {
  return best_of(row(min(output, shape_outputs() - 1)), pack_field(HEADER_VOCABULARY));
}

function row(output: u32): usize {
  return logits_ptr() + output * pack_field(HEADER_VOCABULARY) * 4;
}
