// Who has room in the model: its slots, each with a state and a table of blocks, and the blocks of the KV cache. A sequence
// that must make room loses what the cache holds of it, and reads it again later; blocks that are full are found again as
// long as their place was not needed. A state is of a whole sequence: of models that have some, states are kept here and
// there (snapshots.ts), and a prompt that begins alike goes on behind one of them.

import { CACHE_BLOCK } from "../assembly/abi";
import { HEADER_HEADS, HEADER_SSM_HEADS } from "../packs/format";
import { type Core, guarded } from "./core";
import { KvPool } from "./kv-pool";
import type { Plan } from "./plan";
import type { Sequence } from "./sequence";
import { Snapshots } from "./snapshots";

export class Residence {
  readonly #core: Core;
  readonly #slots: (Sequence | undefined)[];
  /** null: there is no attention. */
  readonly #pool: KvPool | null;
  /** Can the host see what is kept? */
  readonly #isInCore: boolean;
  /** The states that are kept, in the core behind those of the slots; null: there are none. */
  readonly #snapshots: Snapshots | null;
  /** Can others use a block? Where there is a state, not without one that is kept. */
  readonly #shares: boolean;
  /** How often a sequence had to make room for another one. */
  sentAway = 0;

  constructor(core: Core, { sequences, snapshots, deviceBytes }: Plan) {
    const { exports } = core;
    this.#core = core;
    this.#slots = new Array<Sequence | undefined>(sequences).fill(undefined);
    this.#isInCore = deviceBytes === 0;
    const isPooled = exports.pack_field(HEADER_HEADS) > 0;
    this.#pool = isPooled ? new KvPool(exports.cache_blocks(), CACHE_BLOCK) : null;
    this.#snapshots = snapshots > 0 ? new Snapshots(snapshots) : null;
    this.#shares = isPooled && (exports.pack_field(HEADER_SSM_HEADS) === 0 || snapshots > 0);
  }

  /** Blocks of the KV cache that sequences hold. */
  get heldBlocks(): number {
    return this.#pool?.held ?? 0;
  }

  /** Who has a slot. */
  get holders(): readonly Sequence[] {
    return this.#slots.filter((sequence) => sequence !== undefined);
  }

  /** Gives a sequence a slot; false: all are taken by others that may not be sent away. */
  admit(sequence: Sequence, maySend: (other: Sequence) => boolean): boolean {
    if (sequence.slot !== undefined) return true;
    let slot = this.#slots.indexOf(undefined);
    if (slot < 0) slot = this.#sendAway(sequence, maySend);
    if (slot < 0) return false;
    this.#slots[slot] = sequence;
    sequence.slot = slot;
    sequence.seen = 0;
    return true;
  }

