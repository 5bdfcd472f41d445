// The table from op to shaders: for a few rows, and for many.

import { CACHE_BLOCK, DEVICE_SPLIT_ROWS, DEVICE_SPLITS } from "../assembly/abi";
import { codesWindow, scalesAt } from "./codes";
import { gateLaunch, squaredReluLaunch, stepSizeLaunch } from "./elementwise";
import {
  type Capacity,
  type Launch,
  type Launches,
  range,
  type StepShape,
  uniform,
  type Window,
  weightsOver,
  windowOver,
} from "./launch";
import { matmulLaunches } from "./matmul";
import type { AttentionOp, EmbedOp, Op, QuantizeOp, RopeOp } from "./ops";
import { tileBytesOf } from "./passes";
import { TILE_ROWS } from "./step";

/** Threads of kernels that do a number each. */
const THREADS = 64;
const QUANTIZE_BLOCKS = 256;
const SCAN_DIMS = 16;
const SCAN_LANES = 16;
const ATTENTION_POSITIONS = 128;
const CACHE_LANES = 8;
/** Dims of a head that attention-rows.wgsl takes in tiles of TILE_ROWS rows; in half of that, twice as many. */
const TILE_DIMS = 128;

export function launchesOf(op: Op, capacity: Capacity): Launches {
  if (op.kind === "matmul") return { ...matmulLaunches(op, capacity), outputs: op.outputs };
  if (op.kind === "attention") return { ...attentionLaunches(op, capacity), outputs: false };
  const outputs = (op.kind === "norm" || op.kind === "quantize") && op.outputs;
  const launches = singleLaunches(op, capacity);
  return { few: launches, many: launches, outputs };
}

function singleLaunches(op: Exclude<Op, { kind: "matmul" | "attention" }>, capacity: Capacity): Launch[] {
  switch (op.kind) {
    case "embed":
      return [embedLaunch(op, capacity)];
    case "quantize":
      return [quantizeLaunch(op, capacity)];
    case "rope":
      return op.units === 0 ? [] : [ropeLaunch(op, null, capacity)];
    case "gate":
      return [gateLaunch(op, capacity)];
    case "squaredRelu":
      return [squaredReluLaunch(op, capacity)];
    case "stepSize":
      return [stepSizeLaunch(op, capacity)];
    case "norm": {
      const count = op.outputs ? capacity.outputs : capacity.rows;
      const weight = weightsOver(range(op.weight, op.width * 4));
      const inPlace = op.input === op.out;
      return [
        {
          label: "norm",
          shader: "norm",
          settings: { INPLACE: inPlace },
          params: uniform((op.weight - weight.start) / 4, op.width, [op.eps]),
          bindings: {
            1: weight,
            2: windowOver(range(op.input, count * op.width * 4)),
            ...(!inPlace && { 3: windowOver(range(op.out, count * op.width * 4)) }),
          },
          workgroups: (step) => [op.outputs ? step.outputs : step.rows, 1, 1],
        },
      ];
    }
    case "select":
      return [
        {
          label: "select",
          shader: "select",
          settings: {},
          params: uniform(op.width),
          bindings: {
            1: "step",
            2: windowOver(range(op.input, capacity.rows * op.width * 4)),
            3: windowOver(range(op.out, capacity.outputs * op.width * 4)),
          },
          workgroups: (step) => [Math.ceil(op.width / THREADS), step.outputs, 1],
        },
      ];
    case "conv": {
      const width = op.units * op.channels;
      if (width === 0) return [];
      const weight = weightsOver(range(op.weight, (op.units - 1) * op.unitBytes + (op.taps + 1) * op.channels * 4));
      return [
        {
          label: "convolution",
          shader: "conv",
          settings: { BEFORE: op.taps - 1 },
          params: uniform(op.units, op.channels, (op.weight - weight.start) / 4, op.unitBytes / 4),
          bindings: {
            1: "step",
            2: weight,
            3: windowOver(range(op.data, capacity.rows * width * 4)),
            4: windowOver(range(op.state, capacity.sequences * (op.taps - 1) * width * 4)),
          },
          workgroups: (step) => [Math.ceil(width / THREADS), step.sequences, 1],
        },
      ];
    }
    case "scan": {
      const dims = op.units * op.channels;
      const state = op.stateUnits * op.stateChannels;
      if (dims === 0) return [];
      const weights = weightsOver(range(op.a, op.heads * 4), range(op.d, op.heads * 4));
      const rows = (address: number, floats: number) => windowOver(range(address, capacity.rows * floats * 4));
      return [
        {
          label: "scan",
          shader: "scan",
          settings: { OWN: Math.ceil(state / SCAN_LANES), STATE: state > 0 },
          params: uniform(
            ...[op.units, op.channels, op.stateUnits, op.stateChannels, op.heads, op.groups],
            ...[(op.a - weights.start) / 4, (op.d - weights.start) / 4],
          ),
          bindings: {
            1: "step",
            2: weights,
            3: rows(op.x, op.heads * dims),
            4: rows(op.dt, op.heads),
            5: rows(op.out, op.heads * dims),
            ...(state > 0 && {
              6: rows(op.b, op.groups * state),
              7: rows(op.c, op.groups * state),
              8: windowOver(range(op.state, capacity.sequences * op.heads * dims * state * 4)),
            }),
          },
          workgroups: (step) => [Math.ceil(dims / SCAN_DIMS), op.heads, step.sequences],
        },
      ];
    }
    case "gatedNorm": {
      const width = op.heads * op.channels;
      if (op.units * width === 0) return [];
      const weight = weightsOver(range(op.weight, (op.units - 1) * op.unitBytes + width * 4));
      const bytes = capacity.rows * op.units * width * 4;
      return [
        {
          label: "gated norm",
          shader: "gatedNorm",
          settings: {},
          params: uniform(
            ...[(op.weight - weight.start) / 4, op.unitBytes / 4, op.units, op.heads, op.channels, op.groups],
            ...([[op.divisor], [op.eps]] as const),
          ),
          bindings: { 1: weight, 2: windowOver(range(op.data, bytes)), 3: windowOver(range(op.gate, bytes)) },
          workgroups: (step) => [op.groups, step.rows, 1],
        },
      ];
    }
  }
}

