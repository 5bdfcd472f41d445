// snug on the same GPU: products with matrices of 4 bit, as onnxruntime's chain has them, and whole models in the shapes of
// real ones. Weights are made on the spot.

import { ROW_BYTES, ROW_OUTPUT, ROW_POSITION } from "../../../assembly/abi";
import { requestDevice } from "../../../gpu/device";
import { Executor } from "../../../gpu/executor";
import type { Op } from "../../../gpu/ops";
import { tileBytesOf } from "../../../gpu/passes";
import { DTYPE_Q4 } from "../../../packs/format";
import { SHAPES, type SyntheticShape } from "../../../packs/synthetic";
import { syntheticSource } from "../../../packs/synthetic-source";
import { type KernelTime, type Model, open, Stopwatch } from "../../../runtime/index";
import { median } from "../contest";

const GROUP = 32;
const WARM_UPS = 5;
const REPETITIONS = 9;

export interface ProductTime {
  readonly layers: number;
  readonly size: number;
  readonly rows: number;
  readonly secondsPerLayer: number;
  readonly weightBytesPerSecond: number;
  readonly operationsPerSecond: number;
}

/** A chain of matrices [size, size] with a scale for 32 columns, on activations rounded to 8 bit: host's clock. */
export async function measureProducts(gpu: GPU, layers: number, size: number, rows: number): Promise<ProductTime> {
  const device = await requestDevice(gpu);
  const bytes = (size / 16) * tileBytesOf(DTYPE_Q4, size, GROUP);
  let end = 256;
  const take = (length: number) => {
    const address = end;
    end = Math.ceil((end + length) / 256) * 256;
    return address;
  };
  const weights = Array.from({ length: layers }, () => take(bytes));
  const [a, b] = [take(rows * size * 4), take(rows * size * 4)];
  const codes = take(rows * size * 2);
  const ops = weights.flatMap((weight, i): Op[] => {
    const [input, out] = i % 2 === 0 ? [a, b] : [b, a];
    return [
      { kind: "quantize", outputs: false, input, out: codes, cols: size, group: GROUP, norm: null },
      {
        ...{ kind: "matmul", outputs: false, alongside: false, add: false, input, inputStride: size, codes },
        ...{ dtype: DTYPE_Q4, group: GROUP, cols: size, axisRows: true, firstCol: 0, rowCols: size, quantize: null },
        matrices: [{ weight, rows: size, panels: 1, panelBytes: bytes, bias: 0, biasBytes: 0, out, outStride: size }],
        ...{ gated: false, squaredRelu: false, roles: [0] },
      },
    ];
  });
  const executor = await Executor.of(device, ops, { vocabulary: 1, capacity: { rows, outputs: 1, sequences: 1 } });
  // Codes of all sizes; scales that keep numbers in bounds: f16 2^-8.
  const pattern = Uint32Array.from({ length: 1 << 18 }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
  const groupWords = tileBytesOf(DTYPE_Q4, GROUP, GROUP) / 4;
  for (let i = 0; i < pattern.length; i++) if (i % groupWords < 8) pattern[i] = 0x1c001c00;
  const tile = new Uint8Array(pattern.buffer, 0, Math.floor(pattern.length / groupWords) * groupWords * 4);
  for (const weight of weights)
    for (let at = 0; at < bytes; at += tile.length)
      executor.upload(weight + at, tile.subarray(0, Math.min(tile.length, bytes - at)));
  const x = Float32Array.from({ length: rows * size }, (_, i) => ((i * 37) % 255) / 127 - 1);
  await executor.compiled();
  const records = new Uint8Array(rows * ROW_BYTES);
  const view = new DataView(records.buffer);
  for (let t = 0; t < rows; t++) {
    view.setUint32(t * ROW_BYTES + ROW_POSITION, t, true);
    view.setUint32(t * ROW_BYTES + ROW_OUTPUT, 0, true);
  }
  const seconds: number[] = [];
  for (let i = 0; i < WARM_UPS + REPETITIONS; i++) {
    executor.upload(a, new Uint8Array(x.buffer));
    await executor.settled();
    const started = performance.now();
    executor.run(records);
    await executor.settled();
    if (i >= WARM_UPS) seconds.push((performance.now() - started) / 1000 / layers);
  }
  const last = new Float32Array((await executor.memory(layers % 2 === 0 ? a : b, size * 4)).slice().buffer);
  if (!last.every(Number.isFinite) || last.every((value) => value === 0)) throw new Error("the chain came to nothing");
  executor.destroy();
  device.destroy();
  const secondsPerLayer = median(seconds);
  return {
    ...{ layers, size, rows, secondsPerLayer },
    weightBytesPerSecond: bytes / secondsPerLayer,
    operationsPerSecond: (2 * rows * size * size) / secondsPerLayer,
  };
}

export interface ModelTime {
  readonly shape: string;
  readonly pruningRate: number;
  readonly group: number;
  readonly loadSeconds: number;
  /** Of weights that a token reads: no row of the embedding but its own. */
  readonly weightBytes: number;
  /** Multiplications with weights for a token of a prompt. */
  readonly products: number;
  /** Medians, at the start of a text. */
  readonly decodeTokensPerSecond: number;
  readonly prefillTokensPerSecond: number;
  /** With the default sampling instead of the likeliest token. */
  readonly sampledTokensPerSecond: number;
  /** Of a token made and of a prompt read, by kind of op, as the GPU's clock has it; each in a pass of its own. */
  readonly ops: { readonly decode: readonly KernelTime[]; readonly prefill: readonly KernelTime[] };
}

const DECODED = 64;
const PROMPT = 512;
const CONTEXT = 1024;
const HEATING_SECONDS = 2;

/** Models in a shape, at these pruning rates, all of one synthetic pack and all in memory: they are measured in turns. */
export async function measureModels(
  shape: string,
  rates: readonly number[],
  group: number,
  layers?: number,
): Promise<ModelTime[]> {
  const own = SHAPES[shape] as SyntheticShape;
  const wanted = { ...own, max_position_embeddings: CONTEXT, ...(layers && { num_hidden_layers: layers }) };
  const pack = await open(await syntheticSource(wanted as SyntheticShape, { group }));
  const models: Measured[] = [];
  for (const pruning of rates) {
    const plan = pack.plan({ device: "gpu", pruning, context: CONTEXT });
    const started = performance.now();
    const model = await pack.load(plan);
    const loadSeconds = (performance.now() - started) / 1000;
    models.push({ model, watch: new Stopwatch(model), loadSeconds, decode: [], prefill: [], sampled: [] });
  }
  // While weights are uploaded a GPU's clock goes down.
  for (const heated = performance.now(); performance.now() - heated < HEATING_SECONDS * 1000; )
    for (const { watch } of models) await watch.decode(DECODED);
  for (const { watch } of models) await watch.prefill(PROMPT);
  for (let i = 0; i < REPETITIONS; i++)
    for (const { model, watch, decode, prefill, sampled } of models) {
      await watch.decode(DECODED);
      decode.push(DECODED / (await watch.decode(DECODED)));
      prefill.push(PROMPT / (await watch.prefill(PROMPT)));
      const result = await model.generate([1, 2, 3], { maxTokens: DECODED, seed: i }).result();
      sampled.push(result.decode.tokensPerSecond);
    }
  const times: ModelTime[] = [];
  for (const { model, watch, loadSeconds, decode, prefill, sampled } of models) {
    const opsOf = async (rows: number, position: number): Promise<readonly KernelTime[]> => {
      await watch.gpuOps(rows, position);
      return (await watch.gpuOps(rows, position)) ?? [];
    };
    const work = watch.work();
    const { pruningRate, rows } = model.plan;
    times.push({
      ...{ shape, group, loadSeconds, pruningRate },
      weightBytes: work.reduce((sum, { weightBytes }) => sum + weightBytes, 0),
      products: work.reduce((sum, { products, forOutputs }) => sum + (forOutputs ? 0 : products), 0),
      decodeTokensPerSecond: median(decode),
      prefillTokensPerSecond: median(prefill),
      sampledTokensPerSecond: median(sampled),
      ops: { decode: await opsOf(1, 32), prefill: await opsOf(Math.min(PROMPT, rows), 0) },
    });
    model.dispose();
  }
  await pack.close();
  return times;
}

interface Measured {
  readonly model: Model;
  readonly watch: Stopwatch;
  readonly loadSeconds: number;
  /** Tokens a second of each repetition. */
  readonly decode: number[];
  readonly prefill: number[];
  readonly sampled: number[];
}
