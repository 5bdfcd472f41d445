// Looks inside a loaded model: runs stretches of its program over given activations and shows what goes into each
// matrix. The packer calibrates and measures with it, so that there is no second forward pass.

import {
  AXIS_COLS,
  EMBED_OUT,
  EMBED_WIDTH,
  FLAG_ADD,
  MATMUL_AXIS,
  MATMUL_COLS,
  MATMUL_IN,
  MATMUL_PANELS,
  OP_BYTES,
  OP_CODE,
  OP_EMBED,
  OP_FLAGS,
  OP_LAYER,
  OP_MATMUL,
  OP_ROLE,
  OP_SCAN,
  SCAN_BC_CHANNELS,
  SCAN_BC_UNITS,
  SCAN_C,
  SCAN_GROUPS,
  SCAN_HEADS,
  SCAN_OUT,
  SCAN_STATE,
  SCAN_XZ_CHANNELS,
  SCAN_XZ_UNITS,
} from "../assembly/abi";
import { NONE } from "../packs/format";
import { guarded } from "./core";
import { SnugError } from "./errors";
import type { Model } from "./model";
import { writeRows } from "./rows";

/** One op of the program, as far as an observer needs to know it. */
export interface Op {
  /** null: before or after all layers. */
  readonly layer: number | null;
  /** ROLE_* of the matrix that the op multiplies with, or 0. */
  readonly role: number;
  /** Of a matrix: where its input [rows, cols] lies. */
  readonly inputPtr: number;
  readonly cols: number;
  readonly isScan: boolean;
  /** Is it a matrix that adds to the residual stream? Then a sublayer ends with it. */
  readonly adds: boolean;
}

/** A sublayer in the program, by the indices of its ops; those that are cut away altogether are not there. */
export interface ProbedSublayer {
  readonly layer: number;
  readonly start: number;
  /** The first op that multiplies its normed input with a matrix. */
  readonly first: number;
  /** The scan, or null. */
  readonly scan: number | null;
  /** The matrix that adds to the stream. */
  readonly last: number;
}

/** A scan behind its last row. Heads' dims are in the order of the pack: [unit][head][channel]. */
export interface ProbedScan {
  readonly heads: number;
  readonly groups: number;
  /** Dims of a head in one unit. */
  readonly channels: number;
  readonly out: Float32Array; // [dims of all heads]
  readonly c: Float32Array; // [groups][state]
  readonly h: Float32Array; // [dims of all heads][state]
}

export class Probe {
  readonly width: number;
  readonly #model: Model;
  readonly #stream: number;
  #ops: readonly Op[] = [];
  #sublayers: readonly ProbedSublayer[] = [];
  #rows = 0;

  constructor(model: Model) {
    this.#model = model;
    model.engine.forget();
    const { core } = model;
    const embed = core.view(core.exports.program_ptr(), OP_BYTES);
    if (embed.getUint32(OP_CODE, true) !== OP_EMBED)
      throw new SnugError("internal", "a program begins with its embedding");
    this.#stream = embed.getUint32(EMBED_OUT, true);
    this.width = embed.getUint32(EMBED_WIDTH, true);
    this.#readProgram();
  }

  /** Makes consecutive tokens of one sequence, from `position` on, the rows that follow; `outputs`: all want logits. */
  begin(tokens: ArrayLike<number>, position: number, outputs: boolean): void {
    const { core } = this.#model;
    writeRows(core, tokens, position, () => outputs);
    guarded(() => core.check(core.exports.step_begin(tokens.length)));
    this.#rows = tokens.length;
  }

  /** The residual stream [rows, width]: write it to set what comes next, read it to see what came. */
  stream(): Float32Array {
    return this.#model.core.floats(this.#stream, this.#rows * this.width);
  }

  get vocabulary(): number {
    return this.#model.vocabulary;
  }

  /** Looks up the rows' tokens: the stream as it goes into the first layer. */
  embed(): void {
    this.run(0, 1);
  }

  /** The program; narrow() makes another one. */
  get ops(): readonly Op[] {
    return this.#ops;
  }

  /** Its sublayers, through all layers. */
  get sublayers(): readonly ProbedSublayer[] {
    return this.#sublayers;
  }

