// Runs in a worker before snug's own code, and notes what is asked of the GPU there.

import { CHANNEL, type Probed } from "./probed";

let asked = 0;
let dispatches = 0;
const pipelines: number[] = [];
const now = () => performance.timeOrigin + performance.now();

// A worker of a page that may not use a GPU has none of these.
if ("GPUDevice" in globalThis) {
  const { createComputePipelineAsync } = GPUDevice.prototype;
  GPUDevice.prototype.createComputePipelineAsync = async function (descriptor) {
    asked ||= now();
    const pipeline = await createComputePipelineAsync.call(this, descriptor);
    pipelines.push(now());
    return pipeline;
  };
  const { dispatchWorkgroups } = GPUComputePassEncoder.prototype;
  GPUComputePassEncoder.prototype.dispatchWorkgroups = function (...counts) {
    dispatches++;
    dispatchWorkgroups.apply(this, counts);
  };
}

const channel = new BroadcastChannel(CHANNEL);
channel.onmessage = ({ data }) => {
  if (data === "report") channel.postMessage({ asked, pipelines, dispatches } satisfies Probed);
};
