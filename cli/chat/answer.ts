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

/** Answers the last question. What came of an answer that was stopped or failed is kept. */
export async function answer(model: Model, conversation: Conversation, options: AnswerOptions): Promise<void> {
  const drops = options.overflow === "drop";
  try {
    if (drops) makeRoom(model, conversation, options.sampling);
    const generation = model.chat(conversation.messages, { ...options.sampling, signal: options.signal });
    await stream(generation, model, conversation, options);
  } catch (error) {
    if (!(error instanceof SnugError) || error.code !== "context") throw error;
    const hint = "/clear begins anew, --overflow drop leaves the oldest turns out";
    throw tooLong(error, drops ? "the last turn alone is too long" : hint);
  }
}

/** Drops the oldest turns where the rest would leave no room for an answer. */
function makeRoom(model: Model, conversation: Conversation, sampling: GenerateOptions): void {
  const { droppedTurns } = model.fit(conversation.messages, sampling);
  conversation.dropOldest(droppedTurns);
  if (droppedTurns > 0) sayDropped(droppedTurns);
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
