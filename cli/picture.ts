// A plan as a picture in text: what each part takes, what is kept of each layer, and how the choice lies among all
// others. Readable without colours, and in plain ASCII.

import type { LayerPlan, Plan, StackPlan } from "../runtime/index";
import { digits, type Glyphs, grouped, type Look, megabytes, percent } from "./output";

const NAME_COLUMNS = 12;
const PARTS_BAR = 28;
const LABEL_COLUMNS = 9;
const PANEL_ROWS = 5;

/** What one choice of memory comes to. */
export interface Choice {
  readonly totalBytes: number;
  readonly pruningRate: number;
  readonly expectedPerplexity: number | null;
}

// Parts

/** Bytes by part, and of the whole. */
export function drawParts(plan: Plan, look: Look): string[] {
  const parts: [string, number][] = [
    ["core", plan.coreBytes],
    ["weights", plan.weightsBytes],
    ["KV cache", plan.kvBytes],
    ["state", plan.stateBytes],
    ["scratch", plan.scratchBytes],
  ];
  const width = Math.max(15, grouped(plan.memoryBytes).length, grouped(plan.maximumBytes).length);
  const row = (name: string, bytes: number) => `  ${name.padEnd(NAME_COLUMNS)}${grouped(bytes).padStart(width)}`;
  const share = (bytes: number) => bytes / plan.totalBytes;
  return [
    look.dim(`  ${"part".padEnd(NAME_COLUMNS)}${"bytes".padStart(width)}     share`),
    ...parts.map(([name, bytes]) => {
      const bar = barOf(share(bytes), PARTS_BAR, look.glyphs).trimEnd();
      return `${row(name, bytes)}  ${percent(share(bytes)).padStart(8)}  ${look.accent(bar)}`.trimEnd();
    }),
    look.bold(`${row("total", plan.totalBytes)}  ${megabytes(plan.totalBytes).padStart(10)}`),
    ...(plan.deviceBytes > 0
      ? [`${row("on the GPU", plan.deviceBytes)}  ${megabytes(plan.deviceBytes).padStart(10)}`]
      : []),
    `${row("budget", plan.memoryBytes)}  ${megabytes(plan.memoryBytes).padStart(10)}`,
    look.dim(`${row("smallest", plan.minimumBytes)}  ${megabytes(plan.minimumBytes).padStart(10)}`),
    look.dim(`${row("everything", plan.maximumBytes)}  ${megabytes(plan.maximumBytes).padStart(10)}`),
  ];
}

/** A bar that shows something for anything, and is full for the whole only. */
function barOf(share: number, columns: number, glyphs: Glyphs, rest = " "): string {
  const exact = share * columns;
  const full = share >= 1 ? columns : Math.min(columns - 1, Math.max(Math.floor(exact), share > 0 ? 1 : 0));
  return glyphs.kept.repeat(full) + rest.repeat(columns - full);
}

// Layers

/** What is kept of each kind of channels in each layer; neighbours that are alike share a row. */
export function drawLayers(layers: readonly LayerPlan[], look: Look): string[] {
  const { glyphs } = look;
  const kinds = kindsOf(layers);
  const labelled = groupLayers(layers).map(({ first, last, stacks }) => ({
    label: first === last ? String(first) : `${first}${glyphs.to}${last}`,
    stacks,
  }));
  const head = Math.max("layer".length, ...labelled.map(({ label }) => label.length));
  const bar = Math.max(4, Math.floor((Math.min(look.columns, 80) - 4 - head) / kinds.length) - 9);
  const title = kinds.map((kind) => kind.padEnd(bar + 9)).join("");
  const rows = labelled.map(({ label, stacks }) => {
    const cells = kinds.map((kind) => {
      const share = keptShare(stacks.find((stack) => stack.kind === kind));
      if (share === undefined) return " ".repeat(bar + 9);
      const drawn = barOf(share, bar, glyphs, glyphs.dropped);
      return `${look.accent(drawn)} ${wholePercent(share).padStart(5)}   `;
    });
    return `  ${label.padStart(head)}  ${cells.join("")}`.trimEnd();
  });
  return [look.dim(`  ${"layer".padStart(head)}  ${title}`.trimEnd()), ...rows];
}

/** The kinds of units that there are: those of mixers, then the MLP's. */
export function kindsOf(layers: readonly LayerPlan[]): StackPlan["kind"][] {
  const there = new Set(layers.flatMap((layer) => layer.stacks.map((stack) => stack.kind)));
  return (["qk", "vo", "bc", "xz", "mlp"] as const).filter((kind) => there.has(kind));
}

function groupLayers(layers: readonly LayerPlan[]) {
  const groups: { first: number; last: number; stacks: LayerPlan["stacks"] }[] = [];
  const shape = (stacks: LayerPlan["stacks"]) =>
    stacks.map((stack) => `${stack.kind} ${stack.keptUnits}/${stack.units}`).join();
  for (const { layer, stacks } of layers) {
    const before = groups.at(-1);
    if (before && shape(before.stacks) === shape(stacks)) before.last = layer;
    else groups.push({ first: layer, last: layer, stacks });
  }
  return groups;
}

