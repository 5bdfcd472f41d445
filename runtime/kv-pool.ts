// The blocks of the KV cache: who holds them, what is in them, and which one is taken next. Only numbers; the keys and
// values lie in the core.
//
// A block that is full has a name: the block before it, and its own tokens. Whoever begins alike holds the same blocks. One
// that nobody holds stays, and is found again, until its place is needed: then the one goes that was let go longest ago.

/** Of the first block. */
const NOTHING_BEFORE = -1;

export class KvPool {
  readonly blockTokens: number;
  /** Of each block. */
  readonly #holders: Uint32Array;
  readonly #names: (string | undefined)[];
  readonly #before: Int32Array;
  /** Named blocks that come right after it. */
  readonly #followers: Uint32Array;
  readonly #named = new Map<string, number>();
  readonly #empty: number[];
  /** Named blocks that nobody holds, in the order in which they were let go. */
  readonly #idle = new Set<number>();

  constructor(blocks: number, blockTokens: number) {
    this.blockTokens = blockTokens;
    this.#holders = new Uint32Array(blocks);
    this.#names = new Array<string | undefined>(blocks).fill(undefined);
    this.#before = new Int32Array(blocks).fill(NOTHING_BEFORE);
    this.#followers = new Uint32Array(blocks);
    this.#empty = Array.from({ length: blocks }, (_, i) => blocks - 1 - i);
  }

  /** Blocks that can be taken. */
  get free(): number {
    return this.#empty.length + this.#idle.size;
  }

  /** Blocks that somebody holds. */
  get held(): number {
    return this.#holders.length - this.free;
  }

  /** The block, of those that are full, with these tokens after the block `before`; undefined at the start. Holds it. */
  find(before: number | undefined, tokens: readonly number[]): number | undefined {
    const block = this.#named.get(nameOf(before, tokens));
    if (block !== undefined) this.hold(block);
    return block;
  }

  /** A block to write to, held once; undefined: all are held. */
  take(): number | undefined {
    const block = this.#empty.pop() ?? this.#forgotten();
    if (block !== undefined) this.#holders[block] = 1;
    return block;
  }

  /**
   * A block is full, and the one before it has a name: from now on others find it. Returns the block that they find, which
   * is another one where that had the name first.
   */
  name(block: number, before: number | undefined, tokens: readonly number[]): number {
    const name = nameOf(before, tokens);
    const first = this.#named.get(name);
    if (first !== undefined) return first;
    this.#named.set(name, block);
    this.#names[block] = name;
    this.#before[block] = before ?? NOTHING_BEFORE;
    if (before !== undefined) this.#followers[before] = this.#of(this.#followers, before) + 1;
    return block;
  }

  hold(block: number): void {
    this.#holders[block] = this.#of(this.#holders, block) + 1;
    this.#idle.delete(block);
  }

  /** Lets blocks of a sequence go. */
  release(blocks: readonly number[]): void {
    // From the last to the first: what others may begin with stays longest.
    for (const block of blocks.toReversed()) {
      const holders = this.#of(this.#holders, block) - 1;
      if (holders < 0) throw new Error(`block ${block} was let go twice`);
      this.#holders[block] = holders;
      if (holders > 0) continue;
      if (this.#names[block] === undefined) this.#empty.push(block);
      else this.#idle.add(block);
    }
  }

  /** Forgets what is in the blocks that nobody holds. */
  clear(): void {
    for (;;) {
      const block = this.#forgotten();
      if (block === undefined) return;
      this.#empty.push(block);
    }
  }

  /** Throws where the books are wrong. chains: the blocks of each of those that hold any. */
  check(chains: readonly (readonly number[])[]): void {
    const count = (blocks: readonly number[]) => {
      const counts = new Uint32Array(this.#holders.length);
      for (const block of blocks) counts[block] = this.#of(counts, block) + 1;
      return counts;
    };
    const holders = count(chains.flat());
    const empty = count(this.#empty);
    const before = [...this.#named.values()].map((block) => this.#of(this.#before, block));
    const followers = count(before.filter((block) => block !== NOTHING_BEFORE));
    for (const [block, name] of this.#names.entries()) {
      const isHeld = this.#of(holders, block) > 0;
      const isNamed = name !== undefined;
      const wrong = Object.entries({
        holders: this.#holders[block] !== holders[block],
        followers: this.#followers[block] !== followers[block],
        empty: empty[block] !== (isHeld || isNamed ? 0 : 1),
        idle: this.#idle.has(block) !== (isNamed && !isHeld),
        name: isNamed && this.#named.get(name) !== block,
      }).flatMap(([what, isWrong]) => (isWrong ? [what] : []));
      if (wrong.length > 0) throw new Error(`the books of block ${block} are wrong: ${wrong.join(", ")}`);
    }
    const names = this.#names.filter((name) => name !== undefined).length;
    if (names !== this.#named.size) throw new Error(`${this.#named.size} blocks can be found, ${names} have a name`);
  }

  /** Of the idle blocks, the first that no named one comes after. There is one as long as any is idle. */
  #forgotten(): number | undefined {
    for (const block of this.#idle) {
      if (this.#of(this.#followers, block) > 0) continue;
      this.#idle.delete(block);
      this.#named.delete(this.#names[block] as string);
      this.#names[block] = undefined;
      const before = this.#of(this.#before, block);
      if (before !== NOTHING_BEFORE) this.#followers[before] = this.#of(this.#followers, before) - 1;
      this.#before[block] = NOTHING_BEFORE;
      return block;
    }
    return undefined;
  }

  #of(numbers: Uint32Array | Int32Array, block: number): number {
    return numbers[block] as number;
  }
}

function nameOf(before: number | undefined, tokens: readonly number[]): string {
  return `${before ?? NOTHING_BEFORE}:${tokens.join(",")}`;
}
