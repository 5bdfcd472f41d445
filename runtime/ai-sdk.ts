// A snug model for the Vercel AI SDK. The SDK itself is not imported: what it wants of a model is written down here, as far
// as a model of texts needs it. It is version 3 of the SDK's specification, which `ai` 6 and `ai` 7 take as it is. Version 4,
// which `ai` 6 refuses, differs in files, tools and reasoning only, and this model has none of them.

import type { Message } from "./chat";
import type { ChatGeneration, ChatModel } from "./chat-model";
import { SnugError } from "./errors";
import type { GenerateResult } from "./generation";
import type { ChatOptions } from "./overflow";
import { joinSignals } from "./signals";

const PROVIDER = "snug";
const TEXT_ID = "0";

export type { ChatGeneration, ChatModel };

/** What the SDK asks a model. */
export interface CallOptions {
  prompt: readonly PromptMessage[];
  maxOutputTokens?: number | undefined;
  temperature?: number | undefined;
  topP?: number | undefined;
  topK?: number | undefined;
  stopSequences?: readonly string[] | undefined;
  seed?: number | undefined;
  presencePenalty?: number | undefined;
  frequencyPenalty?: number | undefined;
  responseFormat?: { type: string } | undefined;
  tools?: readonly unknown[] | undefined;
  reasoning?: string | undefined;
  abortSignal?: AbortSignal | undefined;
  providerOptions?: Record<string, Record<string, unknown>> | undefined;
}

export type PromptMessage =
  | { role: "system"; content: string }
  | { role: "user" | "assistant" | "tool"; content: readonly { type: string; text?: string }[] };

export type Warning = { type: "unsupported"; feature: string; details?: string } | { type: "other"; message: string };

export interface Usage {
  inputTokens: { total: number; noCache: undefined; cacheRead: undefined; cacheWrite: undefined };
  outputTokens: { total: number; text: number; reasoning: undefined };
}

/** How an answer went. */
export interface Finish {
  finishReason: { unified: "stop" | "length"; raw: string };
  usage: Usage;
  /** The seed that gives the same text again, how many messages were left out for want of room, and how fast it came. */
  providerMetadata: {
    snug: { seed: number; droppedTurns: number; promptTokensPerSecond: number; tokensPerSecond: number };
  };
}

export interface Answer extends Finish {
  content: { type: "text"; text: string }[];
  response: { timestamp: Date; modelId: string };
  warnings: Warning[];
}

export type StreamPart =
  | { type: "stream-start"; warnings: Warning[] }
  | { type: "response-metadata"; timestamp: Date; modelId: string }
  | { type: "text-start" | "text-end"; id: string }
  | { type: "text-delta"; id: string; delta: string }
  | ({ type: "finish" } & Finish)
  | { type: "error"; error: unknown };

export interface LanguageModel {
  readonly specificationVersion: "v3";
  readonly provider: string;
  readonly modelId: string;
  readonly supportedUrls: Record<string, RegExp[]>;
  doGenerate(options: CallOptions): Promise<Answer>;
  doStream(options: CallOptions): Promise<{ stream: ReadableStream<StreamPart> }>;
}

export interface Provider {
  readonly specificationVersion: "v3";
  languageModel(modelId: string): LanguageModel;
  /** There are none: throws. */
  embeddingModel(modelId: string): never;
  /** There are none: throws. */
  imageModel(modelId: string): never;
}

export interface LanguageModelOptions {
  /** What the SDK calls the model. Default: the pack's name. */
  readonly modelId?: string;
  /** What holds where a call says nothing else. */
  readonly defaults?: ChatOptions;
}

/**
 * A loaded model as a language model of the AI SDK. Its pack needs a chat template. Beside the SDK's own settings a call
 * takes `providerOptions: { snug: { minP, repeatPenalty, readTwice, priority, overflow } }`; settings that it cannot follow come back
 * as warnings. Messages with anything but text are refused with a SnugError, "unsupported".
 */
export function languageModel(model: ChatModel, options: LanguageModelOptions = {}): LanguageModel {
  const { modelId = model.info.name, defaults = {} } = options;
  const start = (call: CallOptions, signal: AbortSignal | undefined): Started => {
    const { settings, warnings } = settingsOf(call);
    const generation = model.chat(messagesOf(call.prompt), { ...defaults, ...settings, ...(signal && { signal }) });
    return { generation, warnings, response: { timestamp: new Date(), modelId } };
  };
  return {
    specificationVersion: "v3",
    provider: PROVIDER,
    modelId,
    supportedUrls: {},

    async doGenerate(call) {
      const { generation, warnings, response } = start(call, call.abortSignal);
      const result = await generation.result().catch((error: unknown) => {
        throw reasonFor(error, call.abortSignal);
      });
      const content = result.text === "" ? [] : [{ type: "text" as const, text: result.text }];
      return { content, ...finishOf(result), response, warnings };
    },

    async doStream(call) {
      const left = new AbortController();
      const joined = joinSignals(call.abortSignal, left.signal);
      const parts = partsOf(() => start(call, joined.signal), call.abortSignal, joined.release);
      const stream = new ReadableStream<StreamPart>({
        // It does not wait for its reader: the SDK never cancels what nobody reads to the end, and the model would be held.
        start(controller) {
          const run = async () => {
            for await (const part of parts) controller.enqueue(part);
            controller.close();
          };
          run().catch((error: unknown) => controller.error(error)); // to a reader that left nobody says anything
        },
        cancel: () => left.abort(),
      });
      return { stream };
    },
  };
}

