// A device that computes rightly, or the reason why there is none.

import { assemble, type Settings, type ShaderName } from "./wgsl";

/** unavailable: there is no adapter, or it lacks something; memory: the device refused it; lost: it went away meanwhile;
 *  wrong: it computes wrongly. */
export type GpuReason = "unavailable" | "memory" | "lost" | "wrong";

export class GpuError extends Error {
  readonly reason: GpuReason;

  constructor(reason: GpuReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "GpuError";
    this.reason = reason;
  }
}

/** Bindings are no longer than this on any device: some have no more. */
export const BINDING_BYTES = 2 ** 27;
const BUFFER_BYTES = 2 ** 30;
/** More workgroup memory than this would leave too few workgroups on a processor. */
const STORAGE_BYTES = 2 ** 15;

export class Device {
  readonly device: GPUDevice;
  readonly name: string;
  /** Products of four 8-bit numbers in one instruction. */
  readonly packedDot: boolean;
  readonly timestamps: boolean;
  /** The largest buffer. */
  readonly bufferBytes: number;
  /** The longest binding. */
  readonly bindingBytes: number;
  /** Of workgroup memory. */
  readonly storageBytes: number;
  #lost: GpuError | undefined;
  readonly #pipelines = new Map<string, Promise<GPUComputePipeline>>();
  readonly #edit: ((shader: ShaderName, text: string) => string) | undefined;

  constructor(
    device: GPUDevice,
    name: string,
    packedDot: boolean,
    edit?: (shader: ShaderName, text: string) => string,
  ) {
    this.device = device;
    this.name = name;
    this.packedDot = packedDot;
    this.timestamps = device.features.has("timestamp-query");
    this.bufferBytes = Math.min(BUFFER_BYTES, device.limits.maxBufferSize);
    this.bindingBytes = Math.min(BINDING_BYTES, device.limits.maxStorageBufferBindingSize);
    this.storageBytes = device.limits.maxComputeWorkgroupStorageSize;
    this.#edit = edit;
    // What no scope catches is a bug of ours, and its results are not to be believed.
    device.onuncapturederror = ({ error }) => {
      this.#lost ??= new GpuError("wrong", `the GPU's device refused a call, please report this: ${error.message}`);
    };
    void device.lost.then(({ message, reason }) => {
      this.#lost ??= new GpuError("lost", `the GPU's device is lost (${message || reason})`);
    });
  }

  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Counts the device as lost, because it does not answer: an engine may say so only later. Returns the error. */
  lose(cause: Error): GpuError {
    this.#lost ??= new GpuError("lost", `the GPU gives no results: ${cause.message}`, { cause });
    return this.#lost;
  }

  /** Throws if the device is lost, or not to be believed. */
  check(): void {
    if (this.#lost !== undefined) throw this.#lost;
  }

  /** The shader's pipeline, compiled once for the same settings. */
  pipeline(shader: ShaderName, settings: Settings): Promise<GPUComputePipeline> {
    const key = `${shader} ${JSON.stringify(settings)}`;
    const known = this.#pipelines.get(key);
    if (known !== undefined) return known;
    const text = assemble(shader, settings);
    const code = this.#edit?.(shader, text) ?? text;
    const module = this.device.createShaderModule({ label: key, code });
    const pipeline = this.device
      .createComputePipelineAsync({ label: key, layout: "auto", compute: { module, entryPoint: "main" } })
      .catch(async (cause: Error) => {
        this.check();
        const { messages } = await module.getCompilationInfo();
        const details = messages.map(({ lineNum, message }) => `line ${lineNum}: ${message}`).join("; ");
        throw new GpuError("unavailable", `the GPU's driver refuses the kernel ${key}: ${details || cause.message}`, {
          cause,
        });
      });
    this.#pipelines.set(key, pipeline);
    pipeline.catch(() => {});
    return pipeline;
  }

  /** Runs what allocates; memory that the device refuses is an error. */
  async allocate<T extends { destroy(): void }>(make: () => T): Promise<T> {
    const { device } = this;
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    let made: T | undefined;
    let thrown: unknown;
    try {
      made = make();
    } catch (error) {
      thrown = error;
    }
    const [invalid, refused] = await Promise.all([device.popErrorScope(), device.popErrorScope()]);
    this.check();
    const error = refused ?? invalid ?? thrown ?? undefined;
    if (made !== undefined && error === undefined) return made;
    made?.destroy();
    const message = error instanceof Object && "message" in error ? error.message : error;
    throw new GpuError("memory", `the GPU's device refused the memory: ${message}`, { cause: error });
  }

  destroy(): void {
    this.device.destroy();
  }
}

export interface DeviceOptions {
  /** Is a GPU that the CPU plays good enough? Default true. */
  readonly software?: boolean;
  /** Changes a shader's text before it is compiled: for tests of what must be noticed. */
  readonly edit?: (shader: ShaderName, text: string) => string;
}

/** The engine's WebGPU, or what `other` brings along. */
export async function findGpu(other?: () => Promise<GPU>): Promise<GPU> {
  const gpu = globalThis.navigator?.gpu ?? (await other?.());
  if (gpu === undefined) throw new GpuError("unavailable", "there is no WebGPU here");
  return gpu;
}

/** Asks for an adapter and a device of it, with the largest limits that it has. */
export async function requestDevice(gpu: GPU, options: DeviceOptions = {}): Promise<Device> {
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) throw new GpuError("unavailable", "there is no GPU that WebGPU can use");
  if (options.software === false && adapter.info.isFallbackAdapter)
    throw new GpuError("unavailable", "the only GPU here is one that the CPU plays");
  const { limits } = adapter;
  const requiredFeatures = (["timestamp-query"] as const).filter((feature) => adapter.features.has(feature));
  const device = await adapter
    .requestDevice({
      requiredFeatures,
      requiredLimits: {
        maxBufferSize: limits.maxBufferSize,
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        maxComputeWorkgroupStorageSize: Math.min(STORAGE_BYTES, limits.maxComputeWorkgroupStorageSize),
      },
    })
    .catch((cause: Error) => {
      throw new GpuError("unavailable", `the GPU gives no device: ${cause.message}`, { cause });
    });
  return new Device(
    device,
    nameOf(adapter),
    gpu.wgslLanguageFeatures.has("packed_4x8_integer_dot_product"),
    options.edit,
  );
}

function nameOf({ info }: GPUAdapter): string {
  return (
    info.description ||
    [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") ||
    "a GPU without a name"
  );
}
