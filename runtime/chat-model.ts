// What the adapters to other people's interfaces need of a model. Model and RemoteModel both have it.

import type { Message } from "./chat";
import type { GenerateOptions, GenerateResult } from "./generation";
import type { Info } from "./info";
import type { ChatOptions, FitOptions, Fitted } from "./overflow";

export interface ChatModel {
  readonly info: Info;
  readonly plan: { readonly context: number };
  generate(prompt: string | readonly number[], options?: GenerateOptions): ChatGeneration;
  chat(messages: readonly Message[], options?: ChatOptions): ChatGeneration;
  fit(messages: readonly Message[], options?: FitOptions): Fitted | Promise<Fitted>;
  encode(text: string): number[] | Promise<number[]>;
}

export interface ChatGeneration extends AsyncIterable<string> {
  result(): Promise<GenerateResult>;
}
