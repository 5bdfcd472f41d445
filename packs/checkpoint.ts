// A checkpoint folder as a model hub lays it out: config.json read into one plain description, and every tensor that
// the description needs checked for presence, shape and dtype before any weight is read. What snug cannot run is
// refused here, with the key and the value. Names and shapes: families.ts. Bytes: safetensors.ts. Tokenizer, chat
// template and generation settings are handed on as they are.

import { stat } from "node:fs/promises";
import { SnugError } from "../runtime/index";
import { expectedTensors, FAMILIES, type Family, type FamilyName, familyOf, findTensor } from "./families";
import { isObject, type JsonObject, kindOf, openTensors, readJson, readText, type Tensors } from "./safetensors";

const SIZE_MAX = 2 ** 24; // of any one dimension: keeps products of two exact and tables small
const CONTEXT_MAX = 2 ** 31 - 1;
const COMPARE_VALUES = 2 ** 20; // weights compared at once when a tied head is stored twice

/** The shape of a model, normalised over families and over generations of config.json. */
export interface ModelConfig {
  readonly family: FamilyName;
  readonly layers: number;
  /** Of the residual stream. */
  readonly width: number;
  readonly vocabulary: number;
  /** Most positions the model was made for. */
  readonly context: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** Even; heads × headDim need not equal width. */
  readonly headDim: number;
  readonly normEps: number;
  readonly mlpWidth: number;
  /** The head is the embedding. */
  readonly tiedHead: boolean;
  /** Biases of q, k and v; of o; of gate, up and down. */
  readonly attentionBias: boolean;
  readonly oBias: boolean;
  readonly mlpBias: boolean;
  /** [headDim / 2] angle per position of pair (i, i + headDim / 2), radians, all scaling folded in; f32 values. */
  readonly ropeInverseFrequencies: Float64Array;
  /** "bos_token_id". Whether a prompt starts with it is the tokenizer's to say. */
  readonly beginToken: number | null;
  /** "eos_token_id" of config.json, then those that only generation_config.json lists. */
  readonly endTokens: readonly number[];
}

export interface Checkpoint {
  readonly folder: string;
  readonly config: ModelConfig;
  readonly tensors: Tensors;
  /** tokenizer.json, tokenizer_config.json, generation_config.json: parsed, not interpreted; null where absent. */
  readonly tokenizer: JsonObject | null;
  readonly tokenizerConfig: JsonObject | null;
  readonly generationConfig: JsonObject | null;
  /** Jinja source: chat_template.jinja, else "chat_template" of tokenizer_config.json, else null. */
  readonly chatTemplate: string | null;
  /** Closes the weight files. */
  close(): Promise<void>;
}

/** Opens a folder and checks all but the weights' values, which are checked as they are read. Close it when done. */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  await checkFolder(folder);
  const raw = await readJson(folder, "config.json");
  if (!raw) throw bad(`${folder}: expected config.json, found none. Give the folder that holds the downloaded model.`);
  const generationConfig = await readJson(folder, "generation_config.json");
  const config = parseConfig(raw, generationConfig);
  const tokenizer = await readJson(folder, "tokenizer.json");
  const tokenizerConfig = await readJson(folder, "tokenizer_config.json");
  const chatTemplate = (await readText(folder, "chat_template.jinja")) ?? templateOf(tokenizerConfig);
  const tensors = await openTensors(folder);
  try {
    checkTensors(config, tensors);
    if (config.tiedHead) await checkTiedHead(config, tensors);
  } catch (error) {
    await tensors.close();
    throw error;
  }
  const close = () => tensors.close();
  return { folder, config, tensors, tokenizer, tokenizerConfig, generationConfig, chatTemplate, close };
}