function keptShare(stack: LayerPlan["stacks"][number] | undefined): number | undefined {
  return stack && (stack.units === 0 ? 1 : stack.keptUnits / stack.units);
}

function wholePercent(share: number): string {
  const rounded = Math.round(share * 100);
  return `${share < 1 ? Math.min(99, Math.max(share > 0 ? 1 : 0, rounded)) : 100} %`;
}

// Chart

/** How many choices drawChart wants: one a column, from the least memory to the most. */
export function chartColumns(look: Look): number {
  return Math.min(look.columns, 80) - LABEL_COLUMNS - 4;
}

/** Memory against pruning rate and, if the pack knows it, expected perplexity; the chosen cut is marked. */
export function drawChart(choices: readonly Choice[], chosen: Choice, look: Look): string[] {
  const least = choices[0]?.totalBytes as number;
  const most = choices.at(-1)?.totalBytes as number;
  const place = most > least ? (chosen.totalBytes - least) / (most - least) : 0;
  const mark = Math.round(Math.min(1, Math.max(0, place)) * (choices.length - 1));
  const perplexities = choices.map((choice) => choice.expectedPerplexity ?? Number.NaN);
  const known = perplexities.filter((value) => Number.isFinite(value) && value > 0);
  const low = Math.min(...known);
  const high = Math.max(...known);
  const shares = perplexities.map((value) => Math.log(value / low) / Math.log(high / low || 1));
  const rates = choices.map((choice) => choice.pruningRate);
  const lines = panel("pruning rate", rates, ["100 %", "0 %"], mark, percent(chosen.pruningRate), look);
  if (known.length > 0 && high > low) {
    const here = chosen.expectedPerplexity === null ? "" : digits(chosen.expectedPerplexity);
    lines.push("", ...panel("expected perplexity, logarithmic", shares, [digits(high), digits(low)], mark, here, look));
  }
  return [...lines, labels(least, most, chosen.totalBytes, mark, choices.length, look)];
}

/** One chart: an area of values 0 … 1, with a line through the chosen column and a label beside it. */
function panel(
  title: string,
  values: readonly number[],
  [top, bottom]: readonly [string, string],
  mark: number,
  label: string,
  look: Look,
): string[] {
  const { glyphs } = look;
  const steps = glyphs.rising.length;
  const heights = values.map((value) => (value > 0 ? Math.max(1, Math.round(value * PANEL_ROWS * steps)) : 0));
  const lines = Array.from({ length: PANEL_ROWS }, (_, line) => {
    const base = (PANEL_ROWS - 1 - line) * steps;
    const cells = heights.map((height) => {
      const filled = Math.min(steps, height - base);
      return filled > 0 ? look.accent(glyphs.rising[filled - 1] as string) : " ";
    });
    cells[mark] = look.bold(glyphs.vertical);
    if (line === 0 && label !== "") overlay(cells, besideMark(label, mark, cells), look);
    const edge = line === 0 ? ` ${glyphs.tick}` : ` ${glyphs.vertical}`;
    return `${(line === 0 ? top : "").padStart(LABEL_COLUMNS + 1)}${edge}${cells.join("")}`.trimEnd();
  });
  return [
    look.dim(`${" ".repeat(LABEL_COLUMNS + 2)}${title}`),
    ...lines,
    `${bottom.padStart(LABEL_COLUMNS + 1)} ${axis(mark, values.length, look)}`,
  ];
}

/** Where a label goes: beside the mark, to the right if there is room, else where the area leaves some. */
function besideMark(label: string, mark: number, cells: readonly string[]): { label: string; from: number } {
  const width = label.length + 2;
  const right = { label: ` ${label} `, from: mark + 1 };
  const left = { label: ` ${label} `, from: mark - width };
  const free = ({ from }: { from: number }) =>
    from >= 0 && from + width <= cells.length && cells.slice(from, from + width).every((cell) => cell === " ");
  if (free(right)) return right;
  if (free(left)) return left;
  return right.from + width <= cells.length ? right : left;
}

function overlay(cells: string[], { label, from }: { label: string; from: number }, look: Look): void {
  for (const [index, character] of [...label].entries()) cells[from + index] = look.bold(character);
}

function axis(mark: number, columns: number, look: Look): string {
  const { glyphs } = look;
  const line = Array.from({ length: columns }, (_, column) => (column === mark ? glyphs.mark : glyphs.horizontal));
  line[mark] = look.bold(glyphs.mark);
  return `${glyphs.corner}${line.join("")}`;
}

/** Least, chosen and most memory below their columns; the ends give way to the chosen one. */
function labels(least: number, most: number, chosen: number, mark: number, columns: number, look: Look): string {
  const here = megabytes(chosen);
  const from = Math.max(0, Math.min(columns - here.length, mark - Math.floor(here.length / 2)));
  const left = megabytes(least);
  const right = megabytes(most);
  const before = left.length + 2 <= from ? left.padEnd(from) : " ".repeat(from);
  const room = columns - from - here.length;
  const after = right.length + 2 <= room ? right.padStart(room) : "";
  return `${" ".repeat(LABEL_COLUMNS + 3)}${look.dim(before)}${look.bold(here)}${look.dim(after)}`.trimEnd();
}
