// POST /v1/completions: prompts, as texts or token ids, continued as they stand.

import { given } from "../options";
import type { Fields } from "./fields";
import type { ServedModel, Wanted } from "./generations";
import { completionLogprobs } from "./logprobs";
import { wrong } from "./refusal";
import type { Answer, Asked, Format } from "./reply";
import { optionsOf, readCount, readSampling, readStreaming, refuseUnsupported } from "./sampling";

/** OpenAI's. */
const TOKENS_DEFAULT = 16;
const TOKENS_MOST = 1e9;
const LOGPROBS_MOST = 20;
const PROMPTS = "a text, a list of texts, a list of token ids, or a list of such lists";

/** Reads a request; throws what is wrong with it. */
export function readCompletion(fields: Fields, model: ServedModel): Asked {
  refuseUnsupported(fields);
  const streaming = readStreaming(fields);
  const count = readCount(fields);
  if ((fields.whole("best_of", 1, 20) ?? count) !== count)
    throw wrong("best_of", "best_of other than n is not supported here: leave it out", "unsupported_parameter");
  const logprobs = fields.whole("logprobs", 0, LOGPROBS_MOST);
  const echo = fields.flag("echo") ?? false;
  if (echo && logprobs !== undefined)
    throw wrong("echo", "echo with logprobs is not supported here: leave one of them out", "unsupported_parameter");
  const sampling = {
    ...readSampling(fields),
    maxTokens: fields.whole("max_tokens", 0, TOKENS_MOST) ?? TOKENS_DEFAULT,
    ...given({ logprobs }),
  };
  fields.choice("truncation", ["disabled"]); // a text has no turns to leave out
  const prompts = readPrompts(fields, model);
  const wanted = prompts.flatMap((tokens, prompt) =>
    Array.from(
      { length: count },
      (_, answer): Wanted => ({
        index: prompt * count + answer,
        prompt,
        options: optionsOf(sampling, answer),
        start: (options) => model.generate(tokens, options),
      }),
    ),
  );
  const echoed = echo ? readEchoes(fields, prompts, model) : undefined;
  const format = completionFormat(model, logprobs !== undefined, (index) => echoed?.[Math.floor(index / count)]);
  return { wanted, streaming, logprobs: logprobs !== undefined, format };
}

function completionFormat(
  model: ServedModel,
  logprobs: boolean,
  echoOf: (index: number) => string | undefined,
): Format {
  const choice = ({ index, text, tokens, finishReason }: Answer) => ({
    index,
    text,
    logprobs: logprobs ? completionLogprobs(model, tokens) : null,
    finish_reason: finishReason,
  });
  return {
    idPrefix: "cmpl-",
    object: "text_completion",
    chunkObject: "text_completion",
    whole: (answer) => choice({ ...answer, text: (echoOf(answer.index) ?? "") + answer.text }),
    opening(index) {
      const text = echoOf(index);
      return text === undefined ? undefined : choice({ index, text, tokens: [], finishReason: null });
    },
    chunk: choice,
  };
}

/** The token ids of each prompt. */
function readPrompts(fields: Fields, model: ServedModel): readonly (readonly number[])[] {
  const value: unknown = fields.get("prompt");
  if (typeof value === "string") return [model.prompt(value)];
  if (isIds(value)) return [checkIds(value, model)];
  if (!Array.isArray(value) || value.length === 0) throw fields.wrong("prompt", PROMPTS);
  return value.map((one: unknown) => {
    if (typeof one === "string" && typeof value[0] === "string") return model.prompt(one);
    if (isIds(one) && typeof value[0] !== "string") return checkIds(one, model);
    throw wrong("prompt", `prompt must be ${PROMPTS}`);
  });
}

/** The prompts as texts: those that came so, as they came. */
function readEchoes(fields: Fields, prompts: readonly (readonly number[])[], model: ServedModel): readonly string[] {
  const value = fields.get("prompt");
  const texts: readonly unknown[] = Array.isArray(value) ? value : [value];
  return prompts.map((tokens, i) => {
    const text = texts[i];
    return typeof text === "string" ? text : model.decode(tokens);
  });
}

function isIds(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === "number");
}

function checkIds(tokens: readonly number[], { vocabulary }: ServedModel): readonly number[] {
  const foreign = tokens.find((token) => !Number.isInteger(token) || token < 0 || token >= vocabulary);
  if (foreign !== undefined)
    throw wrong("prompt", `${foreign} in prompt is not a token id: they are whole numbers from 0 to ${vocabulary - 1}`);
  return tokens;
}