/** Reads the content of config.json (and the end tokens of generation_config.json); refuses what cannot be run. */
export function parseConfig(raw: JsonObject, generation: JsonObject | null = null): ModelConfig {
  const family = findFamily(raw);
  refuseUnsupported(raw);
  const width = size(raw, "hidden_size");
  const heads = size(raw, "num_attention_heads");
  const kvHeads = size(raw, "num_key_value_heads", heads);
  if (heads % kvHeads !== 0) {
    throw contradiction(`"num_attention_heads" ${heads} is not a multiple of "num_key_value_heads" ${kvHeads}`);
  }
  if (raw.head_dim == null && width % heads !== 0) {
    throw contradiction(`"hidden_size" ${width} is not a multiple of "num_attention_heads" ${heads}`);
  }
  const headDim = size(raw, "head_dim", width / heads);
  if (headDim % 2 !== 0) throw contradiction(`the head dimension ${headDim} is odd, so it has no rotary pairs`);
  const vocabulary = size(raw, "vocab_size");
  const { defaults, biases } = family;
  return {
    family: family.name,
    layers: size(raw, "num_hidden_layers"),
    width,
    vocabulary,
    context: size(raw, "max_position_embeddings", defaults.context, CONTEXT_MAX),
    heads,
    kvHeads,
    headDim,
    normEps: positive(raw, "rms_norm_eps", defaults.normEps),
    mlpWidth: size(raw, "intermediate_size"),
    tiedHead: flag(raw, "tie_word_embeddings", defaults.tiedHead),
    attentionBias: biasFlag(raw, biases.attention),
    oBias: biasFlag(raw, biases.o),
    mlpBias: biasFlag(raw, biases.mlp),
    ropeInverseFrequencies: inverseFrequencies(raw, headDim, defaults.ropeTheta),
    beginToken: tokens(raw, "config.json", "bos_token_id", vocabulary, defaults.beginToken)[0] ?? null,
    endTokens: [
      ...new Set([
        ...tokens(raw, "config.json", "eos_token_id", vocabulary, defaults.endToken),
        ...tokens(generation ?? {}, "generation_config.json", "eos_token_id", vocabulary, null),
      ]),
    ],
  };
}

// What is refused

async function checkFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch((error) => {
    const cause = error.code === "ENOENT" ? "it does not exist" : error.message;
    throw new SnugError("source", `Cannot open the checkpoint ${folder}: ${cause}. Check the path.`, { cause: error });
  });
  if (!found.isDirectory()) {
    throw new SnugError(
      "source",
      `Cannot open the checkpoint ${folder}: expected a folder, found a file. Give the folder that holds config.json.`,
    );
  }
}

function findFamily(raw: JsonObject): Family {
  const { architectures, model_type: modelType } = raw;
  const architecture = Array.isArray(architectures) ? architectures[0] : undefined;
  const family = FAMILIES.find((one) =>
    architecture === undefined ? one.modelType === modelType : one.architecture === architecture,
  );
  if (family && (modelType === undefined || modelType === family.modelType)) return family;
  const supported = FAMILIES.map((one) => `${one.architecture} (model_type "${one.modelType}")`).join(", ");
  throw unsupported(
    `"architectures" is ${kindOf(architectures)} and "model_type" ${kindOf(modelType)}; supported: ${supported}`,
  );
}

function refuseUnsupported(raw: JsonObject): void {
  const activation = raw.hidden_act ?? "silu";
  if (activation !== "silu" && activation !== "swish") {
    throw unsupported(`"hidden_act" is ${kindOf(activation)}; supported: "silu"`);
  }
  const unwanted: [key: string, meaning: string][] = [
    ["quantization_config", "the weights are quantized already; take the original checkpoint"],
    ["compression_config", "the weights are quantized already; take the original checkpoint"],
    ["num_local_experts", "mixtures of experts are not supported"],
    ["num_experts", "mixtures of experts are not supported"],
    ["n_routed_experts", "mixtures of experts are not supported"],
    ["num_experts_per_tok", "mixtures of experts are not supported"],
    ["moe_intermediate_size", "mixtures of experts are not supported"],
  ];
  for (const [key, meaning] of unwanted) {
    if (raw[key]) throw unsupported(`"${key}" is ${kindOf(raw[key])}: ${meaning}`);
  }
  if (raw.sliding_window && raw.use_sliding_window !== false) {
    throw unsupported(`"sliding_window" is ${kindOf(raw.sliding_window)}; supported: attention over the whole context`);
  }
  const types = raw.layer_types ?? [];
  const other = Array.isArray(types) ? types.find((type) => type !== "full_attention") : types;
  if (other !== undefined) throw unsupported(`"layer_types" has ${kindOf(other)}; supported: "full_attention"`);
  if (isObject(raw.pruned_heads) && Object.keys(raw.pruned_heads).length > 0) {
    throw unsupported(`"pruned_heads" is ${kindOf(raw.pruned_heads)}; supported: layers of equal size`);
  }
}

