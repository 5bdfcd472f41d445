// How long a compute pass takes. Times are in seconds, medians of several runs after some that do not count.

import { BUFFER_COPY_SRC, BUFFER_QUERY_RESOLVE } from "../../../gpu/usage";
import { median } from "../contest";
import { readBack } from "./read-back";

export interface PassTime {
  /** From the pass's beginning to its end; null where the device has no timestamps. */
  readonly gpu: number | null;
  /** From the submission until the host knows that all is done. */
  readonly wall: number;
}

export interface Runs {
  /** Default 2. */
  readonly warmUps?: number;
  /** Default 7. */
  readonly counted?: number;
}

type Record = (pass: GPUComputePassEncoder) => void;

const STAMPS_BYTES = 2 * BigUint64Array.BYTES_PER_ELEMENT;
const NANOSECOND = 1e-9;

export class PassTimer {
  readonly #device: GPUDevice;
  readonly #stamps: { readonly set: GPUQuerySet; readonly resolved: GPUBuffer } | null = null;

  constructor(device: GPUDevice) {
    this.#device = device;
    if (!device.features.has("timestamp-query")) return;
    const usage = BUFFER_QUERY_RESOLVE | BUFFER_COPY_SRC;
    this.#stamps = {
      set: device.createQuerySet({ type: "timestamp", count: 2 }),
      resolved: device.createBuffer({ size: STAMPS_BYTES, usage }),
    };
  }

  /** Times a pass of what `record` dispatches. */
  async time(record: Record, { warmUps = 2, counted = 7 }: Runs = {}): Promise<PassTime> {
    const times: PassTime[] = [];
    for (let run = 0; run < warmUps + counted; run++) times.push(await this.#run(record));
    const kept = times.slice(warmUps);
    return {
      gpu: this.#stamps && median(kept.map(({ gpu }) => gpu as number)),
      wall: median(kept.map(({ wall }) => wall)),
    };
  }

  async #run(record: Record): Promise<PassTime> {
    const device = this.#device;
    const stamps = this.#stamps;
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass(
      stamps ? { timestampWrites: { querySet: stamps.set, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } } : {},
    );
    record(pass);
    pass.end();
    if (stamps) encoder.resolveQuerySet(stamps.set, 0, 2, stamps.resolved, 0);
    const commands = encoder.finish();
    const started = performance.now();
    device.queue.submit([commands]);
    await device.queue.onSubmittedWorkDone();
    const wall = (performance.now() - started) / 1000;
    if (!stamps) return { gpu: null, wall };
    const [begin, end] = new BigUint64Array(await readBack(device, stamps.resolved, 0, STAMPS_BYTES));
    return { gpu: Number(end - begin) * NANOSECOND, wall };
  }

  dispose(): void {
    this.#stamps?.set.destroy();
    this.#stamps?.resolved.destroy();
  }
}
