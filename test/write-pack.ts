// Packs for tests, made from a checkpoint in a moment: nothing is calibrated, weights are rounded to nearest, and pairs,
// channels and units come in natural or in seeded random order. Also what stands in for a file and a host.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { type Checkpoint, openCheckpoint } from "../packs/checkpoint";
import { familyOf, readOptionalTensor, readTensor } from "../packs/families";
import {
  DTYPE_BYTES,
  DTYPE_F32,
  DTYPE_Q4,
  DTYPE_Q8,
  ROLE_ATTENTION_NORM,
  ROLE_DOWN_BIAS,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_HEAD,
  ROLE_MLP_NORM,
  ROLE_O_BIAS,
  ROLE_TOKENIZER,
} from "../packs/format";
import { Linalg } from "../packs/linalg";
import { quantizeToNearest } from "../packs/quantize";
import {
  attentionStacks,
  type Encoded,
  groupSize,
  mlpStack,
  storeMatrix,
  storeVector,
  type UnitSizes,
  unitSizes,
  unitTensors,
} from "../packs/stacks";
import { compileTokenizer } from "../packs/tokenizer";
import {
  type CurvePoint,
  type FixedTensor,
  layOutUnit,
  type OrderedUnit,
  type PackContent,
  type Stack,
  writePackBytes,
} from "../packs/write";
import type { Host, Source } from "../runtime/host";
import { Pack } from "../runtime/pack";
import { random } from "./harness";

export type Weights = "f32" | "q8" | "q4";

export interface PackOptions {
  /** Default "f32". */
  weights?: Weights;
  /** Of the random order; without one the order is natural, and units come stack by stack. */
  seed?: number;
  /** Where they differ from what the packer would take. */
  sizes?: Partial<UnitSizes>;
  /** Most columns of a group. Default 64. */
  group?: number;
  curve?: readonly CurvePoint[];
  minimumUnits?: number;
  info?: unknown;
  beginToken?: number | null;
  endTokens?: readonly number[];
}

const DTYPES: Record<Weights, number> = { f32: DTYPE_F32, q8: DTYPE_Q8, q4: DTYPE_Q4 };

let linalg: Promise<Linalg> | undefined;

/** The packer's module: hashes, and rounding to nearest. */
export function testLinalg(): Promise<Linalg> {
  linalg ??= Linalg.load(resolve("dist/linalg.wasm"));
  return linalg;
}

/** The bytes of a pack of the checkpoint in a folder, its tokenizer included if it has one. */
export async function packCheckpoint(folder: string, options: PackOptions = {}): Promise<Uint8Array> {
  const checkpoint = await openCheckpoint(folder);
  try {
    return await writePackBytes(await packContent(checkpoint, options), await testHash());
  } finally {
    await checkpoint.close();
  }
}

/** XXH64, as it stands in packs. */
export async function testHash(): Promise<(bytes: Uint8Array) => bigint> {
  const module = await testLinalg();
  return (bytes) => module.xxh64(bytes);
}

async function packContent(checkpoint: Checkpoint, options: PackOptions): Promise<PackContent> {
  const { config } = checkpoint;
  const { vocabulary, width } = config;
  const dtype = DTYPES[options.weights ?? "f32"];
  const module = await testLinalg();
  const encode = (values: Float32Array, rows: number, cols: number, panelCols = cols): Encoded =>
    dtype === DTYPE_F32
      ? values
      : quantizeToNearest(module, values, rows, cols, {
          bits: dtype === DTYPE_Q4 ? 4 : 8,
          group: groupSize(panelCols, dtype, options.group ?? 64),
        });
  const sizes = { ...unitSizes(config, dtype), ...options.sizes };
  const order = (count: number, seed: number) =>
    options.seed === undefined ? counting(count) : shuffled(counting(count), options.seed * 1000 + seed);

  const embedding = await readTensor(checkpoint, "embedding");
  const fixed: FixedTensor[] = [
    { layer: null, ...storeMatrix(ROLE_EMBEDDING, encode(embedding, vocabulary, width), vocabulary, width) },
    { layer: null, ...storeVector(ROLE_FINAL_NORM, await readTensor(checkpoint, "finalNorm"), 1, width) },
  ];
  const head = await readOptionalTensor(checkpoint, "head");
  if (head !== null)
    fixed.push({ layer: null, ...storeMatrix(ROLE_HEAD, encode(head, vocabulary, width), vocabulary, width) });
  if (checkpoint.tokenizer !== null) {
    const { bytes } = compileTokenizer(checkpoint.tokenizer, checkpoint.tokenizerConfig ?? undefined);
    const shape = { dtype: DTYPE_BYTES, rows: 1, cols: bytes.length, group: 0 };
    fixed.push({ layer: null, role: ROLE_TOKENIZER, ...shape, bytes });
  }

  const stacks: Stack[] = [];
  const units: Uint8Array[][] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    const weights = await readLayer(checkpoint, layer);
    const vector = (role: number, values: Float32Array | null) =>
      values && fixed.push({ layer, ...storeVector(role, values, 1, values.length) });
    vector(ROLE_ATTENTION_NORM, weights.attentionNorm);
    vector(ROLE_MLP_NORM, weights.mlpNorm);
    vector(ROLE_O_BIAS, weights.oBias);
    vector(ROLE_DOWN_BIAS, weights.downBias);
    const pairs = Array.from({ length: config.kvHeads }, (_, kv) => order(config.headDim / 2, layer * 100 + kv));
    const layerStacks = [
      ...attentionStacks(config, weights, pairs, sizes),
      mlpStack(config, weights, order(config.mlpWidth, layer * 100 + 99), sizes),
    ];
    for (const stack of layerStacks) {
      const encoded = stack.matrices.map(({ values, rows, cols, axis }) =>
        encode(values, rows, cols, axis === "cols" ? cols / stack.units : cols),
      );
      const laid = unitTensors(stack, encoded).map(layOutUnit);
      const { kind, channels } = stack;
      stacks.push({ layer, kind, channels, units: stack.units, layout: laid[0].layout });
      units.push(laid.map(({ bytes }) => bytes));
    }
  }
  return {
    ...config,
    family: familyOf(config).id,
    fixed,
    stacks,
    order: orderUnits(stacks, options.seed),
    minimumUnits: options.minimumUnits ?? 0,
    curve: options.curve ?? [],
    info: options.info ?? { name: "a test" },
    beginToken: options.beginToken ?? null,
    endTokens: options.endTokens ?? [],
    unit: (stack, index) => units[stack][index],
  };
}

