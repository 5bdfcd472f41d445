// What is used of the AI SDK: the project's checks do without installing it. That its own types agree is a test.

declare module "ai" {
  interface Settings {
    model: object;
    system?: string;
    prompt?: string;
    messages?: { role: "user" | "assistant"; content: string | object[] }[];
    maxOutputTokens?: number;
    temperature?: number;
    topK?: number;
    seed?: number;
    stopSequences?: string[];
    presencePenalty?: number;
    frequencyPenalty?: number;
    tools?: Record<string, object>;
    providerOptions?: Record<string, Record<string, string | number | boolean>>;
    abortSignal?: AbortSignal;
    maxRetries?: number;
    onAbort?(event: object): void;
    onError?(event: { error: unknown }): void;
  }
  interface Usage {
    inputTokens: number | undefined;
    outputTokens: number | undefined;
    totalTokens: number | undefined;
  }
  interface Text {
    text: string;
    finishReason: string;
    usage: Usage;
    warnings: { type: string; feature?: string; details?: string }[] | undefined;
    providerMetadata: Record<string, Record<string, unknown>> | undefined;
    response: { modelId: string; timestamp: Date };
  }
  export function generateText(settings: Settings): Promise<Text>;
  export function streamText(settings: Settings): {
    textStream: AsyncIterable<string>;
    fullStream: AsyncIterable<{ type: string; text?: string; error?: unknown }>;
    text: PromiseLike<string>;
    usage: PromiseLike<Usage>;
    finishReason: PromiseLike<string>;
    warnings: PromiseLike<Text["warnings"]>;
  };
  export function createProviderRegistry(providers: Record<string, object>): { languageModel(id: string): object };
  export function jsonSchema(schema: object): object;
}

declare module "ai-6" {
  export * from "ai";
}
