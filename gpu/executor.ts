// Executes steps on a device: walks the program, op by op, over the rows that the core has checked.

import { type Device, GpuError } from "./device";
import { cacheBlocksOf, launchesOf } from "./kernels";
import {
  type Buffer,
  type Capacity,
  FEW_ROWS,
  type Launch,
  type Launches,
  range,
  type StepShape,
  uniform,
  type Window,
  windowOver,
} from "./launch";
import { storageBytes } from "./matmul";
import { Memory } from "./memory";
import { type MatmulOp, type Op, readOps } from "./ops";
import { fuse, fuseCodes, withoutCodes } from "./passes";
import { placesOf, stepBytes, writeStep } from "./step";
import {
  BUFFER_COPY_DST,
  BUFFER_COPY_SRC,
  BUFFER_MAP_READ,
  BUFFER_QUERY_RESOLVE,
  BUFFER_STORAGE,
  BUFFER_UNIFORM,
  MAP_READ,
} from "./usage";

export interface ProgramOptions {
  readonly vocabulary: number;
  readonly capacity: Capacity;
  /** Where the cache's blocks lie, see place(); not needed where there is no attention. */
  readonly table?: Uint32Array;
  /** Leaves the program as it is, an op a dispatch or two: for tests. Default true. */
  readonly fused?: boolean;
}

export interface ExecutorOptions extends ProgramOptions {
  /** OP_BYTES each, of a device plan. */
  readonly records: Uint8Array;
}

interface Recorded {
  readonly position: number;
  readonly commands: GPUCommandBuffer;
  readonly to: GPUBuffer;
}

export interface Candidates {
  readonly ids: readonly number[];
  readonly logits: readonly number[];
  readonly bound: number;
}

/** What a launch is once it can run. */
interface Prepared {
  readonly launch: Launch;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
}

interface PreparedOp {
  readonly few: readonly Prepared[];
  readonly many: readonly Prepared[];
  readonly outputs: boolean;
}

/** Steps that run ahead of the host at most. */
const FEED_MOST = 16;
/** Of them, in one submission; and the first one is short, so that the first token comes soon. */
const BATCHES = [1, 2, 4, 8];
const UNIFORM_ALIGN = 256;
/** Of a row of logits, each looked through by a workgroup. */
const ARGMAX_PARTS = 256;
/** Logits that sampling chooses from, at most. */
const CANDIDATES_MOST = 511;
const FOUND_BYTES = (2 + 2 * CANDIDATES_MOST) * 4;

export class Executor {
  readonly device: Device;
  readonly #capacity: Capacity;
  readonly #vocabulary: number;
  readonly #memory: Memory;
  readonly #step: GPUBuffer;
  readonly #best: GPUBuffer;
  readonly #parts: GPUBuffer;
  readonly #found: GPUBuffer;
  readonly #uniforms: GPUBuffer;
  readonly #compiled: Promise<void>;
  /** For steps of a few rows that are alone in their sequences, of a few rows, and of many. */
  #alone: readonly Prepared[] = [];
  #few: readonly Prepared[] = [];
  #many: readonly PreparedOp[] = [];
  #argmax: readonly Prepared[] = [];
  #feed: readonly Prepared[] = [];
  #candidates: readonly Prepared[] = [];
  #recorded: Recorded | undefined;
  #destroyed = false;
  readonly #logits: number;
  /** As the device has it: of a new buffer, zeros. */
  #table: Uint32Array;

