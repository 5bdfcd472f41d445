// snug plan: what a budget comes to, before anything is loaded.

import { expectedSpeed, type Pack, type Plan, SnugError } from "../runtime/index";
import {
  BUDGET_OPTIONS,
  type Budget,
  CONTEXT_OPTION,
  checkBudget,
  chooseBudget,
  ENGINE_OPTIONS,
  planFacts,
  withPack,
} from "./budget";
import { type Command, flag } from "./options";
import { digits, grouped, lookOf, percent, plain, printJson, say } from "./output";
import { type Choice, chartColumns, drawChart, drawLayers, drawParts } from "./picture";

const OPTIONS = {
  ...BUDGET_OPTIONS,
  context: CONTEXT_OPTION,
  ...ENGINE_OPTIONS,
  json: flag("print the plan as one JSON object"),
};

export const planCommand: Command<typeof OPTIONS> = {
  name: "plan",
  summary: "Show what a memory budget comes to: bytes, what is kept, what to expect of it.",
  words: ["FILE"],
  about: `
Reads no more than the header of a pack. Without --memory and --pruning the
plan is for the memory that the machine can spare, as in \`snug run\`. How fast it
will be is found out by running its steps on weights that are all zero. A GPU's
memory is not known: there the plan is for everything.

  snug plan tale.snug --memory 25MB
  snug plan tale.snug --pruning 0.25 --context 512 --json`,
  options: OPTIONS,
  async run(values, [file = ""], signal) {
    checkBudget(values);
    const work = async (pack: Pack) => {
      const budget = await chooseBudget(pack, values, "spare", { signal });
      const speed = await measuredSpeed(pack, budget.plan, signal);
      if (values.json) printJson({ ...planFacts(budget.plan), expectedTokensPerSecond: speed });
      else process.stdout.write(`${describe(pack, budget, speed).join("\n")}\n`);
    };
    await withPack(file, work, values);
  },
};

/** Tokens a second; null where the plan, which may be for another machine, has no place in this one. */
async function measuredSpeed(pack: Pack, plan: Plan, signal: AbortSignal): Promise<number | null> {
  try {
    return await expectedSpeed(pack, plan, signal);
  } catch (error) {
    if (error instanceof SnugError && error.code === "memory") return null;
    if (error instanceof SnugError && error.code === "gpu") {
      say(`How fast it will be is not known here: ${error.message}`);
      return null;
    }
    throw error;
  }
}

function describe(pack: Pack, { plan, how }: Budget, speed: number | null): string[] {
  const look = lookOf(process.stdout);
  const { dot } = look.glyphs;
  const choices = choicesBetween(pack, plan, chartColumns(look));
  const facts = [`${pack.shape.layers} layers`, `context ${plan.context}`, `budget: ${how}`];
  return [
    `${look.bold(plain(pack.info.name))} ${look.dim(`${dot} ${facts.join(` ${dot} `)}`)}`,
    "",
    ...drawParts(plan, look),
    "",
    ...[...keptWords(pack, plan), ...speedWords(plan, speed)].map((line) => `  ${line}`),
    "",
    ...drawLayers(plan.layers, look),
    ...(choices.length > 1 ? ["", ...drawChart(choices, plan, look)] : []),
  ];
}

/** What is kept, and what to expect of it. */
function keptWords(pack: Pack, plan: Plan): string[] {
  const units = `${grouped(plan.keptUnits)} of ${grouped(plan.units)} units`;
  const all = plan.keptUnits === plan.units;
  const kept = `${all ? "Everything is kept" : "Kept"}: ${units}, pruning rate ${percent(plan.pruningRate)}.`;
  if (plan.expectedPerplexity === null) return [kept];
  const { memory: _, pruning: __, ...shape } = plan.options;
  const best = all ? null : pack.plan({ ...shape, pruning: 0 }).expectedPerplexity;
  const against = best === null ? "" : `, ${digits(best)} with everything`;
  return [kept, `Expected perplexity: ${digits(plan.expectedPerplexity)}${against}.`];
}

function speedWords({ threads, deviceBytes }: Plan, speed: number | null): string[] {
  if (speed === null) return [];
  const by = deviceBytes > 0 ? "on the GPU" : threads === 1 ? "with one thread" : `with ${threads} threads`;
  return [`Expected speed here: about ${speed.toFixed(speed < 10 ? 1 : 0)} tokens a second ${by}.`];
}

/** What evenly spaced budgets come to, from the least to all; empty if there is only one. */
function choicesBetween(pack: Pack, plan: Plan, count: number): Choice[] {
  const { minimumBytes, maximumBytes, options } = plan;
  if (minimumBytes >= maximumBytes) return [];
  const { memory: _, pruning: __, ...shape } = options;
  return Array.from({ length: count }, (_, index) => {
    const memory = minimumBytes + Math.round(((maximumBytes - minimumBytes) * index) / (count - 1));
    const { pruningRate, expectedPerplexity } = pack.plan({ ...shape, memory });
    return { totalBytes: memory, pruningRate, expectedPerplexity };
  });
}
