// What each family's checkpoint holds: one object per family with the name and the shape of every tensor. Checks,
// packer and tests read this table and nothing else knows a tensor's name. A new family is one more object (and its
// own fields in ModelConfig); rows may depend on the layer, so hybrids fit. How config.json is read: checkpoint.ts.

import { SnugError } from "../runtime/index";
import type { Checkpoint, ModelConfig } from "./checkpoint";
import { FAMILY_LLAMA } from "./format";

export type FamilyName = "llama";

export type Role =
  | ("embedding" | "head" | "finalNorm" | "attentionNorm" | "mlpNorm")
  | ("q" | "k" | "v" | "o" | "qBias" | "kBias" | "vBias" | "oBias")
  | ("gate" | "up" | "down" | "gateBias" | "upBias" | "downBias");

export interface TensorRow {
  readonly role: Role;
  /** In the checkpoint; "{layer}" stands for the layer's number. */
  readonly name: string;
  readonly shape: (config: ModelConfig, layer: number) => number[];
  /** Whether a model of this config has it; always, where absent. */
  readonly when?: (config: ModelConfig, layer: number) => boolean;
}

export interface Family {
  readonly name: FamilyName;
  /** FAMILY_* of packs/format.ts. */
  readonly id: number;
  /** "model_type" and "architectures" of config.json. */
  readonly modelType: string;
  readonly architecture: string;
  /** Which projections carry a bias: the boolean key of config.json that says so, or a fixed answer. */
  readonly biases: {
    readonly attention: string | boolean;
    readonly o: string | boolean;
    readonly mlp: string | boolean;
  };
  /** What transformers assumes where config.json is silent. */
  readonly defaults: {
    readonly context: number;
    readonly normEps: number;
    readonly ropeTheta: number;
    readonly tiedHead: boolean;
    readonly beginToken: number | null;
    readonly endToken: number | null;
  };
  /** Tensors of the model as a whole, then those of every layer. */
  readonly model: readonly TensorRow[];
  readonly layer: readonly TensorRow[];
}

/** One tensor that a checkpoint of this config must hold. `layer` is 0 for those of the model as a whole. */
export interface ExpectedTensor {
  readonly role: Role;
  readonly layer: number;
  readonly name: string;
  readonly shape: readonly number[];
}

const queries = (c: ModelConfig) => c.heads * c.headDim;
const keys = (c: ModelConfig) => c.kvHeads * c.headDim;

const LLAMA: Family = {
  name: "llama",
  id: FAMILY_LLAMA,
  modelType: "llama",
  architecture: "LlamaForCausalLM",
  biases: { attention: "attention_bias", o: "attention_bias", mlp: "mlp_bias" },
  defaults: { context: 2048, normEps: 1e-6, ropeTheta: 10000, tiedHead: false, beginToken: 1, endToken: 2 },
  model: [
    { role: "embedding", name: "model.embed_tokens.weight", shape: (c) => [c.vocabulary, c.width] },
    { role: "head", name: "lm_head.weight", shape: (c) => [c.vocabulary, c.width], when: (c) => !c.tiedHead },
    { role: "finalNorm", name: "model.norm.weight", shape: (c) => [c.width] },
  ],
  layer: [
    { role: "attentionNorm", name: "model.layers.{layer}.input_layernorm.weight", shape: (c) => [c.width] },
    { role: "q", name: "model.layers.{layer}.self_attn.q_proj.weight", shape: (c) => [queries(c), c.width] },
    { role: "k", name: "model.layers.{layer}.self_attn.k_proj.weight", shape: (c) => [keys(c), c.width] },
    { role: "v", name: "model.layers.{layer}.self_attn.v_proj.weight", shape: (c) => [keys(c), c.width] },
    { role: "o", name: "model.layers.{layer}.self_attn.o_proj.weight", shape: (c) => [c.width, queries(c)] },
    { ...bias("qBias", "self_attn.q_proj", queries), when: (c) => c.attentionBias },
    { ...bias("kBias", "self_attn.k_proj", keys), when: (c) => c.attentionBias },
    { ...bias("vBias", "self_attn.v_proj", keys), when: (c) => c.attentionBias },
    { ...bias("oBias", "self_attn.o_proj", (c) => c.width), when: (c) => c.oBias },
    { role: "mlpNorm", name: "model.layers.{layer}.post_attention_layernorm.weight", shape: (c) => [c.width] },
    { role: "gate", name: "model.layers.{layer}.mlp.gate_proj.weight", shape: (c) => [c.mlpWidth, c.width] },
    { role: "up", name: "model.layers.{layer}.mlp.up_proj.weight", shape: (c) => [c.mlpWidth, c.width] },
    { role: "down", name: "model.layers.{layer}.mlp.down_proj.weight", shape: (c) => [c.width, c.mlpWidth] },
    { ...bias("gateBias", "mlp.gate_proj", (c) => c.mlpWidth), when: (c) => c.mlpBias },
    { ...bias("upBias", "mlp.up_proj", (c) => c.mlpWidth), when: (c) => c.mlpBias },
    { ...bias("downBias", "mlp.down_proj", (c) => c.width), when: (c) => c.mlpBias },
  ],
};

