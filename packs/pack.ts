// The packer, from end to end: checkpoint in, pack out.
//
// 1. The original model runs over the text, layer by layer: what goes into its matrices sorts its channels.
// 2. A draft of the sorted model, refitted for cuts in general, is examined: which unit costs least, again and again.
// 3. The text runs once more, through the original and the packed model side by side: each layer is refitted for the
//    cuts that the order makes, and rounded (chain.ts).
// 4. The finished pack is measured at a dozen cuts: the quality curve.

import { rm, stat } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { SnugError } from "../runtime/index";
import { type CalibrationText, readCalibration, storeTokenizer } from "./calibration";
import { packLayer, storeLayer } from "./chain";
import { type Checkpoint, openCheckpoint } from "./checkpoint";
import type { ModelConfig, SublayerName } from "./config";
import { type Draft, makeDraft } from "./draft";
import { familyOf, readTensor } from "./families/index";
import { DTYPE_F32, DTYPE_Q4, DTYPE_Q8, ROLE_FINAL_NORM, ROLE_TOKENIZER } from "./format";
import { Linalg } from "./linalg";
import { keptAt, type Removal, searchOrder } from "./search";
import { Shards } from "./shards";
import { groupSize, storeVector, unitSizes } from "./stacks";
import { readSublayers, type Sorting, SUBLAYER_KINDS } from "./sublayers/index";
import { type CompiledTokenizer, compileTokenizer } from "./tokenizer";
import { UnitStore } from "./unit-store";
import { draftVocabulary, embedWindows, roundVocabulary } from "./vocabulary";
import type { Workshop } from "./workshop";
import {
  type CurvePoint,
  type FixedTensor,
  type OrderedUnit,
  type PackContent,
  type Stack,
  writePackFile,
} from "./write";

export type WeightsName = "q4" | "q8" | "f32";

export interface PackOptions {
  /** Folder as a model hub stores it: config.json, safetensors, tokenizer.json … */
  readonly checkpoint: string;
  /** The file to write. */
  readonly output: string;
  /** A text file, 1 MB or more, of what the model is to be good at. Not needed without a tokenizer. */
  readonly calibration?: string;
  /** Default "q4". */
  readonly weights?: WeightsName;
  /** Goes into the pack's description. */
  readonly licence?: string;
  /** Worker threads. Default: what the machine runs at once, four at most. */
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: PackProgress) => void;
}

export interface PackProgress {
  /** What is being done, in words. */
  readonly stage: string;
  /** Share of the whole, 0 … 1. */
  readonly done: number;
}

export interface PackFacts {
  readonly bytes: number;
  readonly seconds: number;
  readonly units: number;
  /** The shortest prefix that can be planned. */
  readonly minimumUnits: number;
  /** Resident, uncut. */
  readonly weightsBytes: number;
  readonly calibrationTokens: number;
  readonly qualityCurve: readonly {
    readonly units: number;
    readonly pruningRate: number;
    readonly weightsBytes: number;
    readonly perplexity: number;
    readonly topOne: number;
  }[];
}

const DTYPES: Readonly<Record<WeightsName, number>> = { q4: DTYPE_Q4, q8: DTYPE_Q8, f32: DTYPE_F32 };
const GROUP_COLS = 128;
const WINDOWS = { layers: 112, exam: 4, curve: 4 };
const CURVE_POINTS = 12;
const SEARCHED_SHARE = 0.45; // of the units' bytes: no plan can cut more

/** Cuts that the pack is refitted for, as pruning rates along its order, and their shares of the windows. */
const LEVELS = [
  { rate: 0, share: 0.6 },
  { rate: 0.06, share: 0.11 },
  { rate: 0.125, share: 0.12 },
  { rate: 0.2, share: 0.17 },
];

/** Where each stage begins and ends, as shares of the whole. */
const STAGES = {
  sort: [0, 0.08],
  search: [0.08, 0.45],
  layers: [0.45, 0.93],
  curve: [0.93, 1],
} as const;

