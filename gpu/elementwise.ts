// Ops that treat each number for itself.

import { type Capacity, type Launch, range, uniform, weightsOver, windowOver } from "./launch";
import type { GateOp, SquaredReluOp, StepSizeOp } from "./ops";

const THREADS = 64;

export function gateLaunch(op: GateOp, capacity: Capacity): Launch {
  return elementwise("gate", op.width, uniform(op.width), {
    1: windowOver(range(op.gate, capacity.rows * op.width * 4)),
    2: windowOver(range(op.up, capacity.rows * op.width * 4)),
  });
}

export function squaredReluLaunch(op: SquaredReluOp, capacity: Capacity): Launch {
  const bindings = { 1: windowOver(range(op.data, capacity.rows * op.width * 4)) };
  return elementwise("squared relu", op.width, uniform(op.width), bindings);
}

export function stepSizeLaunch(op: StepSizeOp, capacity: Capacity): Launch {
  const bias = weightsOver(range(op.bias, op.heads * 4));
  const params = uniform(op.heads, (op.bias - bias.start) / 4, [op.least], [op.most]);
  return elementwise("step size", op.heads, params, {
    1: windowOver(range(op.data, capacity.rows * op.heads * 4)),
    2: bias,
  });
}

function elementwise(
  label: "gate" | "squared relu" | "step size",
  width: number,
  params: Uint32Array<ArrayBuffer>,
  bindings: Launch["bindings"],
): Launch {
  return {
    label,
    shader: "elementwise",
    settings: { GATE: label === "gate", SQUARED_RELU: label === "squared relu", STEP_SIZE: label === "step size" },
    params,
    bindings,
    workgroups: (step) => [Math.ceil(width / THREADS), step.rows, 1],
  };
}
