// Products with matrices: one kernel reads the weights once for each row, another works on tiles of rows.

import { BLOCK_COLS, DTYPE_F32, ROW_TILE } from "../packs/format";
import { codesWindow, scalesAt } from "./codes";
import { gateLaunch } from "./elementwise";
import { type Capacity, type Launch, range, type StepShape, uniform, weightsOver, windowOver } from "./launch";
import type { MatmulOp, Matrix } from "./ops";
import { matrixBytes, tileBytesOf } from "./passes";

const NO_BIAS = 0xffffffff;
/** Slots of four threads in a workgroup of gemv.wgsl: they share the columns of its tiles. */
const SLOTS = 64;
/** Rows of the step, and of the matrices, that a workgroup of gemm.wgsl does: times these. */
const GEMM_UNIT = 64;
const GEMM_QUADS_T = 1;
const GEMM_QUADS_R = 2;
/** Of 4 columns, in workgroup memory at once. */
const GEMM_WORDS = 8;
const GEMM_WORDS_LEAST = 2;
const STORED_UNIT = 1024;
/** Below this many workgroups a device has nothing to hide its memory's latency with. */
const WORKGROUPS_WANTED = 512;

export function matmulLaunches(op: MatmulOp, capacity: Capacity): { few: Launch[]; many: Launch[] } {
  const count = op.outputs ? capacity.outputs : capacity.rows;
  const counted = (step: StepShape) => (op.outputs ? step.outputs : step.rows);
  const coded = op.codes !== 0;
  const panels = op.matrices[0]?.panels ?? 0;
  const inputCols = op.axisRows ? op.cols : op.cols * panels;
  const weights = weightsOver(...op.matrices.map((matrix) => range(matrix.weight, matrixBytes(op, matrix))));
  const bias = weightsOver(...op.matrices.map((matrix) => range(matrix.bias, biasBytes(op, matrix))));
  const tiles = op.matrices.map((matrix) => tilesOf(op, matrix));
  const allTiles = tiles.reduce((sum, one) => sum + one, 0);
  const outs = op.matrices.map((matrix) =>
    windowOver(range(matrix.out, ((count - 1) * matrix.outStride + widthOf(op, matrix)) * 4)),
  );
  const outStart = outs.map(({ start }, i) => ((op.matrices[i] as Matrix).out - start) / 4);
  const input = coded
    ? codesWindow(op.codes, count, op.rowCols, op.group)
    : windowOver(range(op.input, ((count - 1) * op.inputStride + op.firstCol + inputCols) * 4));
  const { quantize } = op;
  const norm = quantize?.norm ?? null;
  const normWeight = norm && weightsOver(range(norm.weight, op.rowCols * 4));
  const params = (workTiles: number) =>
    uniform(
      ...[op.cols, op.group, tileBytesOf(op.dtype, op.cols, op.group) / 16, inputCols, op.firstCol],
      ...[coded ? op.rowCols : op.inputStride, coded ? scalesAt(count, op.rowCols) : 0, workTiles],
      ...(norm && normWeight ? ([(norm.weight - normWeight.start) / 4, [norm.eps], 0, 0] as const) : [0, 0, 0, 0]),
      ...op.matrices.flatMap((matrix, i) => [
        ...[(matrix.weight - weights.start) / 16, matrix.rows, matrix.panels, matrix.panelBytes / 16],
        matrix.bias === 0 ? NO_BIAS : (matrix.bias - bias.start) / 4,
        ...[matrix.biasBytes / 4, matrix.outStride, outStart[i] as number],
        ...[tiles.slice(0, i).reduce((sum, one) => sum + one, 0), 0, 0, 0],
      ]),
      ...new Array<number>((3 - op.matrices.length) * 12).fill(0),
    );
  const label = `matmul ${op.roles.join(" ")}`;
  const shared = { DTYPE: op.dtype, AXIS_ROWS: op.axisRows, ADD: op.add, SQUARED_RELU: op.squaredRelu };
  const outBindings = (matrices: number) => ({
    4: outs[0] as Launch["bindings"][number],
    ...(matrices > 1 && { 5: outs[1] as Launch["bindings"][number] }),
    ...(matrices > 2 && { 6: outs[2] as Launch["bindings"][number] }),
  });
  if (allTiles === 0) return { few: [], many: [] };

  const own = op.gated ? (tiles[0] as number) : allTiles;
  const piece = coded ? pieceOf(op.group) : 0;
  const perWorkgroup = tilesPerWorkgroup(own, piecesOf(op, inputCols));
  const matrices = op.gated ? 1 : op.matrices.length;
  const gemv: Launch = {
    label,
    shader: "gemv",
    settings: {
      ...shared,
      ...{ CODED: coded, MATRICES: matrices, TWO: matrices === 2, THREE: matrices === 3, GATED: op.gated },
      ...{ TILES: perWorkgroup, SPLIT: SLOTS / perWorkgroup },
      ...(coded && { COLS: op.cols, GROUP: op.group, PIECE: piece, FUSED: quantize !== null, NORM: norm !== null }),
      ...(quantize && { STORED: storedCols(op) }),
    },
    params: params(own),
    bindings: {
      ...{ 1: weights, 2: quantize ? windowOver(range(quantize.input, count * op.rowCols * 4)) : input, 3: bias },
      ...outBindings(matrices),
      ...(normWeight && { 7: normWeight }),
    },
    workgroups: (step) => [Math.ceil(own / perWorkgroup), counted(step), 1],
  };
  const quads = coded ? { QUADS_T: GEMM_QUADS_T, QUADS_R: GEMM_QUADS_R } : {};
  const [rowsT, rowsR] = coded ? [GEMM_UNIT * GEMM_QUADS_T, GEMM_UNIT * GEMM_QUADS_R] : [GEMM_UNIT, GEMM_UNIT];
  const all = op.matrices.length;
  const gemm: Launch = {
    label,
    shader: coded ? "gemm" : "gemmF32",
    settings: {
      ...shared,
      ...{ MATRICES: all, TWO: all === 2, THREE: all === 3, OUTPUTS: op.outputs },
      ...(coded && { WORDS: op.group % (GEMM_WORDS * 4) === 0 ? GEMM_WORDS : GEMM_WORDS_LEAST, ...quads }),
    },
    params: params(allTiles),
    bindings: { 1: weights, 2: input, 3: bias, ...outBindings(all), 7: "step" },
    workgroups: (step) => [Math.ceil((allTiles * ROW_TILE) / rowsR), Math.ceil(counted(step) / rowsT), 1],
  };
  const [gate, up] = op.matrices;
  const gates =
    op.gated && gate && up
      ? [gateLaunch({ kind: "gate", gate: gate.out, up: up.out, width: gate.outStride }, capacity)]
      : [];
  return { few: [gemv], many: [gemm, ...gates] };
}