/** Packs a checkpoint. Nothing is left under the final name, nor beside it, unless it succeeds. */
export async function packCheckpoint(options: PackOptions): Promise<PackFacts> {
  const started = performance.now();
  const dtype = DTYPES[options.weights ?? "q4"];
  if (dtype === undefined) throw new SnugError("usage", `weights are "q4", "q8" or "f32", not "${options.weights}"`);
  await checkOutput(options.output);
  const checkpoint = await openCheckpoint(options.checkpoint);
  const shards = new Shards(options.threads);
  const stop = () => void shards.close();
  options.signal?.addEventListener("abort", stop);
  const stores: UnitStore[] = [];
  const beside = (what: string) => `${options.output}.${what}.partial`;
  try {
    groupSize(checkpoint.config.width, dtype, GROUP_COLS); // refuses what every matrix would refuse later
    const linalg = await Linalg.load();
    let [from, to]: readonly [number, number] = STAGES.sort;
    const shop: Workshop = {
      checkpoint,
      shards,
      linalg,
      format: { dtype, group: GROUP_COLS },
      sizes: unitSizes(checkpoint.config, dtype),
      hash: (bytes) => linalg.xxh64(bytes),
      progress(stage, done) {
        if (options.signal?.aborted) throw new SnugError("aborted", "packing was stopped");
        options.onProgress?.({ stage, done: from + (to - from) * done });
      },
    };
    const stage = (name: keyof typeof STAGES) => {
      [from, to] = STAGES[name];
    };
    const store = async (what: string) => {
      const opened = await UnitStore.create(beside(what));
      stores.push(opened);
      return opened;
    };

    shop.progress("reading the tokenizer and the calibration text", 0);
    const tokenizer = readTokenizer(checkpoint);
    const text = await readCalibration(checkpoint, tokenizer?.bytes ?? null, options.calibration, WINDOWS, shop.hash);
    const finalNorm = await readTensor(checkpoint, "finalNorm");
    const vectors: FixedTensor[] = [{ layer: null, ...storeVector(ROLE_FINAL_NORM, finalNorm, 1, finalNorm.length) }];
    const base = describe(checkpoint, tokenizer, options);
    const content = (fixed: readonly FixedTensor[], units: UnitStore, removals: readonly Removal[]): PackContent => ({
      ...base,
      fixed,
      stacks: units.stacks,
      order: orderUnits(units.stacks, removals),
      minimumUnits: units.stacks.reduce((sum, stack) => sum + stack.units, 0) - removals.length,
      curve: [],
      unit: (stack, index) => units.read(stack, index),
    });

    const draftUnits = await store("draft");
    const draft = await makeDraft(shop, text, finalNorm, draftUnits);
    stage("search");
    const draftPack = content([...(await draftVocabulary(shop)), ...vectors, ...draft.fixed], draftUnits, []);
    await writePackFile(beside("measured"), draftPack, shop.hash);
    await shards.openExam({ path: beside("measured"), windows: draft.exam, reference: draft.reference });
    const owners = sublayersOf(checkpoint.config, draftUnits.stacks);
    const { removals } = await searchOrder(shards, draftUnits.stacks, owners, SEARCHED_SHARE, (done) =>
      shop.progress("measuring what each unit is worth", done),
    );

    stage("layers");
    const levels = LEVELS.map(({ rate }) => keptAt(draftUnits.stacks, removals, rate));
    const vocabulary = await roundVocabulary(shop, draft.headGram, text.layers);
    const units = await store("units");
    vectors.push(...(await packLayers(shop, text, draft, levels, vocabulary.embedded, finalNorm, units)));

    stage("curve");
    const finished = content(
      [...vocabulary.fixed, ...vectors, ...(tokenizer ? [{ layer: null, ...storeTokenizer(tokenizer.bytes) }] : [])],
      units,
      removals,
    );
    await writePackFile(beside("measured"), finished, shop.hash);
    const curve = await measureCurve(shop, beside("measured"), text.curve, finished, removals);
    const bytes = await writePackFile(options.output, { ...finished, curve }, shop.hash);
    shop.progress("done", 1);
    const windows = text.layers.length + text.exam.length + text.curve.length;
    return {
      bytes,
      seconds: (performance.now() - started) / 1000,
      calibrationTokens: windows * text.windowTokens,
      ...measuredFacts(finished, curve),
    };
  } finally {
    options.signal?.removeEventListener("abort", stop);
    await shards.close();
    for (const store of stores) await store.remove();
    await rm(beside("measured"), { force: true });
    await checkpoint.close();
  }
}

