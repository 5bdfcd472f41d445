// Programs of a pack, run step by step on the CPU's core or on a device: rows of several sequences, any chunks.

import {
  KV_F32,
  OP_BYTES,
  PLAN_BYTES,
  PLAN_DEVICE_BYTES,
  PLAN_READ_BYTES,
  ROW_BYTES,
  ROW_OUTPUT,
  ROW_POSITION,
  ROW_SEQUENCE,
  ROW_TOKEN,
} from "../assembly/abi";
import type { Device } from "../gpu/device";
import { Executor } from "../gpu/executor";
import { HEADER_VOCABULARY, PRELUDE_BYTES } from "../packs/format";
import { Core } from "../runtime/core";
import { tableOf } from "../runtime/gpu";
import type { Host } from "../runtime/host";
import { loadPlan } from "../runtime/load";
import { makePlan } from "../runtime/plan";
import type { Row } from "./case";
import { sourceOf } from "./gpu-test";
import { random } from "./random";

export interface ProgramOptions {
  readonly pruning: number;
  readonly context: number;
  readonly rows: number;
  /** Default 1. */
  readonly sequences?: number;
  readonly activations: "f32" | "int8";
  /** Absent: on the CPU. */
  readonly device?: Device;
  /** Of the device's program. Default true. */
  readonly fused?: boolean;
}

/** A pack, loaded for steps. */
export interface Steps {
  readonly vocabulary: number;
  /** Runs a step; f32 [outputs, vocabulary]. */
  run(rows: readonly Row[]): Promise<Float32Array>;
  end(): void;
}

export async function loadSteps(bytes: Uint8Array, host: Host, options: ProgramOptions): Promise<Steps> {
  const { pruning, context, rows, sequences = 1, activations, device, fused = true } = options;
  const source = sourceOf(bytes, "a fixture");
  const core = new Core(await host.loadModule("core.wasm"), source.name, false);
  const { exports } = core;
  await source.read(0, core.bytes(exports.pack_prelude_ptr(), PRELUDE_BYTES));
  const headerBytes = core.check(exports.pack_prelude(source.size));
  await source.read(PRELUDE_BYTES, core.bytes(exports.pack_header_ptr(), headerBytes));
  core.check(exports.pack_header());
  const isOnGpu = device !== undefined;
  const planned = makePlan(core, { pruning, context, rows, outputs: rows, device: isOnGpu ? "gpu" : "cpu" }, 1);
  core.check(
    exports.plan_shape(context, sequences, rows, rows, 1, activations === "f32" ? 1 : 0, isOnGpu ? 1 : 0, KV_F32),
  );
  core.check(exports.plan_pruning(pruning));
  const view = core.view(exports.plan_ptr(), PLAN_BYTES);
  const plan = {
    ...planned,
    deviceBytes: view.getFloat64(PLAN_DEVICE_BYTES, true),
    readBytes: view.getFloat64(PLAN_READ_BYTES, true),
  };
  const vocabulary = exports.pack_field(HEADER_VOCABULARY) >>> 0;
  let executor: Executor | undefined;
  const begin = async () => {
    const records = core.bytes(exports.program_ptr(), exports.program_length() * OP_BYTES).slice();
    const made = await Executor.create(device as Device, {
      ...{ records, vocabulary, fused, table: tableOf(core) },
      capacity: { rows, outputs: rows, sequences },
    });
    executor = made;
    return (address: number, part: Uint8Array) => made.upload(address, part as Uint8Array<ArrayBuffer>);
  };
  await loadPlan(core, source, host, plan, {}, isOnGpu ? begin : undefined);
  await executor?.compiled();
  return {
    vocabulary,
    async run(step) {
      putRows(core, step);
      if (executor !== undefined) {
        core.check(exports.step_begin(step.length));
        return executor.logits(core.bytes(exports.rows_ptr(), step.length * ROW_BYTES));
      }
      core.check(exports.step(step.length));
      const outputs = step.filter(({ output }) => output).length;
      return core.floats(exports.logits_ptr(), outputs * vocabulary).slice();
    },
    end: () => executor?.destroy(),
  };
}

function putRows(core: Core, rows: readonly Row[]): void {
  const view = core.view(core.exports.rows_ptr(), rows.length * ROW_BYTES);
  for (const [t, { token, position, sequence, output }] of rows.entries()) {
    view.setUint32(t * ROW_BYTES + ROW_TOKEN, token, true);
    view.setUint32(t * ROW_BYTES + ROW_POSITION, position, true);
    view.setUint32(t * ROW_BYTES + ROW_SEQUENCE, sequence, true);
    view.setUint32(t * ROW_BYTES + ROW_OUTPUT, output ? 1 : 0, true);
  }
}

/** Random texts: rows of a sequence, each where the last one ended; every row wants logits, or only the last. */
export class Texts {
  readonly #positions = new Map<number, number>();
  readonly #random;
  readonly #vocabulary: number;

  constructor(vocabulary: number, seed: number) {
    this.#vocabulary = vocabulary;
    this.#random = random(seed);
  }

  next(sequence: number, count: number, outputs: "all" | "last" = "all"): Row[] {
    const position = this.#positions.get(sequence) ?? 0;
    this.#positions.set(sequence, position + count);
    return Array.from({ length: count }, (_, i) => ({
      ...{ token: this.#random.int(this.#vocabulary), position: position + i, sequence },
      output: outputs === "all" || i === count - 1,
    }));
  }

  /** Begins a sequence anew. */
  restart(sequence: number): void {
    this.#positions.delete(sequence);
  }
}
