// Seeded random numbers, and stored matrices made of them faster than a disk takes them: a matrix is a stretch of one
// long run of random groups, so that its bytes are copied and no number is rounded.

import { f16FromF32, matrixBytes } from "./encode";
import { DTYPE_Q4, ROW_TILE } from "./format";

const GROUPS = 12289; // of a run: a prime, so that no two rows of a matrix below 16 × 12,289 rows are alike
const SCALE_BYTES = ROW_TILE * 2;
const LANE_BYTES = 4;
const BLOCK_BYTES = ROW_TILE * LANE_BYTES;
// Of a Q4 code 1 … 15, 8 twice as often as the others; of a Q8 code −127 … 127, 0 twice as often.
const Q4_DEVIATION = Math.sqrt(17.5);
const Q8_DEVIATION = Math.sqrt((127 * 128 * 255) / 6 / 128);
const Q4_ZEROS = 0x88;

const runs = new Map<string, Uint8Array>();

/** Uniform in 0 … 1, the same for the same keys. */
export function randomFrom(...keys: readonly number[]): () => number {
  let state = keys.reduce((mixed, key) => Math.imul(mixed ^ (mixed >>> 16) ^ key, 0x45d9f3b) ^ 0x9e3779b9, 0);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Bytes of a matrix [rows, cols] of Q4 or Q8 whose weights have mean 0 and deviation 1/√inputs, so that what it makes of
 * `inputs` numbers of deviation 1 has deviation 1.
 */
export function randomMatrix(
  dtype: number,
  rows: number,
  cols: number,
  group: number,
  inputs: number,
  random: () => number,
): Uint8Array {
  const run = runOf(dtype, group, inputs);
  const bytes = new Uint8Array(matrixBytes(dtype, rows, cols, group));
  const groupBytes = run.length / GROUPS;
  for (let to = 0, from = Math.floor(random() * GROUPS) * groupBytes; to < bytes.length; from = 0) {
    const piece = run.subarray(from, Math.min(run.length, from + bytes.length - to));
    bytes.set(piece, to);
    to += piece.length;
  }
  if (rows % ROW_TILE !== 0)
    for (let at = bytes.length - (cols / group) * groupBytes; at < bytes.length; at += groupBytes)
      clearRows(bytes.subarray(at, at + groupBytes), rows % ROW_TILE, dtype === DTYPE_Q4 ? Q4_ZEROS : 0);
  return bytes;
}

/** Groups of ROW_TILE rows, one behind the other. */
function runOf(dtype: number, group: number, inputs: number): Uint8Array {
  const key = `${dtype} ${group} ${inputs}`;
  const run = runs.get(key) ?? makeRun(dtype, group, inputs);
  runs.set(key, run);
  return run;
}

function makeRun(dtype: number, group: number, inputs: number): Uint8Array {
  const random = randomFrom(dtype, group, inputs);
  const groupBytes = matrixBytes(dtype, ROW_TILE, group, group);
  const words = new Uint32Array((GROUPS * groupBytes) / 4);
  for (let i = 0; i < words.length; i++) words[i] = random() * 2 ** 32;
  const codes = new Uint8Array(words.buffer);
  if (dtype === DTYPE_Q4) {
    for (let i = 0; i < words.length; i++) {
      const word = words[i] as number;
      const zeros = ~(word | (word >>> 1) | (word >>> 2) | (word >>> 3)) & 0x11111111;
      words[i] = word | (zeros << 3);
    }
  } else {
    for (let i = 0; i < codes.length; i++) if (codes[i] === 0x80) codes[i] = 0;
  }
  const scales = new Uint16Array(words.buffer);
  const scale = 1 / ((dtype === DTYPE_Q4 ? Q4_DEVIATION : Q8_DEVIATION) * Math.sqrt(inputs));
  for (let at = 0; at < scales.length; at += groupBytes / 2)
    for (let row = 0; row < ROW_TILE; row++) scales[at + row] = f16FromF32(scale * (0.8 + 0.4 * random()));
  return codes;
}

/** Makes the rows of a group from `first` on zeros. */
function clearRows(group: Uint8Array, first: number, zeros: number): void {
  group.fill(0, first * 2, SCALE_BYTES);
  for (let block = SCALE_BYTES; block < group.length; block += BLOCK_BYTES)
    group.fill(zeros, block + first * LANE_BYTES, block + BLOCK_BYTES);
}
