// From a program to one with the same results that a device runs faster: ops that can go in one dispatch become one, and
// what is too long for a binding is taken in parts. Pure: lists of ops in, lists of ops out.

import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, ROW_TILE } from "../packs/format";
import type {
  AttentionOp,
  EmbedOp,
  GateOp,
  MatmulOp,
  Matrix,
  NormOp,
  Op,
  QuantizeOp,
  RopeOp,
  SquaredReluOp,
} from "./ops";

/** What a kernel for several matrices has bindings for. */
const MATRICES_MOST = 3;

/** For steps of any number of rows. bindingBytes: the longest binding. */
export function fuse(ops: readonly Op[], bindingBytes: number): Op[] {
  return joinNorms(joinEpilogues(joinMatrices(joinRopes(split(ops, bindingBytes)), bindingBytes)));
}

/** The same on activations that stay f32: for devices without products of four 8-bit numbers. */
export function withoutCodes(ops: readonly Op[]): Op[] {
  return ops.flatMap((op): Op[] => {
    if (op.kind === "quantize") return [];
    return op.kind === "matmul" ? [{ ...op, codes: 0 }] : [op];
  });
}

/** Embeddings and matrices that are longer than a binding, in parts. */
export function split(ops: readonly Op[], bindingBytes: number): Op[] {
  return ops.flatMap((op): Op[] => {
    if (op.kind === "embed") return splitEmbed(op, bindingBytes);
    if (op.kind === "matmul") return splitMatmul(op, bindingBytes);
    return [op];
  });
}

function splitEmbed(op: EmbedOp, bindingBytes: number): EmbedOp[] {
  const tileBytes = tileBytesOf(op.dtype, op.width, op.group);
  const most = Math.floor(bindingBytes / tileBytes) * ROW_TILE;
  return parts(op.tokens, most).map(({ first, count }) => ({
    ...op,
    first,
    tokens: count,
    weight: op.weight + (first / ROW_TILE) * tileBytes,
  }));
}

function splitMatmul(op: MatmulOp, bindingBytes: number): MatmulOp[] {
  const [matrix] = op.matrices as [Matrix];
  const { rows, panels, panelBytes } = matrix;
  const tileBytes = tileBytesOf(op.dtype, op.cols, op.group);
  const panelSpan = Math.max(panelBytes, Math.ceil(rows / ROW_TILE) * tileBytes);
  if (panels * panelSpan <= bindingBytes) return [op];
  if (op.axisRows && panels === 1) {
    const most = Math.floor(bindingBytes / tileBytes) * ROW_TILE;
    return parts(rows, most).map(({ first, count }) => {
      const own = {
        ...matrix,
        rows: count,
        weight: matrix.weight + (first / ROW_TILE) * tileBytes,
        out: matrix.out + first * 4,
        bias: matrix.bias === 0 ? 0 : matrix.bias + first * 4,
      };
      return { ...op, matrices: [own] };
    });
  }
  return parts(panels, Math.floor(bindingBytes / panelSpan)).map(({ first, count }) => {
    const own = { ...matrix, panels: count, weight: matrix.weight + first * panelBytes };
    if (!op.axisRows)
      return {
        ...op,
        add: op.add || first > 0,
        firstCol: op.firstCol + first * op.cols,
        matrices: [first > 0 ? { ...own, bias: 0 } : own],
      };
    const bias = matrix.bias === 0 ? 0 : matrix.bias + first * matrix.biasBytes;
    return { ...op, matrices: [{ ...own, bias, out: matrix.out + first * rows * 4 }] };
  });
}

function parts(count: number, most: number): { first: number; count: number }[] {
  if (most < 1) throw new RangeError("a row of a matrix is longer than a binding");
  return Array.from({ length: Math.ceil(count / most) }, (_, i) => ({
    first: i * most,
    count: Math.min(most, count - i * most),
  }));
}

/** Bytes of ROW_TILE rows, as packs/format.ts lays them out. */
export function tileBytesOf(dtype: number, cols: number, group: number): number {
  if (dtype === DTYPE_F32) return ROW_TILE * cols * 4;
  return (cols / group) * groupBytesOf(dtype, group);
}

function groupBytesOf(dtype: number, group: number): number {
  return ROW_TILE * 2 + (group / (dtype === DTYPE_Q4 ? BLOCK_COLS : BLOCK_COLS / 2)) * 64;
}

/** From a matrix's first byte to the end of its last panel. */
export function matrixBytes(op: MatmulOp, { rows, panels, panelBytes }: Matrix): number {
  if (panels === 0) return 0;
  return (panels - 1) * panelBytes + Math.ceil(rows / ROW_TILE) * tileBytesOf(op.dtype, op.cols, op.group);
}

/** A rope goes along with the attention that follows. */
function joinRopes(ops: readonly Op[]): Op[] {
  return joinPairs(ops, (op, next) =>
    op.kind === "rope" && next.kind === "attention" && op.q === next.q && op.k === next.k && !overlaps(op, next)
      ? { ...next, rope: op }
      : undefined,
  );
}

function overlaps(rope: RopeOp, attention: AttentionOp): boolean {
  return rope.units !== attention.units || rope.channels !== attention.channels;
}

