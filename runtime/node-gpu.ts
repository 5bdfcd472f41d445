// WebGPU in Node: what the package "webgpu" (Dawn) brings, where somebody has installed it.

// Dawn's devices end with it.
let dawn: Promise<GPU | undefined> | undefined;

export function webgpu(): Promise<GPU | undefined> {
  dawn ??= import("webgpu").then(
    ({ create }) => create([]),
    () => undefined,
  );
  return dawn;
}
