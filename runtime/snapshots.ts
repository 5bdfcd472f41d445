// The states that are kept of prompts, for others that begin alike: behind which tokens each is, and which one goes next.
// Only numbers; the states lie in the core. Nothing waits between finding one and copying it, so it cannot go meanwhile.
//
// A state is of all tokens before it and cannot be cut, so where to keep one is decided before it is read: where a prompt
// goes other ways than one before it, for there the next one may do so too. For this the last prompts are remembered.

/** Prompts that are remembered. */
const PROMPTS_MOST = 16;

/** A state that is kept: its place, and how many tokens it is behind. */
export interface Snapshot {
  readonly place: number;
  readonly length: number;
}

export class Snapshots {
  readonly #places: number;
  /** What the states in use are behind, by their place; the one that was found longest ago comes first. */
  readonly #kept = new Map<number, readonly number[]>();
  /** The last prompts by whose they are, the oldest first. */
  readonly #prompts = new Map<number, readonly number[]>();

  constructor(places: number) {
    this.#places = places;
  }

  /** The state behind the most of these tokens, but `most` of them; undefined: there is none. */
  find(tokens: readonly number[], most: number): Snapshot | undefined {
    let found: Snapshot | undefined;
    for (const [place, kept] of this.#kept) {
      const { length } = kept;
      if (length <= most && length > (found?.length ?? 0) && sharedLength(kept, tokens) === length)
        found = { place, length };
    }
    if (found !== undefined) this.#touch(found.place);
    return found;
  }

  /** The place for the state behind these tokens, which takes that of another; undefined: it is kept already. */
  take(tokens: readonly number[]): number | undefined {
    for (const [place, kept] of this.#kept)
      if (kept.length === tokens.length && sharedLength(kept, tokens) === tokens.length) {
        this.#touch(place);
        return undefined;
      }
    const [oldest = 0] = this.#kept.keys();
    const place = this.#kept.size < this.#places ? this.#kept.size : oldest;
    this.#kept.delete(place);
    this.#kept.set(place, tokens);
    return place;
  }

  /** Remembers a prompt; how many of its tokens it shares, at most, with a prompt of somebody else. */
  compare(owner: number, tokens: readonly number[]): number {
    this.#prompts.delete(owner);
    const shared = [...this.#prompts.values()].map((prompt) => sharedLength(prompt, tokens));
    this.#prompts.set(owner, tokens);
    const [oldest] = this.#prompts.keys();
    if (this.#prompts.size > PROMPTS_MOST) this.#prompts.delete(oldest as number);
    return Math.max(0, ...shared);
  }

  clear(): void {
    this.#kept.clear();
    this.#prompts.clear();
  }

  #touch(place: number): void {
    const kept = this.#kept.get(place) as readonly number[];
    this.#kept.delete(place);
    this.#kept.set(place, kept);
  }
}

/** How many tokens two lists begin alike with. */
function sharedLength(one: readonly number[], other: readonly number[]): number {
  const most = Math.min(one.length, other.length);
  let length = 0;
  while (length < most && one[length] === other[length]) length++;
  return length;
}