  /** Runs the ops [first, end) on what the ops before have left. */
  run(first: number, end: number): void {
    const { core } = this.#model;
    guarded(() => core.check(core.exports.step_ops(first, end)));
  }

  /** What an op is about to multiply its matrix with: f32 [rows, cols], valid until the next run(). */
  input(op: Op): Float32Array {
    return this.#model.core.floats(op.inputPtr, this.#rows * op.cols);
  }

  /** What a scan that has just run has done with the last row, of sequence 0. */
  scan(index: number): ProbedScan {
    const { core } = this.#model;
    const record = core.view((core.exports.program_ptr() >>> 0) + index * OP_BYTES, OP_BYTES);
    const at = (offset: number) => record.getUint32(offset, true);
    const heads = at(SCAN_HEADS);
    const groups = at(SCAN_GROUPS);
    const channels = at(SCAN_XZ_CHANNELS);
    const dims = at(SCAN_XZ_UNITS) * heads * channels;
    const [units, inUnit] = [at(SCAN_BC_UNITS), at(SCAN_BC_CHANNELS)];
    const state = units * inUnit;
    const last = this.#rows - 1;
    const stored = core.floats(at(SCAN_C) + last * groups * state * 4, groups * state); // [unit][group][channel]
    const c = Float32Array.from(stored, (_, i) => {
      const n = i % state;
      return stored[(Math.floor(n / inUnit) * groups + Math.floor(i / state)) * inUnit + (n % inUnit)] as number;
    });
    const out = core.floats(at(SCAN_OUT) + last * dims * 4, dims).slice();
    return { heads, groups, channels, out, c, h: core.floats(at(SCAN_STATE), dims * state).slice() };
  }

  /** −ln p of a token by the logits of row `row`, and whether it is the likeliest. */
  score(row: number, token: number): { loss: number; likeliest: boolean } {
    const { exports } = this.#model.core;
    return { loss: -exports.logits_score(row, token), likeliest: exports.logits_best(row) === token };
  }

  /** The logits of row `row`: f32 [vocabulary], valid until the next step. */
  logits(row: number): Float32Array {
    const { core, vocabulary } = this.#model;
    return core.floats((core.exports.logits_ptr() >>> 0) + row * vocabulary * 4, vocabulary);
  }

  /** Uses only the first kept[stack] units of each stack from now on; the cache is void. */
  narrow(kept: ArrayLike<number>): void {
    const { core } = this.#model;
    guarded(() => {
      for (let stack = 0; stack < kept.length; stack++)
        core.check(core.exports.narrow_stack(stack, kept[stack] as number));
      core.check(core.exports.narrow_apply());
    });
    this.#readProgram();
  }

  #readProgram(): void {
    const { core } = this.#model;
    this.#ops = Array.from({ length: core.exports.program_length() }, (_, index) => {
      const record = core.view((core.exports.program_ptr() >>> 0) + index * OP_BYTES, OP_BYTES);
      const at = (offset: number) => record.getUint32(offset, true);
      const isMatrix = at(OP_CODE) === OP_MATMUL;
      const alongCols = at(MATMUL_AXIS) === AXIS_COLS;
      return {
        layer: at(OP_LAYER) === NONE ? null : at(OP_LAYER),
        role: isMatrix ? at(OP_ROLE) : 0,
        inputPtr: isMatrix ? at(MATMUL_IN) : 0,
        cols: isMatrix ? at(MATMUL_COLS) * (alongCols ? at(MATMUL_PANELS) : 1) : 0,
        isScan: at(OP_CODE) === OP_SCAN,
        adds: isMatrix && (at(OP_FLAGS) & FLAG_ADD) !== 0,
      };
    });
    this.#sublayers = sublayersOf(this.#ops);
  }
}

function sublayersOf(ops: readonly Op[]): ProbedSublayer[] {
  const found: ProbedSublayer[] = [];
  let start = ops.findIndex(({ layer }) => layer !== null);
  ops.forEach(({ layer, adds }, last) => {
    if (layer === null || !adds) return;
    const own = ops.slice(start, last + 1);
    const scan = own.findIndex(({ isScan }) => isScan);
    found.push({
      layer,
      start,
      first: start + own.findIndex(({ role }) => role !== 0),
      scan: scan < 0 ? null : start + scan,
      last,
    });
    start = last + 1;
  });
  return found;
}
