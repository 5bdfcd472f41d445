// From the answers as they are made to what the other end gets: one JSON object, or events.

import { randomUUID } from "node:crypto";
import type { Events } from "./events";
import { type Ending, type Generations, type ServedModel, type Taker, usageOf, type Wanted } from "./generations";
import { type PlacedToken, TokenPlaces } from "./logprobs";
import type { Streaming } from "./sampling";

/** An answer, or a part of one. */
export interface Answer {
  readonly index: number;
  readonly text: string;
  /** Empty where nobody asked for logprobs. */
  readonly tokens: readonly PlacedToken[];
  /** null: it goes on. */
  readonly finishReason: Ending["finishReason"] | null;
}

/** The shapes of one kind of answers in OpenAI's API. */
export interface Format {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  whole(answer: Answer): object;
  /** What a stream begins an answer with, if anything. */
  opening(index: number): object | undefined;
  chunk(answer: Answer): object;
}

/** A request that was read and found in order. */
export interface Asked {
  readonly wanted: readonly Wanted[];
  readonly streaming: Streaming;
  readonly logprobs: boolean;
  readonly format: Format;
  /** How many turns were left out of the prompt; absent: nobody asked for that. */
  readonly droppedTurns?: number;
}

export interface Reply {
  readonly asked: Asked;
  /** What the model is called. */
  readonly name: string;
  readonly model: ServedModel;
  readonly generations: Generations;
  readonly stop: AbortController;
}

/** Makes all answers, then gives them as the body of one. */
export async function replyWhole(reply: Reply): Promise<{ body: object; endings: readonly Ending[] }> {
  const { asked, generations, stop } = reply;
  const made = asked.wanted.map(() => ({ text: "", tokens: [] as PlacedToken[] }));
  const answers: Answer[] = [];
  const endings = await generations.make(
    asked.wanted,
    stop,
    placing(reply, {
      piece(index, text, tokens) {
        const one = made[index] as (typeof made)[number];
        one.text += text;
        one.tokens.push(...tokens);
      },
      end({ index, finishReason }, tokens) {
        const one = made[index] as (typeof made)[number];
        answers[index] = { index, text: one.text, tokens: [...one.tokens, ...tokens], finishReason };
      },
    }),
  );
  const { format } = asked;
  const choices = answers.map((answer) => format.whole(answer));
  const usage = usageOf(endings);
  return { body: { ...headOf(reply, format.object), choices, usage }, endings };
}

/** Gives the answers as they are made. What goes wrong before the first event is thrown, with no headers sent. */
export async function replyStream(reply: Reply, events: Events): Promise<readonly Ending[]> {
  const { asked, generations, stop } = reply;
  const { format, streaming } = asked;
  const head = headOf(reply, format.chunkObject);
  const send = (choices: readonly object[]) =>
    events.send({ ...head, choices, ...(streaming.includeUsage && { usage: null }) });
  const opened = new Set<number>();
  const open = async (index: number) => {
    if (opened.has(index)) return;
    opened.add(index);
    const opening = format.opening(index);
    if (opening !== undefined) await send([opening]);
  };
  const endings = await generations.make(
    asked.wanted,
    stop,
    placing(reply, {
      async piece(index, text, tokens) {
        await open(index);
        await send([format.chunk({ index, text, tokens, finishReason: null })]);
      },
      async end({ index, finishReason }, tokens) {
        await open(index);
        await send([format.chunk({ index, text: "", tokens, finishReason })]);
      },
    }),
  );
  if (streaming.includeUsage) await events.send({ ...head, choices: [], usage: usageOf(endings) });
  await events.done();
  return endings;
}

interface PlacedTaker {
  piece(index: number, text: string, tokens: readonly PlacedToken[]): Promise<void> | void;
  end(ending: Ending, tokens: readonly PlacedToken[]): Promise<void> | void;
}

/** Gives a taker each piece's tokens along with its text, where they are asked for. */
function placing({ asked, model }: Reply, taker: PlacedTaker): Taker {
  if (!asked.logprobs)
    return { piece: (index, text) => taker.piece(index, text, []), end: (ending) => taker.end(ending, []) };
  const places = asked.wanted.map(() => new TokenPlaces(model));
  const of = (index: number) => places[index] as TokenPlaces;
  return {
    token: (index, token) => of(index).push(token),
    piece: (index, text) => taker.piece(index, text, of(index).take(text)),
    end: (ending) => taker.end(ending, of(ending.index).rest(ending)),
  };
}

function headOf({ asked, name }: Reply, object: string) {
  const id = asked.format.idPrefix + randomUUID().replaceAll("-", "");
  return { id, object, created: Math.floor(Date.now() / 1000), model: name };
}
