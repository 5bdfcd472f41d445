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
import { HEADER_STACKS, NONE, STACK_BYTES, STACK_LAYER } from "../packs/format";
import { guarded } from "./core";
import { SnugError } from "./errors";
import { writeRows } from "./generation";
import type { Model } from "./model";

/** Sees the activations [rows, cols] that a matrix of this role is about to multiply; valid during the call. */
export type Observe = (role: number, input: Float32Array, cols: number) => void;

interface Op {
  readonly code: number;
  readonly layer: number | null;
  readonly role: number;
  readonly input: number;
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
    if (embed.getUint32(OP_CODE, true) !== OP_EMBED) throw new SnugError("internal", "a program begins with its embedding");
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

  /** Looks up the rows' tokens in the embedding. */
  embed(): void {
    this.#run(0, 1);
  }

  /** Runs layers [first, end) on the stream. */
  layers(first: number, end: number, observe?: Observe): void {
    this.#stretch((op) => op.layer !== null && op.layer >= first && op.layer < end, observe);
  }

  /** Runs what follows the layers: the rows' logits, which score() reads. */
  end(observe?: Observe): void {
    const last = this.#ops.findLastIndex((op) => op.layer !== null);
    this.#stretch((_, index) => index > Math.max(last, 0), observe);
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

  /** The layer of each stack. */
  stackLayers(): number[] {
    const { core } = this.#model;
    return Array.from({ length: core.exports.pack_count(HEADER_STACKS) }, (_, stack) =>
      core.view(core.exports.stack_ptr(stack), STACK_BYTES).getUint32(STACK_LAYER, true),
    );
  }

  #stretch(chosen: (op: Op, index: number) => boolean, observe: Observe | undefined): void {
    const first = this.#ops.findIndex(chosen);
    if (first < 0) return;
    const end = this.#ops.findLastIndex(chosen) + 1;
    if (!observe) {
      this.#run(first, end);
      return;
    }
    let from = first;
    let seen = 0;
    for (let index = first; index < end; index++) {
      const op = this.#ops[index] as Op;
      if (op.code !== OP_MATMUL || op.input === seen) continue;
      this.#run(from, index);
      from = index;
      // Matrices that follow each other on the same input are shown once.
      seen = op.input;
      observe(op.role, this.#model.core.floats(op.input, this.#rows * op.cols), op.cols);
    }
    this.#run(from, end);
  }

  #run(first: number, end: number): void {
    const { core } = this.#model;
    guarded(() => core.check(core.exports.step_ops(first, end)));
  }

  #readProgram(): void {
    const { core } = this.#model;
    this.#ops = Array.from({ length: core.exports.program_length() }, (_, index) => {
      const record = core.view((core.exports.program_ptr() >>> 0) + index * OP_BYTES, OP_BYTES);
      const at = (offset: number) => record.getUint32(offset, true);
      const panels = at(MATMUL_AXIS) === AXIS_COLS ? at(MATMUL_PANELS) : 1;
      return {
        code: at(OP_CODE),
        layer: at(OP_LAYER) === NONE ? null : at(OP_LAYER),
        role: at(OP_ROLE),
        input: at(MATMUL_IN),
        cols: at(MATMUL_COLS) * panels,
      };
    });
  }
}
