// How likely tokens were, beside the text that they came to: a token is told of once its text is out, and never if a stop
// text took it away.

import type { GeneratedToken, TokenLogprob } from "../../runtime/index";
import type { Ending, ServedModel } from "./generations";

/** What OpenAI's API says of tokens that are as good as impossible. */
const LEAST = -9999;

export interface PlacedToken {
  readonly token: GeneratedToken;
  /** Characters (code points) of the answer before it. */
  readonly start: number;
}

type TokenSource = Pick<ServedModel, "endTokens" | "tokenBytes">;

/** The tokens of one answer whose text is not out yet. */
export class TokenPlaces {
  readonly #model: TokenSource;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #held: PlacedToken[] = [];
  #made = 0;
  #out = 0;

  constructor(model: TokenSource) {
    this.#model = model;
  }

  push(token: GeneratedToken): void {
    if (this.#model.endTokens.has(token.id)) return;
    this.#held.push({ token, start: this.#made });
    this.#made += characters(this.#decoder.decode(this.#model.tokenBytes(token.id), { stream: true }));
  }

  /** Takes the tokens whose text begins in the text that is out now, this piece included. */
  take(text: string): PlacedToken[] {
    this.#out += characters(text);
    const taken = this.#held.filter(({ start }) => start < this.#out);
    this.#held = this.#held.slice(taken.length);
    return taken;
  }

  /** What comes with no text any more. */
  rest({ finishReason }: Ending): PlacedToken[] {
    return finishReason === "length" ? this.#held.splice(0) : [];
  }
}

/** In the shape of chat completions. */
export function chatLogprobs(model: TokenSource, tokens: readonly PlacedToken[]) {
  const told = ({ id, logprob }: TokenLogprob) => {
    const bytes = model.tokenBytes(id);
    return { token: tokenText(bytes), logprob: Math.max(logprob, LEAST), bytes: [...bytes] };
  };
  const content = tokens.map(({ token }) => ({ ...told(chosen(token)), top_logprobs: token.top.map(told) }));
  return { content, refusal: null };
}

/** In the shape of completions: the chosen token is always among the likeliest. */
export function completionLogprobs(model: TokenSource, tokens: readonly PlacedToken[]) {
  const text = (id: number) => tokenText(model.tokenBytes(id));
  const top = ({ token }: PlacedToken) => {
    const likeliest = new Map<string, number>();
    for (const { id, logprob } of [...token.top, chosen(token)]) {
      // Of two ids with one text, the likelier one is told of.
      if (!likeliest.has(text(id))) likeliest.set(text(id), Math.max(logprob, LEAST));
    }
    return Object.fromEntries(likeliest);
  };
  return {
    tokens: tokens.map(({ token }) => text(token.id)),
    token_logprobs: tokens.map(({ token }) => Math.max(chosen(token).logprob, LEAST)),
    top_logprobs: tokens.map(top),
    text_offset: tokens.map(({ start }) => start),
  };
}

function chosen({ id, logprob }: GeneratedToken): TokenLogprob {
  if (logprob === null) throw new Error("logprobs were asked for, and the model gave none");
  return { id, logprob };
}

/** A token as text; one that is only a part of a character, as its bytes. */
function tokenText(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return `bytes:${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
  }
}

function characters(text: string): number {
  return [...text].length;
}