/** Bytes of workgroup memory that gemv.wgsl takes where it makes the codes itself. */
export function storageBytes(op: MatmulOp): number {
  const partials = (op.gated ? 2 : 1) * 256 * 16;
  return partials + storedCols(op) + (storedCols(op) / op.group) * 8 + 2048;
}

/** Columns that it has room for: rounded up, so that cuts that differ a little have the same kernel. */
function storedCols({ rowCols, group }: MatmulOp): number {
  const unit = Math.ceil(STORED_UNIT / group) * group;
  return Math.max(1, Math.ceil(rowCols / unit)) * unit;
}

/** Of a group, the blocks of 8 columns that a thread does at once: 4, or what divides the group. */
function pieceOf(group: number): number {
  const blocks = group / BLOCK_COLS;
  return [4, 3, 2].find((piece) => blocks % piece === 0) ?? 1;
}

/** What slots can share out of the columns. */
function piecesOf(op: MatmulOp, cols: number): number {
  if (op.dtype === DTYPE_F32) return cols;
  return op.codes === 0 ? cols / op.group : cols / BLOCK_COLS / pieceOf(op.group);
}

/** As few as keep the slots busy with columns, and no more than leave enough workgroups. */
function tilesPerWorkgroup(tiles: number, width: number): number {
  let most = 1;
  while (most < 16 && (SLOTS / most > width || tiles / (most * 2) >= WORKGROUPS_WANTED)) most *= 2;
  return most;
}

function tilesOf({ axisRows }: MatmulOp, { rows, panels }: Matrix): number {
  return Math.ceil(rows / ROW_TILE) * (axisRows ? panels : 1);
}

function widthOf({ axisRows }: MatmulOp, { rows, panels }: Matrix): number {
  return axisRows ? rows * panels : rows;
}

function biasBytes({ axisRows }: MatmulOp, { rows, panels, bias, biasBytes }: Matrix): number {
  if (bias === 0 || (axisRows && panels === 0)) return 0;
  return (axisRows ? (panels - 1) * biasBytes : 0) + rows * 4;
}
