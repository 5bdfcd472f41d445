// One instance of the core: the only file that touches WebAssembly. Addresses come out unsigned, failures as
// SnugErrors, and views of memory are made anew at each use, because growing the memory detaches them.

import { STATUS_MEMORY, STATUS_OK } from "../assembly/abi";
import { SnugError, statusError } from "./errors";
import type { Host, Thread } from "./host";

/** The core's exports: numbers in, numbers out. A result below 0 is a status where check() is used on it. */
export interface CoreExports {
  pack_prelude_ptr(): number;
  pack_prelude(fileBytes: number): number;
  pack_header_ptr(): number;
  pack_header_bytes(): number;
  pack_header(): number;
  pack_field(field: number): number;
  pack_count(table: number): number;
  pack_info_ptr(): number;
  stack_ptr(stack: number): number;
  tensor_ptr(tensor: number): number;
  cut_kept(stack: number): number;
  plan_shape(
    context: number,
    sequences: number,
    rows: number,
    outputs: number,
    threads: number,
    exact: number,
    device?: number,
    kv?: number,
    snapshots?: number,
  ): number;
  plan_memory(bytes: number): number;
  plan_pruning(rate: number): number;
  plan_place(): number;
  plan_ptr(): number;
  device_bytes(): number;
  load_reads(): number;
  load_read(index: number, piece: number): number;
  load_read_ptr(): number;
  load_verify(index: number): number;
  load_move(index: number, piece: number): number;
  load_finish(): number;
  load_rehearsal(): number;
  narrow_stack(stack: number, units: number): number;
  narrow_apply(): number;
  cache_blocks(): number;
  cache_table(): number;
  cache_map(sequence: number, index: number, block: number): number;
  kv_parts(): number;
  kv_part_ptr(part: number, block: number): number;
  kv_part_bytes(part: number): number;
  state_parts(): number;
  state_part_ptr(part: number, sequence: number): number;
  state_part_bytes(part: number): number;
  program_ptr(): number;
  program_length(): number;
  program_wide(on: boolean): void;
  rows_ptr(): number;
  step(rows: number): number;
  step_begin(rows: number): number;
  step_ops(first: number, end: number): number;
  ceiling(code: number, from: number, items: number): void;
  ceiling_products(): number;
  logits_ptr(): number;
  logits_sampler_ptr(): number;
  logits_configure(
    temperature: number,
    topK: number,
    topP: number,
    minP: number,
    repeatPenalty: number,
    seedLow: number,
    seedHigh: number,
  ): number;
  logits_choose(output: number, historyLength: number): number;
  logits_choose_among(count: number, historyLength: number): number;
  logits_score(output: number, token: number): number;
  logits_best(output: number): number;
  history_ptr(): number;
  text_ptr(): number;
  text_capacity(): number;
  text_encode(bytes: number, first: number, last: number, special: number): number;
  text_consumed(): number;
  text_tokens_ptr(): number;
  text_token_ptr(token: number): number;
  text_token_length(token: number): number;
  status_detail_ptr(): number;
  self_test(rounds: number): number;
  thread_join(): number;
  thread_serve(): number;
  threads_end(): void;
  threads_ready(): number;
  threads_trapped(): void;
}

const PAGE_BYTES = 65536;
const PAGES_MAX = 65536;

export class Core {
  readonly exports: CoreExports;
  readonly #module: WebAssembly.Module;
  readonly #memory: WebAssembly.Memory;
  readonly #name: string;
  readonly #threads: Thread[] = [];

  /**
   * `name`: of the pack, for messages; `shared`: is the module one for memory that threads share? `bytes`: what it will
   * take and never exceed; some engines set aside the most that a memory may grow to. Absent: it grows as it needs.
   */
  constructor(module: WebAssembly.Module, name: string, shared: boolean, bytes?: number) {
    this.#module = module;
    this.#name = name;
    const pages = bytes === undefined ? undefined : Math.ceil(bytes / PAGE_BYTES);
    try {
      this.#memory = new WebAssembly.Memory({ initial: pages ?? 2, maximum: pages ?? PAGES_MAX, shared });
    } catch (cause) {
      if (cause instanceof RangeError) throw statusError(STATUS_MEMORY, bytes ?? 2 * PAGE_BYTES, 0, name);
      throw cause;
    }
    this.exports = instantiate(module, this.#memory);
  }

  /** Starts `count` more threads; they take part in steps as soon as they are there. */
  startThreads(host: Host, count: number): void {
    for (let i = 0; i < count; i++) {
      const thread = host.startThread?.(this.#module, this.#memory);
      if (thread !== undefined) this.#threads.push(thread);
    }
  }

  /** Lets the threads go. */
  endThreads(): void {
    if (this.#threads.length === 0) return;
    this.exports.threads_end();
    for (const thread of this.#threads.splice(0)) thread.end();
  }

  /** What the memory has grown to. */
  get memoryBytes(): number {
    return this.#memory.buffer.byteLength;
  }

  /** Passes a result on, or throws what a negative status means. */
  check(result: number): number {
    if (result >= STATUS_OK) return result;
    const detail = new DataView(this.#memory.buffer, this.exports.status_detail_ptr() >>> 0, 16);
    throw statusError(result, detail.getFloat64(0, true), detail.getFloat64(8, true), this.#name);
  }

  bytes(ptr: number, length: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, ptr >>> 0, length);
  }

  view(ptr: number, length: number): DataView {
    return new DataView(this.#memory.buffer, ptr >>> 0, length);
  }

  floats(ptr: number, count: number): Float32Array {
    return new Float32Array(this.#memory.buffer, ptr >>> 0, count);
  }

  words(ptr: number, count: number): Uint32Array {
    return new Uint32Array(this.#memory.buffer, ptr >>> 0, count);
  }
}

/** An instance over a memory. */
export function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): CoreExports {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  (exports._initialize as (() => void) | undefined)?.(); // sets globals that are no plain constants
  return exports as unknown as CoreExports;
}

/** Runs `call`; a trap inside the core is a bug of ours, and says so. */
export function guarded<T>(call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (cause instanceof WebAssembly.RuntimeError)
      throw new SnugError("internal", `the core trapped (${cause.message}): please report this`, { cause });
    throw cause;
  }
}
