// The plan and the speeds, in words: the lines of `snug run`, and a table for --plan.

import { HEADER_LAYERS } from "../../packs/format";
import {
  PLAN_CONTEXT,
  PLAN_CORE_BYTES,
  PLAN_KEPT_UNITS,
  PLAN_KV_BYTES,
  PLAN_MAXIMUM_BYTES,
  PLAN_MEMORY_BYTES,
  PLAN_MINIMUM_BYTES,
  PLAN_PERPLEXITY,
  PLAN_PRUNING_RATE,
  PLAN_READ_BYTES,
  PLAN_SCRATCH_BYTES,
  PLAN_STATE_BYTES,
  PLAN_TOTAL_BYTES,
  PLAN_UNITS,
  PLAN_WEIGHTS_BYTES,
} from "../abi";
import { pack_field } from "../pack";
import { plan_ptr } from "../plan";
import { file_size } from "./file";
import { is_none } from "./numbers";
import { write_name } from "./problem";
import { write_decimal, write_megabytes, write_number, write_percent, write_text, write_whole } from "./writer";

const TABLE_COLUMN: i32 = 21;

/** What a run is about to load, as lines for people. */
export function report_plan(how: string): void {
  write_text("pack    ");
  write_name();
  write_text(", ");
  write_whole(pack_field(HEADER_LAYERS));
  write_text(" layers, ");
  write_megabytes(file_size());
  write_text("\nbudget  ");
  write_megabytes(fact(PLAN_MEMORY_BYTES));
  write_text(": ");
  write_text(how);
  write_text("\nplan    ");
  write_megabytes(fact(PLAN_TOTAL_BYTES));
  write_text(" of ");
  write_megabytes(fact(PLAN_MAXIMUM_BYTES));
  write_text(", context ");
  write_whole(fact(PLAN_CONTEXT));
  write_text("\nkept    ");
  write_kept();
  if (fact(PLAN_KEPT_UNITS) == fact(PLAN_UNITS)) write_text(", nothing is pruned");
  else {
    write_text(", pruning rate ");
    write_percent(fact(PLAN_PRUNING_RATE));
  }
  if (!is_none(fact(PLAN_PERPLEXITY))) {
    write_text(", expected perplexity ");
    write_decimal(fact(PLAN_PERPLEXITY), 2);
  }
  write_text("\n\n");
}

/** All of the plan, one fact a line, sizes in bytes. */
export function report_table(): void {
  row("core", PLAN_CORE_BYTES);
  row("weights", PLAN_WEIGHTS_BYTES);
  row("KV cache", PLAN_KV_BYTES);
  row("state", PLAN_STATE_BYTES);
  row("scratch", PLAN_SCRATCH_BYTES);
  row("total", PLAN_TOTAL_BYTES);
  row("budget", PLAN_MEMORY_BYTES);
  row("smallest", PLAN_MINIMUM_BYTES);
  row("everything", PLAN_MAXIMUM_BYTES);
  row("read", PLAN_READ_BYTES);
  row("context", PLAN_CONTEXT);
  row("kept units", PLAN_KEPT_UNITS);
  row("units", PLAN_UNITS);
  row("pruning rate", PLAN_PRUNING_RATE);
  if (!is_none(fact(PLAN_PERPLEXITY))) row("expected perplexity", PLAN_PERPLEXITY);
}

/** How fast a run was. firstSeconds: from the program's start to the first token. */
export function report_speed(
  promptTokens: f64,
  promptSeconds: f64,
  firstSeconds: f64,
  madeTokens: f64,
  madeSeconds: f64,
  ended: bool,
  seed: f64,
): void {
  write_text("\nprompt  ");
  write_speed(promptTokens, promptSeconds);
  if (madeTokens > 0) {
    write_text(", first token after ");
    write_decimal(firstSeconds, 3);
    write_text(" s");
  }
  write_text("\nanswer  ");
  write_speed(madeTokens, madeSeconds);
  write_text(ended ? ", came to its end" : ", as long as it may be");
  write_text(" (seed ");
  write_whole(seed);
  write_text(")\n");
}

function write_speed(tokens: f64, seconds: f64): void {
  write_whole(tokens);
  write_text(" tokens, ");
  const speed = seconds > 0 ? tokens / seconds : 0;
  write_decimal(speed, speed < 100 ? 1 : 0);
  write_text(" tok/s");
}

function write_kept(): void {
  write_whole(fact(PLAN_KEPT_UNITS));
  write_text(" of ");
  write_whole(fact(PLAN_UNITS));
  write_text(" units");
}

function row(name: string, field: u32): void {
  write_text(name);
  for (let i = name.length; i < TABLE_COLUMN; i++) write_text(" ");
  write_number(fact(field));
  write_text("\n");
}

function fact(field: u32): f64 {
  return load<f64>(plan_ptr() + field);
}
