// What is used of wllama, whose versions are loaded by address and differ.

export interface WllamaModule {
  readonly Wllama: {
    new (wasm: Record<string, string>, config: object): Wllama;
    getLibllamaVersion(): string;
  };
}

interface Wllama {
  loadModel(blobs: Blob[], settings: object): Promise<void>;
  getNumThreads(): number;
}

export interface Wllama2 extends Wllama {
  kvClear(): Promise<void>;
  decode(tokens: number[], options: object): Promise<unknown>;
  samplingInit(options: { temp: number }): Promise<void>;
  samplingSample(): Promise<{ token: number }>;
}

export interface Wllama3 extends Wllama {
  createCompletion(options: object): Promise<{
    timings?: { prompt_n: number; prompt_ms: number; predicted_n: number; predicted_ms: number };
  }>;
}
