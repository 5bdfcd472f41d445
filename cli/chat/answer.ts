// One answer: its text to stdout as it comes, how fast it came to stderr, and what becomes of a conversation that the
// context has no room for.

import { type GenerateOptions, type GenerateResult, type Generation, type Model, SnugError } from "../../runtime/index";
import { lookOf, say } from "../output";
import type { Conversation } from "./conversation";
import { Wrap } from "./wrap";

export interface AnswerOptions {
  readonly sampling: GenerateOptions;
  /** When the context is full: an error, or the oldest turns are dropped. */
  readonly overflow: "error" | "drop";
  readonly signal: AbortSignal;
}

/** What a chat template puts around a turn, roughly. */
const TEMPLATE_TOKENS = 8;
/** Where turns are dropped, this share of the context is for the answer, unless it may not be as long. */
const ANSWER_SHARE = 0.25;

/** Answers the last question. What came of an answer that was stopped or failed is kept. */
export async function answer(model: Model, conversation: Conversation, options: AnswerOptions): Promise<void> {
  const drops = options.overflow === "drop";
  if (drops) makeRoom(model, conversation, options.sampling.maxTokens);
  for (;;) {
    try {
      const generation = model.chat(conversation.messages, { ...options.sampling, signal: options.signal });
      return await stream(generation, model, conversation, options);
    } catch (error) {
      if (!(error instanceof SnugError) || error.code !== "context") throw error;
      if (!drops) throw tooLong(error, "/clear begins anew, --overflow drop leaves the oldest turns out");
      if (!conversation.dropOldest()) throw tooLong(error, "the last turn alone is too long");
      sayDropped(2);
    }
  }
}

/** Drops turns until the rest is likely to leave room for an answer. What a prompt takes is known for sure only later. */
function makeRoom(model: Model, conversation: Conversation, maxTokens = Number.POSITIVE_INFINITY): void {
  const { context } = model.plan;
  const room = context - Math.min(maxTokens, Math.floor(context * ANSWER_SHARE));
  const tokens = () =>
    conversation.messages.reduce((sum, { content }) => sum + model.encode(content).length + TEMPLATE_TOKENS, 0);
  const before = conversation.turns.length;
  while (tokens() > room && conversation.dropOldest());
  const dropped = before - conversation.turns.length;
  if (dropped > 0) sayDropped(dropped);
}

function sayDropped(turns: number): void {
  say(lookOf(process.stderr).dim(`(the context is full: the ${turns} oldest turns were dropped)`));
}

function tooLong(error: SnugError, hint: string): SnugError {
  return new SnugError("context", `${error.message} (${hint}; --context makes it larger)`, { cause: error });
}

async function stream(
  generation: Generation,
  model: Model,
  conversation: Conversation,
  { sampling, signal }: AnswerOptions,
): Promise<void> {
  const started = performance.now();
  const wrap = process.stdout.isTTY ? new Wrap(() => process.stdout.columns) : undefined;
  let first: number | undefined;
  let text = "";
  let result: GenerateResult | undefined;
  try {
    for await (const piece of generation) {
      first ??= performance.now() - started;
      text += piece;
      process.stdout.write(wrap?.push(piece) ?? piece);
    }
    result = await generation.result();
  } finally {
    conversation.answer(text);
    process.stdout.write(wrap?.end() ?? "");
    if (!text.endsWith("\n") && (text !== "" || result)) process.stdout.write("\n");
  }
  if (!signal.aborted) describe(result, first, model.plan.context, sampling.maxTokens);
}

function describe(
  { finishReason, prompt, decode }: GenerateResult,
  first: number | undefined,
  context: number,
  maxTokens = Number.POSITIVE_INFINITY,
): void {
  const speed = `${decode.tokensPerSecond.toFixed(decode.tokensPerSecond < 100 ? 1 : 0)} tok/s`;
  const wait = first === undefined ? "" : `, first in ${(first / 1000).toFixed(2)} s`;
  const used = `, context ${prompt.tokens + decode.tokens} of ${context}`;
  say(lookOf(process.stderr).dim(`${decode.tokens} tokens, ${speed}${wait}${used}`));
  if (finishReason === "stop" || decode.tokens >= maxTokens) return;
  say("The answer is cut, the context is full: /clear begins anew, --context makes it larger.");
}
