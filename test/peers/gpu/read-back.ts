import { BUFFER_COPY_DST, BUFFER_MAP_READ, MAP_READ } from "../../../gpu/usage";

/** Copies bytes of a buffer to the host, as they are when all that was submitted is done. */
export async function readBack(device: GPUDevice, buffer: GPUBuffer, offset: number, bytes: number) {
  const read = device.createBuffer({ size: bytes, usage: BUFFER_MAP_READ | BUFFER_COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, offset, read, 0, bytes);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(MAP_READ);
  const copy = read.getMappedRange().slice(0);
  read.destroy();
  return copy;
}
