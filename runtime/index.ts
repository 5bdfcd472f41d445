// The public API on Node.

import { blobSource } from "./blob";
import { Download } from "./download";
import { SnugError } from "./errors";
import type { Source } from "./host";
import { nodeHost } from "./node";
import { type OpenOptions, openPack, type Pack } from "./pack";

export type { Build, Simd } from "./build";
export type { Message } from "./chat";
export { chooseDevice, type DeviceChoice, type DeviceSpeed } from "./choose";
export { type ErrorCode, SnugError } from "./errors";
export type {
  GeneratedToken,
  GenerateOptions,
  GenerateResult,
  Generation,
  Speed,
  TokenLogprob,
} from "./generation";
export type { Source } from "./host";
export type { Info } from "./info";
export type { LoadOptions, LoadProgress } from "./load";
export type { Model, Score } from "./model";
export type { ChatOptions, FitOptions, Fitted, Overflow } from "./overflow";
export type { OpenOptions, Pack, Shape } from "./pack";
export { type LayerPlan, type Plan, type PlanOptions, parseSize, type StackPlan } from "./plan";
export type { Port } from "./port";
export { type Op, Probe, type ProbedScan, type ProbedSublayer } from "./probe";
export { type RemoteModel, type RemotePack, RemotePacks } from "./remote";
export type { RemoteGeneration } from "./remote-generation";
export type { RemoteSession } from "./remote-session";
export { servePacks } from "./serve";
export type { Session } from "./session";
export { expectedSpeed } from "./speed";
export { type Ceilings, type KernelTime, type OpWork, Stopwatch } from "./stopwatch";

/**
 * Opens a pack: the path of a file, a file, http or https address, a Blob, or anything with a size that can be read from. Only
 * the header is read.
 */
export async function open(source: string | URL | Blob | Source, options: OpenOptions = {}): Promise<Pack> {
  return openPack(await openSource(source), nodeHost, options);
}

async function openSource(source: string | URL | Blob | Source): Promise<Source> {
  if (source instanceof Blob) return blobSource(source);
  if (typeof source !== "string" && !(source instanceof URL)) {
    if (typeof source?.read === "function") return source;
    throw new SnugError("usage", "open() wants a path, an address, a Blob, or { name, size, read(offset, target) }");
  }
  const location = String(source);
  return /^https?:\/\//i.test(location) ? new Download(location) : nodeHost.openSource(location);
}
