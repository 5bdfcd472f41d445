// A chain of matrix products as an ONNX model: y = W[layers − 1] × … × W[0] × x, each W a MatMulNBits of onnxruntime's
// with 4-bit weights, activations in 8 bits.

import onnxProto from "onnx-proto";
import { f16FromF32, f32FromF16 } from "../../../packs/encode";
import { randomFrom } from "../../../packs/random";

/** Of x, y and the scales. */
export type ElementType = "float32" | "float16";

export interface ChainShape {
  readonly layers: number;
  /** Rows and columns of each matrix. A multiple of 32. */
  readonly size: number;
  readonly element: ElementType;
}

export interface Chain {
  readonly model: Uint8Array;
  /** Of one matrix: its codes and scales. */
  readonly matrixBytes: number;
  /** One row through the first matrix, in plain arithmetic. */
  first(x: ArrayLike<number>): number[];
}

const BITS = 4;
const BLOCK = 32; // columns that share a scale
const ZERO = 8; // the code of weight 0
const ACCURACY_LEVEL = 4; // activations in 8 bits
const CODE_DEVIATION = Math.sqrt(17.5); // of codes 1 … 15, 8 twice as often as the others

const { onnx } = onnxProto;
const INTEGER = onnx.AttributeProto.AttributeType.INT;
const UINT8 = 2;
const ELEMENTS: Readonly<Record<ElementType, number>> = { float32: 1, float16: 10 };

/** All matrices differ, and leave a vector about as long as it was. */
export function makeChain({ layers, size, element }: ChainShape): Chain {
  const blocks = size / BLOCK;
  const scale = f16FromF32(1 / (CODE_DEVIATION * Math.sqrt(size)));
  const scales =
    element === "float16"
      ? new Uint16Array(size * blocks).fill(scale)
      : new Float32Array(size * blocks).fill(f32FromF16(scale));
  const scaleBytes = new Uint8Array(scales.buffer);
  const codes = Array.from({ length: layers }, (_, layer) => randomCodes((size * size * BITS) / 8, layer));
  const integer = (name: string, i: number) => ({ name, type: INTEGER, i });
  const tensor = (name: string) => ({
    name,
    type: { tensorType: { elemType: ELEMENTS[element], shape: { dim: [{ dimParam: "M" }, { dimValue: size }] } } },
  });
  const name = (at: number) => (at === 0 ? "x" : at === layers ? "y" : `x${at}`);
  const model = onnx.ModelProto.fromObject({
    irVersion: 8,
    producerName: "snug",
    opsetImport: [
      { domain: "", version: 17 },
      { domain: "com.microsoft", version: 1 },
    ],
    graph: {
      name: "chain",
      node: codes.map((_, layer) => ({
        opType: "MatMulNBits",
        domain: "com.microsoft",
        input: [name(layer), `codes${layer}`, `scales${layer}`],
        output: [name(layer + 1)],
        attribute: [
          integer("K", size),
          integer("N", size),
          integer("bits", BITS),
          integer("block_size", BLOCK),
          integer("accuracy_level", ACCURACY_LEVEL),
        ],
      })),
      initializer: codes.flatMap((rawData, layer) => [
        { name: `codes${layer}`, dataType: UINT8, dims: [size, blocks, (BLOCK * BITS) / 8], rawData },
        { name: `scales${layer}`, dataType: ELEMENTS[element], dims: [size * blocks], rawData: scaleBytes },
      ]),
      input: [tensor("x")],
      output: [tensor("y")],
    },
  });
  return {
    model: onnx.ModelProto.encode(model).finish(),
    matrixBytes: codes[0].length + scaleBytes.length,
    first: (x) =>
      Array.from({ length: size }, (_, row) => {
        let sum = 0;
        for (let col = 0; col < size; col++) {
          const pair = codes[0][(row * size + col) >> 1];
          sum += ((col % 2 === 0 ? pair & 15 : pair >> 4) - ZERO) * x[col];
        }
        return sum * f32FromF16(scale);
      }),
  };
}

/** Two codes a byte, none of them 0, so that their mean is that of weight 0. */
function randomCodes(bytes: number, seed: number): Uint8Array {
  const random = randomFrom(seed);
  const words = new Uint32Array(bytes / 4);
  for (let i = 0; i < words.length; i++) {
    const word = random() * 2 ** 32;
    const zeros = ~(word | (word >>> 1) | (word >>> 2) | (word >>> 3)) & 0x11111111;
    words[i] = word | (zeros << 3);
  }
  return new Uint8Array(words.buffer);
}