export const FAMILIES: readonly Family[] = [LLAMA];

/** The row of a family that a config was read as. */
export function familyOf(config: ModelConfig): Family {
  const family = FAMILIES.find((one) => one.name === config.family);
  if (!family) throw new SnugError("internal", `No family ${config.family}; packs/families.ts lists them.`);
  return family;
}

/** Every tensor that a checkpoint of this config must hold, layer by layer. */
export function* expectedTensors(config: ModelConfig): Generator<ExpectedTensor> {
  const family = familyOf(config);
  for (const row of family.model) if (row.when?.(config, 0) ?? true) yield expected(row, config, 0);
  for (let layer = 0; layer < config.layers; layer++) {
    for (const row of family.layer) if (row.when?.(config, layer) ?? true) yield expected(row, config, layer);
  }
}

/** Name and shape of a tensor, or null where a model of this config has none. */
export function findTensor(config: ModelConfig, role: Role, layer = 0): ExpectedTensor | null {
  const family = familyOf(config);
  const row = [...family.model, ...family.layer].find((one) => one.role === role);
  return row && (row.when?.(config, layer) ?? true) ? expected(row, config, layer) : null;
}

/** A tensor's weights, row-major, in f32. Asking for one that the config excludes is a bug of the caller. */
export async function readTensor(checkpoint: Checkpoint, role: Role, layer = 0): Promise<Float32Array> {
  const { name, shape } = present(checkpoint, role, layer);
  return checkpoint.tensors.read(name, shape);
}

/** As readTensor, or null where the config says that there is none: biases, the head of a tied model. */
export async function readOptionalTensor(checkpoint: Checkpoint, role: Role, layer = 0): Promise<Float32Array | null> {
  return findTensor(checkpoint.config, role, layer) ? readTensor(checkpoint, role, layer) : null;
}

/** Rows first … first + count − 1 of a tensor: for the embedding and the head, which may not fit in memory. */
export async function readTensorRows(
  checkpoint: Checkpoint,
  role: Role,
  layer: number,
  first: number,
  count: number,
): Promise<Float32Array> {
  const { name, shape } = present(checkpoint, role, layer);
  return checkpoint.tensors.readRows(name, first, count, shape);
}

function present(checkpoint: Checkpoint, role: Role, layer: number): ExpectedTensor {
  const found = findTensor(checkpoint.config, role, layer);
  if (!found) throw new SnugError("internal", `A model of this config has no tensor ${role} (layer ${layer}).`);
  return found;
}

function bias(role: Role, projection: string, size: (config: ModelConfig) => number): TensorRow {
  return { role, name: `model.layers.{layer}.${projection}.bias`, shape: (config) => [size(config)] };
}

function expected(row: TensorRow, config: ModelConfig, layer: number): ExpectedTensor {
  return {
    role: row.role,
    layer,
    name: row.name.replace("{layer}", String(layer)),
    shape: row.shape(config, layer),
  };
}
