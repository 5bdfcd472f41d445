// Looks inside a loaded model: runs stretches of its program over given activations and shows what goes into each
// matrix. The packer calibrates and measures with it, so that there is no second forward pass.

import {
  AXIS_COLS,
  EMBED_OUT,
  EMBED_WIDTH,
  MATMUL_AXIS,
  MATMUL_COLS,
  MATMUL_IN,
  MATMUL_PANELS,
  OP_BYTES,
  OP_CODE,
  OP_EMBED,
  OP_LAYER,
  OP_MATMUL,
  OP_ROLE,
} from "../assembly/abi";
import { NONE } from "../packs/format";
import { guarded } from "./core";
import { SnugError } from "./errors";
import { writeRows } from "./generation";
import type { Model } from "./model";

/** One op of the program, as far as an observer needs to know it. */
export interface Op {
  /** null: before or after all layers. */
  readonly layer: number | null;
  /** ROLE_* of the matrix that the op multiplies with, or 0. */
  readonly role: number;
  /** Of a matrix: where its input [rows, cols] lies. */
  readonly inputPtr: number;
  readonly cols: number;
}

export class Probe {
  readonly width: number;
  readonly #model: Model;
  readonly #stream: number;
  #ops: readonly Op[] = [];
  #rows = 0;

  constructor(model: Model) {
    this.#model = model;
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

  /** Runs the ops [first, end) on what the ops before have left. */
  run(first: number, end: number): void {
    const { core } = this.#model;
    guarded(() => core.check(core.exports.step_ops(first, end)));
  }

  /** What an op is about to multiply its matrix with: f32 [rows, cols], valid until the next run(). */
  input(op: Op): Float32Array {
    return this.#model.core.floats(op.inputPtr, this.#rows * op.cols);
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
      const panels = at(MATMUL_AXIS) === AXIS_COLS ? at(MATMUL_PANELS) : 1;
      const isMatrix = at(OP_CODE) === OP_MATMUL;
      return {
        layer: at(OP_LAYER) === NONE ? null : at(OP_LAYER),
        role: isMatrix ? at(OP_ROLE) : 0,
        inputPtr: isMatrix ? at(MATMUL_IN) : 0,
        cols: isMatrix ? at(MATMUL_COLS) * panels : 0,
      };
    });
  }
}
