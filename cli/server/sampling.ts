// The fields that completions and chats have in common: how tokens are drawn, and what is refused because it would change
// the answer and cannot be had.

import type { GenerateOptions } from "../../runtime/index";
import { given } from "../options";
import type { Fields } from "./fields";
import { wrong } from "./refusal";

const SEEDS = 2 ** 53;
const STOPS_MOST = 4;
const STOP_CHARACTERS_MOST = 1000;
const ANSWERS_MOST = 8;
/** The runtime wants more than 0. */
const TOP_P_LEAST = 1e-6;

const isEmpty = (value: unknown) => typeof value === "object" && value !== null && Object.keys(value).length === 0;
const isOneOf =
  (...values: readonly unknown[]) =>
  (value: unknown) =>
    values.includes(value);
const isNothing = () => false;

/** Fields that would change the answer, and the values of them that do not. */
const UNSUPPORTED: Readonly<Record<string, (value: unknown) => boolean>> = {
  frequency_penalty: isOneOf(0),
  presence_penalty: isOneOf(0),
  logit_bias: isEmpty,
  tools: isEmpty,
  tool_choice: isOneOf("none", "auto"),
  functions: isEmpty,
  function_call: isOneOf("none", "auto"),
  response_format: (value) => (value as { type?: unknown }).type === "text",
  modalities: (value) => Array.isArray(value) && value.every((one) => one === "text"),
  audio: isNothing,
  suffix: isOneOf(""),
  reasoning_effort: isOneOf("none"),
  verbosity: isOneOf("medium"),
  web_search_options: isNothing,
  grammar: isOneOf(""),
  json_schema: isEmpty,
  guided_json: isNothing,
  guided_regex: isNothing,
  guided_choice: isNothing,
  structured_outputs: isNothing,
  min_tokens: isOneOf(0),
  stop_token_ids: isEmpty,
  ignore_eos: isOneOf(false),
};

/** Refuses what would be ignored, and should not be. Fields that change nothing (user, metadata, store …) may come. */
export function refuseUnsupported(fields: Fields): void {
  for (const [name, changesNothing] of Object.entries(UNSUPPORTED)) {
    const value = fields.get(name);
    if (value !== undefined && !changesNothing(value))
      throw wrong(name, `${name} is not supported here: leave it out`, "unsupported_parameter");
  }
}

/** How tokens are drawn and when it ends; what is absent is as in `snug run`. */
export function readSampling(fields: Fields): GenerateOptions {
  const topP = fields.number("top_p", 0, 1);
  return given({
    temperature: fields.number("temperature", 0, 2),
    topP: topP === undefined ? undefined : Math.max(topP, TOP_P_LEAST),
    topK: fields.whole("top_k", 0, 2 ** 31),
    minP: fields.number("min_p", 0, 1),
    repeatPenalty: fields.number("repeat_penalty", 0.01, 100),
    stop: readStops(fields),
    seed: readSeed(fields),
    priority: fields.choice("priority", ["interactive", "background"]),
  });
}

/** How many answers to one prompt. */
export function readCount(fields: Fields): number {
  return fields.whole("n", 1, ANSWERS_MOST) ?? 1;
}

export interface Streaming {
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

export function readStreaming(fields: Fields): Streaming {
  const stream = fields.flag("stream") ?? false;
  const options = fields.object("stream_options");
  if (options !== undefined && !stream) throw wrong("stream_options", "stream_options is for stream: true alone");
  return { stream, includeUsage: options?.flag("include_usage") ?? false };
}

/** The options of the answers to one prompt: with a seed, each has one of its own. */
export function optionsOf(sampling: GenerateOptions, answer: number): GenerateOptions {
  return sampling.seed === undefined ? sampling : { ...sampling, seed: (sampling.seed + answer) % SEEDS };
}

/** Negative seeds are seeds too. */
function readSeed(fields: Fields): number | undefined {
  const seed = fields.whole("seed", -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  return seed === undefined || seed >= 0 ? seed : seed + SEEDS;
}

function readStops(fields: Fields): string[] | undefined {
  const value = fields.get("stop");
  if (value === undefined) return undefined;
  const stops: unknown[] = Array.isArray(value) ? value : [value];
  if (stops.length > STOPS_MOST) throw wrong("stop", `stop may be ${STOPS_MOST} texts at most, not ${stops.length}`);
  for (const stop of stops) {
    if (typeof stop !== "string" || stop === "" || stop.length > STOP_CHARACTERS_MOST || !stop.isWellFormed())
      throw fields.wrong("stop", `a text of 1 to ${STOP_CHARACTERS_MOST} characters, or a list of such texts`);
  }
  return stops as string[];
}
