// WebGPU in Node: Dawn, which is also Chrome's.

import { createRequire } from "node:module";

/** What dawn.node and the npm package "webgpu" export. */
interface Dawn {
  create(options: readonly string[]): GPU;
  /** The classes and constants of WebGPU, by name. */
  readonly globals: Readonly<Record<string, unknown>>;
}

/** Which features Dawn is to have beyond those of the standard, and timestamps that are not rounded. */
export const TOGGLES = ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia"] as const;
const ROUNDED_TIMESTAMPS = "timestamp_quantization";

/**
 * Opens Dawn: the binding that the environment variable DAWN_NODE names, or else that of the npm package "webgpu". Makes
 * WebGPU's names global, `navigator.gpu` among them. Keep what comes back: when it is collected, its devices are lost.
 */
export async function openDawn(toggles: readonly string[] = TOGGLES): Promise<GPU> {
  const binding = process.env.DAWN_NODE;
  const { create, globals }: Dawn = binding ? createRequire(import.meta.url)(binding) : await import("webgpu");
  Object.assign(globalThis, globals);
  copyWhatIsShared(globals.GPUQueue as typeof GPUQueue);
  const gpu = create([`enable-dawn-features=${toggles.join()}`, `disable-dawn-features=${ROUNDED_TIMESTAMPS}`]);
  Object.defineProperty(globalThis, "navigator", {
    value: { gpu, hardwareConcurrency: 1, userAgent: "Node" },
    configurable: true,
  });
  return gpu;
}

/** Dawn's binding refuses views of shared memory, which browsers take. */
function copyWhatIsShared({ prototype }: typeof GPUQueue): void {
  const { writeBuffer } = prototype;
  prototype.writeBuffer = function (buffer, bufferOffset, data, from = 0, size) {
    const isView = ArrayBuffer.isView(data);
    const memory = isView ? data.buffer : data;
    if (!(memory instanceof SharedArrayBuffer)) return writeBuffer.call(this, buffer, bufferOffset, data, from, size);
    // Offset and size count a view's elements.
    const unit = isView && "BYTES_PER_ELEMENT" in data ? (data.BYTES_PER_ELEMENT as number) : 1;
    const start = (isView ? data.byteOffset : 0) + from * unit;
    const bytes = size === undefined ? data.byteLength - from * unit : size * unit;
    return writeBuffer.call(this, buffer, bufferOffset, new Uint8Array(memory, start, bytes).slice());
  };
}
