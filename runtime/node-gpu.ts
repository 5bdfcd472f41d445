// WebGPU in Node: what the package "webgpu" (Dawn) brings, where somebody has installed it.

import { SnugError } from "./errors";

// Dawn's devices end with it.
let dawn: Promise<GPU> | undefined;

export function webgpu(): Promise<GPU> {
  dawn ??= import("webgpu").then(
    // Rounded timestamps would say nothing of kernels that take some microseconds.
    ({ create }) => create(["disable-dawn-features=timestamp_quantization"]),
    (cause: NodeJS.ErrnoException) => {
      const isMissing = cause.code === "ERR_MODULE_NOT_FOUND" || cause.code === "MODULE_NOT_FOUND";
      const reason = isMissing ? "it comes with `npm install webgpu`" : `webgpu does not start: ${cause.message}`;
      throw new SnugError("gpu", `Node has no WebGPU of its own: ${reason}`, { cause });
    },
  );
  return dawn;
}
