// snug plan: what a budget comes to, before anything is loaded.

import type { Pack, Plan } from "../runtime/index";
import { BUDGET_OPTIONS, type Budget, CONTEXT_OPTION, checkBudget, chooseBudget, planFacts, withPack } from "./budget";
import { type Command, flag } from "./options";
import { digits, grouped, lookOf, percent, plain, printJson } from "./output";
import { type Choice, chartColumns, drawChart, drawLayers, drawParts } from "./picture";

const OPTIONS = {
  ...BUDGET_OPTIONS,
  context: CONTEXT_OPTION,
  json: flag("print the plan as one JSON object"),
};

export const planCommand: Command<typeof OPTIONS> = {
  name: "plan",
  summary: "Show what a memory budget comes to: bytes, what is kept, what to expect of it.",
  words: ["FILE"],
  about: `
Reads no more than the header of a pack. Without --memory and --pruning the
plan is for the memory that the machine can spare, as in \`snug run\`.

  snug plan tale.snug --memory 25MB
  snug plan tale.snug --pruning 0.25 --context 512 --json`,
  options: OPTIONS,
  async run(values, [file = ""]) {
    checkBudget(values);
    await withPack(file, async (pack) => {
      const budget = chooseBudget(pack, values, "spare");
      if (values.json) printJson(planFacts(budget.plan));
      else process.stdout.write(`${describe(pack, budget).join("\n")}\n`);
    });
  },
};

function describe(pack: Pack, { plan, how }: Budget): string[] {
  const look = lookOf(process.stdout);
  const { dot } = look.glyphs;
  const choices = choicesBetween(pack, plan, chartColumns(look));
  const facts = [`${pack.shape.layers} layers`, `context ${plan.context}`, `budget: ${how}`];
  return [
    `${look.bold(plain(pack.info.name))} ${look.dim(`${dot} ${facts.join(` ${dot} `)}`)}`,
    "",
    ...drawParts(plan, look),
    "",
    ...keptWords(pack, plan).map((line) => `  ${line}`),
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
