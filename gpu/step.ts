// A step as the kernels read it: kernels/step.wgsl has the layout.

import { ROW_BYTES, ROW_OUTPUT, ROW_POSITION, ROW_SEQUENCE, ROW_TOKEN } from "../assembly/abi";
import type { Capacity, StepShape } from "./launch";

/** Rows of a sequence that attention over many takes at once. */
export const TILE_ROWS = 16;

const HEADER = 3;
const WORDS = 4;

/** Blocks of the cache whose places are side by side. */
const PLACES = 4;

/** Bytes of the largest step, without the places of the cache's blocks, which are behind it. */
export function stepBytes({ rows, outputs, sequences }: Capacity): number {
  return (HEADER + 3 * rows + sequences + outputs) * WORDS * 4;
}

/** records: ROW_* [rows], as the core has them; rows of a sequence ascend. */
export function writeStep(
  records: Uint8Array,
  capacity: Capacity,
): { words: Uint32Array<ArrayBuffer>; shape: StepShape } {
  const view = new DataView(records.buffer, records.byteOffset, records.length);
  const count = records.length / ROW_BYTES;
  const words = new Uint32Array(stepBytes(capacity) / 4);
  const rowsAt = HEADER;
  const runsAt = rowsAt + capacity.rows;
  const tilesAt = runsAt + capacity.rows;
  const sequencesAt = tilesAt + capacity.rows;
  const outputsAt = sequencesAt + capacity.sequences;
  const put = (at: number, ...values: number[]) => words.set(values, at * WORDS);
  const sequences = new Set<number>();
  let [runs, tiles, outputs, highest] = [0, 0, 0, 0];
  let run = { sequence: -1, first: 0, rows: 0, position: 0 };
  const endRun = () => {
    if (run.rows === 0) return;
    put(runsAt + runs++, run.sequence, run.first, run.rows, run.position);
    for (let at = 0; at < run.rows; at += TILE_ROWS)
      put(tilesAt + tiles++, run.first + at, Math.min(TILE_ROWS, run.rows - at), run.sequence, run.position + at);
  };
  for (let t = 0; t < count; t++) {
    const field = (at: number) => view.getUint32(t * ROW_BYTES + at, true);
    const [position, sequence] = [field(ROW_POSITION), field(ROW_SEQUENCE)];
    put(rowsAt + t, field(ROW_TOKEN), position, sequence, field(ROW_OUTPUT));
    if (!sequences.has(sequence)) {
      put(sequencesAt + sequences.size, sequence);
      sequences.add(sequence);
    }
    if (field(ROW_OUTPUT) !== 0) put(outputsAt + outputs++, t);
    highest = Math.max(highest, position);
    if (run.sequence === sequence && position === run.position + run.rows) run.rows++;
    else {
      endRun();
      run = { sequence, first: t, rows: 1, position };
    }
  }
  endRun();
  put(0, count, outputs, runs, sequences.size);
  put(1, rowsAt, runsAt, sequencesAt, tilesAt);
  put(2, outputsAt, 0, 0, outputsAt + capacity.outputs);
  return { words, shape: { rows: count, outputs, sequences: sequences.size, tiles, position: highest } };
}

/** The places of each sequence's blocks as the kernels read them. table: [sequences, blocks] (assembly/kv-cache.ts). */
export function placesOf(table: Uint32Array, sequences: number): Uint32Array<ArrayBuffer> {
  const blocks = table.length / sequences;
  const padded = Math.ceil(blocks / PLACES) * PLACES;
  const places = new Uint32Array(sequences * padded);
  for (let i = 0; i < sequences; i++) places.set(table.subarray(i * blocks, (i + 1) * blocks), i * padded);
  return places;
}
