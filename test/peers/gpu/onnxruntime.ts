// onnxruntime-web on WebGPU, in Node: products with 4-bit matrices, of which a language model's time is made.

import { env, InferenceSession, Tensor } from "onnxruntime-web/webgpu";
import { BUFFER_COPY_DST, BUFFER_COPY_SRC, BUFFER_STORAGE } from "../../../gpu/usage";
import { f16FromF32, f32FromF16 } from "../../../packs/encode";
import { median } from "../contest";
import { type Chain, type ChainShape, type ElementType, makeChain } from "./chain";
import { readBack } from "./read-back";

export interface ChainTime extends ChainShape {
  /** Of x. */
  readonly rows: number;
  /** Whether the commands of the first run were kept and replayed. */
  readonly isCaptured: boolean;
  /** Of a run, from the call until the GPU is done. x and y stay on the GPU. */
  readonly secondsPerLayer: number;
  readonly weightBytesPerSecond: number;
  /** A multiplication and an addition are two. */
  readonly operationsPerSecond: number;
}

export interface ChainRuns {
  readonly rows: number;
  readonly isCaptured: boolean;
}

const WARM_UPS = 5;
const COUNTED = 15;
const CHECKED_ROWS = 40; // which go through other kernels than one row
const TOLERANCE = 0.03; // of the outputs' deviation: activations are rounded to 8 bits

export interface OnnxruntimeFigures {
  readonly version: string;
  /** In float32, and in float16 where the device can. */
  readonly times: readonly ChainTime[];
  /** What could not be timed, as it was not computed, or wrongly. */
  readonly failures: readonly string[];
}

/**
 * Checks onnxruntime, and times it. openDawn() comes before this. `wasm`: ort-wasm-simd-threaded.asyncify.wasm of the
 * package; `rows`: of a prompt, next to the one of a token.
 */
export async function measureOnnxruntime(
  wasm: Uint8Array,
  { layers, size, rows }: { readonly layers: number; readonly size: number; readonly rows: number },
): Promise<OnnxruntimeFigures> {
  env.logLevel = "error";
  env.wasm.numThreads = 1;
  env.wasm.wasmBinary = wasm;
  const times: ChainTime[] = [];
  const failures: string[] = [];
  const elements: ElementType[] = [];
  for (const element of ["float32", "float16"] as const) {
    if (element === "float16" && !(await env.webgpu.device).features.has("shader-f16")) break;
    await checkProduct(element, 1);
    await checkProduct(element, CHECKED_ROWS);
    elements.push(element);
  }
  // Captured runs come last: where they fail, sessions after them may too.
  for (const kinds of [
    [
      { rows: 1, isCaptured: false },
      { rows, isCaptured: false },
    ],
    [{ rows: 1, isCaptured: true }],
  ])
    for (const element of elements) {
      const shape = { layers, size, element };
      const chain = makeChain(shape);
      for (const runs of kinds)
        await timeChain(chain, shape, runs).then(
          (time) => times.push(time),
          ({ message }: Error) => failures.push(`${nameOf(shape, runs)}: ${message.replaceAll(/\s+/g, " ")}`),
        );
    }
  return { version: env.versions.web ?? "", times, failures };
}

/** Throws where a small product is not what plain arithmetic makes of it. */
export async function checkProduct(element: ElementType, rows: number, size = 256): Promise<void> {
  const { model, first } = makeChain({ layers: 1, size, element });
  const session = await Session.create(model, { element, rows, size, isCaptured: false });
  await session.run();
  const y = await session.output();
  const x = session.input;
  for (const row of new Set([0, rows - 1])) {
    const expected = first(x.slice(row * size, (row + 1) * size));
    const deviation = rootMeanSquare(expected);
    expected.forEach((value, col) => {
      const got = y[row * size + col];
      if (!(Math.abs(got - value) < TOLERANCE * deviation))
        throw new Error(`onnxruntime computes ${got} instead of ${value} at ${row}, ${col} in ${element}`);
    });
  }
  await session.dispose();
}