async function checkOutput(output: string): Promise<void> {
  const folder = dirname(resolve(output));
  const found = async (path: string) => stat(path).catch(() => undefined);
  if (!(await found(folder))?.isDirectory())
    throw new SnugError("usage", `cannot write ${output}: there is no folder ${folder}`);
  const there = await found(output);
  if (there !== undefined && !there.isFile())
    throw new SnugError("usage", `cannot write ${output}: it is there and not a file; name another one`);
}

function readTokenizer({ tokenizer, tokenizerConfig, config }: Checkpoint): CompiledTokenizer | null {
  if (tokenizer === null) return null;
  const compiled = compileTokenizer(tokenizer, tokenizerConfig ?? undefined);
  if (compiled.tokens > config.vocabulary)
    throw new SnugError(
      "checkpoint",
      `tokenizer.json has ids up to ${compiled.tokens - 1}, config.json's "vocab_size" is ${config.vocabulary}`,
    );
  return compiled;
}

/** What a pack says of its model. */
function describe(checkpoint: Checkpoint, tokenizer: CompiledTokenizer | null, options: PackOptions) {
  const { config, tokenizerConfig, chatTemplate } = checkpoint;
  const text = (key: string) => {
    const value = tokenizerConfig?.[key] as { content?: string } | string | undefined | null;
    return typeof value === "string" ? value : (value?.content ?? "");
  };
  const name = basename(resolve(options.checkpoint));
  const calibrated =
    options.calibration && tokenizer !== null ? `, calibrated on ${basename(options.calibration)}` : "";
  return {
    ...config,
    family: familyOf(config).id,
    beginToken: tokenizer?.beginToken ?? null,
    info: {
      name,
      licence: options.licence ?? "",
      provenance: `packed by snug from ${name}${calibrated}`,
      chatTemplate,
      beginText: text("bos_token"),
      endText: text("eos_token"),
    },
  };
}

/** Packs all layers into `units`; returns what they put into the fixed part. */
async function packLayers(
  shop: Workshop,
  text: CalibrationText,
  draft: Draft,
  levels: readonly (readonly number[])[],
  embedded: Float32Array,
  finalNorm: Float32Array,
  units: UnitStore,
): Promise<FixedTensor[]> {
  const { checkpoint, shards, format, linalg } = shop;
  const { config } = checkpoint;
  const exact = format.dtype === DTYPE_F32;
  if (!exact) {
    const original = await embedWindows(shop, text.layers);
    await shards.begin({
      tokens: text.windowTokens,
      levels: dealLevels(text.layers.length),
      original,
      packed: embedded,
    });
  }
  const fixed: FixedTensor[] = [];
  for (const [layer, sortings] of draft.sortings.entries()) {
    shop.progress(`packing layer ${layer + 1} of ${config.layers}`, layer / config.layers);
    const sublayers = await readSublayers(checkpoint, layer, shop.sizes);
    const sorted = sublayers.map((sublayer, i) => ({
      sublayer,
      stacks: sublayer.stacks(sortings[i] as Sorting, linalg),
    }));
    const before = units.stacks.length;
    const count = sorted.reduce((sum, { stacks }) => sum + stacks.length, 0);
    const packed = exact
      ? storeLayer(sorted, ({ values }) => values)
      : await packLayer(
          shop,
          text.windowTokens,
          sorted,
          levels.map((level) => level.slice(before, before + count)),
          finalNorm,
        );
    await units.add(layer, packed.stacks);
    fixed.push(...packed.fixed.map((tensor) => ({ ...tensor, layer })));
  }
  return fixed;
}

