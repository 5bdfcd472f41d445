// The public API on Node.

import type { Source } from "./host";
import { nodeHost } from "./node";
import { Pack } from "./pack";

export type { Message } from "./chat";
export { type ErrorCode, SnugError } from "./errors";
export type { GenerateOptions, GenerateResult, Generation, Speed } from "./generation";
export type { Source } from "./host";
export type { Info } from "./info";
export type { LoadOptions, LoadProgress } from "./load";
export type { Model, Score } from "./model";
export type { Pack, Shape } from "./pack";
export { type LayerPlan, type Plan, type PlanOptions, parseSize, type StackPlan } from "./plan";
export { type Op, Probe, type ProbedScan, type ProbedSublayer } from "./probe";

/** Opens a pack: the path of a file, or anything with a size that can be read from. Only the header is read. */
export async function open(source: string | Source): Promise<Pack> {
  const opened = typeof source === "string" ? await nodeHost.openSource(source) : source;
  try {
    return await Pack.open(opened, nodeHost);
  } catch (error) {
    await opened.close?.();
    throw error;
  }
}
