// How tokens are chosen: the defaults and limits of runtime/generation.ts.

import { sampler_configure } from "../sampler";
import { is_none } from "./numbers";
import { PROBLEM_USAGE, problem, status_problem } from "./problem";
import { random_get } from "./wasi_snapshot_preview1";
import { write_number, write_text } from "./writer";

export const TEMPERATURE_MOST: f64 = 100;
export const TOP_K_MOST: f64 = 2147483648;
export const TOP_P_LEAST: f64 = 1e-6;
export const PENALTY_LEAST: f64 = 0.01;
export const PENALTY_MOST: f64 = 100;

const TEMPERATURE: f64 = 0.7;
const TOP_K: f64 = 40;
const TOP_P: f64 = 0.95;
const MIN_P: f64 = 0.05;
const PENALTY: f64 = 1.1;

const random = memory.data(8, 8);

/** Sets the sampler up; NaN stands for a default. Returns a problem's code, 0 for none. */
export function sampling_set(temperature: f64, topK: f64, topP: f64, minP: f64, repeatPenalty: f64, seed: u64): i32 {
  const t = is_none(temperature) ? TEMPERATURE : temperature;
  const k = is_none(topK) ? TOP_K : topK;
  const p = is_none(topP) ? TOP_P : topP;
  const m = is_none(minP) ? MIN_P : minP;
  const r = is_none(repeatPenalty) ? PENALTY : repeatPenalty;
  if (!(t >= 0 && t <= TEMPERATURE_MOST)) return range_problem("temperature", 0, TEMPERATURE_MOST, t);
  if (!(k >= 0 && k <= TOP_K_MOST)) return range_problem("top-k", 0, TOP_K_MOST, k);
  if (!(p >= TOP_P_LEAST && p <= 1)) return range_problem("top-p", TOP_P_LEAST, 1, p);
  if (!(m >= 0 && m <= 1)) return range_problem("min-p", 0, 1, m);
  if (!(r >= PENALTY_LEAST && r <= PENALTY_MOST))
    return range_problem("repeat-penalty", PENALTY_LEAST, PENALTY_MOST, r);
  return status_problem(
    sampler_configure(t as f32, k as u32, p as f32, m as f32, r as f32, seed as u32, (seed >> 32) as u32),
  );
}

/** A seed drawn by the host; below 2^32, so that it can be given again with ease. */
export function random_seed(): u64 {
  return random_get(random, 4) == 0 ? (load<u32>(random) as u64) : 0;
}

function range_problem(name: string, least: f64, most: f64, value: f64): i32 {
  problem(PROBLEM_USAGE);
  write_text(name);
  write_text(" must be between ");
  write_number(least);
  write_text(" and ");
  write_number(most);
  write_text(", not ");
  write_number(value);
  return PROBLEM_USAGE;
}