/** A layer's weights; the bias of v is made a part of o's, for what it adds to the values is the same at every position. */
async function readLayer(checkpoint: Checkpoint, layer: number) {
  const { width, heads, kvHeads, headDim } = checkpoint.config;
  const must = (role: Parameters<typeof readTensor>[1]) => readTensor(checkpoint, role, layer);
  const may = (role: Parameters<typeof readTensor>[1]) => readOptionalTensor(checkpoint, role, layer);
  const o = await must("o");
  const vBias = await may("vBias");
  let oBias = await may("oBias");
  if (vBias !== null) {
    const before = oBias;
    oBias = Float32Array.from({ length: width }, (_, row) => {
      let sum = before === null ? 0 : before[row];
      for (let col = 0; col < heads * headDim; col++) {
        const kv = Math.floor(Math.floor(col / headDim) / (heads / kvHeads));
        sum += o[row * heads * headDim + col] * vBias[kv * headDim + (col % headDim)];
      }
      return sum;
    });
  }
  return {
    attentionNorm: await must("attentionNorm"),
    mlpNorm: await must("mlpNorm"),
    ...{ q: await must("q"), k: await must("k"), v: await must("v"), o },
    ...{ qBias: await may("qBias"), kBias: await may("kBias"), oBias },
    ...{ gate: await must("gate"), up: await must("up"), down: await must("down") },
    ...{ gateBias: await may("gateBias"), upBias: await may("upBias"), downBias: await may("downBias") },
  };
}

/** All units: stack by stack, or in random order, those of one stack in theirs. */
function orderUnits(stacks: readonly Stack[], seed: number | undefined): OrderedUnit[] {
  const turns = stacks.flatMap(({ units }, stack) => Array.from({ length: units }, () => stack));
  const next = stacks.map(() => 0);
  return (seed === undefined ? turns : shuffled(turns, seed)).map((stack) => ({
    stack,
    index: next[stack]++,
    loss: 0,
  }));
}

function counting(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function shuffled(items: number[], seed: number): number[] {
  const { int } = random(seed + 1);
  const out = items.slice();
  for (let i = out.length - 1; i > 0; i--) {
    const j = int(i + 1);
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

// Stand-ins for a file and a host

let core: Promise<WebAssembly.Module> | undefined;

/** A host that compiles the core once for all tests of a file, and pauses for nothing. */
export const testHost: Host = {
  openSource: () => Promise.reject(new Error("tests hand their sources over")),
  loadModule: () => {
    core ??= WebAssembly.compile(readFileSync("dist/core.wasm"));
    return core;
  },
  spareMemory: () => ({ bytes: 1e9, how: "as the test says" }),
  pause: () => Promise.resolve(),
};

export interface MemorySource extends Source {
  /** What was asked for: offset and length, in order. */
  readonly reads: [offset: number, length: number][];
}

export function memorySource(bytes: Uint8Array, name = "test.snug"): MemorySource {
  const reads: [number, number][] = [];
  return {
    name,
    size: bytes.length,
    reads,
    async read(offset, target) {
      reads.push([offset, target.length]);
      if (offset + target.length > bytes.length) throw new Error(`a read past the end: ${offset} + ${target.length}`);
      target.set(bytes.subarray(offset, offset + target.length));
    },
  };
}

export function openBytes(bytes: Uint8Array, name?: string): Promise<Pack> {
  return Pack.open(memorySource(bytes, name), testHost);
}

/** The pruning rate that keeps the first `units` units, no more and no fewer. */
export function rateOf(lengths: readonly number[], units: number): number {
  const all = lengths.reduce((sum, length) => sum + length, 0);
  const cut = lengths.slice(units).reduce((sum, length) => sum + length, 0);
  return all === 0 ? 0 : Math.min(1, (cut + 0.5) / all);
}