/** A call on its way. */
interface Started {
  readonly generation: ChatGeneration;
  readonly warnings: Warning[];
  readonly response: { timestamp: Date; modelId: string };
}

/** Loaded models by the names that the AI SDK is to know them by. */
export function snugProvider(models: Readonly<Record<string, ChatModel>>): Provider {
  const refuse = (kind: string) => (modelId: string) => {
    throw new SnugError("unsupported", `snug has no ${kind} models, so there is none called "${modelId}"`);
  };
  return {
    specificationVersion: "v3",
    languageModel(modelId) {
      const model = Object.hasOwn(models, modelId) ? models[modelId] : undefined;
      if (model !== undefined) return languageModel(model, { modelId });
      const names = Object.keys(models).join(", ");
      throw new SnugError("usage", `there is no model "${modelId}": snugProvider() was given ${names || "none"}`);
    },
    embeddingModel: refuse("embedding"),
    imageModel: refuse("image"),
  };
}

// What comes in

function messagesOf(prompt: readonly PromptMessage[]): Message[] {
  return prompt.map((message) => {
    if (message.role === "system") return { role: message.role, content: message.content };
    const texts = message.content.map((part) => textOf(part, message.role));
    return { role: message.role, content: texts.join("") };
  });
}

function textOf(part: { type: string; text?: string }, role: string): string {
  if (part.type === "text" && role !== "tool") return part.text ?? "";
  if (part.type === "reasoning") return ""; // of another model: chat templates leave it out of what was said before
  throw new SnugError(
    "unsupported",
    `a message of "${role}" has a part of type "${part.type}": a snug model reads text`,
  );
}

/** What providerOptions.snug may say. */
const OWN_SETTINGS = {
  minP: "number",
  repeatPenalty: "number",
  readTwice: "boolean",
  priority: "string",
  overflow: "string",
} as const;

function settingsOf(call: CallOptions): { settings: ChatOptions; warnings: Warning[] } {
  const warnings: Warning[] = [];
  const warn = (feature: string, details: string) => warnings.push({ type: "unsupported", feature, details });
  if (call.presencePenalty) warn("presencePenalty", "What there is: providerOptions.snug.repeatPenalty");
  if (call.frequencyPenalty) warn("frequencyPenalty", "What there is: providerOptions.snug.repeatPenalty");
  if (call.responseFormat?.type === "json") warn("responseFormat", "Nothing makes the text JSON but the prompt");
  if (call.tools?.length) warn("tools", "The model is not told of them");
  if (call.reasoning !== undefined && !["provider-default", "none"].includes(call.reasoning))
    warn("reasoning", "The model answers as it does");
  const own: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(call.providerOptions?.[PROVIDER] ?? {})) {
    const wanted = Object.hasOwn(OWN_SETTINGS, name) ? OWN_SETTINGS[name as keyof typeof OWN_SETTINGS] : undefined;
    const feature = `providerOptions.${PROVIDER}.${name}`;
    if (wanted === undefined) warn(feature, `There are ${Object.keys(OWN_SETTINGS).join(", ")}`);
    else if (typeof value !== wanted) warn(feature, `A ${wanted} is expected`);
    else own[name] = value;
  }
  const settings = {
    maxTokens: call.maxOutputTokens,
    temperature: call.temperature,
    topP: call.topP,
    topK: call.topK,
    stop: call.stopSequences,
    seed: call.seed,
    ...own,
  };
  const given = Object.entries(settings).filter(([, value]) => value !== undefined);
  return { settings: Object.fromEntries(given), warnings };
}

// What goes out

async function* partsOf(
  start: () => Started,
  signal: AbortSignal | undefined,
  release: () => void,
): AsyncGenerator<StreamPart, void> {
  let begun = false;
  try {
    const { generation, warnings, response } = start();
    yield { type: "stream-start", warnings };
    yield { type: "response-metadata", ...response };
    for await (const delta of generation) {
      if (!begun) yield { type: "text-start", id: TEXT_ID };
      begun = true;
      yield { type: "text-delta", id: TEXT_ID, delta };
    }
    const finish = finishOf(await generation.result());
    if (begun) yield { type: "text-end", id: TEXT_ID };
    yield { type: "finish", ...finish };
  } catch (error) {
    if (signal?.aborted) throw signal.reason; // the SDK tells an abort from a failure by this
    yield { type: "error", error };
  } finally {
    release();
  }
}

/** An abort as the SDK knows it: by the signal's own reason. */
function reasonFor(error: unknown, signal: AbortSignal | undefined): unknown {
  return signal?.aborted ? signal.reason : error;
}

function finishOf({ finishReason, prompt, decode, seed, droppedTurns }: GenerateResult): Finish {
  return {
    finishReason: { unified: finishReason, raw: finishReason },
    usage: {
      inputTokens: { total: prompt.tokens, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
      outputTokens: { total: decode.tokens, text: decode.tokens, reasoning: undefined },
    },
    providerMetadata: {
      snug: {
        seed,
        droppedTurns,
        promptTokensPerSecond: prompt.tokensPerSecond,
        tokensPerSecond: decode.tokensPerSecond,
      },
    },
  };
}
