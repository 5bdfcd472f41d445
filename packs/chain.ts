// Quantizes a layer so that it makes up for what comes before and what is cut away. Each matrix is first refitted, by
// least squares over the calibration text: its inputs are those of the packed model, every window at the cut of its
// level, its target what the original model has there. So the last matrix of a part learns to do without the channels
// that are cut, on average over the levels, and takes back the error of the stream so far. Then it is rounded with
// error feedback on the same second moments.

import { DTYPE_Q4 } from "./format";
import { packLayerAlone, type StoredStack, storeStack } from "./layer-pack";
import type { Linalg, Matrix } from "./linalg";
import { factorHessian, quantizeWithFeedback } from "./quantize";
import type { NormalEquations } from "./shard";
import { type Encoded, groupSize, type StackWeights, type UnitMatrix } from "./stacks";
import type { Workshop } from "./workshop";
import type { FixedTensor } from "./write";

// Ridges of the least squares, as shares of the mean diagonal: first matrices of a part, last matrices.
const INPUT_RIDGE = 1e-1;
const OUTPUT_RIDGE = 1e-2;

/**
 * Packs one layer, given in stored order: QK, VO and MLP stacks. The shards stand before it in both models, and behind
 * it afterwards. `levels`: the units of each stack that each level keeps.
 */
export async function packLayer(
  { checkpoint, shards, linalg, format, hash }: Workshop,
  windowTokens: number,
  fixed: readonly FixedTensor[],
  stacks: readonly StackWeights[],
  levels: readonly (readonly number[])[],
  finalNorm: Float32Array,
): Promise<StoredStack[]> {
  const [qk, vo, mlp] = stacks as [StackWeights, StackWeights, StackWeights];
  const [q, k] = qk.matrices as [UnitMatrix, UnitMatrix];
  const [v, o] = vo.matrices as [UnitMatrix, UnitMatrix];
  const [gate, up, down] = mlp.matrices as [UnitMatrix, UnitMatrix, UnitMatrix];
  const encoded = new Map<UnitMatrix, Encoded>();
  const store = () =>
    stacks.map((stack) =>
      storeStack(
        stack,
        stack.matrices.map((m) => encoded.get(m) ?? m.values),
      ),
    );
  const load = async (which: "original" | "packed") => {
    const pack = await packLayerAlone(checkpoint.config, windowTokens, fixed, store(), finalNorm, hash);
    await shards.load(which, pack, levels);
  };
  const quantize = (stack: StackWeights, matrix: UnitMatrix, values: Float32Array, h: Matrix) => {
    const { rows, cols, axis } = matrix;
    const group = groupSize(axis === "cols" ? cols / stack.units : cols, format.dtype, format.group);
    linalg.scope(() => {
      const how = format.dtype === DTYPE_Q4 ? ({ bits: 4, rule: "trial" } as const) : ({ bits: 8 } as const);
      encoded.set(
        matrix,
        quantizeWithFeedback(linalg, values, rows, cols, factorHessian(linalg, h), { ...how, group }),
      );
    });
  };
  const first = async (part: "attention" | "mlp", matrices: readonly (readonly [StackWeights, UnitMatrix])[]) => {
    const equations = await shards.inputs(part);
    linalg.scope(() => {
      const h = symmetric(linalg, equations);
      for (const [stack, matrix] of matrices) {
        const refitted = refit(linalg, matrix, h, INPUT_RIDGE, (w) =>
          linalg.multiply(linalg.zeros(matrix.rows, matrix.cols), w, linalg.put(equations.r, h.rows, h.rows)),
        );
        quantize(stack, matrix, refitted, h);
      }
    });
    await load("packed");
  };
  const last = async (part: "attention" | "mlp", stack: StackWeights, matrix: UnitMatrix) => {
    const equations = await shards.outputs(part, matrix.cols);
    linalg.scope(() => {
      const h = symmetric(linalg, equations);
      const refitted = refit(linalg, matrix, h, OUTPUT_RIDGE, () => linalg.put(equations.r, matrix.rows, matrix.cols));
      quantize(stack, matrix, refitted, h);
    });
    await load("packed");
    await shards.advance(part);
  };

  await load("original");
  await first("attention", [
    [qk, q],
    [qk, k],
    [vo, v],
  ]);
  await last("attention", vo, o);
  await first("mlp", [
    [mlp, gate],
    [mlp, up],
  ]);
  await last("mlp", mlp, down);
  return store();
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
