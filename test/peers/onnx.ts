// Matrices of a pack as ONNX models of com.microsoft.MatMulNBits: one model for each group of matrices that work on the
// same input, with a number of layers side by side, each over the model's one input x [M, K].

import { writeFileSync } from "node:fs";
import onnxProto from "onnx-proto";
import { f32FromF16 } from "../../packs/encode";
import { type Codes, GROUP, type LayerMatrix, type PackWeights } from "./pack-weights";
import type { OpGroup } from "./runner";

export interface OpModel {
  readonly group: OpGroup;
  /** One for a single row, one for any number; their output is y. */
  readonly paths: { readonly one: string; readonly any: string };
  /** K. */
  readonly cols: number;
  /** Multiplications for one row. */
  readonly products: number;
  /** The first numbers of y, which are the first matrix's, for a row x[k] = sin(k). */
  readonly expected: readonly number[];
}

export const GROUP_MATRICES: Readonly<Record<OpGroup, readonly LayerMatrix[]>> = {
  "q, k, v": ["q", "k", "v"],
  o: ["o"],
  "gate, up": ["gate", "up"],
  down: ["down"],
};

const WEIGHTS_LEAST = 4e8; // of all models together: more than caches hold, and a call is little of the time
const CHECKED = 32;
const ACCURACY_LEVEL = 4; // activations in 8 bits
const FLOAT = 1;
const UINT8 = 2;
const INT64 = 7;

const { onnx } = onnxProto;
const INTEGER = onnx.AttributeProto.AttributeType.INT;

/** Writes the models into `folder`. */
export function writeOnnx(folder: string, weights: PackWeights): OpModel[] {
  const perLayer = Object.values(GROUP_MATRICES)
    .flat()
    .reduce((sum, name) => sum + weights.matrix(0, name).codes.length, 0);
  const layers = Math.min(weights.layers, Math.ceil(WEIGHTS_LEAST / perLayer));
  return Object.entries(GROUP_MATRICES).map(([group, names], at) => {
    const paths = { one: `${folder}/group-${at}-one.onnx`, any: `${folder}/group-${at}-any.onnx` };
    const matrices = Array.from({ length: layers }, (_, layer) =>
      names.map((name) => weights.matrix(layer, name)),
    ).flat();
    writeModel(paths.one, matrices, weights.bits, false);
    writeModel(paths.any, matrices, weights.bits, true);
    const first = matrices[0] as Codes;
    return {
      group: group as OpGroup,
      paths,
      cols: first.cols,
      products: matrices.reduce((sum, { codes }) => sum + codes.length, 0),
      expected: Array.from({ length: CHECKED }, (_, row) => product(first, row)),
    };
  });
}

/**
 * The products side by side are y. With any number of rows, only row 0 of each goes there, so that no time goes into
 * copying; for a single row, taking that row would be what costs time.
 */
function writeModel(path: string, matrices: readonly Codes[], bits: number, anyRows: boolean): void {
  const { cols } = matrices[0] as Codes;
  const integer = (name: string, i: number) => ({ name, type: INTEGER, i });
  const products = matrices.map(({ rows }, i) => ({
    opType: "MatMulNBits",
    domain: "com.microsoft",
    input: ["x", `codes${i}`, `scales${i}`],
    output: [`product${i}`],
    attribute: [
      integer("K", cols),
      integer("N", rows),
      integer("bits", bits),
      integer("block_size", GROUP),
      integer("accuracy_level", ACCURACY_LEVEL),
    ],
  }));
  const row = { name: "row", dataType: INT64, dims: [], int64Data: [0] };
  const firstRows = matrices.map((_, i) => ({
    opType: "Gather",
    input: [`product${i}`, "row"],
    output: [`row${i}`],
    attribute: [integer("axis", 0)],
  }));
  const together = {
    opType: "Concat",
    input: (anyRows ? firstRows : products).flatMap(({ output }) => output),
    output: ["y"],
    attribute: [integer("axis", anyRows ? 0 : 1)],
  };
  const initializers = matrices.flatMap((matrix, i) => {
    const { rows, scales } = matrix;
    const groups = cols / GROUP;
    const floats = Float32Array.from(scales, f32FromF16);
    return [
      { name: `codes${i}`, dataType: UINT8, dims: [rows, groups, (GROUP * bits) / 8], rawData: stored(matrix, bits) },
      { name: `scales${i}`, dataType: FLOAT, dims: [rows * groups], rawData: new Uint8Array(floats.buffer) },
    ];
  });
  const tensor = (name: string, dims: readonly (string | number)[]) => ({
    name,
    type: {
      tensorType: {
        elemType: FLOAT,
        shape: { dim: dims.map((dim) => (typeof dim === "string" ? { dimParam: dim } : { dimValue: dim })) },
      },
    },
  });
  const outputs = matrices.reduce((sum, { rows }) => sum + rows, 0);
  const model = onnx.ModelProto.fromObject({
    irVersion: 8,
    producerName: "snug",
    opsetImport: [
      { domain: "", version: 17 },
      { domain: "com.microsoft", version: 1 },
    ],
    graph: {
      name: "matrices",
      node: anyRows ? [...products, ...firstRows, together] : [...products, together],
      initializer: anyRows ? [...initializers, row] : initializers,
      input: [tensor("x", [anyRows ? "M" : 1, cols])],
      output: [tensor("y", anyRows ? [outputs] : [1, outputs])],
    },
  });
  writeFileSync(path, onnx.ModelProto.encode(model).finish());
}

/** Unsigned: + 8 in 4 bits, an even column low; + 128 in 8 bits. */
function stored({ codes }: Codes, bits: number): Uint8Array {
  if (bits === 8) return Uint8Array.from(codes, (code) => code + 128);
  return Uint8Array.from({ length: codes.length / 2 }, (_, i) => {
    return ((codes[2 * i] as number) + 8) | (((codes[2 * i + 1] as number) + 8) << 4);
  });
}

function product({ cols, codes, scales }: Codes, row: number): number {
  let sum = 0;
  for (let at = row * cols; at < (row + 1) * cols; at++)
    sum += (codes[at] as number) * f32FromF16(scales[Math.floor(at / GROUP)] as number) * Math.sin(at - row * cols);
  return sum;
}