  private constructor(device: Device, options: ProgramOptions, plan: Layout, memory: Memory) {
    const { capacity, vocabulary, table = new Uint32Array() } = options;
    this.device = device;
    this.#capacity = capacity;
    this.#vocabulary = vocabulary;
    this.#memory = memory;
    this.#logits = plan.logits;
    const buffer = (label: string, size: number, usage: number) =>
      device.device.createBuffer({ label: `snug ${label}`, size, usage: usage | BUFFER_COPY_DST });
    this.#table = new Uint32Array(table.length);
    const placesBytes = placesOf(this.#table, capacity.sequences).byteLength;
    this.#step = buffer("step", stepBytes(capacity) + placesBytes, BUFFER_STORAGE);
    this.place(table);
    this.#best = buffer("best", Math.max(capacity.outputs, FEED_MOST) * 4, BUFFER_STORAGE | BUFFER_COPY_SRC);
    this.#parts = buffer("parts", capacity.outputs * ARGMAX_PARTS * 8, BUFFER_STORAGE);
    this.#found = buffer("found", FOUND_BYTES, BUFFER_STORAGE | BUFFER_COPY_SRC);
    const slots = plan.launches.map(({ params }) => Math.ceil(params.byteLength / UNIFORM_ALIGN) * UNIFORM_ALIGN);
    const bytes = slots.reduce((sum, one) => sum + one, UNIFORM_ALIGN);
    this.#uniforms = buffer("uniforms", bytes, BUFFER_UNIFORM);
    this.#compiled = this.#prepare(plan, slots);
    this.#compiled.catch(() => {}); // who needs it awaits it
  }

  /**
   * Takes the memory of a program. Its kernels are compiled meanwhile: compiled() is to be awaited before the first step,
   * uploads need not wait.
   */
  static create(device: Device, { records, ...options }: ExecutorOptions): Promise<Executor> {
    return Executor.of(device, readOps(records, options.vocabulary), options);
  }

  /** As create(), of ops that have been read. */
  static async of(device: Device, ops: readonly Op[], options: ProgramOptions): Promise<Executor> {
    const plan = layOut(device, ops, options);
    const memory = await device.allocate(() => new Memory(device.device, plan.windows, device.bufferBytes));
    try {
      return await device.allocate(() => new Executor(device, options, plan, memory));
    } catch (error) {
      memory.destroy();
      throw error;
    }
  }

  /** Resolves when steps can run. */
  compiled(): Promise<void> {
    return this.#compiled;
  }

  async #prepare(plan: Layout, slots: readonly number[]): Promise<void> {
    const gpu = this.device.device;
    const pipelines = plan.launches.map(({ shader, settings }) => this.device.pipeline(shader, settings));
    const named: Record<Buffer, GPUBuffer> = {
      step: this.#step,
      best: this.#best,
      parts: this.#parts,
      found: this.#found,
    };
    const prepared = new Map<Launch, Prepared>();
    let at = 0;
    for (const [i, launch] of plan.launches.entries()) {
      const pipeline = await (pipelines[i] as Promise<GPUComputePipeline>);
      if (this.#destroyed) return;
      if (launch.params.length > 0) gpu.queue.writeBuffer(this.#uniforms, at, launch.params);
      const entries: GPUBindGroupEntry[] = Object.entries(launch.bindings).map(([binding, what]) => ({
        binding: Number(binding),
        resource: typeof what === "string" ? { buffer: named[what] } : this.#memory.binding(what),
      }));
      if (launch.params.length > 0)
        entries.push({ binding: 0, resource: { buffer: this.#uniforms, offset: at, size: launch.params.byteLength } });
      at += slots[i] as number;
      const group = gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
      prepared.set(launch, { launch, pipeline, group });
    }
    const take = (list: readonly Launch[]) => list.map((launch) => prepared.get(launch) as Prepared);
    this.#alone = plan.few.flatMap(({ alone, few }) => take(alone ?? few));
    this.#few = plan.few.flatMap(({ few }) => take(few));
    this.#many = plan.many.map(({ few, many, outputs }) => ({
      few: outputs ? take(few) : [],
      many: take(many),
      outputs,
    }));
    const [parts, best, feed, ...candidates] = take(plan.choices);
    if (parts === undefined || best === undefined || feed === undefined) return;
    this.#argmax = [parts, best];
    this.#feed = [parts, feed];
    this.#candidates = [parts, ...candidates];
  }

  /** Bytes of the device's memory that were taken. */
  get bytes(): number {
    return this.#memory.bytes;
  }

  /** The addresses of the device's memory that there are buffers for. */
  get ranges(): readonly { start: number; end: number }[] {
    return this.#memory.ranges;
  }

  /** Puts bytes, a multiple of 4, where the plan has them. */
  upload(address: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.device.check();
    this.#memory.write(address, bytes);
  }

  /**
   * Says where the cache's blocks of each sequence lie, from the next step on. table: places, u32
   * [sequences, blocks], as assembly/kv-cache.ts has them.
   */
  place(table: Uint32Array): void {
    if (table.length !== this.#table.length)
      throw new Error(`a table of ${table.length} blocks is another program's, this one's has ${this.#table.length}`);
    if (table.every((place, i) => place === this.#table[i])) return;
    this.#table = table.slice();
    this.device.check();
    const places = placesOf(table, this.#capacity.sequences);
    this.device.device.queue.writeBuffer(this.#step, stepBytes(this.#capacity), places);
  }

  /** Runs a step and leaves it at that: its results are in the cache, or overwritten. */
  run(records: Uint8Array): void {
    const { words, shape } = writeStep(records, this.#capacity);
    this.device.check();
    this.device.device.queue.writeBuffer(this.#step, 0, words);
    this.#submit((encoder) => this.#encode(encoder, shape));
  }

  /** Runs a step; the likeliest token of each row that wants logits. */
  async best(records: Uint8Array): Promise<Uint32Array> {
    const { words, shape } = writeStep(records, this.#capacity);
    this.device.check();
    this.device.device.queue.writeBuffer(this.#step, 0, words);
    return this.#read(shape.outputs * 4, (encoder, to) => {
      this.#encode(encoder, shape);
      this.#dispatch(encoder, this.#argmax, shape);
      encoder.copyBufferToBuffer(this.#best, 0, to, 0, shape.outputs * 4);
    }).then((bytes) => new Uint32Array(bytes));
  }

  /** Runs a step; its logits, f32 [outputs, vocabulary]. */
  async logits(records: Uint8Array): Promise<Float32Array> {
    const { words, shape } = writeStep(records, this.#capacity);
    this.device.check();
    this.device.device.queue.writeBuffer(this.#step, 0, words);
    return this.#readLogits(shape.outputs, (encoder) => this.#encode(encoder, shape));
  }

  /** The logits of the last step. */
  lastLogits(outputs: number): Promise<Float32Array> {
    return this.#readLogits(outputs, () => {});
  }

  async #readLogits(outputs: number, encode: (encoder: GPUCommandEncoder) => void): Promise<Float32Array> {
    const bytes = outputs * this.#vocabulary * 4;
    const read = await this.#read(bytes, (encoder, to) => {
      encode(encoder);
      this.#memory.copy(encoder, this.#logits, to, bytes);
    });
    return new Float32Array(read);
  }

  /**
   * Runs a step; the largest logits of the one row that wants some, at least `least` of them, which is at most 256. All
   * others are below `bound`. null: more of them are alike than there is room for.
   */
  async candidates(records: Uint8Array, least: number): Promise<Candidates | null> {
    const { words, shape } = writeStep(records, this.#capacity);
    this.device.check();
    words[2 * 4 + 2] = Math.min(least, ARGMAX_PARTS);
    this.device.device.queue.writeBuffer(this.#step, 0, words);
    const isAlone = shape.rows === 1 && shape.outputs === 1;
    const recorded = this.#recorded;
    this.#recorded = undefined;
    const isRecorded = isAlone && recorded?.position === shape.position;
    if (!isRecorded) recorded?.to.destroy();
    const now = isRecorded ? recorded : this.#record(shape);
    this.device.device.queue.submit([now.commands]);
    const read = this.#map(now.to, FOUND_BYTES);
    read.catch(() => {}); // awaited below
    // While the device works, the step that probably follows is recorded: nothing of it is known but its position.
    this.#recorded = this.#record({ rows: 1, outputs: 1, sequences: 1, tiles: 1, position: shape.position + 1 });
    const found = await read;
    const [ids, logits] = [new Uint32Array(found), new Float32Array(found)];
    const count = ids[1] as number;
    if (count > CANDIDATES_MOST) return null;
    const every = (of: Uint32Array | Float32Array, first: number) =>
      Array.from({ length: count }, (_, i) => of[first + 2 * i] as number);
    return { ids: every(ids, 2), logits: every(logits, 3), bound: logits[0] as number };
  }

  /** A step that ends with the candidates, ready to be submitted. */
  #record(shape: StepShape): Recorded {
    const gpu = this.device.device;
    const to = gpu.createBuffer({ size: FOUND_BYTES, usage: BUFFER_MAP_READ | BUFFER_COPY_DST });
    const encoder = gpu.createCommandEncoder();
    this.#encode(encoder, shape, this.#candidates);
    encoder.copyBufferToBuffer(this.#found, 0, to, 0, FOUND_BYTES);
    return { position: shape.position, commands: encoder.finish(), to };
  }

  /**
   * From one row on, token after token, each the likeliest after the one before: `count` of them. Steps run ahead of what
   * has been taken, so that nobody waits for the host; whoever leaves early leaves some that were for nothing.
   */
  async *greedy(record: Uint8Array, count: number): AsyncGenerator<number, void> {
    const { words, shape } = writeStep(record, this.#capacity);
    this.device.check();
    const { queue } = this.device.device;
    queue.writeBuffer(this.#step, 0, words);
    const underWay: Promise<ArrayBuffer>[] = [];
    let done = 0;
    for (let batch = 0; ; batch++) {
      while (done < count && underWay.length < 2) {
        const steps = Math.min(BATCHES[Math.min(batch, BATCHES.length - 1)] as number, count - done);
        const first = done;
        // The tokens of a batch begin at the start of the buffer.
        queue.writeBuffer(this.#step, (2 * 4 + 1) * 4, new Uint32Array([0]));
        const read = this.#read(steps * 4, (encoder, to) => {
          for (let i = 0; i < steps; i++) {
            const now = { ...shape, position: shape.position + first + i };
            this.#encode(encoder, now, this.#feed);
          }
          encoder.copyBufferToBuffer(this.#best, 0, to, 0, steps * 4);
        });
        read.catch(() => {}); // awaited below
        underWay.push(read);
        done += steps;
        batch++;
      }
      const next = underWay.shift();
      if (next === undefined) return;
      for (const token of new Uint32Array(await next)) yield token;
    }
  }

  /** Seconds that each launch of a step takes on the device, by its label; wants timestamps. */
  async times(records: Uint8Array): Promise<Map<string, { seconds: number; launches: number }>> {
    const { words, shape } = writeStep(records, this.#capacity);
    const gpu = this.device.device;
    gpu.queue.writeBuffer(this.#step, 0, words);
    const launches = [...this.#launches(shape), ...this.#argmax].filter(({ launch }) => works(launch, shape));
    const times = new Map<string, { seconds: number; launches: number }>();
    const most = 1024; // launches that one set of queries is for
    for (let first = 0; first < launches.length; first += most) {
      const part = launches.slice(first, first + most);
      const queries = gpu.createQuerySet({ type: "timestamp", count: part.length * 2 });
      const resolved = gpu.createBuffer({
        size: part.length * 16,
        usage: BUFFER_QUERY_RESOLVE | BUFFER_COPY_SRC,
      });
      const read = await this.#read(part.length * 16, (encoder, to) => {
        for (const [i, one] of part.entries()) {
          const pass = encoder.beginComputePass({
            timestampWrites: { querySet: queries, beginningOfPassWriteIndex: i * 2, endOfPassWriteIndex: i * 2 + 1 },
          });
          dispatch(pass, one, shape);
          pass.end();
        }
        encoder.resolveQuerySet(queries, 0, part.length * 2, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, to, 0, part.length * 16);
      });
      const stamps = new BigUint64Array(read);
      for (const [i, { launch }] of part.entries()) {
        const seconds = Number((stamps[i * 2 + 1] as bigint) - (stamps[i * 2] as bigint)) / 1e9;
        const before = times.get(launch.label) ?? { seconds: 0, launches: 0 };
        times.set(launch.label, { seconds: before.seconds + seconds, launches: before.launches + 1 });
      }
      queries.destroy();
      resolved.destroy();
    }
    return times;
  }

  /** Bytes of the device's memory. */
  async memory(address: number, bytes: number): Promise<Uint8Array> {
    return new Uint8Array(await this.#read(bytes, (encoder, to) => this.#memory.copy(encoder, address, to, bytes)));
  }

  /** Waits until all that was begun is done. */
  async settled(): Promise<void> {
    await this.device.device.queue.onSubmittedWorkDone();
    this.device.check();
  }

  /** Gives the memory back. */
  destroy(): void {
    this.#destroyed = true;
    this.#recorded?.to.destroy();
    this.#memory.destroy();
    for (const buffer of [this.#step, this.#best, this.#parts, this.#found, this.#uniforms]) buffer.destroy();
  }

  #launches(shape: StepShape): readonly Prepared[] {
    if (shape.rows <= FEW_ROWS) return shape.rows === shape.sequences ? this.#alone : this.#few;
    return this.#many.flatMap(({ few, many, outputs }) => (outputs && shape.outputs <= FEW_ROWS ? few : many));
  }

  #encode(encoder: GPUCommandEncoder, shape: StepShape, then: readonly Prepared[] = []): void {
    this.#dispatch(encoder, [...this.#launches(shape), ...then], shape);
  }

  #dispatch(encoder: GPUCommandEncoder, launches: readonly Prepared[], shape: StepShape): void {
    const pass = encoder.beginComputePass();
    for (const one of launches) if (works(one.launch, shape)) dispatch(pass, one, shape);
    pass.end();
  }

  #submit(encode: (encoder: GPUCommandEncoder) => void): void {
    const encoder = this.device.device.createCommandEncoder();
    encode(encoder);
    this.device.device.queue.submit([encoder.finish()]);
  }

  #read(bytes: number, encode: (encoder: GPUCommandEncoder, to: GPUBuffer) => void): Promise<ArrayBuffer> {
    const size = Math.ceil(bytes / 4) * 4;
    const to = this.device.device.createBuffer({ size, usage: BUFFER_MAP_READ | BUFFER_COPY_DST });
    this.#submit((encoder) => encode(encoder, to));
    return this.#map(to, bytes);
  }

  /** What work that was submitted leaves in a buffer, which is gone then. */
  async #map(to: GPUBuffer, bytes: number): Promise<ArrayBuffer> {
    try {
      await to.mapAsync(MAP_READ).catch((cause: Error) => {
        // Where this executor gives its memory back meanwhile, the device is not to blame.
        if (this.#destroyed) throw new GpuError("lost", "the model was disposed meanwhile", { cause });
        throw this.device.lose(cause);
      });
      this.device.check();
      return to.getMappedRange().slice(0, bytes);
    } finally {
      to.destroy();
    }
  }
}

/** A program as a device runs it. */
interface Layout {
  /** For steps of at most FEW_ROWS rows, and for others. */
  readonly few: readonly Launches[];
  readonly many: readonly Launches[];
  /** Of argmax: the parts, their best for the host, and the same to go on from; none where there is no head. */
  readonly choices: readonly Launch[];
  /** All launches. */
  readonly launches: readonly Launch[];
  readonly windows: readonly Window[];
  /** Where the logits lie. */
  readonly logits: number;
}

function layOut(
  device: Device,
  program: readonly Op[],
  { vocabulary, capacity, table, fused = true }: ProgramOptions,
): Layout {
  const ops = device.packedDot ? program : withoutCodes(program);
  const blocks = cacheBlocksOf(ops) * capacity.sequences;
  if (blocks > 0 && table?.length !== blocks)
    throw new Error(`the cache has ${blocks} blocks, its table ${table?.length}`);
  const common = fused ? fuse(ops, device.bindingBytes) : ops;
  const fits = (op: MatmulOp) => storageBytes(op) <= device.storageBytes;
  const many = common.map((op) => launchesOf(op, capacity));
  const few = fused ? fuseCodes(common, fits).map((op) => launchesOf(op, capacity)) : many;
  const head = ops.findLast((op): op is MatmulOp => op.kind === "matmul" && op.outputs);
  const logits = head?.matrices[0]?.out ?? 0;
  const choices = head === undefined ? [] : choiceLaunches(logits, vocabulary, capacity);
  // A program for many rows has a few of them where only some want logits.
  const used = [
    ...few.flatMap((op) => [...(op.alone ?? []), ...op.few]),
    ...many.flatMap((op) => (op.outputs ? [...op.few, ...op.many] : op.many)),
  ];
  const launches = [...new Set([...used, ...choices])];
  const windows = launches.flatMap(({ bindings }) => Object.values(bindings).filter((one) => typeof one !== "string"));
  for (const { bytes } of windows)
    if (bytes > device.bindingBytes)
      throw new GpuError(
        "unavailable",
        `${bytes} bytes in one binding are more than the ${device.bindingBytes} that there may be: plan fewer rows, or a smaller context`,
      );
  return { few, many, choices, launches, windows, logits };
}

/** The launches that choose from the logits: parts, the best of them, the best to go on from; the candidates' two turns. */
function choiceLaunches(logits: number, vocabulary: number, capacity: Capacity): Launch[] {
  const candidates = (collect: boolean, bindings: Launch["bindings"]): Launch => ({
    label: "candidates",
    shader: "candidates",
    settings: { PARTS: ARGMAX_PARTS, CAPACITY: CANDIDATES_MOST, COLLECT: collect },
    params: collect ? uniform(vocabulary) : uniform(),
    bindings,
    workgroups: () => [collect ? ARGMAX_PARTS : 1, 1, 1],
  });
  const launch = (last: boolean, feed: boolean, bindings: Launch["bindings"]): Launch => ({
    label: "argmax",
    shader: "argmax",
    settings: { PARTS: ARGMAX_PARTS, LAST: last, FEED: feed },
    params: last ? uniform() : uniform(vocabulary),
    bindings,
    workgroups: (step) => [last ? 1 : ARGMAX_PARTS, step.outputs, 1],
  });
  return [
    launch(false, false, { 1: windowOver(range(logits, capacity.outputs * vocabulary * 4)), 2: "parts" }),
    launch(true, false, { 1: "parts", 2: "best" }),
    launch(true, true, { 1: "parts", 2: "best", 3: "step" }),
    candidates(false, { 1: "parts", 2: "found", 3: "step" }),
    candidates(true, { 1: windowOver(range(logits, vocabulary * 4)), 2: "found" }),
  ];
}

function works(launch: Launch, shape: StepShape): boolean {
  return launch.workgroups(shape).every((count) => count > 0);
}

function dispatch(pass: GPUComputePassEncoder, { launch, pipeline, group }: Prepared, shape: StepShape): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...launch.workgroups(shape));
}
