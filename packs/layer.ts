// One layer from the checkpoint to units: calibrated, sorted, quantized.

import type { Checkpoint } from "./checkpoint";
import { type Activations, type LonelyLayer, Moments, runLayer } from "./calibrate";
import { readOptionalTensor, readTensor } from "./families";
import {
  DTYPE_F32,
  DTYPE_Q4,
  ROLE_ATTENTION_NORM,
  ROLE_DOWN_BIAS,
  ROLE_MLP_NORM,
  ROLE_O_BIAS,
} from "./format";
import type { Linalg, Matrix } from "./linalg";
import { factorHessian, type HessianFactor, quantizeWithFeedback } from "./quantize";
import { descending, eliminationOrder, jointBasis, outputGram, qkPairScores, valueCovariance } from "./sort";
import {
  type AttentionWeights,
  attentionStacks,
  type Encoded,
  groupSize,
  type Input,
  type MlpWeights,
  mlpStack,
  type StackWeights,
  storeVector,
  type UnitSizes,
  unitTensors,
} from "./stacks";
import type { FixedTensor } from "./write";

/** How weights are stored: DTYPE_F32, DTYPE_Q8 or DTYPE_Q4, in groups of at most `group` columns. */
export interface WeightFormat {
  readonly dtype: number;
  readonly group: number;
}

/**
 * Packs layer `index`. `activations` go in as its input and come out as its output, both of the packed model: what
 * the layers before have lost is in what this one is calibrated on. `finalNorm` and `head`: only for the last layer.
 */
export async function packLayer(
  checkpoint: Checkpoint,
  index: number,
  format: WeightFormat,
  sizes: UnitSizes,
  activations: Activations,
  linalg: Linalg,
): Promise<LonelyLayer> {
  const { config } = checkpoint;
  const attention = await readAttention(checkpoint, index);
  const mlp = await readMlp(checkpoint, index);
  const fixed = await readFixed(checkpoint, index, attention);

  const mark = linalg.mark();
  const moments = new Moments(linalg, {
    attention: config.width,
    values: config.heads * config.headDim,
    mlp: config.width,
    hidden: config.mlpWidth,
  });
  const natural = [
    ...attentionStacks(config, attention, naturalPairs(config.kvHeads, config.headDim), sizes),
    mlpStack(config, mlp, naturalOrder(config.mlpWidth), sizes),
  ];
  const copy = { values: activations.values.slice(), windowTokens: activations.windowTokens };
  await runLayer(config, asStored(fixed, natural), copy, linalg, null, moments.add);
  moments.finish();
  linalg.release(mark);
  return { fixed, stacks: [] };
}
