// What the suite's own fixtures are: test/hosts/gpu/fixtures.ts writes them, INDEX says what there is.

export const INDEX = "index.json";

/** A small pack with random weights. Its file is a fixture; some cuts of it, the whole one first. */
export interface SmallPack {
  readonly name: string;
  readonly file: string;
  readonly family: string;
  readonly weights: "f32" | "q8" | "q4";
  readonly cuts: readonly { readonly units: number; readonly pruning: number }[];
  /** With a tokenizer: generated text comes in pieces. */
  readonly hasText: boolean;
}

/** A checkpoint's pack in f32, and what the reference says of a text. */
export interface Golden {
  readonly name: string;
  readonly file: string;
  /** A fixture: f32 [ids, vocabulary]. */
  readonly logits: string;
  /** Who said so. */
  readonly reference: string;
  readonly ids: readonly number[];
  /** What follows the first `prompt` of the ids, the likeliest each time. */
  readonly prompt: number;
  readonly greedy: readonly number[];
}

export interface GpuFixtures {
  readonly small: readonly SmallPack[];
  readonly goldens: readonly Golden[];
}