  /** Takes over what others have read of the tokens that come next. */
  adopt(sequence: Sequence): void {
    if (this.#snapshots !== null) this.#adoptState(sequence, this.#snapshots);
    else if (this.#shares && this.#pool !== null) this.#adoptBlocks(sequence, this.#pool);
  }

  /** Takes over the blocks that others have filled. */
  #adoptBlocks(sequence: Sequence, pool: KvPool): void {
    const { tokens, blocks } = sequence;
    while (sequence.seen === blocks.length * CACHE_BLOCK) {
      const next = tokens.slice(sequence.seen, sequence.seen + CACHE_BLOCK);
      const block = next.length === CACHE_BLOCK ? pool.find(blocks.at(-1), next) : undefined;
      if (block === undefined) break;
      this.#append(sequence, block);
      sequence.namedBlocks++;
      sequence.seen += CACHE_BLOCK;
    }
    // The last token is read anyhow, for what comes after it: that writes what is there.
    sequence.seen = Math.min(sequence.seen, tokens.length - 1);
  }

  /** Takes over a state that was kept, and the blocks up to there: all of them, or it is of no use. */
  #adoptState(sequence: Sequence, snapshots: Snapshots): void {
    if (sequence.seen > 0) return;
    const { tokens } = sequence;
    const most = blockStart(tokens.length - 1);
    const blocks = this.#pool === null ? [] : findBlocks(this.#pool, tokens.slice(0, most));
    const found = snapshots.find(tokens, this.#pool === null ? most : blocks.length * CACHE_BLOCK);
    const seen = found?.length ?? 0;
    if (this.#pool !== null) {
      this.#pool.release([...sequence.blocks, ...blocks.splice(seen / CACHE_BLOCK)]);
      sequence.blocks = [];
      for (const block of blocks) this.#append(sequence, block);
      sequence.namedBlocks = blocks.length;
    }
    if (found !== undefined) this.#copyState(this.#slots.length + found.place, sequence.slot as number);
    sequence.seen = seen;
    sequence.partsAt = blockStart(Math.min(snapshots.compare(sequence.number, [...tokens]), tokens.length - 1));
  }

  /** Where a sequence that reads has to stop next, because its state is to be kept there. Infinity: nowhere. */
  stopAt(sequence: Sequence): number {
    return Math.min(...this.#stopsOf(sequence).filter((stop) => stop > sequence.seen));
  }

  /** Where others may part from a sequence: where it did so itself, and at the end of what it was told. */
  #stopsOf({ tokens, partsAt }: Sequence): number[] {
    return this.#snapshots === null ? [] : [partsAt, blockStart(tokens.length - 1)];
  }

  /** What tells the block that a sequence works on from others; undefined: nobody else could use it. */
  workOf({ tokens, seen, blocks }: Sequence): string | undefined {
    const start = blockStart(seen);
    if (!this.#shares || this.#snapshots !== null) return undefined;
    if (tokens.length < start + CACHE_BLOCK || tokens.length - seen === 1) return undefined;
    const before = blocks[start / CACHE_BLOCK - 1] ?? "";
    return `${before}:${tokens.slice(start, start + CACHE_BLOCK).join(",")}`;
  }

  /** Sees to blocks for this many more tokens; false: all are held by others that may not be sent away. */
  makeRoom(sequence: Sequence, rows: number, maySend: (other: Sequence) => boolean): boolean {
    if (this.#pool === null) return true;
    while (sequence.blocks.length * CACHE_BLOCK < sequence.seen + rows) {
      const block = this.#pool.take();
      if (block !== undefined) this.#append(sequence, block);
      else if (this.#sendAway(sequence, maySend) < 0) return false;
    }
    return true;
  }

  /** Tokens were read: blocks that are full by now can be found by others, and the state, where it is to be kept. */
  note(sequence: Sequence): void {
    // What was brought back may be damaged: nobody else goes on behind it.
    if (sequence.isRestored) return;
    if (this.#shares && this.#pool !== null) this.#nameBlocks(sequence, this.#pool);
    if (this.#snapshots !== null) this.#keepState(sequence, this.#snapshots);
  }

  #keepState(sequence: Sequence, snapshots: Snapshots): void {
    const { tokens, seen, slot } = sequence;
    if (!this.#stopsOf(sequence).includes(seen)) return;
    const place = snapshots.take(tokens.slice(0, seen));
    if (place !== undefined) this.#copyState(slot as number, this.#slots.length + place);
  }

  /** Of two blocks that are alike, one is kept. */
  #nameBlocks(sequence: Sequence, pool: KvPool): void {
    const { tokens, blocks } = sequence;
    for (; (sequence.namedBlocks + 1) * CACHE_BLOCK <= sequence.seen; sequence.namedBlocks++) {
      const index = sequence.namedBlocks;
      const start = index * CACHE_BLOCK;
      const own = blocks[index] as number;
      const block = pool.name(own, blocks[index - 1], tokens.slice(start, start + CACHE_BLOCK));
      if (block === own) continue;
      pool.hold(block);
      pool.release([own]);
      blocks[index] = block;
      this.#map(sequence.slot as number, index, block);
    }
  }

  /** Lets the blocks go that were taken for tokens that did not come. */
  trim(sequence: Sequence): void {
    const { blocks, tokens } = sequence;
    this.#pool?.release(blocks.splice(Math.ceil(tokens.length / CACHE_BLOCK)));
  }

  /** What is kept of a sequence; null: nothing, or it cannot be seen. */
  read(sequence: Sequence): Uint8Array | null {
    if (!this.#isInCore || sequence.slot === undefined || sequence.seen === 0) return null;
    const pieces = this.#pieces(sequence);
    const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  /** Brings back what was kept of the first `seen` tokens of a sequence; false: there is no room now, or it is not that. */
  write(sequence: Sequence, seen: number, bytes: Uint8Array, maySend: (other: Sequence) => boolean): boolean {
    if (!this.#isInCore || !this.admit(sequence, maySend) || !this.makeRoom(sequence, seen, maySend)) return false;
    const pieces = this.#pieces(sequence);
    if (pieces.reduce((sum, piece) => sum + piece.length, 0) !== bytes.length) return false;
    let at = 0;
    for (const piece of pieces) {
      piece.set(bytes.subarray(at, at + piece.length));
      at += piece.length;
    }
    sequence.seen = seen;
    sequence.isRestored = true;
    return true;
  }

  /** The memory of a sequence's blocks and of its state. */
  #pieces({ blocks, slot }: Sequence): Uint8Array[] {
    const { exports } = this.#core;
    const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);
    const kv = numbers(exports.kv_parts());
    return [
      ...blocks.flatMap((block) =>
        kv.map((part) => this.#core.bytes(exports.kv_part_ptr(part, block), exports.kv_part_bytes(part))),
      ),
      ...this.#stateOf(slot as number),
    ];
  }

  /** The memory of a state: of a slot, or of a snapshot behind them. */
  #stateOf(entry: number): Uint8Array[] {
    const { exports } = this.#core;
    return Array.from({ length: exports.state_parts() }, (_, part) =>
      this.#core.bytes(exports.state_part_ptr(part, entry), exports.state_part_bytes(part)),
    );
  }

  #copyState(from: number, to: number): void {
    const target = this.#stateOf(to);
    for (const [part, bytes] of this.#stateOf(from).entries()) target[part]?.set(bytes);
  }

  /** A sequence holds nothing any more. */
  leave(sequence: Sequence): void {
    if (sequence.slot !== undefined) this.#slots[sequence.slot] = undefined;
    this.#pool?.release(sequence.blocks);
    sequence.slot = undefined;
    sequence.blocks = [];
    sequence.namedBlocks = 0;
    sequence.partsAt = 0;
    sequence.isRestored = false;
    sequence.seen = 0;
  }

  /** Nobody holds anything, and nothing is found again; sequence and block have the same number. */
  clear(): void {
    for (const sequence of this.#slots) if (sequence !== undefined) this.leave(sequence);
    this.#pool?.clear();
    this.#snapshots?.clear();
    if (this.#pool === null) return;
    const blocks = this.#core.exports.cache_blocks();
    const own = blocks / this.#slots.length;
    for (let block = 0; block < blocks; block++) this.#map(Math.floor(block / own), block % own, block);
  }

  /** Throws where what is held is not what those hold that have a slot. */
  check(): void {
    for (const [slot, sequence] of this.#slots.entries())
      if (sequence !== undefined && sequence.slot !== slot)
        throw new Error(`slot ${slot} has sequence ${sequence.number}, which has slot ${sequence.slot}`);
    this.#pool?.check(this.holders.map(({ blocks }) => blocks));
  }

  #append(sequence: Sequence, block: number): void {
    this.#map(sequence.slot as number, sequence.blocks.length, block);
    sequence.blocks.push(block);
  }

  #map(slot: number, index: number, block: number): void {
    guarded(() => this.#core.check(this.#core.exports.cache_map(slot, index, block)));
  }

  /** Of those that may go, the one goes that was part of a step longest ago. Its slot; -1: none may. */
  #sendAway(sequence: Sequence, maySend: (other: Sequence) => boolean): number {
    const others = this.#slots.filter((other) => other !== undefined && other !== sequence && maySend(other));
    const oldest = (others as Sequence[]).toSorted((a, b) => a.lastStep - b.lastStep)[0];
    const slot = oldest?.slot;
    if (oldest === undefined || slot === undefined) return -1;
    this.leave(oldest);
    this.sentAway++;
    return slot;
  }
}

/** The blocks with the first of these tokens, as far as they are found; holds them. */
function findBlocks(pool: KvPool, tokens: readonly number[]): number[] {
  const blocks: number[] = [];
  for (let start = 0; start + CACHE_BLOCK <= tokens.length; start += CACHE_BLOCK) {
    const block = pool.find(blocks.at(-1), tokens.slice(start, start + CACHE_BLOCK));
    if (block === undefined) break;
    blocks.push(block);
  }
  return blocks;
}

/** The multiple of a block's positions before a position, or at it. */
function blockStart(position: number): number {
  return position - (position % CACHE_BLOCK);
}
