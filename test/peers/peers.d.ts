// What is used of the peers' packages: the project's checks do without installing them.

declare module "node-llama-cpp" {
  type Token = number;
  interface Sequence {
    clearHistory(): Promise<void>;
    evaluateWithoutGeneratingNewTokens(tokens: Token[]): Promise<void>;
    evaluate(tokens: Token[], options: { temperature: number; yieldEogToken: boolean }): AsyncIterable<Token>;
    controlledEvaluate(
      tokens: [Token, { generateNext: { logits: boolean } }][],
    ): Promise<({ next: { logits?: Map<Token, number> } } | undefined)[]>;
  }
  interface Context {
    getSequence(): Sequence;
  }
  interface Model {
    createContext(options: {
      contextSize: number;
      batchSize: number;
      threads: number;
      flashAttention: boolean;
    }): Promise<Context>;
  }
  interface Llama {
    readonly llamaCppRelease: { readonly release: string };
    loadModel(options: { modelPath: string }): Promise<Model>;
  }
  export function getLlama(options: {
    gpu: false;
    build: "never";
    logLevel: "error";
    maxThreads: number;
  }): Promise<Llama>;
}

declare module "onnxruntime-common" {
  export const env: { wasm: { numThreads: number } };
  export class Tensor {
    constructor(type: "float32", data: Float32Array, dims: readonly number[]);
    readonly data: unknown;
  }
  export class InferenceSession {
    static create(
      model: string | Uint8Array,
      options: {
        executionProviders: readonly string[];
        intraOpNumThreads: number;
        interOpNumThreads: number;
        graphOptimizationLevel: "all";
      },
    ): Promise<InferenceSession>;
    run(inputs: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  }
}

declare module "onnx-proto" {
  const onnxProto: {
    onnx: {
      ModelProto: { fromObject(model: object): object; encode(model: object): { finish(): Uint8Array } };
      AttributeProto: { AttributeType: { INT: number } };
    };
  };
  export default onnxProto;
}

declare module "playwright-core" {
  export interface CDPSession {
    send(method: "SystemInfo.getProcessInfo"): Promise<{ processInfo: { cpuTime: number }[] }>;
  }
  export interface Page {
    on(event: "pageerror", listener: (error: Error) => void): void;
    on(event: "crash", listener: () => void): void;
    goto(address: string): Promise<unknown>;
    waitForFunction(condition: () => boolean): Promise<unknown>;
    evaluate<T, R>(work: (argument: T) => R | Promise<R>, argument: T): Promise<R>;
    close(): Promise<void>;
  }
  export interface Browser {
    version(): string;
    newPage(): Promise<Page>;
    newBrowserCDPSession(): Promise<CDPSession>;
    close(): Promise<void>;
  }
  export const chromium: {
    launch(options: { executablePath: string; headless: boolean; args: string[] }): Promise<Browser>;
  };
}
