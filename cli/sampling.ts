// How the next token is drawn, and what ends a text: the same options for every command that makes one.

import type { GenerateOptions } from "../runtime/index";
import { count, given, number, texts, type Values } from "./options";

export const SAMPLING_OPTIONS = {
  "max-tokens": count("N", 1, "most tokens to make (as many as the context has room for)"),
  temperature: number("T", 0, 100, "0 takes the likeliest token, after --repeat-penalty (0.7)"),
  "top-k": count("N", 0, "only the N likeliest tokens; 0: all (40)"),
  "top-p": number("P", 1e-6, 1, "only the likeliest tokens that together have this probability (0.95)"),
  "min-p": number("P", 0, 1, "only tokens at least this likely, relative to the likeliest (0.05)"),
  "repeat-penalty": number("R", 0.01, 100, "makes tokens that were there before less likely; 1: off (1.1)"),
  stop: texts("TEXT", "end before this text; may be given several times"),
  seed: count("N", 0, "the same seed gives the same text (drawn at random)", Number.MAX_SAFE_INTEGER),
};

export function samplingOf(values: Values<typeof SAMPLING_OPTIONS>): GenerateOptions {
  return given({
    maxTokens: values["max-tokens"],
    temperature: values.temperature,
    topK: values["top-k"],
    topP: values["top-p"],
    minP: values["min-p"],
    repeatPenalty: values["repeat-penalty"],
    stop: values.stop,
    seed: values.seed,
  });
}
