// Random checkpoints for tests, written in the layout of a hub: every family, any head ratio, awkward sizes, biases,
// tied or not, one file or shards, each dtype. Same arguments, same bytes. It also writes bare safetensors files, broken ones too.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseConfig } from "../packs/checkpoint";
import { type ExpectedTensor, expectedTensors, FAMILIES, type FamilyName } from "../packs/families/index";
import type { JsonObject } from "../packs/safetensors";
import type { ErrorCode, SnugError } from "../runtime/errors";

export type FloatType = "F32" | "F16" | "BF16";

export interface StoredTensor {
  dtype: FloatType;
  shape: readonly number[];
  /** After rounding to the dtype: what a reader must find. */
  values: Float32Array;
}

export interface WriteOptions {
  /** Of every tensor, or chosen by name. */
  dtype?: FloatType | ((name: string) => FloatType);
  /** 1 = model.safetensors; more = shards and an index. */
  shards?: number;
  /** Further files by name: strings as they are, objects as JSON. */
  files?: Record<string, string | JsonObject>;
}

export interface WrittenCheckpoint {
  folder: string;
  /** As in config.json. */
  config: JsonObject;
  tensors: Map<string, StoredTensor>;
}

/**
 * config.json of each family where nothing is overridden: heads × head_dim ≠ hidden_size wherever the family may, and
 * hardly a size is a power of two. The layers of the hybrids are of every kind.
 */
export const SMALL_CONFIGS: Readonly<Record<FamilyName, JsonObject>> = {
  llama: {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: 48,
    intermediate_size: 80,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 12,
    vocab_size: 97,
    max_position_embeddings: 128,
    hidden_act: "silu",
    rms_norm_eps: 1e-5,
    rope_parameters: { rope_type: "default", rope_theta: 10000 },
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: false,
    bos_token_id: 0,
    eos_token_id: 0,
  },
  qwen2: {
    architectures: ["Qwen2ForCausalLM"],
    model_type: "qwen2",
    hidden_size: 40,
    intermediate_size: 88,
    num_hidden_layers: 2,
    num_attention_heads: 5,
    num_key_value_heads: 1,
    vocab_size: 97,
    max_position_embeddings: 128,
    hidden_act: "silu",
    rms_norm_eps: 1e-6,
    rope_theta: 1000000,
    use_sliding_window: false,
    sliding_window: 64,
    max_window_layers: 1,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 0,
  },
  mamba2: {
    architectures: ["Mamba2ForCausalLM"],
    model_type: "mamba2",
    hidden_size: 48,
    num_hidden_layers: 2,
    num_heads: 6,
    head_dim: 16,
    expand: 2,
    n_groups: 3,
    state_size: 20,
    conv_kernel: 4,
    vocab_size: 97,
    hidden_act: "silu",
    layer_norm_epsilon: 1e-5,
    time_step_limit: [0, { __float__: "Infinity" }],
    use_bias: false,
    use_conv_bias: true,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 0,
  },
  bamba: {
    architectures: ["BambaForCausalLM"],
    model_type: "bamba",
    hidden_size: 48,
    intermediate_size: 72,
    num_hidden_layers: 3,
    attn_layer_indices: [1],
    num_attention_heads: 4,
    num_key_value_heads: 2,
    mamba_n_heads: 8,
    mamba_d_head: "auto",
    mamba_expand: 2,
    mamba_n_groups: 2,
    mamba_d_state: 24,
    mamba_d_conv: 3,
    mamba_conv_bias: true,
    mamba_proj_bias: false,
    vocab_size: 97,
    max_position_embeddings: 128,
    hidden_act: "silu",
    rms_norm_eps: 1e-5,
    rope_parameters: { rope_type: "default", rope_theta: 10000, partial_rotary_factor: 0.5 },
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: false,
    bos_token_id: 0,
    eos_token_id: 0,
  },
  "nemotron-h": {
    architectures: ["NemotronHForCausalLM"],
    model_type: "nemotron_h",
    hidden_size: 48,
    intermediate_size: 104,
    layers_block_type: ["linear_attention", "mlp", "full_attention", "mlp", "linear_attention"],
    num_attention_heads: 3,
    num_key_value_heads: 1,
    head_dim: 20,
    mamba_num_heads: 6,
    mamba_head_dim: 12,
    n_groups: 2,
    ssm_state_size: 28,
    conv_kernel: 4,
    vocab_size: 97,
    max_position_embeddings: 128,
    mlp_hidden_act: "relu2",
    mamba_hidden_act: "silu",
    layer_norm_epsilon: 1e-5,
    time_step_limit: [0, { __float__: "Infinity" }],
    use_bias: false,
    use_conv_bias: true,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: false,
    bos_token_id: 0,
    eos_token_id: 0,
  },
};

/**
 * Writes a checkpoint with random weights: matrices keep the size of what flows through them, norms are near 1.
 * `overrides` are keys of config.json, undefined removes one; they are laid over the small config of the family that
 * their "architectures" name, or of Llama. The folder is made if need be.
 */
export function writeCheckpoint(
  folder: string,
  overrides: JsonObject = {},
  seed = 1,
  options: WriteOptions = {},
): WrittenCheckpoint {
  const [architecture] = (overrides.architectures as string[] | undefined) ?? ["LlamaForCausalLM"];
  const family = FAMILIES.find((one) => one.architecture === architecture);
  const config: JsonObject = JSON.parse(JSON.stringify({ ...(family && SMALL_CONFIGS[family.name]), ...overrides }));
  const { dtype = "BF16", shards = 1, files = {} } = options;
  const normal = normals(seed);
  const tensors = new Map<string, StoredTensor>();
  for (const expected of expectedTensors(parseConfig(config))) {
    const [name] = expected.names;
    const stored = typeof dtype === "string" ? dtype : dtype(name);
    const values = randomWeights(expected, normal).map((value) => encode(value, stored).value);
    tensors.set(name, { dtype: stored, shape: expected.shape, values });
  }
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(config, null, 2));
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  if (shards === 1) writeSafetensors(join(folder, "model.safetensors"), tensors);
  else writeShards(folder, tensors, shards);
  return { folder, config, tensors };
}

