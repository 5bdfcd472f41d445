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
import { type CalibrationText, readCalibration } from "./calibration";
import { packLayer, type WeightFormat } from "./chain";
import { type Checkpoint, openCheckpoint } from "./checkpoint";
import { familyOf, readTensor, readTensorRows } from "./families";
import {
  DTYPE_BYTES,
  DTYPE_F32,
  DTYPE_Q4,
  DTYPE_Q8,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_HEAD,
  ROLE_TOKENIZER,
} from "./format";
import { packLayerAlone, storeStack } from "./layer-pack";
import { Linalg } from "./linalg";
import { dequantize, factorHessian, quantizeToNearest, quantizeWithFeedback } from "./quantize";
import { keptAt, type Removal, searchOrder } from "./search";
import { Shards } from "./shards";
import { nestedRefit } from "./sort";
import {
  naturalSorting,
  readLayer,
  type Sorting,
  sortedHiddenMoments,
  sortedStacks,
  sortedValueMoments,
  sortLayer,
} from "./sorting";
import {
  type Encoded,
  groupSize,
  storeMatrix,
  storeVector,
  type UnitMatrix,
  type UnitSizes,
  unitSizes,
} from "./stacks";
import { compileTokenizer } from "./tokenizer";
import { UnitStore } from "./unit-store";
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
const WINDOWS = { layers: 96, exam: 4, curve: 4 };
const STATISTICS_WINDOWS = 20; // beside those of the exam
const EXAM_TOKENS = 256; // of a window
const CURVE_POINTS = 12;
const SEARCHED_SHARE = 0.45; // of the units' bytes: no plan can cut more
const EMBEDDING_DAMP = 0.1;
const EMBEDDING_ROWS = 4096; // at a time
const DRAFT_RIDGE = 1e-3;

/** Cuts that the draft is refitted for, as shares of each stack that are kept, and how much each counts. */
const DRAFT_LEVELS = [
  { keep: 1, weight: 0.4 },
  { keep: 0.85, weight: 0.2 },
  { keep: 0.7, weight: 0.2 },
  { keep: 0.5, weight: 0.2 },
];

/** Cuts that the pack is refitted for, as pruning rates along its order, and their shares of the windows. */
const LEVELS = [
  { rate: 0, share: 0.55 },
  { rate: 0.06, share: 0.12 },
  { rate: 0.125, share: 0.14 },
  { rate: 0.2, share: 0.19 },
];

/** Packs a checkpoint. Nothing is left under the final name, nor beside it, unless it succeeds. */
export async function packCheckpoint(options: PackOptions): Promise<PackFacts> {
  const dtype = DTYPES[options.weights ?? "q4"];
  if (dtype === undefined) throw new SnugError("usage", `weights are "q4", "q8" or "f32", not "${options.weights}"`);
  await checkOutput(options.output);
  const checkpoint = await openCheckpoint(options.checkpoint);
  const shards = new Shards(options.threads);
  const stop = () => void shards.close();
  options.signal?.addEventListener("abort", stop);
  const packer = new Packer(checkpoint, shards, await Linalg.load(), dtype, options);
  try {
    if (options.signal?.aborted) throw new SnugError("aborted", "packing was stopped");
    return await packer.run();
  } finally {
    options.signal?.removeEventListener("abort", stop);
    await shards.close();
    await packer.clean();
    await checkpoint.close();
  }
}

async function checkOutput(output: string): Promise<void> {
  const folder = dirname(resolve(output));
  const isFolder = async (path: string) => (await stat(path).catch(() => undefined))?.isDirectory();
  if (!(await isFolder(folder))) throw new SnugError("usage", `cannot write ${output}: there is no folder ${folder}`);
  if (await isFolder(output)) throw new SnugError("usage", `cannot write ${output}: it is a folder; name a file in it`);
}

