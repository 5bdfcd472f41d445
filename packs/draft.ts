// The first run over the text: the original model alone. It sorts every layer, and leaves a draft of the sorted model,
// in 8 bits and refitted for cuts in general, in which the order of the units is searched.

import type { CalibrationText } from "./calibration";
import { DTYPE_F32, DTYPE_Q8 } from "./format";
import { packLayerAlone, storeStack } from "./layer-pack";
import { quantizeToNearest } from "./quantize";
import type { Statistics } from "./shard";
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
import { type Encoded, groupSize, type StackWeights, type UnitMatrix } from "./stacks";
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
  readonly sortings: readonly Sorting[];
  /** Vectors of all layers. */
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
  const sortings: Sorting[] = [];
  const fixed: FixedTensor[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    shop.progress(`sorting layer ${layer + 1} of ${config.layers}`, layer / config.layers);
    const weights = await readLayer(checkpoint, layer);
    fixed.push(...weights.fixed);
    const natural = sortedStacks(checkpoint, weights, naturalSorting(checkpoint), sizes, linalg);
    const stored = natural.map((stack) =>
      storeStack(
        stack,
        stack.matrices.map(({ values }) => values),
      ),
    );
    const alone = await packLayerAlone(config, text.windowTokens, weights.fixed, stored, finalNorm, shop.hash);
    await shards.load("original", alone, []);
    const statistics = await shards.statistics();
    const sorting = sortLayer(checkpoint, weights, statistics, linalg);
    sortings.push(sorting);
    const stacks = sortedStacks(checkpoint, weights, sorting, sizes, linalg);
    const refitted = refit(shop, stacks, statistics, sorting);
    await units.add(
      layer,
      stacks.map((stack) =>
        storeStack(
          stack,
          stack.matrices.map((matrix) => round(shop, stack, matrix, refitted.get(matrix) ?? matrix.values)),
        ),
      ),
    );
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

/** o and down of the draft: one matrix for all levels, the best on average. */
function refit(
  { checkpoint, sizes, linalg }: Workshop,
  stacks: readonly StackWeights[],
  statistics: Statistics,
  sorting: Sorting,
): Map<UnitMatrix, Float32Array> {
  const [, vo, mlp] = stacks as [StackWeights, StackWeights, StackWeights];
  const o = vo.matrices[1] as UnitMatrix;
  const down = mlp.matrices[2] as UnitMatrix;
  return linalg.scope(() => {
    const values = sortedValueMoments(checkpoint, statistics, sorting, sizes, linalg);
    const hidden = sortedHiddenMoments(checkpoint, statistics, sorting, down.cols, linalg);
    return new Map([
      [o, nestedRefit(linalg, values, tail(vo, o), o.values, o.rows, RIDGE).weights],
      [down, nestedRefit(linalg, hidden, tail(mlp, down), down.values, down.rows, RIDGE).weights],
    ]);
  });
}

/** P(column is kept) over the levels, in stored order. */
function tail({ units }: StackWeights, { cols }: UnitMatrix): Float64Array {
  return Float64Array.from({ length: cols }, (_, col) =>
    LEVELS.reduce((sum, { keep, weight }) => {
      const kept = Math.max(1, Math.round(keep * units));
      return sum + (col < kept * (cols / units) ? weight : 0);
    }, 0),
  );
}

function round({ linalg, format }: Workshop, stack: StackWeights, matrix: UnitMatrix, values: Float32Array): Encoded {
  if (format.dtype === DTYPE_F32) return values;
  const { axis, rows, cols } = matrix;
  const group = groupSize(axis === "cols" ? cols / stack.units : cols, DTYPE_Q8, format.group);
  return quantizeToNearest(linalg, values, rows, cols, { bits: 8, group, rule: "max/7" });
}
