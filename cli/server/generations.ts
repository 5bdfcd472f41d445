// The answers of a request, made side by side: each a generation of the model. What is common to them ends them all: the
// other end leaves, time is up, one of them fails.

import { setImmediate } from "node:timers/promises";
import type {
  FitOptions,
  Fitted,
  GeneratedToken,
  GenerateOptions,
  GenerateResult,
  Message,
  Plan,
} from "../../runtime/index";
import type { Metrics } from "./metrics";
import { busy, unavailable, wrong } from "./refusal";

/** What the server needs of a model. */
export interface ServedModel {
  readonly info: { readonly name: string; readonly chatTemplate: string | null };
  readonly plan: Pick<Plan, "context">;
  readonly vocabulary: number;
  readonly endTokens: ReadonlySet<number>;
  readonly memoryBytes: number;
  readonly engine: { readonly heldBlocks: number; readonly sentAway: number };
  prompt(text: string): number[];
  decode(tokens: readonly number[]): string;
  tokenBytes(token: number): Uint8Array;
  fit(messages: readonly Message[], options: FitOptions): Fitted;
  generate(prompt: readonly number[], options: GenerateOptions): ServedGeneration;
  chat(messages: readonly Message[], options: GenerateOptions): ServedGeneration;
}

export interface ServedGeneration extends AsyncIterable<string> {
  readonly promptTokens: number;
  result(): Promise<Pick<GenerateResult, "tokens" | "finishReason">>;
}

/** Why a request's generations were ended. */
export type StopReason = "left" | "late" | "ending" | "failed";

/** One answer that a request wants. */
export interface Wanted {
  readonly index: number;
  /** Which of the request's prompts it answers. */
  readonly prompt: number;
  readonly options: GenerateOptions;
  start(options: GenerateOptions): ServedGeneration;
}

export interface Ending {
  readonly index: number;
  readonly prompt: number;
  readonly finishReason: "stop" | "length";
  readonly promptTokens: number;
  readonly madeTokens: number;
}

/** Takes what an answer comes to, piece by piece. */
export interface Taker {
  token?(index: number, token: GeneratedToken): void;
  piece(index: number, text: string): Promise<void> | void;
  end(ending: Ending): Promise<void> | void;
}

export class Generations {
  readonly #parallel: number;
  readonly #room: number;
  readonly #metrics: Metrics;
  #open = 0;

  /** parallel: how many the model makes at a time; waiting: how many more may wait. */
  constructor({ parallel, waiting }: { readonly parallel: number; readonly waiting: number }, metrics: Metrics) {
    this.#parallel = parallel;
    this.#room = parallel + waiting;
    this.#metrics = metrics;
  }

  get running(): number {
    return Math.min(this.#open, this.#parallel);
  }

  get waiting(): number {
    return this.#open - this.running;
  }

  /** Makes all the answers; where time is up they end with what there is by then, if there is anything. */
  async make(wanted: readonly Wanted[], stop: AbortController, taker: Taker): Promise<readonly Ending[]> {
    if (wanted.length > this.#room)
      throw wrong(
        "n",
        `${wanted.length} answers are more than the ${this.#room} that this server has room for at once`,
      );
    if (this.#open + wanted.length > this.#room)
      throw busy(`${this.#open} answers are being made or wait, ${wanted.length} more are too many: try again soon`);
    this.#open += wanted.length;
    const counted = { tokens: 0 };
    let failure: unknown;
    const begin = async (one: Wanted) => {
      try {
        return await this.#makeOne(one, stop.signal, taker, counted);
      } catch (error) {
        failure ??= error;
        stop.abort("failed" satisfies StopReason);
        return undefined;
      } finally {
        this.#open--;
      }
    };
    const endings: Promise<Ending | undefined>[] = [];
    for (const one of wanted) {
      endings.push(begin(one));
      await setImmediate(); // what is wrong with a prompt is known before it is read for the next answer
    }
    const made = await Promise.all(endings);
    if (failure !== undefined) throw failure;
    return made as Ending[];
  }

  /** counted: the tokens of all the request's answers. */
  async #makeOne(
    { index, prompt, options, start }: Wanted,
    signal: AbortSignal,
    taker: Taker,
    counted: { tokens: number },
  ): Promise<Ending> {
    if (signal.aborted) throw unavailable("the request was stopped before its end", "stopped");
    let before = performance.now();
    let made = 0;
    const generation = start({
      ...options,
      signal,
      onToken: (token) => {
        const now = performance.now();
        this.#metrics.token((now - before) / 1000, made === 0);
        before = now;
        made++;
        counted.tokens++;
        taker.token?.(index, token);
      },
    });
    const { promptTokens } = generation;
    let ending: Ending;
    try {
      for await (const text of generation) await taker.piece(index, text);
      const { tokens, finishReason } = await generation.result();
      ending = { index, prompt, finishReason, promptTokens, madeTokens: tokens.length };
    } catch (error) {
      if (signal.reason !== ("late" satisfies StopReason)) throw error;
      if (counted.tokens === 0) throw unavailable("no token was made in the time that a request may take", "timeout");
      ending = { index, prompt, finishReason: "length", promptTokens, madeTokens: made };
    }
    this.#metrics.prompt(promptTokens);
    await taker.end(ending);
    return ending;
  }
}

/** OpenAI's count of tokens: each prompt once, all its answers. */
export function usageOf(endings: readonly Ending[]) {
  const prompts = new Map(endings.map(({ prompt, promptTokens }) => [prompt, promptTokens]));
  const prompt_tokens = [...prompts.values()].reduce((sum, length) => sum + length, 0);
  const completion_tokens = endings.reduce((sum, { madeTokens }) => sum + madeTokens, 0);
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}
