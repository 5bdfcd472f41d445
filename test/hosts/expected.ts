// What the CPU says after a prompt, with the demo pack, and whether a GPU says the same.

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Model, Pack, PlanOptions } from "../../runtime/index";

export const DEMO = "packs/demo/tale.snug";
/** A GPU keeps keys and values in f32. */
export const WHOLE: PlanOptions = { pruning: 0, context: 256, threads: 1, kv: "f32" };
export const PROMPT = "Once upon a time";
export const GREEDY = { temperature: 0, repeatPenalty: 1, maxTokens: 16 };
/**
 * Logits that are no farther apart may change places: activations are rounded to 8 bit, and a last digit that differs can
 * round one the other way, on either side.
 */
const NEAR = 0.1;

export class Expected {
  readonly tokens: readonly number[];
  readonly #pack: Pack;
  readonly #model: Model;

  private constructor(pack: Pack, model: Model, tokens: readonly number[]) {
    this.#pack = pack;
    this.#model = model;
    this.tokens = tokens;
  }

  /** dist: the product's bundles. */
  static async of(dist: string): Promise<Expected> {
    const { open } = (await import(join(dist, "index.js"))) as typeof import("../../runtime/index");
    const pack = await open(DEMO);
    const model = await pack.load(pack.plan(WHOLE));
    return new Expected(pack, model, (await model.generate(PROMPT, GREEDY).result()).tokens);
  }

  /** The same tokens, up to a first one that is nearly as likely as the CPU's. */
  async assertSame(tokens: readonly number[]): Promise<void> {
    assert.equal(tokens.length, this.tokens.length);
    const at = this.tokens.findIndex((token, i) => token !== tokens[i]);
    if (at < 0) return;
    const before = [...this.#model.prompt(PROMPT), ...this.tokens.slice(0, at)];
    let apart = Number.POSITIVE_INFINITY;
    await this.#model.logits(before, (logits, position) => {
      const logit = (of: readonly number[]) => logits[of[at] as number] as number;
      if (position === before.length - 1) apart = logit(this.tokens) - logit(tokens);
    });
    const [own, other] = [this.tokens[at], tokens[at]];
    assert.ok(apart < NEAR, `token ${at} is ${other}, the CPU's ${own} is ${apart.toFixed(3)} ahead`);
  }

  async close(): Promise<void> {
    this.#model.dispose();
    await this.#pack.close();
  }
}