/** Writes one safetensors file; the tensors lie in the order of the map. */
export function writeSafetensors(path: string, tensors: Map<string, StoredTensor>): void {
  const header: JsonObject = { __metadata__: { format: "pt" } };
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const [name, { dtype, shape, values }] of tensors) {
    const part = new Uint8Array(values.length * (dtype === "F32" ? 4 : 2));
    const view = new DataView(part.buffer);
    values.forEach((value, i) => {
      const { bits } = encode(value, dtype);
      if (dtype === "F32") view.setUint32(i * 4, bits, true);
      else view.setUint16(i * 2, bits, true);
    });
    header[name] = { dtype, shape, data_offsets: [at, at + part.length] };
    parts.push(part);
    at += part.length;
  }
  writeRawSafetensors(path, header, Buffer.concat(parts));
}

/** Writes a header, right or wrong (a string is taken as it is), and data after it. */
export function writeRawSafetensors(path: string, header: JsonObject | string, data: Uint8Array): void {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, data]));
}

/** Changes keys of a JSON file of a checkpoint; undefined removes one. */
export function patchJson(folder: string, file: string, changes: JsonObject): void {
  const path = join(folder, file);
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...changes }));
}

/** A new folder that goes when the test (its context is the argument) ends. */
export function scratchFolder(context: { after(action: () => void): void }): string {
  const folder = mkdtempSync(join(tmpdir(), "snug-test-"));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** For assert.throws and assert.rejects: a SnugError of this code whose message has all these words. */
export function says(code: ErrorCode, ...words: string[]): (error: SnugError) => boolean {
  return (error) => {
    assert.equal(error.name, "SnugError", String(error.stack));
    assert.equal(error.code, code, error.message);
    for (const word of words) assert.ok(error.message.includes(word), `"${error.message}" should say "${word}"`);
    return true;
  };
}

/** The bits of a number in a dtype, ties to even, and the number that they stand for. */
export function encode(value: number, dtype: FloatType): { bits: number; value: number } {
  if (dtype === "F16") return encodeF16(value);
  const words = new Uint32Array(Float32Array.of(value).buffer);
  if (dtype === "F32") return { bits: words[0], value: Math.fround(value) };
  const bits = Number.isNaN(value) ? 0x7fc0 : ((words[0] + 0x7fff + ((words[0] >>> 16) & 1)) >>> 16) & 0xffff;
  words[0] = bits << 16;
  return { bits, value: new Float32Array(words.buffer)[0] };
}

function encodeF16(value: number): { bits: number; value: number } {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return { bits: 0x7e00, value };
  if (size >= 65520) return { bits: sign | 0x7c00, value: sign ? -Infinity : Infinity };
  const exponent = Math.max(-14, Math.floor(Math.log2(size))); // −14: subnormals share the spacing of the smallest normals
  const steps = roundToEven(size / 2 ** (exponent - 10));
  const bits = sign | (steps < 1024 ? steps : ((exponent + 15) << 10) + (steps - 1024));
  return { bits, value: (sign ? -1 : 1) * steps * 2 ** (exponent - 10) };
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

function writeShards(folder: string, tensors: Map<string, StoredTensor>, shards: number): void {
  const names = [...tensors.keys()];
  const perShard = Math.ceil(names.length / shards);
  const weightMap: Record<string, string> = {};
  for (let shard = 0; shard < shards; shard++) {
    const five = (n: number) => String(n).padStart(5, "0");
    const file = `model-${five(shard + 1)}-of-${five(shards)}.safetensors`;
    const part = names.slice(shard * perShard, (shard + 1) * perShard);
    writeSafetensors(join(folder, file), new Map([...tensors].filter(([name]) => part.includes(name))));
    for (const name of part) weightMap[name] = file;
  }
  writeFileSync(join(folder, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: weightMap }));
}

function randomWeights({ role, shape }: ExpectedTensor, normal: () => number): Float32Array {
  const values = new Float32Array(shape.reduce((count, size) => count * size, 1));
  if (role === "aLog") return values.map(() => Math.log(1 + 15 * share(normal())));
  if (role === "dtBias") return values.map(() => softplusOf(0.001 * 200 ** share(normal())));
  const near1 = role.endsWith("Norm") || role === "d";
  const columns = role === "conv" ? shape[2] : role === "embedding" ? 1 : shape[1];
  const spread = near1 || role.endsWith("Bias") ? 0.1 : columns ** -0.5;
  return values.map(() => (near1 ? 1 : 0) + spread * normal());
}

/** From 0 to 1, about evenly, of standard normal numbers. */
function share(normal: number): number {
  return 1 / (1 + Math.exp(-1.7 * normal));
}

/** What softplus makes this of. */
function softplusOf(value: number): number {
  return Math.log(Math.expm1(value));
}

/** Standard normal numbers from a seed: xorshift32 and Box–Muller. */
function normals(seed: number): () => number {
  let state = (seed * 2654435761) >>> 0 || 1;
  const uniform = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 0.5) / 2 ** 32;
  };
  for (let i = 0; i < 8; i++) uniform();
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
