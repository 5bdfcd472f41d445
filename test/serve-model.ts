// What stands in for a model where a test wants to know beforehand what it says, and when: bytes are tokens, and it says a
// given text over and over, or waits to be told to go on.

import type { ServedModel } from "../cli/server/generations";
import type { Message } from "../runtime/chat";
import { SnugError } from "../runtime/errors";
import type { GenerateOptions } from "../runtime/generation";
import { type FitOptions, type Fitted, fitTurns } from "../runtime/overflow";
import { TextStream } from "../runtime/stream";

const END = 256;

export interface Script {
  /** What it says, for all prompts and seeds or for each. Default: "A text." */
  readonly text?: string | ((prompt: string, seed: number | undefined) => string);
  /** Says the text over and over. */
  readonly endless?: boolean;
  readonly context?: number;
  readonly chatTemplate?: string | null;
  /** Called before each token. */
  readonly before?: (made: number) => Promise<void> | void;
  /** Generations at a time; more are "busy". */
  readonly most?: number;
}

export class ScriptedModel implements ServedModel {
  readonly info;
  readonly plan;
  readonly vocabulary = END + 1;
  readonly endTokens = new Set([END]);
  readonly memoryBytes = 12_345_678;
  readonly engine = { heldBlocks: 12, sentAway: 3 };
  readonly #script: Script;
  /** Options of the generations so far. */
  readonly asked: GenerateOptions[] = [];
  readonly chats: (readonly Message[])[] = [];
  running = 0;
  made = 0;

  constructor(script: Script = {}) {
    this.#script = script;
    const { chatTemplate = "scripted" } = script;
    this.info = { name: "scripted", chatTemplate };
    this.plan = { context: script.context ?? 1e6 };
  }

  prompt(text: string): number[] {
    return [...new TextEncoder().encode(text)];
  }

  decode(tokens: readonly number[]): string {
    return new TextDecoder().decode(Uint8Array.from(tokens));
  }

  tokenBytes(token: number): Uint8Array {
    return Uint8Array.from(token === END ? [] : [token]);
  }

  chat(messages: readonly Message[], options: GenerateOptions) {
    this.chats.push(messages);
    return this.generate(this.prompt(textOf(messages)), options);
  }

  fit(messages: readonly Message[], options: FitOptions): Fitted {
    return fitTurns(messages, (kept) => this.prompt(textOf(kept)), this.plan.context, options);
  }

  generate(prompt: readonly number[], options: GenerateOptions) {
    this.asked.push(options);
    const pieces = this.#pieces(prompt, options);
    let ended: Ended | undefined;
    return {
      promptTokens: prompt.length,
      async *[Symbol.asyncIterator]() {
        for (let piece = await pieces.next(); ; piece = await pieces.next()) {
          if (piece.done) {
            ended = piece.value;
            return;
          }
          yield piece.value;
        }
      },
      async result(): Promise<Ended> {
        if (ended === undefined) throw new Error("the text was not taken to its end");
        return ended;
      },
    };
  }

  async *#pieces(prompt: readonly number[], options: GenerateOptions): AsyncGenerator<string, Ended> {
    const { text = "A text.", endless = false, before, most = Number.POSITIVE_INFINITY } = this.#script;
    const { maxTokens = this.plan.context, signal, logprobs, onToken } = options;
    if (prompt.length > this.plan.context)
      throw new SnugError(
        "context",
        `the prompt is ${prompt.length} tokens long, there is room for ${this.plan.context}`,
      );
    if (this.running >= most) throw new SnugError("busy", "too many wait");
    const said = typeof text === "string" ? text : text(this.decode(prompt), options.seed);
    const says = [...this.prompt(said), ...(endless ? [] : [END])];
    const stream = new TextStream(options.stop);
    const tokens: number[] = [];
    let finishReason: "stop" | "length" = "length";
    this.running++;
    try {
      while (tokens.length < maxTokens && finishReason !== "stop") {
        await stopped(before?.(tokens.length), signal);
        const id = says[tokens.length % says.length] as number;
        tokens.push(id);
        this.made++;
        const top = Array.from({ length: logprobs ?? 0 }, (_, i) => ({ id: (id + i) % END, logprob: -1 - i }));
        onToken?.({ id, logprob: logprobs === undefined ? null : -1, top });
        if (id === END) finishReason = "stop";
        const piece = stream.push(this.tokenBytes(id));
        if (piece !== "") yield piece;
        if (stream.stopped) finishReason = "stop";
      }
      const rest = stream.end();
      if (rest !== "") yield rest;
    } finally {
      this.running--;
    }
    return { tokens, finishReason };
  }
}

function textOf(messages: readonly Message[]): string {
  return messages.map(({ role, content }) => `${role}: ${content}\n`).join("");
}

interface Ended {
  readonly tokens: readonly number[];
  readonly finishReason: "stop" | "length";
}

/** Waits for something, but no longer than until the signal. */
async function stopped(wait: Promise<void> | void, signal: AbortSignal | undefined): Promise<void> {
  const aborted = () => new SnugError("aborted", "stopped");
  if (signal?.aborted) throw aborted();
  let leave = () => {};
  const left = new Promise<never>((_, reject) => {
    leave = () => reject(aborted());
    signal?.addEventListener("abort", leave, { once: true });
  });
  try {
    // Also lets the rest of the process have a turn.
    await Promise.race([left, wait ?? new Promise((done) => setImmediate(done))]);
  } finally {
    signal?.removeEventListener("abort", leave);
  }
}
