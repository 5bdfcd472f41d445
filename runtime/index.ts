// The public API on Node.

import type { Source } from "./host";
import { nodeHost } from "./node";
import { type OpenOptions, Pack } from "./pack";

export type { Build, Simd } from "./build";
export type { Message } from "./chat";
export { type ErrorCode, SnugError } from "./errors";
export type { GenerateOptions, GenerateResult, Generation, Speed } from "./generation";
export type { Source } from "./host";
export type { Info } from "./info";
export type { LoadOptions, LoadProgress } from "./load";
export type { Model, Score } from "./model";
export type { OpenOptions, Pack, Shape } from "./pack";
export { type LayerPlan, type Plan, type PlanOptions, parseSize, type StackPlan } from "./plan";
export { type Op, Probe, type ProbedScan, type ProbedSublayer } from "./probe";
export { expectedSpeed } from "./speed";
export { type Ceilings, type OpWork, Stopwatch } from "./stopwatch";

/** Opens a pack: the path of a file, or anything with a size that can be read from. Only the header is read. */
export async function open(source: string | Source, options: OpenOptions = {}): Promise<Pack> {
  const opened = typeof source === "string" ? await nodeHost.openSource(source) : source;
  try {
    return await Pack.open(opened, nodeHost, options);
  } catch (error) {
    await opened.close?.();
    throw error;
  }
}