/** Throws where what was timed was not computed. */
export async function timeChain(
  { model, matrixBytes }: Chain,
  shape: ChainShape,
  { rows, isCaptured }: ChainRuns,
): Promise<ChainTime> {
  const { layers, size, element } = shape;
  const session = await Session.create(model, { element, rows, size, isCaptured });
  const seconds: number[] = [];
  for (let run = 0; run < WARM_UPS + COUNTED; run++) {
    if (run === WARM_UPS) session.spoil();
    const started = performance.now();
    await session.run();
    seconds.push((performance.now() - started) / 1000);
  }
  const [before, after] = [session.input, await session.output()].map(rootMeanSquare);
  await session.dispose();
  if (!(after > before / 2 && after < before * 2))
    throw new Error(`numbers of size ${before} became numbers of size ${after}`);
  const secondsPerLayer = median(seconds.slice(WARM_UPS)) / layers;
  return {
    ...shape,
    rows,
    isCaptured,
    secondsPerLayer,
    weightBytesPerSecond: matrixBytes / secondsPerLayer,
    operationsPerSecond: (2 * rows * size * size) / secondsPerLayer,
  };
}

/** What is run, in words. */
export function nameOf({ element, layers, size }: ChainShape, { rows, isCaptured }: ChainRuns): string {
  const count = rows === 1 ? "1 row" : `${rows} rows`;
  return `MatMulNBits ${size} × ${size}, chain of ${layers}, ${element}, ${count}${isCaptured ? ", captured" : ""}`;
}

interface SessionOptions extends ChainRuns {
  readonly element: ElementType;
  readonly size: number;
}

/** A chain with its x and y in buffers of the GPU. */
class Session {
  private constructor(
    readonly input: readonly number[],
    private readonly device: GPUDevice,
    private readonly session: InferenceSession,
    private readonly element: ElementType,
    private readonly x: { readonly buffer: GPUBuffer; readonly tensor: Tensor },
    private readonly y: { readonly buffer: GPUBuffer; readonly tensor: Tensor },
  ) {}

  static async create(model: Uint8Array, { element, rows, size, isCaptured }: SessionOptions): Promise<Session> {
    const session = await InferenceSession.create(model, {
      executionProviders: ["webgpu"],
      preferredOutputLocation: "gpu-buffer",
      enableGraphCapture: isCaptured,
    });
    const device = await env.webgpu.device;
    const onGpu = (values: readonly number[]) => {
      const stored = encode(values, element);
      const usage = BUFFER_STORAGE | BUFFER_COPY_SRC | BUFFER_COPY_DST;
      const buffer = device.createBuffer({ size: stored.byteLength, usage });
      device.queue.writeBuffer(buffer, 0, stored);
      return { buffer, tensor: Tensor.fromGpuBuffer(buffer, { dataType: element, dims: [rows, size] }) };
    };
    const input = Array.from({ length: rows * size }, (_, i) => f32FromF16(f16FromF32(Math.sin(i))));
    const y = new Array<number>(rows * size).fill(Number.NaN);
    return new Session(input, device, session, element, onGpu(input), onGpu(y));
  }

  /** Makes all of y NaN. */
  spoil(): void {
    const nothing = new Array<number>(this.input.length).fill(Number.NaN);
    this.device.queue.writeBuffer(this.y.buffer, 0, encode(nothing, this.element));
  }

  /** Resolves when the GPU is done. */
  async run(): Promise<void> {
    await this.session.run({ x: this.x.tensor }, { y: this.y.tensor });
    await this.device.queue.onSubmittedWorkDone();
  }

  async output(): Promise<number[]> {
    return decode(await readBack(this.device, this.y.buffer, 0, this.y.buffer.size), this.element);
  }

  async dispose(): Promise<void> {
    await this.session.release();
    for (const { buffer, tensor } of [this.x, this.y]) {
      tensor.dispose();
      buffer.destroy();
    }
  }
}

function encode(values: readonly number[], element: ElementType): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> {
  return element === "float32" ? new Float32Array(values) : Uint16Array.from(values, f16FromF32);
}

function decode(bytes: ArrayBuffer, element: ElementType): number[] {
  return element === "float32" ? [...new Float32Array(bytes)] : Array.from(new Uint16Array(bytes), f32FromF16);
}

function rootMeanSquare(values: readonly number[]): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
}
