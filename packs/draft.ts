// The first run over the text: the original model alone. It sorts every layer, and leaves a draft of the sorted model,
// in 8 bits and its last matrices refitted for cuts in general (one for all levels, the best on average), in which the
// order of the units is searched.

import type { CalibrationText } from "./calibration";
import { lastMatrix, type SortedSublayer, storeLayer } from "./chain";
import { DTYPE_F32, DTYPE_Q8 } from "./format";
import { packLayerAlone } from "./layer-pack";
import { quantizeToNearest } from "./quantize";
import type { Statistics } from "./shard";
import { nestedRefit } from "./sort";
import { type Encoded, groupSize, type StackWeights, type UnitMatrix } from "./stacks";
import { readSublayers, type Sorting } from "./sublayers/index";
import type { UnitStore } from "./unit-store";
import { embedWindows, headProbabilities } from "./vocabulary";
import type { Workshop } from "./workshop";
import type { FixedTensor } from "./write";

const WINDOWS = 20; // beside those of the exam
const EXAM_TOKENS = 256; // of a window
const RIDGE = 1e-3;

/** Cuts that the draft is refitted for: the share of each stack that is kept, and how much it counts. */
const LEVELS = [
  { keep: 1, weight: 0.4 },
  { keep: 0.85, weight: 0.2 },
  { keep: 0.7, weight: 0.2 },
  { keep: 0.5, weight: 0.2 },
];

export interface Draft {
  /** Of each layer's sublayers. */
  readonly sortings: readonly (readonly Sorting[])[];
  /** What all layers put into the fixed part. */
  readonly fixed: readonly FixedTensor[];
  /** XᵀX of what goes into the head, upper triangle. */
  readonly headGram: Float32Array;
  /** What cuts are examined on, with the original's probabilities [windows × tokens, vocabulary]. */
  readonly exam: readonly Uint32Array[];
  readonly reference: Float32Array;
}

/** Runs the original; the draft's units go to `units`. */
export async function makeDraft(
  shop: Workshop,
  text: CalibrationText,
  finalNorm: Float32Array,
  units: UnitStore,
): Promise<Draft> {
  const { checkpoint, shards, sizes, linalg } = shop;
  const { config } = checkpoint;
  const windows = [...text.exam, ...text.layers.slice(0, WINDOWS)];
  const original = await embedWindows(shop, windows);
  await shards.begin({ tokens: text.windowTokens, levels: windows.map(() => 0), original, packed: original });
  const sortings: Sorting[][] = [];
  const fixed: FixedTensor[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    shop.progress(`sorting layer ${layer + 1} of ${config.layers}`, layer / config.layers);
    const sublayers = await readSublayers(checkpoint, layer, sizes);
    const natural = sublayers.map((sublayer) => ({ sublayer, stacks: sublayer.stacks(sublayer.natural(), linalg) }));
    const original = storeLayer(natural, ({ values }) => values);
    const alone = await packLayerAlone(config, text.windowTokens, original, finalNorm, shop.hash);
    await shards.load("original", alone, []);
    const statistics = await shards.statistics();
    const sorted = sublayers.map((sublayer, i) => sublayer.sort(statistics[i] as Statistics, linalg));
    sortings.push(sorted);
    const encoded = new Map<UnitMatrix, Float32Array>();
    const ordered = sublayers.map((sublayer, i): SortedSublayer => {
      const sorting = sorted[i] as Sorting;
      const stacks = sublayer.stacks(sorting, linalg);
      const { matrix, units: count } = lastMatrix(stacks);
      linalg.scope(() => {
        const moments = sublayer.outputMoments(statistics[i] as Statistics, sorting, linalg);
        const kept = tail(count, matrix.cols);
        encoded.set(matrix, nestedRefit(linalg, moments, kept, matrix.values, matrix.rows, RIDGE).weights);
      });
      return { sublayer, stacks };
    });
    const draft = storeLayer(ordered, (matrix, stack) =>
      round(shop, stack, matrix, encoded.get(matrix) ?? matrix.values),
    );
    fixed.push(...draft.fixed.map((tensor) => ({ ...tensor, layer })));
    await units.add(layer, draft.stacks);
  }
  const tokens = Math.min(EXAM_TOKENS, text.windowTokens);
  const { gram, inputs } = await shards.headStatistics(text.exam.length, tokens);
  return {
    sortings,
    fixed,
    headGram: gram,
    exam: text.exam.map((window) => window.subarray(0, tokens)),
    reference: await headProbabilities(shop, inputs),
  };
}

/** P(column is kept) over the levels, in stored order. */
function tail(units: number, cols: number): Float64Array {
  return Float64Array.from({ length: cols }, (_, col) =>
    LEVELS.reduce((sum, { keep, weight }) => {
      const kept = Math.max(1, Math.round(keep * units));
      return sum + (col < kept * (cols / units) ? weight : 0);
    }, 0),
  );
}

function round(
  { linalg, format }: Workshop,
  stack: StackWeights | null,
  matrix: UnitMatrix,
  values: Float32Array,
): Encoded {
  if (format.dtype === DTYPE_F32) return values;
  const { axis, rows, cols } = matrix;
  const group = groupSize(axis === "cols" && stack !== null ? cols / stack.units : cols, DTYPE_Q8, format.group);
  return quantizeToNearest(linalg, values, rows, cols, { bits: 8, group, rule: "max/7" });
}