function checkTensors(config: ModelConfig, tensors: Tensors): void {
  if (!config.tiedHead && !tensors.entries.has(headName(config))) {
    throw bad(
      `Tensor "${headName(config)}" is missing. If the head of this model is its embedding, config.json must say ` +
        '"tie_word_embeddings": true; otherwise download the checkpoint again.',
    );
  }
  for (const { name, shape } of expectedTensors(config)) tensors.expect(name, shape);
  for (const row of familyOf(config).layer) {
    for (let layer = 0; layer < config.layers; layer++) {
      const name = row.name.replace("{layer}", String(layer));
      if (row.when?.(config, layer) === false && tensors.entries.has(name)) {
        throw bad(
          `Tensor "${name}" is in the weights, but config.json describes a model without it. Correct the keys ` +
            'that end in "_bias", or take config.json and weights from one checkpoint.',
        );
      }
    }
  }
}

/** Some checkpoints store a tied head a second time: the copy must be one. */
async function checkTiedHead(config: ModelConfig, tensors: Tensors): Promise<void> {
  const embedding = findTensor(config, "embedding");
  const name = headName(config);
  if (!embedding || !tensors.entries.has(name)) return;
  const rows = Math.max(1, Math.floor(COMPARE_VALUES / config.width));
  for (let first = 0; first < config.vocabulary; first += rows) {
    const count = Math.min(rows, config.vocabulary - first);
    const a = await tensors.readRows(embedding.name, first, count, embedding.shape);
    const b = await tensors.readRows(name, first, count, embedding.shape);
    const different = a.findIndex((value, i) => value !== b[i]);
    if (different >= 0) {
      throw bad(
        `config.json says "tie_word_embeddings": true, but "${name}" differs from "${embedding.name}" in row ` +
          `${first + Math.floor(different / config.width)}. Set it to false, or remove "${name}".`,
      );
    }
  }
}

function headName(config: ModelConfig): string {
  return findTensor({ ...config, tiedHead: false }, "head")?.name ?? "";
}

// Rotary angles

/** In f32 at every step, as transformers computes them, so that the results are its very numbers. */
function inverseFrequencies(raw: JsonObject, headDim: number, defaultTheta: number): Float64Array {
  const { key, scaling, type } = ropeScaling(raw);
  const f32 = Math.fround;
  const theta = positive(scaling.rope_theta == null ? raw : scaling, "rope_theta", defaultTheta);
  const angles = new Float64Array(headDim / 2);
  for (let i = 0; i < angles.length; i++) angles[i] = f32(1 / f32(f32(theta) ** f32((2 * i) / headDim)));
  if (type === "default") return angles;

  const factor = positive(scaling, "factor", undefined, key);
  if (type === "linear") return angles.map((angle) => f32(angle / f32(factor)));

  const low = positive(scaling, "low_freq_factor", undefined, key);
  const high = positive(scaling, "high_freq_factor", undefined, key);
  const context = size(scaling, "original_max_position_embeddings", undefined, CONTEXT_MAX, key);
  if (high <= low) throw contradiction(`"${key}": "high_freq_factor" ${high} is not above "low_freq_factor" ${low}`);
  return angles.map((angle) => {
    const wavelength = f32(f32(2 * Math.PI) / angle);
    if (wavelength < f32(context / high)) return angle;
    const slow = f32(angle / f32(factor));
    if (wavelength > f32(context / low)) return slow;
    const smooth = f32(f32(f32(context / wavelength) - f32(low)) / f32(high - low));
    return f32(f32(f32(f32(1 - smooth) * angle) / f32(factor)) + f32(smooth * angle));
  });
}

