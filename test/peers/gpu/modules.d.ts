// What is used of the packages: the project's checks do without installing them.

declare module "webgpu" {
  export function create(options: readonly string[]): GPU;
  export const globals: Readonly<Record<string, unknown>>;
}

declare module "onnxruntime-web/webgpu" {
  type ElementType = "float32" | "float16";
  export const env: {
    readonly versions: { readonly web?: string };
    logLevel: "error";
    readonly wasm: { numThreads: number; wasmBinary: Uint8Array };
    readonly webgpu: { readonly device: Promise<GPUDevice> };
  };
  export class Tensor {
    constructor(type: ElementType, data: Float32Array | Uint16Array, dims: readonly number[]);
    static fromGpuBuffer(buffer: GPUBuffer, options: { dataType: ElementType; dims: readonly number[] }): Tensor;
    readonly data: Float32Array | Uint16Array;
    getData(): Promise<Float32Array | Uint16Array>;
    dispose(): void;
  }
  export class InferenceSession {
    static create(
      model: Uint8Array,
      options: {
        executionProviders: readonly ["webgpu"];
        preferredOutputLocation: "gpu-buffer" | "cpu";
        enableGraphCapture?: boolean;
      },
    ): Promise<InferenceSession>;
    run(inputs: Record<string, Tensor>): Promise<Record<string, Tensor>>;
    run(inputs: Record<string, Tensor>, outputs: Record<string, Tensor>): Promise<Record<string, Tensor>>;
    release(): Promise<void>;
  }
}