function embedLaunch(op: EmbedOp, capacity: Capacity): Launch {
  const bytes = Math.ceil(op.tokens / 16) * tileBytesOf(op.dtype, op.width, op.group);
  const weights = weightsOver(range(op.weight, bytes));
  return {
    label: "embed",
    shader: "embed",
    settings: { DTYPE: op.dtype },
    params: uniform((op.weight - weights.start) / 16, op.width, op.group, op.first, op.tokens),
    bindings: { 1: "step", 2: weights, 3: windowOver(range(op.out, capacity.rows * op.width * 4)) },
    workgroups: (step) => [Math.ceil(op.width / THREADS), step.rows, 1],
  };
}

function quantizeLaunch(op: QuantizeOp, capacity: Capacity): Launch {
  const count = op.outputs ? capacity.outputs : capacity.rows;
  const blocks = Math.floor(QUANTIZE_BLOCKS / (op.group / 4)) * (op.group / 4);
  const weight = op.norm && weightsOver(range(op.norm.weight, op.cols * 4));
  return {
    label: op.norm ? "norm, quantize" : "quantize",
    shader: "quantize",
    settings: { NORM: op.norm !== null },
    params: uniform(
      ...[op.cols, op.group, scalesAt(count, op.cols), blocks],
      op.norm && weight ? (op.norm.weight - weight.start) / 4 : 0,
      [op.norm?.eps ?? 0],
    ),
    bindings: {
      1: windowOver(range(op.input, count * op.cols * 4)),
      2: codesWindow(op.out, count, op.cols, op.group),
      ...(weight && { 3: weight }),
    },
    workgroups: (step) => [Math.ceil(op.cols / 4 / blocks), op.outputs ? step.outputs : step.rows, 1],
  };
}

/** Turns pairs, or stores keys and values in the cache, or both. */
function ropeLaunch(rope: RopeOp | null, attention: AttentionOp | null, capacity: Capacity): Launch {
  const { units, heads, kvHeads, channels } = (rope ?? attention) as RopeOp | AttentionOp;
  const keys = units > 0;
  const valueDims = attention ? attention.valueUnits * attention.valueChannels : 0;
  const positions = attention ? positionsOf(attention) : 0;
  const angles = rope ? weightsOver(range(rope.angles, (units - 1) * rope.unitBytes + kvHeads * channels * 2)) : null;
  const rows = (address: number, floats: number) => windowOver(range(address, capacity.rows * floats * 4));
  const { k, q } = (rope ?? attention) as RopeOp | AttentionOp;
  return {
    label: attention ? "rope, cache" : "rope",
    shader: "rope",
    settings: { ROTATE: rope !== null && keys, STORE: attention !== null, KEYS: keys },
    params: uniform(
      ...[units, heads, kvHeads, channels],
      ...(rope && angles ? [(rope.angles - angles.start) / 4, rope.unitBytes / 4] : [0, 0]),
      ...[attention?.valueUnits ?? 0, attention?.valueChannels ?? 0, positions],
    ),
    bindings: {
      1: "step",
      ...(angles && keys && { 2: angles, 3: rows(q, heads * units * channels) }),
      ...(keys && { 4: rows(k, kvHeads * units * channels) }),
      ...(attention && {
        ...(keys && { 5: cacheWindow(attention.kCache, attention, capacity, units * channels) }),
        6: rows(attention.v, kvHeads * valueDims),
        7: cacheWindow(attention.vCache, attention, capacity, filled(valueDims)),
      }),
    },
    workgroups: (step) => {
      const threads = (keys ? (units * kvHeads * channels) / 2 : 0) + (attention ? kvHeads * valueDims : 0);
      return [Math.ceil(threads / THREADS), step.rows, 1];
    },
  };
}