/** "rope_parameters" of newer files, "rope_scaling" of older ones. */
function ropeScaling(raw: JsonObject): { key: string; scaling: JsonObject; type: string } {
  const key = raw.rope_parameters != null ? "rope_parameters" : "rope_scaling";
  const scaling = raw[key] ?? {};
  if (!isObject(scaling)) throw contradiction(`"${key}" is ${kindOf(scaling)}, expected an object`);
  const type = scaling.rope_type ?? scaling.type ?? "default";
  const nested = Object.keys(scaling).find((inner) => isObject(scaling[inner]));
  if (nested) throw unsupported(`"${key}" has settings of its own for "${nested}"; supported: one for all layers`);
  if (type !== "default" && type !== "linear" && type !== "llama3") {
    throw unsupported(`"${key}" is of type ${kindOf(type)}; supported: "default", "linear", "llama3"`);
  }
  const older = raw.rope_scaling;
  if (key === "rope_parameters" && isObject(older) && (older.rope_type ?? older.type ?? "default") !== type) {
    throw contradiction(`"rope_parameters" and "rope_scaling" are of different types; remove the wrong one`);
  }
  const partial = scaling.partial_rotary_factor ?? raw.partial_rotary_factor ?? 1;
  if (partial !== 1) throw unsupported(`"partial_rotary_factor" is ${kindOf(partial)}; supported: 1`);
  return { key, scaling, type };
}

// Values of config.json; `within` names the object they are in

function size(raw: JsonObject, key: string, fallback?: number, most = SIZE_MAX, within?: string): number {
  const value = raw[key] ?? fallback;
  if (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most) return value as number;
  throw contradiction(`${path(key, within)} is ${kindOf(value)}, expected a whole number from 1 to ${most}`);
}

function positive(raw: JsonObject, key: string, fallback?: number, within?: string): number {
  const value = raw[key] ?? fallback;
  if (typeof value === "number" && Math.fround(value) > 0 && Math.fround(value) < Infinity) return value;
  throw contradiction(`${path(key, within)} is ${kindOf(value)}, expected a number above 0`);
}

function flag(raw: JsonObject, key: string, fallback: boolean): boolean {
  const value = raw[key] ?? fallback;
  if (typeof value === "boolean") return value;
  throw contradiction(`"${key}" is ${kindOf(value)}, expected true or false`);
}

function biasFlag(raw: JsonObject, rule: string | boolean): boolean {
  return typeof rule === "boolean" ? rule : flag(raw, rule, false);
}

/** One id, several, or (null) none. A default that this vocabulary has no room for is none. */
function tokens(raw: JsonObject, file: string, key: string, vocabulary: number, fallback: number | null): number[] {
  const value = raw[key];
  if (value === undefined) return fallback !== null && fallback < vocabulary ? [fallback] : [];
  const ids: unknown[] = Array.isArray(value) ? value : value === null ? [] : [value];
  const wrong = ids.find((id) => !Number.isSafeInteger(id) || (id as number) < 0 || (id as number) >= vocabulary);
  if (wrong === undefined) return ids as number[];
  throw bad(`${file}: "${key}" has ${kindOf(wrong)}, expected token ids from 0 to ${vocabulary - 1}. ${CORRECT}`);
}

function templateOf(tokenizerConfig: JsonObject | null): string | null {
  const value = tokenizerConfig?.chat_template ?? null;
  if (value === null || typeof value === "string") return value;
  const named = Array.isArray(value) ? value.filter(isObject) : [];
  const template = named.find((one) => one.name === "default")?.template ?? null;
  if (Array.isArray(value) && (template === null || typeof template === "string")) return template;
  throw bad(`tokenizer_config.json: "chat_template" is ${kindOf(value)}, expected a text or a list. ${CORRECT}`);
}

const CORRECT = "Download the file again, or correct it.";

function path(key: string, within?: string): string {
  return within ? `"${key}" of "${within}"` : `"${key}"`;
}

function bad(message: string): SnugError {
  return new SnugError("checkpoint", message);
}

function contradiction(message: string): SnugError {
  return bad(`config.json: ${message}. ${CORRECT}`);
}

function unsupported(message: string): SnugError {
  return new SnugError("unsupported", `config.json: ${message}. No pack can be made of this checkpoint.`);
}
