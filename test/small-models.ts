// Small models of every family, packed, and what they say: for the tests that compare whole models.

import assert from "node:assert/strict";
import type { UnitSizes } from "../packs/stacks";
import type { Model } from "../runtime/model";
import type { Pack } from "../runtime/pack";
import type { PlanOptions } from "../runtime/plan";
import { random } from "./random";
import type { PackLayout } from "./read-pack";
import { SMALL_CONFIGS } from "./write-checkpoint";
import { rateOf } from "./write-pack";

/** Largest difference over largest magnitude. f32 against f64 over two to eight layers: 1e-6 is what is seen. */
export const BOUND = 2e-5;

export interface Shape {
  name: string;
  config: Record<string, unknown>;
  sizes: Partial<UnitSizes>;
}

const LLAMA3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, rope_theta: 500 };
export const SHAPES: Shape[] = [
  {
    name: "6 heads on 2, heads × dim ≠ width, MLP not a multiple of the unit",
    config: {},
    sizes: { qkChannels: 4, voChannels: 4, mlpChannels: 24 },
  },
  {
    name: "1 KV head, tied, all biases, llama3 RoPE",
    config: {
      ...{ hidden_size: 40, num_attention_heads: 4, num_key_value_heads: 1, head_dim: 20, intermediate_size: 100 },
      ...{ attention_bias: true, mlp_bias: true, tie_word_embeddings: true },
      rope_parameters: { ...LLAMA3, original_max_position_embeddings: 16 },
    },
    sizes: { qkChannels: 2, voChannels: 10, mlpChannels: 16 },
  },
  {
    name: "KV heads = heads, biases of q k v o, three layers",
    config: {
      ...{ hidden_size: 56, num_attention_heads: 3, num_key_value_heads: 3, head_dim: 16, intermediate_size: 72 },
      ...{ attention_bias: true, num_hidden_layers: 3, vocab_size: 130 },
    },
    sizes: { qkChannels: 8, voChannels: 8, mlpChannels: 8 },
  },
  {
    name: "8 heads on 4, biases of the MLP, units as the packer takes them",
    config: {
      ...{ hidden_size: 32, num_attention_heads: 8, num_key_value_heads: 4, head_dim: 32, intermediate_size: 200 },
      ...{ mlp_bias: true, vocab_size: 64 },
    },
    sizes: {},
  },
];

export const FAMILY_SHAPES: Shape[] = [
  {
    name: "qwen2: 5 heads on 1, tied",
    config: SMALL_CONFIGS.qwen2,
    sizes: { qkChannels: 2, voChannels: 8, mlpChannels: 24 },
  },
  {
    name: "mamba2: 3 groups, state 20, tied",
    config: SMALL_CONFIGS.mamba2,
    sizes: { bcChannels: 4, xzChannels: 4 },
  },
  {
    name: "mamba2: 1 group, 5 heads, biases everywhere, 3 taps, dt clamped",
    config: {
      ...{ ...SMALL_CONFIGS.mamba2, hidden_size: 40, num_heads: 5, head_dim: 16, n_groups: 1, state_size: 16 },
      ...{ use_bias: true, conv_kernel: 3, time_step_limit: [0.01, 0.1], num_hidden_layers: 3 },
    },
    sizes: { bcChannels: 2, xzChannels: 8 },
  },
  {
    name: "bamba: both mixers, half of each head rotated",
    config: SMALL_CONFIGS.bamba,
    sizes: { qkChannels: 2, voChannels: 4, mlpChannels: 16, bcChannels: 4, xzChannels: 4 },
  },
  {
    name: "nemotron-h: each layer one of three",
    config: { ...SMALL_CONFIGS["nemotron-h"], head_dim: 16 },
    sizes: { qkChannels: 2, voChannels: 8, mlpChannels: 16, bcChannels: 4, xzChannels: 4 },
  },
];

export const ODD: Shape = {
  name: "odd units, which only f32 can have",
  config: { num_attention_heads: 5, num_key_value_heads: 5, head_dim: 6, hidden_size: 33, intermediate_size: 41 },
  sizes: { qkChannels: 2, voChannels: 1, mlpChannels: 7 },
};

/** Largest difference over largest magnitude. */
export function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  assert.equal(got.length, want.length);
  let most = 0;
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    most = Math.max(most, Math.abs(want[i]));
    const difference = Math.abs(got[i] - want[i]);
    worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(worst, difference);
  }
  return worst / most;
}

/** The logits of all positions. */
export async function logitsOf(model: Model, tokens: readonly number[]): Promise<Float32Array> {
  const out = new Float32Array(tokens.length * model.vocabulary);
  await model.logits(tokens, (logits, position) => out.set(logits, position * model.vocabulary));
  return out;
}

export function randomTokens(count: number, vocabulary: number, seed: number): number[] {
  const { int } = random(seed);
  return Array.from({ length: count }, () => int(vocabulary));
}

/** Loads the first `units` units. */
export async function loadCut(pack: Pack, layout: PackLayout, units: number, options: PlanOptions): Promise<Model> {
  const lengths = layout.units.map(({ length }) => length);
  const plan = pack.plan({ ...options, pruning: rateOf(lengths, units), activations: "f32" });
  assert.equal(plan.keptUnits, units);
  return pack.load(plan);
}