/** Which sublayer, counted through all layers, each stack belongs to. */
function sublayersOf(config: ModelConfig, stacks: readonly Stack[]): number[] {
  const before = config.sublayers.map((_, layer) =>
    config.sublayers.slice(0, layer).reduce((sum, { length }) => sum + length, 0),
  );
  return stacks.map(({ layer, kind }) => {
    const own = config.sublayers[layer] as readonly SublayerName[];
    return (
      (before[layer] as number) + own.indexOf(own.find((name) => SUBLAYER_KINDS[name].includes(kind)) as SublayerName)
    );
  });
}

async function measureCurve(
  shop: Workshop,
  path: string,
  windows: readonly Uint32Array[],
  { stacks, order }: PackContent,
  removals: readonly Removal[],
): Promise<CurvePoint[]> {
  if (windows.every(({ length }) => length < 2)) return []; // a context of 1: there is no next token
  await shop.shards.openExam({ path, windows, reference: new Float32Array(0) });
  const steps = Math.min(CURVE_POINTS - 1, removals.length);
  const cuts = Array.from({ length: steps + 1 }, (_, i) => Math.round((i * removals.length) / Math.max(steps, 1)));
  const curve: CurvePoint[] = [];
  for (const [i, cut] of cuts.entries()) {
    shop.progress("measuring the quality curve", i / cuts.length);
    const kept = stacks.map(({ units }) => units);
    for (const { stack } of removals.slice(0, cut)) kept[stack] = (kept[stack] as number) - 1;
    curve.push({ units: order.length - cut, ...(await shop.shards.score(kept)) });
  }
  return curve.reverse();
}

function measuredFacts({ stacks, order, fixed, minimumUnits }: PackContent, curve: readonly CurvePoint[]) {
  const unitBytes = order.map(({ stack }) => (stacks[stack] as Stack).layout.bytes);
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const total = sum(unitBytes);
  const resident = sum(fixed.filter(({ role }) => role !== ROLE_TOKENIZER).map(({ bytes }) => bytes.length));
  return {
    units: order.length,
    minimumUnits,
    weightsBytes: resident + total,
    qualityCurve: curve.map((point) => {
      const kept = sum(unitBytes.slice(0, point.units));
      return { ...point, pruningRate: 1 - kept / total, weightsBytes: resident + kept };
    }),
  };
}

/** A level for each window, in the shares of LEVELS and well mixed: the level that has most to catch up is next. */
function dealLevels(windows: number): number[] {
  const dealt = LEVELS.map(() => 0);
  return Array.from({ length: windows }, (_, window) => {
    const behind = LEVELS.map(({ share }, level) => share * (window + 1) - (dealt[level] as number));
    const level = behind.indexOf(Math.max(...behind));
    dealt[level] = (dealt[level] as number) + 1;
    return level;
  });
}

/** The units in file order: those that were never removed, then the removed ones, the first removed last. */
function orderUnits(stacks: readonly Stack[], removals: readonly Removal[]): OrderedUnit[] {
  const kept = stacks.map(({ units }) => units);
  const removed = removals.map(({ stack, divergence }) => {
    const index = (kept[stack] as number) - 1;
    kept[stack] = index;
    return { stack, index, loss: divergence };
  });
  const most = removals.at(-1)?.divergence ?? 0;
  const rest: OrderedUnit[] = [];
  for (let index = 0; index < Math.max(...kept); index++)
    kept.forEach((units, stack) => {
      if (index < units) rest.push({ stack, index, loss: most });
    });
  return [...rest, ...removed.reverse()];
}
