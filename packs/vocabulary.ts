// The two matrices that have a row for every token, the embedding and the head, some rows at a time.

import { dequantize } from "./encode";
import { readTensorRows } from "./families/index";
import { DTYPE_F32, DTYPE_Q4, DTYPE_Q8, ROLE_EMBEDDING, ROLE_HEAD } from "./format";
import { factorHessian, type HessianFactor, quantizeToNearest, quantizeWithFeedback } from "./quantize";
import { type Encoded, groupSize, storeMatrix } from "./stacks";
import type { Workshop } from "./workshop";
import type { FixedTensor } from "./write";

const ROWS = 4096; // at a time
const DAMP = 0.1;

type Role = "embedding" | "head";

/** The embedded tokens of windows: f32 [windows × tokens, width]. */
export async function embedWindows(shop: Workshop, windows: readonly Uint32Array[]): Promise<Float32Array> {
  const { width } = shop.checkpoint.config;
  const out = new Float32Array(windows.reduce((sum, { length }) => sum + length, 0) * width);
  await eachRows(shop, "embedding", (first, values) => fillRows(out, windows, first, values, width));
  return out;
}

/** The original model's probabilities [rows, vocabulary] for inputs of its head [rows, width]. */
export async function headProbabilities(shop: Workshop, inputs: Float32Array): Promise<Float32Array> {
  const { linalg } = shop;
  const { width, vocabulary } = shop.checkpoint.config;
  const rows = inputs.length / width;
  const logits = new Float32Array(rows * vocabulary);
  await eachRows(shop, headRole(shop), (first, values) => {
    const count = values.length / width;
    const part = linalg.scope(() => {
      const x = linalg.put(inputs, rows, width);
      const w = linalg.put(values, count, width);
      return linalg.get(linalg.multiply(linalg.zeros(rows, count), x, w, { transposeB: true }));
    });
    for (let row = 0; row < rows; row++)
      logits.set(part.subarray(row * count, (row + 1) * count), row * vocabulary + first);
  });
  for (let row = 0; row < rows; row++) softmax(logits.subarray(row * vocabulary, (row + 1) * vocabulary));
  return logits;
}

/** Both matrices rounded to 8 bits, to nearest: for the draft. A pack in f32 has them exact. */
export async function draftVocabulary(shop: Workshop): Promise<FixedTensor[]> {
  const dtype = shop.format.dtype === DTYPE_F32 ? DTYPE_F32 : DTYPE_Q8;
  return storeRows(shop, dtype, (values, rows, cols, group) =>
    quantizeToNearest(shop.linalg, values, rows, cols, { bits: 8, group, rule: "max/7" }),
  );
}

/**
 * Both matrices as the pack stores them, and the windows embedded by them: f32 [windows × tokens, width]. The matrix
 * that is the head is rounded with feedback; `gram`: XᵀX of the original head's inputs, upper triangle.
 */
export async function roundVocabulary(
  shop: Workshop,
  gram: Float32Array,
  windows: readonly Uint32Array[],
): Promise<{ fixed: FixedTensor[]; embedded: Float32Array }> {
  const { linalg, format } = shop;
  const { width } = shop.checkpoint.config;
  const embedded = new Float32Array(windows.reduce((sum, { length }) => sum + length, 0) * width);
  const mark = linalg.mark();
  const factor: HessianFactor | null =
    format.dtype === DTYPE_F32 ? null : factorHessian(linalg, linalg.put(gram, width, width), DAMP);
  const fixed = await storeRows(
    shop,
    format.dtype,
    (values, rows, cols, group, role) => {
      const how = { bits: format.dtype === DTYPE_Q4 ? 4 : 8, group } as const;
      return factor !== null && role === headRole(shop)
        ? quantizeWithFeedback(linalg, values, rows, cols, factor, how)
        : quantizeToNearest(linalg, values, rows, cols, how);
    },
    (role, first, encoded) => {
      if (role === "embedding")
        fillRows(embedded, windows, first, encoded instanceof Float32Array ? encoded : dequantize(encoded), width);
    },
  );
  linalg.release(mark);
  return { fixed, embedded };
}

function headRole({ checkpoint }: Workshop): Role {
  return checkpoint.config.tiedHead ? "embedding" : "head";
}

async function storeRows(
  shop: Workshop,
  dtype: number,
  encode: (values: Float32Array, rows: number, cols: number, group: number, role: Role) => Encoded,
  visit: (role: Role, first: number, encoded: Encoded) => void = () => {},
): Promise<FixedTensor[]> {
  const { width, vocabulary, tiedHead } = shop.checkpoint.config;
  const group = groupSize(width, dtype, shop.format.group);
  const fixed: FixedTensor[] = [];
  for (const role of tiedHead ? (["embedding"] as const) : (["embedding", "head"] as const)) {
    const number = role === "head" ? ROLE_HEAD : ROLE_EMBEDDING;
    const pieces: Uint8Array[] = [];
    await eachRows(shop, role, (first, values) => {
      const rows = values.length / width;
      const encoded = dtype === DTYPE_F32 ? values : encode(values, rows, width, group, role);
      pieces.push(storeMatrix(number, encoded, rows, width).bytes);
      visit(role, first, encoded);
    });
    fixed.push({ layer: null, role: number, dtype, rows: vocabulary, cols: width, group, bytes: joined(pieces) });
  }
  return fixed;
}

/** Visits a matrix of the checkpoint, some rows at a time. */
async function eachRows(
  { checkpoint }: Workshop,
  role: Role,
  visit: (first: number, values: Float32Array) => void,
): Promise<void> {
  const { vocabulary } = checkpoint.config;
  for (let first = 0; first < vocabulary; first += ROWS)
    visit(first, await readTensorRows(checkpoint, role, 0, first, Math.min(ROWS, vocabulary - first)));
}

/** Copies the rows of the tokens that lie in `values`: rows `first` … of an embedding. */
function fillRows(
  out: Float32Array,
  windows: readonly Uint32Array[],
  first: number,
  values: Float32Array,
  width: number,
): void {
  const count = values.length / width;
  let at = 0;
  for (const window of windows)
    for (const token of window) {
      const row = token - first;
      if (row >= 0 && row < count) out.set(values.subarray(row * width, (row + 1) * width), at);
      at += width;
    }
}

function softmax(logits: Float32Array): void {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) {
    logits[i] = Math.exp((logits[i] as number) - most);
    sum += logits[i] as number;
  }
  for (let i = 0; i < logits.length; i++) logits[i] = (logits[i] as number) / sum;
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
