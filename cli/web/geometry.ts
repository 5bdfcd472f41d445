// From a plan to rectangles: the bar of memory by part, and the network with what is kept and cut of it. No DOM.

import type { LayerPlan, Plan, StackPlan } from "../../runtime/browser";

export type Part = "weights" | "kv" | "state" | "scratch" | "core";

/** A part of the memory bar; start and size as shares of its length. */
export interface Segment {
  readonly part: Part;
  readonly bytes: number;
  readonly start: number;
  readonly size: number;
}

export interface MemoryBar {
  readonly segments: readonly Segment[];
  /** Where the budget ends, as a share of the bar's length. */
  readonly budget: number;
}

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Stacks of these kinds lie at one height, in every layer that has them. */
export interface Band extends Rect {
  readonly kinds: readonly StackPlan["kind"][];
}

export interface Network {
  readonly bands: readonly Band[];
  readonly kept: readonly Rect[];
  readonly cut: readonly Rect[];
}

const BANDS: readonly (readonly StackPlan["kind"][])[] = [["mlp"], ["vo", "xz"], ["qk", "bc"]];
const BAND_GAP = 8;
/** Room for the name of each kind. */
const BAND_LEAST = 14;
/** Units lower than this are drawn as one block. */
const UNIT_LEAST = 3.5;
const GAP = 1;

/** Bytes by part, as shares of what everything would take, or of the plan if that is more. */
export function memoryBar(plan: Plan): MemoryBar {
  const length = Math.max(plan.maximumBytes, plan.totalBytes, 1);
  const parts: readonly (readonly [Part, number])[] = [
    ["core", plan.coreBytes],
    ["scratch", plan.scratchBytes],
    ["state", plan.stateBytes],
    ["kv", plan.kvBytes],
    ["weights", plan.weightsBytes],
  ];
  let start = 0;
  const segments = parts.map(([part, bytes]) => {
    const segment = { part, bytes, start, size: bytes / length };
    start += segment.size;
    return segment;
  });
  return { segments, budget: Math.min(1, plan.memoryBytes / length) };
}

/**
 * The network in a box: a column for each layer, in it a stack of units for each kind, the most important units lowest.
 * Heights are bytes, so that areas can be compared; only very thin bands are drawn thicker.
 */
export function drawNetwork(layers: readonly LayerPlan[], box: Rect): Network {
  const bytesOf = ({ units, unitBytes }: StackPlan) => units * unitBytes;
  const stacksOf = (kinds: Band["kinds"]) =>
    layers.flatMap(({ stacks }, column) =>
      stacks.filter((stack) => kinds.includes(stack.kind) && stack.units > 0).map((stack) => ({ stack, column })),
    );
  const there = BANDS.map((kinds) => {
    const placed = stacksOf(kinds);
    return { kinds, placed, bytes: Math.max(0, ...placed.map(({ stack }) => bytesOf(stack))) };
  }).filter(({ bytes }) => bytes > 0);
  const heights = share(
    there.map(({ bytes, placed }) => ({ weight: bytes, least: kindsOf(placed).length * BAND_LEAST })),
    box.height - BAND_GAP * (there.length - 1),
  );
  const step = box.width / Math.max(1, layers.length);
  const gap = step >= 8 ? 2 : step >= 4 ? 1 : 0;

  const kept: Rect[] = [];
  const cut: Rect[] = [];
  const bands: Band[] = [];
  let y = box.y;
  for (const [index, { placed, bytes }] of there.entries()) {
    const height = heights[index] as number;
    bands.push({ kinds: kindsOf(placed), x: box.x, y, width: box.width, height });
    for (const { stack, column } of placed) {
      const tall = (height * bytesOf(stack)) / bytes;
      const place = { x: box.x + column * step, width: step - gap, bottom: y + height };
      drawStack(stack, place, tall, kept, cut);
    }
    y += height + BAND_GAP;
  }
  return { bands, kept, cut };
}

function drawStack(
  { keptUnits, units }: StackPlan,
  { x, width, bottom }: { x: number; width: number; bottom: number },
  tall: number,
  kept: Rect[],
  cut: Rect[],
): void {
  const unit = tall / units;
  if (unit >= UNIT_LEAST) {
    for (let i = 0; i < units; i++) {
      const into = i < keptUnits ? kept : cut;
      into.push({ x, y: bottom - (i + 1) * unit, width, height: unit - GAP });
    }
    return;
  }
  const border = bottom - keptUnits * unit;
  if (keptUnits > 0) kept.push({ x, y: border, width, height: bottom - border });
  if (keptUnits < units)
    cut.push({ x, y: bottom - tall, width, height: Math.max(0.5, tall - (bottom - border) - GAP) });
}

function kindsOf(placed: readonly { stack: StackPlan }[]): StackPlan["kind"][] {
  return [...new Set(placed.map(({ stack }) => stack.kind))];
}

/** Divides a height by weights, with the least height for everyone where there is room for that. */
function share(wants: readonly { weight: number; least: number }[], height: number): number[] {
  const total = wants.reduce((sum, { weight }) => sum + weight, 0);
  const all = wants.reduce((sum, { least }) => sum + least, 0);
  const shrink = Math.min(1, height / Math.max(1, all));
  const small = wants.map(({ weight, least }) => (height * weight) / total < least * shrink);
  const taken = wants.reduce((sum, { least }, i) => sum + (small[i] ? least * shrink : 0), 0);
  const rest = wants.reduce((sum, { weight }, i) => sum + (small[i] ? 0 : weight), 0);
  return wants.map(({ weight, least }, i) => (small[i] ? least * shrink : ((height - taken) * weight) / rest));
}

/** Rectangles as one path of SVG. */
export function pathOf(rects: readonly Rect[]): string {
  const n = (value: number) => String(Math.round(value * 100) / 100);
  return rects.map(({ x, y, width, height }) => `M${n(x)} ${n(y)}h${n(width)}v${n(height)}h${n(-width)}z`).join("");
}