class Packer {
  readonly #checkpoint: Checkpoint;
  readonly #shards: Shards;
  readonly #linalg: Linalg;
  readonly #options: PackOptions;
  readonly #format: WeightFormat;
  readonly #sizes: UnitSizes;
  readonly #started = performance.now();
  readonly #stores: UnitStore[] = [];
  readonly #hash = (bytes: Uint8Array) => this.#linalg.xxh64(bytes);

  constructor(checkpoint: Checkpoint, shards: Shards, linalg: Linalg, dtype: number, options: PackOptions) {
    this.#checkpoint = checkpoint;
    this.#shards = shards;
    this.#linalg = linalg;
    this.#options = options;
    this.#format = { dtype, group: GROUP_COLS };
    this.#sizes = unitSizes(checkpoint.config, dtype);
  }

  async run(): Promise<PackFacts> {
    const { config } = this.#checkpoint;
    this.#progress("reading the tokenizer and the calibration text", 0);
    const tokenizer = this.#compileTokenizer();
    const path = this.#options.calibration;
    const text = await readCalibration(this.#checkpoint, tokenizer?.bytes ?? null, path, WINDOWS, this.#hash);
    const finalNorm = await readTensor(this.#checkpoint, "finalNorm");

    const draft = await this.#store("draft");
    const { sortings, head, reference } = await this.#sort(text, finalNorm, draft);
    const { removals } = await this.#search(text, reference, draft, finalNorm);

    const units = await this.#store("units");
    const vectors: FixedTensor[] = [{ layer: null, ...storeVector(ROLE_FINAL_NORM, finalNorm, 1, config.width) }];
    const { fixed, embedded } = await this.#embedding(text, head);
    await this.#layers(text, sortings, removals, embedded, finalNorm, units, vectors);
    if (tokenizer !== null)
      vectors.push({
        layer: null,
        role: ROLE_TOKENIZER,
        dtype: DTYPE_BYTES,
        rows: 1,
        cols: tokenizer.bytes.length,
        group: 0,
        bytes: tokenizer.bytes,
      });
    const order = orderUnits(units.stacks, removals);
    const content = this.#content([...fixed, ...vectors], units, order, order.length - removals.length);
    const curve = await this.#measureCurve(text, content, removals);
    const bytes = await writePackFile(this.#options.output, { ...content, curve }, this.#hash);
    return this.#facts(bytes, content, curve, text);
  }

  /** Removes what lies beside the pack. */
  async clean(): Promise<void> {
    for (const store of this.#stores) await store.remove();
    await rm(this.#beside("measured"), { force: true });
  }

  #beside(what: string): string {
    return `${this.#options.output}.${what}.partial`;
  }

  async #store(what: string): Promise<UnitStore> {
    const store = await UnitStore.create(this.#beside(what));
    this.#stores.push(store);
    return store;
  }

  #progress(stage: string, done: number): void {
    if (this.#options.signal?.aborted) throw new SnugError("aborted", "packing was stopped");
    this.#options.onProgress?.({ stage, done });
  }

  #compileTokenizer() {
    const { tokenizer, tokenizerConfig, config } = this.#checkpoint;
    if (tokenizer === null) return null;
    const compiled = compileTokenizer(tokenizer, tokenizerConfig ?? undefined);
    if (compiled.tokens > config.vocabulary)
      throw new SnugError(
        "checkpoint",
        `tokenizer.json has ids up to ${compiled.tokens - 1}, config.json's "vocab_size" is ${config.vocabulary}`,
      );
    return compiled;
  }

  /** Runs the original over some of the text: sorts every layer, and packs the draft that the order is searched with. */
  async #sort(text: CalibrationText, finalNorm: Float32Array, draft: UnitStore) {
    const { config } = this.#checkpoint;
    const windows = [...text.exam, ...text.layers.slice(0, STATISTICS_WINDOWS)];
    const original = await this.#embed(windows, text.windowTokens);
    await this.#shards.begin({ tokens: text.windowTokens, levels: windows.map(() => 0), original, packed: original });
    const sortings: Sorting[] = [];
    for (let layer = 0; layer < config.layers; layer++) {
      this.#progress(`sorting layer ${layer + 1} of ${config.layers}`, (0.15 * layer) / config.layers);
      const weights = await readLayer(this.#checkpoint, layer);
      const natural = sortedStacks(
        this.#checkpoint,
        weights,
        naturalSorting(this.#checkpoint),
        this.#sizes,
        this.#linalg,
      );
      const stored = natural.map((stack) =>
        storeStack(
          stack,
          stack.matrices.map(({ values }) => values),
        ),
      );
      const alone = await packLayerAlone(config, text.windowTokens, weights.fixed, stored, finalNorm, this.#hash);
      await this.#shards.load("original", alone, []);
      const statistics = await this.#shards.statistics();
      const sorting = sortLayer(this.#checkpoint, weights, statistics, this.#linalg);
      sortings.push(sorting);

      const stacks = sortedStacks(this.#checkpoint, weights, sorting, this.#sizes, this.#linalg);
      const o = stacks[1]?.matrices[1] as UnitMatrix;
      const down = stacks[2]?.matrices[2] as UnitMatrix;
      const refitted = this.#linalg.scope(() => {
        const values = sortedValueMoments(this.#checkpoint, statistics, sorting, this.#sizes, this.#linalg);
        const hidden = sortedHiddenMoments(this.#checkpoint, statistics, sorting, down.cols, this.#linalg);
        return new Map([
          [o, nestedRefit(this.#linalg, values, draftTail(o, stacks[1]?.units), o.values, o.rows, DRAFT_RIDGE).weights],
          [
            down,
            nestedRefit(this.#linalg, hidden, draftTail(down, stacks[2]?.units), down.values, down.rows, DRAFT_RIDGE)
              .weights,
          ],
        ]);
      });
      await draft.add(
        layer,
        stacks.map((stack) =>
          storeStack(
            stack,
            stack.matrices.map((matrix) => this.#nearest(stack.units, matrix, refitted.get(matrix) ?? matrix.values)),
          ),
        ),
      );
    }
    const tokens = Math.min(EXAM_TOKENS, text.windowTokens);
    const { gram, inputs } = await this.#shards.headStatistics(text.exam.length, tokens);
    return { sortings, head: gram, reference: await this.#reference(inputs) };
  }

  /** Rounds a matrix of the draft to 8 bits. */
  #nearest(units: number, { axis, rows, cols }: UnitMatrix, values: Float32Array): Encoded {
    if (this.#format.dtype === DTYPE_F32) return values;
    const group = groupSize(axis === "cols" ? cols / units : cols, DTYPE_Q8, GROUP_COLS);
    return quantizeToNearest(this.#linalg, values, rows, cols, { bits: 8, group, rule: "max/7" });
  }

  /** The original's probabilities [rows, vocabulary] for the inputs of its head. */
  async #reference(inputs: Float32Array): Promise<Float32Array> {
    const { width, vocabulary } = this.#checkpoint.config;
    const rows = inputs.length / width;
    const logits = new Float32Array(rows * vocabulary);
    await this.#eachRows(this.#headRole(), (first, values) => {
      const count = values.length / width;
      const part = this.#linalg.scope(() =>
        this.#linalg.get(
          this.#linalg.multiply(
            this.#linalg.zeros(rows, count),
            this.#linalg.put(inputs, rows, width),
            this.#linalg.put(values, count, width),
            { transposeB: true },
          ),
        ),
      );
      for (let row = 0; row < rows; row++)
        logits.set(part.subarray(row * count, (row + 1) * count), row * vocabulary + first);
    });
    for (let row = 0; row < rows; row++) softmax(logits.subarray(row * vocabulary, (row + 1) * vocabulary));
    return logits;
  }

  async #search(text: CalibrationText, reference: Float32Array, draft: UnitStore, finalNorm: Float32Array) {
    const stage = "measuring what each unit is worth";
    this.#progress(stage, 0.15);
    const { config } = this.#checkpoint;
    const fixed: FixedTensor[] = [{ layer: null, ...storeVector(ROLE_FINAL_NORM, finalNorm, 1, config.width) }];
    for (const role of config.tiedHead ? (["embedding"] as const) : (["embedding", "head"] as const)) {
      const pieces: Uint8Array[] = [];
      const dtype = this.#format.dtype === DTYPE_F32 ? DTYPE_F32 : DTYPE_Q8;
      const group = groupSize(config.width, dtype, GROUP_COLS);
      await this.#eachRows(role, (_, values) => {
        const rows = values.length / config.width;
        const encoded =
          dtype === DTYPE_F32
            ? values
            : quantizeToNearest(this.#linalg, values, rows, config.width, { bits: 8, group, rule: "max/7" });
        pieces.push(storeMatrix(0, encoded, rows, config.width).bytes);
      });
      const number = role === "head" ? ROLE_HEAD : ROLE_EMBEDDING;
      fixed.push({
        layer: null,
        role: number,
        dtype,
        rows: config.vocabulary,
        cols: config.width,
        group,
        bytes: joined(pieces),
      });
    }
    for (let layer = 0; layer < config.layers; layer++) fixed.push(...(await readLayer(this.#checkpoint, layer)).fixed);
    const path = this.#beside("measured");
    await writePackFile(path, this.#content(fixed, draft, orderUnits(draft.stacks, []), 0), this.#hash);
    const tokens = Math.min(EXAM_TOKENS, text.windowTokens);
    await this.#shards.openExam({ path, windows: text.exam.map((window) => window.subarray(0, tokens)), reference });
    return searchOrder(this.#shards, draft.stacks, SEARCHED_SHARE, (done) => this.#progress(stage, 0.15 + 0.35 * done));
  }

  /** The embedding, and the head where it has weights of its own; and the text, embedded as the pack will do it. */
  async #embedding(text: CalibrationText, headGram: Float32Array) {
    const { config } = this.#checkpoint;
    const { dtype, group } = this.#format;
    const { width, vocabulary } = config;
    this.#progress("rounding the embedding", 0.5);
    const fixed: FixedTensor[] = [];
    const embedded = new Float32Array(text.layers.length * text.windowTokens * width);
    for (const role of config.tiedHead ? (["embedding"] as const) : (["embedding", "head"] as const)) {
      const cols = groupSize(width, dtype, group);
      const pieces: Uint8Array[] = [];
      const mark = this.#linalg.mark();
      const h = this.#linalg.put(headGram, width, width);
      const factor =
        dtype === DTYPE_F32 || role !== this.#headRole() ? null : factorHessian(this.#linalg, h, EMBEDDING_DAMP);
      await this.#eachRows(role, (first, values) => {
        const rows = values.length / width;
        const how = { bits: dtype === DTYPE_Q4 ? 4 : 8, group: cols } as const;
        const encoded =
          dtype === DTYPE_F32
            ? values
            : factor
              ? quantizeWithFeedback(this.#linalg, values, rows, width, factor, how)
              : quantizeToNearest(this.#linalg, values, rows, width, how);
        pieces.push(storeMatrix(0, encoded, rows, width).bytes);
        if (role === "embedding")
          fillRows(
            embedded,
            text.layers,
            first,
            encoded instanceof Float32Array ? encoded : dequantize(encoded),
            width,
          );
      });
      this.#linalg.release(mark);
      const number = role === "head" ? ROLE_HEAD : ROLE_EMBEDDING;
      fixed.push({
        layer: null,
        role: number,
        dtype,
        rows: vocabulary,
        cols: width,
        group: cols,
        bytes: joined(pieces),
      });
    }
    return { fixed, embedded };
  }

  async #layers(
    text: CalibrationText,
    sortings: readonly Sorting[],
    removals: readonly Removal[],
    embedded: Float32Array,
    finalNorm: Float32Array,
    units: UnitStore,
    fixed: FixedTensor[],
  ): Promise<void> {
    const { config } = this.#checkpoint;
    const exact = this.#format.dtype === DTYPE_F32;
    if (!exact) {
      const original = await this.#embed(text.layers, text.windowTokens);
      const levels = dealLevels(text.layers.length);
      await this.#shards.begin({ tokens: text.windowTokens, levels, original, packed: embedded });
    }
    for (let layer = 0; layer < config.layers; layer++) {
      this.#progress(`packing layer ${layer + 1} of ${config.layers}`, 0.5 + (0.42 * layer) / config.layers);
      const weights = await readLayer(this.#checkpoint, layer);
      fixed.push(...weights.fixed);
      const sorting = sortings[layer] as Sorting;
      const stacks = sortedStacks(this.#checkpoint, weights, sorting, this.#sizes, this.#linalg);
      if (exact) {
        await units.add(
          layer,
          stacks.map((stack) =>
            storeStack(
              stack,
              stack.matrices.map(({ values }) => values),
            ),
          ),
        );
        continue;
      }
      const stored = await packLayer(
        config,
        text.windowTokens,
        weights.fixed,
        stacks,
        this.#keptByLevel(stacks, layer, removals),
        this.#format,
        finalNorm,
        this.#shards,
        this.#linalg,
      );
      await units.add(layer, stored);
    }
  }

  /** Units of each of a layer's stacks that each level keeps. */
  #keptByLevel(stacks: readonly { units: number }[], layer: number, removals: readonly Removal[]): number[][] {
    const draft = (this.#stores[0] as UnitStore).stacks;
    return LEVELS.map(({ rate }) => {
      const kept = keptAt(draft, removals, rate);
      return stacks.map((_, i) => kept[layer * stacks.length + i] as number);
    });
  }

  async #measureCurve(
    text: CalibrationText,
    content: PackContent,
    removals: readonly Removal[],
  ): Promise<CurvePoint[]> {
    const path = this.#beside("measured");
    await writePackFile(path, content, this.#hash);
    await this.#shards.openExam({ path, windows: text.curve, reference: new Float32Array(0) });
    const last = removals.length;
    const steps = Math.min(CURVE_POINTS - 1, last);
    const cuts = Array.from({ length: steps + 1 }, (_, i) => Math.round((i * last) / Math.max(steps, 1)));
    const curve: CurvePoint[] = [];
    for (const [i, cut] of cuts.entries()) {
      this.#progress("measuring the quality curve", 0.92 + (0.08 * i) / cuts.length);
      const kept = content.stacks.map(({ units }) => units);
      for (const { stack } of removals.slice(0, cut)) kept[stack] = (kept[stack] as number) - 1;
      const { perplexity, topOne } = await this.#shards.score(kept);
      curve.push({ units: content.order.length - cut, perplexity, topOne });
    }
    return curve.reverse();
  }

  #content(fixed: readonly FixedTensor[], store: UnitStore, order: OrderedUnit[], minimumUnits: number): PackContent {
    const { config } = this.#checkpoint;
    const tokenizer = this.#checkpoint.tokenizerConfig;
    const text = (key: string) => {
      const value = tokenizer?.[key] as { content?: string } | string | undefined | null;
      return typeof value === "string" ? value : (value?.content ?? "");
    };
    const name = basename(resolve(this.#options.checkpoint));
    const source = this.#options.calibration ? `, calibrated on ${basename(this.#options.calibration)}` : "";
    return {
      ...config,
      family: familyOf(config).id,
      beginToken: this.#compileTokenizer()?.beginToken ?? null,
      fixed,
      stacks: store.stacks,
      order,
      minimumUnits,
      curve: [],
      info: {
        name,
        licence: this.#options.licence ?? "",
        provenance: `packed by snug from ${name}${source}`,
        chatTemplate: this.#checkpoint.chatTemplate,
        beginText: text("bos_token"),
        endText: text("eos_token"),
      },
      unit: (stack, index) => store.read(stack, index),
    };
  }

  #facts(bytes: number, content: PackContent, curve: readonly CurvePoint[], text: CalibrationText): PackFacts {
    const unitBytes = content.order.map(({ stack }) => (content.stacks[stack] as Stack).layout.bytes);
    const total = unitBytes.reduce((a, b) => a + b, 0);
    const fixed = content.fixed
      .filter(({ role }) => role !== ROLE_TOKENIZER)
      .reduce((sum, t) => sum + t.bytes.length, 0);
    const kept = (units: number) => unitBytes.slice(0, units).reduce((a, b) => a + b, 0);
    return {
      bytes,
      seconds: (performance.now() - this.#started) / 1000,
      units: content.order.length,
      minimumUnits: content.minimumUnits,
      weightsBytes: fixed + total,
      calibrationTokens: (text.layers.length + text.exam.length + text.curve.length) * text.windowTokens,
      qualityCurve: curve.map(({ units, perplexity, topOne }) => ({
        units,
        pruningRate: 1 - kept(units) / total,
        weightsBytes: fixed + kept(units),
        perplexity,
        topOne,
      })),
    };
  }

  #headRole(): "embedding" | "head" {
    return this.#checkpoint.config.tiedHead ? "embedding" : "head";
  }

  /** The embedded tokens of windows: f32 [windows × tokens, width]. */
  async #embed(windows: readonly Uint32Array[], tokens: number): Promise<Float32Array> {
    const { width } = this.#checkpoint.config;
    const out = new Float32Array(windows.length * tokens * width);
    await this.#eachRows("embedding", (first, values) => fillRows(out, windows, first, values, width));
    return out;
  }

  /** Visits a matrix of the vocabulary, some rows at a time. */
  async #eachRows(role: "embedding" | "head", visit: (first: number, values: Float32Array) => void): Promise<void> {
    const { vocabulary } = this.#checkpoint.config;
    for (let first = 0; first < vocabulary; first += EMBEDDING_ROWS) {
      const count = Math.min(EMBEDDING_ROWS, vocabulary - first);
      visit(first, await readTensorRows(this.#checkpoint, role, 0, first, count));
    }
  }
}

/** Copies the rows of the tokens that lie in `values`, rows `first` … of an embedding. */
function fillRows(
  out: Float32Array,
  windows: readonly Uint32Array[],
  first: number,
  values: Float32Array,
  width: number,
) {
  const count = values.length / width;
  let at = 0;
  for (const window of windows)
    for (const token of window) {
      const row = token - first;
      if (row >= 0 && row < count) out.set(values.subarray(row * width, (row + 1) * width), at);
      at += width;
    }
}

/** P(column is kept) over the draft's levels, in stored order. */
function draftTail(matrix: UnitMatrix, units = 1): Float64Array {
  const perUnit = matrix.cols / units;
  return Float64Array.from({ length: matrix.cols }, (_, col) =>
    DRAFT_LEVELS.reduce((sum, { keep, weight }) => {
      const kept = Math.max(1, Math.round(keep * units));
      return sum + (Math.floor(col / perUnit) < kept ? weight : 0);
    }, 0),
  );
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

function softmax(logits: Float32Array): void {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += logits[i] = Math.exp((logits[i] as number) - most);
  for (let i = 0; i < logits.length; i++) logits[i] = (logits[i] as number) / sum;
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  pieces.reduce((at, piece) => {
    out.set(piece, at);
    return at + piece.length;
  }, 0);
  return out;
}
