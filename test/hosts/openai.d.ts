// What is used of the clients that speak to OpenAI's API: the project's checks do without installing them.

declare module "openai" {
  interface Settings {
    baseURL: string;
    apiKey: string;
    maxRetries?: number;
  }
  interface Asked {
    signal?: AbortSignal;
  }
  interface Usage {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
  }
  interface Completion {
    id: string;
    model: string;
    choices: { index: number; text: string; finish_reason: string | null; logprobs: { tokens: string[] } | null }[];
    usage?: Usage;
  }
  interface Chat {
    model: string;
    choices: {
      index: number;
      message: { role: string; content: string | null };
      finish_reason: string;
      logprobs: { content: { token: string; logprob: number; top_logprobs: object[] }[] } | null;
    }[];
    usage?: Usage;
  }
  interface Chunk {
    choices: { index: number; delta: { role?: string; content?: string | null }; finish_reason: string | null }[];
    usage?: Usage | null;
  }
  interface Model {
    id: string;
    object: string;
  }
  interface Create<Whole, Part> {
    (body: { stream: true; [field: string]: unknown }, options?: Asked): Promise<AsyncIterable<Part>>;
    (body: { stream?: false; [field: string]: unknown }, options?: Asked): Promise<Whole>;
  }
  export default class OpenAI {
    constructor(settings: Settings);
    readonly models: { list(): AsyncIterable<Model>; retrieve(id: string): Promise<Model> };
    readonly completions: { readonly create: Create<Completion, Completion> };
    readonly chat: {
      readonly completions: {
        readonly create: Create<Chat, Chunk>;
        stream(body: object): {
          finalChatCompletion(): Promise<Chat>;
          on(event: "content", take: (text: string) => void): void;
        };
      };
    };
  }
  export class APIError extends Error {
    readonly status: number | undefined;
    readonly code: string | null | undefined;
    readonly param: string | null | undefined;
    readonly type: string | undefined;
    readonly requestID: string | null | undefined;
  }
  export class APIUserAbortError extends APIError {}
  export class AuthenticationError extends APIError {}
  export class BadRequestError extends APIError {}
  export class NotFoundError extends APIError {}
  export class RateLimitError extends APIError {}
}

declare module "@ai-sdk/openai-compatible" {
  interface Provider {
    chatModel(id: string): object;
    completionModel(id: string): object;
  }
  export function createOpenAICompatible(settings: {
    name: string;
    baseURL: string;
    apiKey: string;
    includeUsage?: boolean;
  }): Provider;
}
