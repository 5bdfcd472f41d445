// Packs for tests, made from a checkpoint in a moment: nothing is calibrated, weights are rounded to nearest, and pairs,
// channels and units come in natural or in seeded random order. Also what stands in for a file and a host.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { storeTokenizer } from "../packs/calibration";
import { type SortedSublayer, storeLayer } from "../packs/chain";
import { type Checkpoint, openCheckpoint } from "../packs/checkpoint";
import { familyOf, readOptionalTensor, readTensor } from "../packs/families/index";
import {
  DTYPE_F32,
  DTYPE_Q4,
  DTYPE_Q8,
  KIND_QK,
  KIND_VO,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_HEAD,
} from "../packs/format";
import { Linalg } from "../packs/linalg";
import { quantizeToNearest } from "../packs/quantize";
import { type Encoded, groupSize, storeMatrix, storeVector, type UnitSizes, unitSizes } from "../packs/stacks";
import { readSublayers } from "../packs/sublayers/index";
import { compileTokenizer } from "../packs/tokenizer";
import {
  type CurvePoint,
  type FixedTensor,
  type OrderedUnit,
  type PackContent,
  type Stack,
  writePackBytes,
} from "../packs/write";
import type { Host, Source } from "../runtime/host";
import { Pack } from "../runtime/pack";
import { random } from "./random";

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
    fixed.push({ layer: null, ...storeTokenizer(bytes) });
  }

  const stacks: Stack[] = [];
  const units: Uint8Array[][] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    const sublayers = await readSublayers(checkpoint, layer, sizes);
    const sorted = sublayers.map((sublayer): SortedSublayer => {
      const { orders, bases } = sublayer.natural();
      const shuffledOrders = [...orders].map(([kind, lists]) => {
        const own = (list: ArrayLike<number>, i: number) => reordered(kind, list, order, layer * 1000 + kind * 100 + i);
        return [kind, kind === KIND_VO ? lists : lists.map(own)] as const;
      });
      return { sublayer, stacks: sublayer.stacks({ orders: new Map(shuffledOrders), bases }, module) };
    });
    const stored = storeLayer(sorted, ({ values, rows, cols, axis }, stack) =>
      encode(values, rows, cols, axis === "cols" && stack !== null ? cols / stack.units : cols),
    );
    fixed.push(...stored.fixed.map((tensor) => ({ ...tensor, layer })));
    for (const { kind, channels, layout, units: own } of stored.stacks) {
      stacks.push({ layer, kind, channels, units: own.length, layout });
      units.push([...own]);
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

/** A list of channels in another order; those of queries and keys are pairs. The basis of values stays as it is. */
function reordered(
  kind: number,
  list: ArrayLike<number>,
  order: (count: number, seed: number) => number[],
  seed: number,
): number[] {
  const size = kind === KIND_QK ? 2 : 1;
  return order(list.length / size, seed).flatMap((i) => Array.from({ length: size }, (_, j) => list[i * size + j]));
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

const modules = new Map<string, Promise<WebAssembly.Module>>();

/** A host that compiles the core once for all tests of a file, and pauses for nothing. */
export const testHost: Host = {
  openSource: () => Promise.reject(new Error("tests hand their sources over")),
  loadModule: (file) => {
    const module = modules.get(file) ?? WebAssembly.compile(readFileSync(`dist/${file}`));
    modules.set(file, module);
    return module;
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

export function openBytes(bytes: Uint8Array, name?: string, host: Host = testHost): Promise<Pack> {
  return Pack.open(memorySource(bytes, name), host);
}

/** The pruning rate that keeps the first `units` units, no more and no fewer. */
export function rateOf(lengths: readonly number[], units: number): number {
  const all = lengths.reduce((sum, length) => sum + length, 0);
  const cut = lengths.slice(units).reduce((sum, length) => sum + length, 0);
  return all === 0 ? 0 : Math.min(1, (cut + 0.5) / all);
}
