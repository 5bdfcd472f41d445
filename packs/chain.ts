// Quantizes a layer so that it makes up for what comes before and what is cut away. Each matrix is first refitted, by
// least squares over the calibration text: its inputs are those of the packed model, every window at the cut of its
// level, its target what the original model has there. So the last matrix of a sublayer learns to do without the
// channels that are cut, on average over the levels, and takes back the error of the stream so far. Then it is rounded
// with error feedback on the same second moments.

import { DTYPE_Q4, DTYPE_Q8 } from "./format";
import { type PackedLayer, packLayerAlone, storeStack } from "./layer-pack";
import type { Linalg, Matrix } from "./linalg";
import { factorHessian, quantizeWithFeedback } from "./quantize";
import type { NormalEquations } from "./shard";
import { type Encoded, groupSize, type StackWeights, storeMatrix, type UnitMatrix } from "./stacks";
import { layerStacks, type Sublayer } from "./sublayers/index";
import type { Workshop } from "./workshop";

// Ridges of the least squares, as shares of the mean diagonal: first matrices of a sublayer, last matrices.
const INPUT_RIDGE = 1e-1;
const OUTPUT_RIDGE = 1e-2;

/** A sublayer with its stacks in stored order. */
export interface SortedSublayer {
  readonly sublayer: Sublayer;
  readonly stacks: readonly StackWeights[];
}

/**
 * Packs one layer. The shards stand before it in both models, and behind it afterwards. `levels`: the units of each of
 * the layer's stacks, by kind, that each level keeps.
 */
export async function packLayer(
  { checkpoint, shards, linalg, format, hash }: Workshop,
  windowTokens: number,
  layer: readonly SortedSublayer[],
  levels: readonly (readonly number[])[],
  finalNorm: Float32Array,
): Promise<PackedLayer> {
  const encoded = new Map<UnitMatrix, Encoded>();
  const packed = () => storeLayer(layer, (matrix) => encoded.get(matrix) ?? matrix.values);
  const load = async (which: "original" | "packed") => {
    const pack = await packLayerAlone(checkpoint.config, windowTokens, packed(), finalNorm, hash);
    await shards.load(which, pack, levels);
  };
  const quantize = (matrix: UnitMatrix, units: number, dtype: number, values: Float32Array, h: Matrix) => {
    const { rows, cols, axis } = matrix;
    const group = groupSize(axis === "cols" ? cols / units : cols, dtype, format.group);
    linalg.scope(() => {
      const how = dtype === DTYPE_Q4 ? ({ bits: 4, rule: "trial" } as const) : ({ bits: 8 } as const);
      encoded.set(
        matrix,
        quantizeWithFeedback(linalg, values, rows, cols, factorHessian(linalg, h), { ...how, group }),
      );
    });
  };

  await load("original");
  for (const [index, { sublayer, stacks }] of layer.entries()) {
    const inputs = await shards.inputs(index);
    linalg.scope(() => {
      const h = symmetric(linalg, inputs);
      const first = (matrix: UnitMatrix, units: number, dtype: number) => {
        const refitted = refit(linalg, matrix, h, INPUT_RIDGE, (w) =>
          linalg.multiply(linalg.zeros(matrix.rows, matrix.cols), w, linalg.put(inputs.r, h.rows, h.rows)),
        );
        quantize(matrix, units, dtype, refitted, h);
      };
      // What all units share is small, and much depends on it.
      for (const matrix of sublayer.matrices) first(matrix, 1, DTYPE_Q8);
      for (const { matrices, units } of stacks)
        for (const matrix of matrices) if (matrix.axis === "rows") first(matrix, units, format.dtype);
    });
    await load("packed");

    const { matrix, units } = lastMatrix(stacks);
    const outputs = await shards.outputs(index, matrix.cols);
    linalg.scope(() => {
      const h = symmetric(linalg, outputs);
      const refitted = refit(linalg, matrix, h, OUTPUT_RIDGE, () => linalg.put(outputs.r, matrix.rows, matrix.cols));
      quantize(matrix, units, format.dtype, refitted, h);
    });
    await load("packed");
    await shards.advance(index);
  }
  return packed();
}

/** A layer as it is stored, its matrices encoded like this. */
export function storeLayer(
  layer: readonly SortedSublayer[],
  encode: (matrix: UnitMatrix, stack: StackWeights | null) => Encoded,
): PackedLayer {
  return {
    fixed: layer.flatMap(({ sublayer }) => [
      ...sublayer.vectors,
      ...sublayer.matrices.map((matrix) => storeMatrix(matrix.role, encode(matrix, null), matrix.rows, matrix.cols)),
    ]),
    stacks: layerStacks(layer.map(({ stacks }) => stacks)).map((stack) =>
      storeStack(
        stack,
        stack.matrices.map((matrix) => encode(matrix, stack)),
      ),
    ),
  };
}

/** The matrix that adds to the stream, and how many units share out its columns. */
export function lastMatrix(stacks: readonly StackWeights[]): { matrix: UnitMatrix; units: number } {
  const found = stacks.flatMap(({ matrices, units }) => matrices.map((matrix) => ({ matrix, units })));
  return found.find(({ matrix }) => matrix.axis === "cols") as { matrix: UnitMatrix; units: number };
}

function symmetric(linalg: Linalg, { h }: NormalEquations): Matrix {
  const n = Math.sqrt(h.length);
  const matrix = linalg.put(h, n, n);
  linalg.mirror(matrix);
  return matrix;
}

/** W + (R − W·H)·(H + λI)⁻¹: the W* that solves W*·H ≈ R and stays near W where H says nothing. */
function refit(
  linalg: Linalg,
  { values, rows, cols }: UnitMatrix,
  h: Matrix,
  ridge: number,
  target: (w: Matrix) => Matrix,
): Float32Array {
  return linalg.scope(() => {
    const w = linalg.put(values, rows, cols);
    const change = linalg.multiply(target(w), w, h, { mode: "subtract" });
    linalg.solve(factorHessian(linalg, h, ridge).factor, change);
    const refitted = linalg.get(change);
    for (let i = 0; i < refitted.length; i++) refitted[i] = (refitted[i] as number) + (values[i] as number);
    return refitted;
  });
}
