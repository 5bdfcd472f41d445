// POST /v1/chat/completions: a conversation, answered through the pack's chat template.

import type { Message } from "../../runtime/index";
import { given } from "../options";
import { Fields, objectOf } from "./fields";
import type { ServedModel, Wanted } from "./generations";
import { chatLogprobs } from "./logprobs";
import { wrong } from "./refusal";
import type { Answer, Asked, Format } from "./reply";
import { optionsOf, readCount, readSampling, readStreaming, refuseUnsupported } from "./sampling";

const TOKENS_MOST = 1e9;
const TOP_LOGPROBS_MOST = 20;
/** As in OpenAI's Responses API: "auto" leaves the oldest turns out where the context has no room for them. */
const TRUNCATIONS = ["auto", "disabled"] as const;
/** The roles that requests may name, and what chat templates call them. */
const ROLES = { system: "system", developer: "system", user: "user", assistant: "assistant" } as const;
const ROLE_NAMES = Object.keys(ROLES) as (keyof typeof ROLES)[];
/** What an assistant's message may hold in OpenAI's API, and no chat template here can say. */
const UNSUPPORTED_PARTS = ["tool_calls", "function_call", "audio", "refusal"];

/** Reads a request; throws what is wrong with it. */
export function readChat(fields: Fields, model: ServedModel): Asked {
  if (model.info.chatTemplate === null)
    throw wrong(
      "messages",
      `${model.info.name} has no chat template: send a prompt to /v1/completions`,
      "no_chat_template",
    );
  refuseUnsupported(fields);
  const streaming = readStreaming(fields);
  const count = readCount(fields);
  const logprobs = fields.flag("logprobs") ?? false;
  const topLogprobs = fields.whole("top_logprobs", 0, TOP_LOGPROBS_MOST);
  if (topLogprobs !== undefined && !logprobs) throw wrong("top_logprobs", "top_logprobs wants logprobs: true");
  const longest = fields.whole("max_tokens", 1, TOKENS_MOST);
  const sampling = {
    ...readSampling(fields),
    ...given({
      maxTokens: fields.whole("max_completion_tokens", 1, TOKENS_MOST) ?? longest,
      logprobs: logprobs ? (topLogprobs ?? 0) : undefined,
    }),
  };
  const messages = readMessages(fields);
  const fitted = fields.choice("truncation", TRUNCATIONS) === "auto" ? model.fit(messages, sampling) : undefined;
  const wanted = Array.from(
    { length: count },
    (_, index): Wanted => ({
      index,
      prompt: 0,
      options: optionsOf(sampling, index),
      start: (options) =>
        fitted === undefined ? model.chat(messages, options) : model.generate(fitted.prompt, options),
    }),
  );
  const droppedTurns = fitted?.droppedTurns;
  return { wanted, streaming, logprobs, format: chatFormat(model, logprobs), ...given({ droppedTurns }) };
}

function chatFormat(model: ServedModel, logprobs: boolean): Format {
  const rest = ({ index, tokens, finishReason }: Answer) => ({
    index,
    logprobs: logprobs ? chatLogprobs(model, tokens) : null,
    finish_reason: finishReason,
  });
  return {
    idPrefix: "chatcmpl-",
    object: "chat.completion",
    chunkObject: "chat.completion.chunk",
    whole: (answer) => ({ ...rest(answer), message: { role: "assistant", content: answer.text, refusal: null } }),
    opening: (index) => ({
      ...rest({ index, text: "", tokens: [], finishReason: null }),
      delta: { role: "assistant", content: "" },
    }),
    chunk: (answer) => ({ ...rest(answer), delta: answer.text === "" ? {} : { content: answer.text } }),
  };
}

function readMessages(fields: Fields): readonly Message[] {
  const value = fields.get("messages");
  if (!Array.isArray(value) || value.length === 0) throw fields.wrong("messages", "a list of messages");
  return value.map((one: unknown, i) => {
    const name = `messages[${i}]`;
    return readMessage(new Fields(objectOf(one, name), `${name}.`));
  });
}

function readMessage(message: Fields): Message {
  const role = message.choice("role", ROLE_NAMES);
  if (role === undefined) throw message.wrong("role", `one of ${ROLE_NAMES.map((name) => `"${name}"`).join(", ")}`);
  for (const part of UNSUPPORTED_PARTS) {
    const value = message.get(part);
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    throw wrong(message.called(part), `${message.called(part)} is not supported here`, "unsupported_parameter");
  }
  return { role: ROLES[role], content: readContent(message) };
}

/** A text, or parts that are texts, each on lines of its own. */
function readContent(message: Fields): string {
  const content = message.get("content");
  if (typeof content === "string") return content;
  if (!Array.isArray(content) || content.length === 0)
    throw message.wrong("content", 'a text, or a list of parts {"type": "text", "text": …}');
  const parts = content.map((one: unknown, i) => {
    const name = `${message.called("content")}[${i}]`;
    const { type, text } = objectOf(one, name) as { type?: unknown; text?: unknown };
    if (type !== "text" || typeof text !== "string")
      throw wrong(name, `${name} must be a text, {"type": "text", "text": …}: other parts are not supported here`);
    return text;
  });
  return parts.join("\n");
}
