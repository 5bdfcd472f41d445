// What the runtime uses of this folder; it comes by dynamic import, so that whoever does without a GPU does without it.

export { type Device, findGpu, GpuError, type GpuReason, requestDevice } from "./device";
export { type Candidates, Executor } from "./executor";
export { selfTest } from "./self-test";