/** Blocks of the cache that a sequence has room for, the same in all layers; 0 where there is no attention. */
export function cacheBlocksOf(ops: readonly Op[]): number {
  const op = ops.find((one): one is AttentionOp => one.kind === "attention");
  return op === undefined ? 0 : positionsOf(op) / CACHE_BLOCK;
}

function positionsOf(op: AttentionOp): number {
  return Math.ceil(op.context / CACHE_BLOCK) * CACHE_BLOCK;
}

function filled(dims: number): number {
  return Math.ceil(dims / CACHE_LANES) * CACHE_LANES;
}

function cacheWindow(address: number, op: AttentionOp, capacity: Capacity, dims: number): Window {
  return windowOver(range(address, capacity.sequences * op.kvHeads * positionsOf(op) * dims * 4));
}

function attentionLaunches(op: AttentionOp, capacity: Capacity): Omit<Launches, "outputs"> {
  const dims = op.units * op.channels;
  const valueDims = op.valueUnits * op.valueChannels;
  const store = ropeLaunch(op.rope, op, capacity);
  const out = windowOver(range(op.out, capacity.rows * op.heads * valueDims * 4));
  const splitRows = Math.min(capacity.rows, DEVICE_SPLIT_ROWS);
  const scratch = windowOver(range(op.scratch, splitRows * op.heads * DEVICE_SPLITS * (valueDims + 2) * 4));
  const { rope } = op;
  const rotates = rope !== null && dims > 0;
  const angles = rotates
    ? weightsOver(range(rope.angles, (op.units - 1) * rope.unitBytes + op.kvHeads * op.channels * 2))
    : null;
  const shared = {
    params: uniform(
      ...[op.heads, op.kvHeads, op.units, op.channels, op.valueUnits, op.valueChannels, positionsOf(op)],
      [op.scale],
      ...(rotates && angles ? [(rope.angles - angles.start) / 4, rope.unitBytes / 4] : [0, 0]),
    ),
    bindings: {
      1: "step",
      ...(dims > 0 && {
        2: windowOver(range(op.q, capacity.rows * op.heads * dims * 4)),
        3: cacheWindow(op.kCache, op, capacity, dims),
      }),
      4: cacheWindow(op.vCache, op, capacity, filled(valueDims)),
    } as Launch["bindings"],
  };
  const settings = { DIMS: dims, VALUE_DIMS: valueDims, KEYS: dims > 0 };
  const splits = (step: StepShape) => Math.min(DEVICE_SPLITS, Math.ceil((step.position + 1) / ATTENTION_POSITIONS));
  const whenSplit = (step: StepShape, z: number): [number, number, number] =>
    splits(step) > 1 ? [op.heads, step.rows, z] : [0, 0, 0];
  const widest = Math.max(dims, filled(valueDims));
  const tile = widest <= TILE_DIMS ? TILE_ROWS : TILE_ROWS / 2;
  const own = {
    ...(dims > 0 && { 6: windowOver(range(op.k, capacity.rows * op.kvHeads * dims * 4)) }),
    7: windowOver(range(op.v, capacity.rows * op.kvHeads * valueDims * 4)),
    ...(angles && { 8: angles }),
  };
  /** Of a few rows; alone: each the only one of its sequence. */
  const few = (alone: boolean): Launch[] => {
    const made = { ...settings, ALONE: alone, ROTATE: alone && rotates };
    const bindings = { ...shared.bindings, ...(alone && own) };
    const label = alone ? "rope, cache, attention" : "attention";
    return [
      {
        ...{ ...shared, label, shader: "attention", settings: { ...made, SPLIT: false } },
        bindings: { ...bindings, 5: out },
        workgroups: (step) => (splits(step) > 1 ? [0, 0, 0] : [op.heads, step.rows, 1]),
      },
      {
        ...{ ...shared, label, shader: "attention", settings: { ...made, SPLIT: true } },
        bindings: { ...bindings, 5: scratch },
        workgroups: (step) => whenSplit(step, splits(step)),
      },
      {
        label: "attention",
        shader: "combine",
        settings: { VALUE_DIMS: valueDims },
        params: uniform(op.heads, op.valueChannels),
        bindings: { 1: scratch, 2: out },
        workgroups: (step) => whenSplit(step, splits(step)),
      },
    ];
  };
  const rows: Launch = {
    ...{ ...shared, label: "attention", shader: "attentionRows", settings: { ...settings, TILE: tile } },
    bindings: { ...shared.bindings, 5: out },
    workgroups: (step) => [op.heads, step.tiles, TILE_ROWS / tile],
  };
  const [unsplit] = few(false) as [Launch];
  const rowByRow: Launch["workgroups"] = (step) => [op.heads, step.rows, 1];
  return {
    few: [store, ...few(false)],
    alone: few(true),
    many: [store, widest > 2 * TILE_DIMS ? { ...unsplit, workgroups: rowByRow } : rows],
  };
}