/** Matrices with the same input are one product, as long as their weights fit a binding. */
function joinMatrices(ops: readonly Op[], bindingBytes: number): Op[] {
  return joinPairs(ops, (op, next) => {
    if (op.kind !== "matmul" || next.kind !== "matmul" || !next.alongside) return undefined;
    const same = (
      ["outputs", "input", "inputStride", "codes", "dtype", "group", "cols", "axisRows", "firstCol"] as const
    ).every((key) => op[key] === next[key]);
    if (!same || !op.axisRows || op.add || next.add || op.matrices.length + next.matrices.length > MATRICES_MOST)
      return undefined;
    const joined = { ...op, matrices: [...op.matrices, ...next.matrices], roles: [...op.roles, ...next.roles] };
    return spanOf(joined) <= bindingBytes ? joined : undefined;
  });
}

function spanOf(op: MatmulOp): number {
  const starts = op.matrices.map(({ weight }) => weight);
  const ends = op.matrices.map((matrix) => matrix.weight + matrixBytes(op, matrix));
  return Math.max(...ends) - Math.min(...starts);
}

/** What is done with each result of a product is done as it comes. */
function joinEpilogues(ops: readonly Op[]): Op[] {
  return joinPairs(ops, (op, next) => {
    if (op.kind !== "matmul" || op.add || op.gated || op.squaredRelu) return undefined;
    if (next.kind === "gate" && gates(op, next)) return { ...op, gated: true };
    if (next.kind === "squaredRelu" && squares(op, next)) return { ...op, squaredRelu: true };
    return undefined;
  });
}

function gates({ matrices }: MatmulOp, { gate, up, width }: GateOp): boolean {
  const [first, second] = matrices;
  if (matrices.length !== 2 || first === undefined || second === undefined) return false;
  const same = (["rows", "panels", "panelBytes", "outStride"] as const).every((key) => first[key] === second[key]);
  return (
    same && first.out === gate && second.out === up && first.outStride === width && first.rows * first.panels === width
  );
}

function squares({ matrices }: MatmulOp, { data, width }: SquaredReluOp): boolean {
  const [only] = matrices;
  return matrices.length === 1 && only?.out === data && only.outStride === width && only.rows * only.panels === width;
}

/** A norm that only 8-bit codes are made of is worked out where they are made. */
function joinNorms(ops: readonly Op[]): Op[] {
  const norms = new Map<QuantizeOp, NormOp>();
  const gone = new Set<Op>();
  for (const [i, op] of ops.entries()) {
    if (op.kind !== "norm" || op.input === op.out) continue;
    const own: QuantizeOp[] = [];
    let others = false;
    for (const later of ops.slice(i + 1)) {
      if (later.kind === "quantize" && later.input === op.out) own.push(later);
      else if (reads(later, op.out)) others = true;
      if (later.kind === "norm" && later.out === op.out) break;
    }
    if (others || own.length === 0) continue;
    // The norm's own input must still be there.
    if (!own.every((one) => isUntouched(ops, i, ops.indexOf(one), op.input))) continue;
    gone.add(op);
    for (const one of own) norms.set(one, op);
  }
  return ops.flatMap((op): Op[] => {
    if (gone.has(op)) return [];
    const norm = op.kind === "quantize" ? norms.get(op) : undefined;
    if (op.kind !== "quantize" || norm === undefined) return [op];
    return [{ ...op, input: norm.input, norm: { weight: norm.weight, eps: norm.eps } }];
  });
}

/**
 * For steps of a few rows, after fuse(): a product makes the codes of its input itself, where `fits` says so. Each of its
 * workgroups does that work, which takes less time than to start one more dispatch.
 */
export function fuseCodes(ops: readonly Op[], fits: (op: MatmulOp) => boolean): Op[] {
  const made = new Map<QuantizeOp, MatmulOp[]>();
  let last: QuantizeOp | undefined;
  for (const op of ops) {
    if (op.kind === "quantize") last = op;
    if (op.kind !== "matmul" || op.codes === 0 || last === undefined) continue;
    made.set(last, [...(made.get(last) ?? []), op]);
  }
  const fused = new Map<MatmulOp, QuantizeOp>();
  for (const [quantize, users] of made)
    if (users.every((op) => fits(op) && isUntouchedFor(ops, quantize, op)))
      for (const op of users) fused.set(op, quantize);
  const gone = new Set(fused.values());
  return ops.flatMap((op): Op[] => {
    if (op.kind === "quantize" && gone.has(op)) return [];
    const quantize = op.kind === "matmul" ? fused.get(op) : undefined;
    return op.kind === "matmul" && quantize !== undefined ? [{ ...op, quantize }] : [op];
  });
}

/** Is what was rounded for a product still there when it begins? */
function isUntouchedFor(ops: readonly Op[], quantize: QuantizeOp, op: MatmulOp): boolean {
  if (op.matrices.some(({ out }) => out === quantize.input)) return false;
  return isUntouched(ops, ops.indexOf(quantize), ops.indexOf(op), quantize.input);
}

function reads(op: Op, address: number): boolean {
  if (op.kind === "matmul") return op.codes === 0 && op.input === address;
  if (op.kind === "norm" || op.kind === "select") return op.input === address;
  return false;
}

function isUntouched(ops: readonly Op[], from: number, to: number, address: number): boolean {
  return ops.slice(from, to).every((op) => !(op.kind === "matmul" && op.matrices.some(({ out }) => out === address)));
}

/** Replaces two neighbours by one, wherever `join` says so; the one may be joined again. */
function joinPairs(ops: readonly Op[], join: (op: Op, next: Op) => Op | undefined): Op[] {
  const joined: Op[] = [];
  for (const op of ops) {
    const last = joined.at(-1);
    const one = last && join(last, op);
    if (one === undefined) joined.push(op);
    else joined[joined.length - 1] = one;
  }
  return joined;
}
