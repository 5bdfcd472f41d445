// What a test of the GPU suite is, and what it is given. Portable: no host's own names appear here.

import type { Device } from "../gpu/device";
import type { Host, Source } from "../runtime/host";
import type { GpuFixtures } from "./gpu-fixtures";

export interface GpuTest {
  readonly name: string;
  run(): Promise<void>;
}

export interface GpuContext {
  readonly gpu: GPU;
  /** One device for all tests that break none. */
  readonly device: Device;
  /** False where shaders and pipelines are only validated: nothing can be compared there. */
  readonly executes: boolean;
  /** All cases, however long they take. */
  readonly thorough: boolean;
  readonly fixtures: GpuFixtures;
  fetchBytes(name: string): Promise<Uint8Array>;
  /** Says something that is no failure. */
  note(line: string): void;
}

/** A host of the runtime over the suite's files and its GPU. pause: what else is to happen between steps. */
export function hostOf({ gpu, fetchBytes }: GpuContext, pause: () => void = () => {}): Host {
  return {
    openSource: async (name) => sourceOf(await fetchBytes(name), name),
    loadModule: async (file) => WebAssembly.compile((await fetchBytes(`dist/${file}`)) as Uint8Array<ArrayBuffer>),
    spareMemory: () => ({ bytes: 1e9, how: "as the suite says" }),
    webgpu: async () => gpu,
    pause: async () => pause(),
  };
}

export function sourceOf(bytes: Uint8Array, name: string): Source {
  return {
    ...{ name, size: bytes.length },
    async read(offset, target) {
      if (offset + target.length > bytes.length) throw new RangeError(`a read past the end of ${name}`);
      target.set(bytes.subarray(offset, offset + target.length));
    },
  };
}

/** Throws unless each |got − want| ≤ bound × the largest |want|. Returns what the largest difference is of it. */
export function compare(got: ArrayLike<number>, want: ArrayLike<number>, bound: number, what: string): number {
  if (got.length !== want.length) throw new Error(`${what}: ${got.length} numbers instead of ${want.length}`);
  let largest = 0;
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i] as number));
    const difference = Math.abs((got[i] as number) - (want[i] as number));
    if (!(difference <= worst)) worst = difference; // NaN is the worst
  }
  const off = worst / largest;
  if (!(off <= bound)) throw new Error(`${what}: ${off.toPrecision(2)} of the largest logit off, ${bound} allowed`);
  return off;
}

export function expect(isSo: boolean, message: string): asserts isSo {
  if (!isSo) throw new Error(message);
}

/** Throws unless both are the same, in the same order. */
export function expectEqual(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  const own = Array.from(got);
  const at = Array.from(want).findIndex((value, i) => value !== own[i]);
  expect(
    at < 0 && own.length === want.length,
    `${what}: [${own.join(" ")}] instead of [${Array.from(want).join(" ")}]`,
  );
}
