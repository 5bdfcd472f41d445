// What a model is, in one plain description over all families and generations of config.json, and how the values of
// that file are read. Which keys a family has, and what it assumes where they are absent: families/*.ts. What cannot
// be run is refused with the key and the value.

import { SnugError } from "../runtime/index";
import { isObject, type JsonObject, kindOf } from "./safetensors";

const SIZE_MAX = 2 ** 24; // of any one dimension: keeps products of two exact and tables small
const LAYERS_MAX = 1024; // as assembly/pack.ts reads them
const CONTEXT_MAX = 2 ** 30;
const HEAD_NUMBERS_MAX = 65535; // heads, and their dimensions
const TAPS_LEAST = 2;
const TAPS_MOST = 8;

/** What a layer adds to the residual stream x at one place: x += f(norm(x)). */
export type SublayerName = "attention" | "mlp" | "mamba";

export interface ModelConfig {
  /** As packs/families/ names it. */
  readonly family: string;
  readonly layers: number;
  /** What each layer adds to the residual stream, in order. */
  readonly sublayers: readonly (readonly SublayerName[])[];
  /** Of the residual stream. */
  readonly width: number;
  readonly vocabulary: number;
  /** Most positions the model was made for. */
  readonly context: number;
  readonly normEps: number;
  /** The head is the embedding. */
  readonly tiedHead: boolean;
  /** Of the attention; 0 in a model without one. */
  readonly heads: number;
  readonly kvHeads: number;
  /** Even; heads × headDim need not equal width. */
  readonly headDim: number;
  /** Biases of q, k and v; of o. */
  readonly attentionBias: boolean;
  readonly oBias: boolean;
  /**
   * Radians per position of the rotary pairs (i, i + length), all scaling folded in; f32 values. Dimensions from
   * 2 × length on are not rotated.
   */
  readonly ropeInverseFrequencies: Float64Array;
  /** 0 in a model without an MLP. */
  readonly mlpWidth: number;
  /** Biases of gate, up and down. */
  readonly mlpBias: boolean;
  /** down(silu(gate x) × up x); otherwise down(max(up x, 0)²). */
  readonly gatedMlp: boolean;
  /** Of the Mamba-2 sublayers; null in a model without one. */
  readonly ssm: SsmConfig | null;
  /** "bos_token_id". Whether a prompt starts with it is the tokenizer's to say. */
  readonly beginToken: number | null;
  /** "eos_token_id" of config.json, then those that only generation_config.json lists. */
  readonly endTokens: readonly number[];
}

/** The inner width is heads × headDim. */
export interface SsmConfig {
  readonly heads: number;
  readonly headDim: number;
  /** heads / groups neighbouring heads share B and C. */
  readonly groups: number;
  readonly state: number;
  /** Of the causal convolution. */
  readonly taps: number;
  /** The gated norm is over heads / normGroups heads each. */
  readonly normGroups: number;
  /** What dt is clamped to; `stepMost` may be Infinity. */
  readonly stepLeast: number;
  readonly stepMost: number;
  /** Biases of the projections in and out; of the convolution. */
  readonly projectionBias: boolean;
  readonly convBias: boolean;
}

/** What a family makes of config.json. */
export type FamilyConfig = Omit<ModelConfig, "family">;

type AttentionFields = "heads" | "kvHeads" | "headDim" | "attentionBias" | "oBias" | "ropeInverseFrequencies";

export const NO_ATTENTION: Pick<ModelConfig, AttentionFields> = {
  heads: 0,
  kvHeads: 0,
  headDim: 0,
  attentionBias: false,
  oBias: false,
  ropeInverseFrequencies: new Float64Array(0),
};

export const NO_MLP: Pick<ModelConfig, "mlpWidth" | "mlpBias" | "gatedMlp"> = {
  mlpWidth: 0,
  mlpBias: false,
  gatedMlp: false,
};

// Parts of a model

export function readLayerCount(raw: JsonObject): number {
  return size(raw, "num_hidden_layers", undefined, LAYERS_MAX);
}

/** What all families spell alike. */
export function readOutline(
  raw: JsonObject,
  assumed: { context: number; tiedHead: boolean; beginToken: number | null; endToken: number | null },
): Pick<ModelConfig, "width" | "vocabulary" | "context" | "tiedHead" | "beginToken" | "endTokens"> {
  const vocabulary = size(raw, "vocab_size");
  return {
    width: size(raw, "hidden_size"),
    vocabulary,
    context: size(raw, "max_position_embeddings", assumed.context, CONTEXT_MAX),
    tiedHead: flag(raw, "tie_word_embeddings", assumed.tiedHead),
    beginToken: tokens(raw, "config.json", "bos_token_id", vocabulary, assumed.beginToken)[0] ?? null,
    endTokens: [...new Set(tokens(raw, "config.json", "eos_token_id", vocabulary, assumed.endToken))],
  };
}

/** Heads of the attention. Where `assumed` says nothing: as many kvHeads as heads, which share out the width. */
export function readHeads(
  raw: JsonObject,
  width: number,
  assumed: { kvHeads?: number; headDim?: number } = {},
  headDimKey = "head_dim",
): Pick<ModelConfig, "heads" | "kvHeads" | "headDim"> {
  const heads = size(raw, "num_attention_heads", undefined, HEAD_NUMBERS_MAX);
  const absent = raw.num_key_value_heads === undefined;
  const kvHeads = size(raw, "num_key_value_heads", (absent ? assumed.kvHeads : undefined) ?? heads);
  if (heads % kvHeads !== 0) {
    throw contradiction(`"num_attention_heads" ${heads} is not a multiple of "num_key_value_heads" ${kvHeads}`);
  }
  if (raw[headDimKey] == null && assumed.headDim === undefined && width % heads !== 0) {
    throw contradiction(`"hidden_size" ${width} is not a multiple of "num_attention_heads" ${heads}`);
  }
  const headDim = size(raw, headDimKey, assumed.headDim ?? width / heads, HEAD_NUMBERS_MAX);
  if (headDim % 2 !== 0) throw contradiction(`the head dimension ${headDim} is odd, but dimensions come in pairs`);
  return { heads, kvHeads, headDim };
}

/** Keys of config.json. `expand` × hidden_size is the inner width; without it the heads alone say how wide it is. */
export interface SsmKeys {
  readonly heads: string;
  readonly headDim: string;
  readonly groups: string;
  readonly state: string;
  readonly taps: string;
  readonly expand?: string;
  readonly stepLimit: string;
  readonly projectionBias: string;
  readonly convBias: string;
}

/** What a Mamba-2 sublayer is, but for its gated norm. */
export function readSsm(
  raw: JsonObject,
  width: number,
  keys: SsmKeys,
  assumed: { groups: number },
): Omit<SsmConfig, "normGroups"> {
  const heads = size(raw, keys.heads, undefined, HEAD_NUMBERS_MAX);
  const groups = size(raw, keys.groups, assumed.groups);
  const taps = size(raw, keys.taps, 4);
  if (heads % groups !== 0) {
    throw contradiction(`"${keys.heads}" ${heads} is not a multiple of "${keys.groups}" ${groups}`);
  }
  if (taps < TAPS_LEAST || taps > TAPS_MOST) {
    throw unsupported(`"${keys.taps}" is ${taps}; supported: ${TAPS_LEAST} to ${TAPS_MOST}`);
  }
  return {
    heads,
    headDim: ssmHeadDim(raw, width, keys, heads),
    groups,
    state: size(raw, keys.state, undefined, HEAD_NUMBERS_MAX),
    taps,
    ...stepLimit(raw, keys.stepLimit),
    projectionBias: flag(raw, keys.projectionBias, false),
    convBias: flag(raw, keys.convBias, true),
  };
}

/** Where it is absent or "auto": what the heads share out of the inner width. */
function ssmHeadDim(raw: JsonObject, width: number, keys: SsmKeys, heads: number): number {
  if (keys.expand === undefined) return size(raw, keys.headDim, undefined, HEAD_NUMBERS_MAX);
  const inner = positive(raw, keys.expand, 2) * width;
  const isShare = raw[keys.headDim] == null || raw[keys.headDim] === "auto";
  const headDim = isShare ? inner / heads : size(raw, keys.headDim, undefined, HEAD_NUMBERS_MAX);
  if (Number.isInteger(headDim) && heads * headDim === inner) return headDim;
  throw contradiction(
    `"${keys.expand}" × "hidden_size" makes an inner width of ${inner}, which is not "${keys.heads}" ${heads} × ` +
      `"${keys.headDim}" ${isShare ? "of any size" : headDim}`,
  );
}

function stepLimit(raw: JsonObject, key: string): Pick<SsmConfig, "stepLeast" | "stepMost"> {
  const value = raw[key] ?? [0, Infinity];
  const pair: unknown[] = Array.isArray(value) && value.length === 2 ? value : [NaN, NaN];
  const [stepLeast, stepMost] = [float(pair[0] ?? 0), float(pair[1] ?? Infinity)];
  if (stepLeast >= 0 && stepLeast < stepMost) return { stepLeast, stepMost };
  throw contradiction(`"${key}" is ${kindOf(value)}, expected [least, most], from 0 to Infinity`);
}

/** JSON has no infinity: files spell it in several ways. NaN for what is no number. */
function float(value: unknown): number {
  const plain = isObject(value) ? value.__float__ : value;
  if (typeof plain === "number") return plain;
  return plain === "Infinity" || plain === "inf" ? Infinity : NaN;
}

// What is refused

export function refuseExperts(raw: JsonObject): void {
  const keys = ["num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"];
  const key = keys.find((one) => raw[one]);
  if (key) throw unsupported(`"${key}" is ${kindOf(raw[key])}: mixtures of experts are not supported`);
}

export function refuseSlidingWindow(raw: JsonObject): void {
  if (raw.sliding_window && raw.use_sliding_window !== false) {
    throw unsupported(`"sliding_window" is ${kindOf(raw.sliding_window)}; supported: attention over the whole context`);
  }
}

/** The activation under this key must be the first of `accepted`, which may have other names. */
export function expectActivation(raw: JsonObject, key: string, ...accepted: string[]): void {
  const activation = raw[key] ?? accepted[0];
  if (typeof activation === "string" && accepted.includes(activation)) return;
  throw unsupported(`"${key}" is ${kindOf(activation)}; supported: "${accepted[0]}"`);
}

// Lists of layers

/** What a list, or a text with a letter for each layer, says that the layers are; null where there is none. */
export function readLayerKinds(
  raw: JsonObject,
  key: string,
  names: Readonly<Record<string, SublayerName>>,
): SublayerName[] | null {
  const value = raw[key];
  if (value == null) return null;
  const list: unknown = typeof value === "string" ? [...value] : value;
  const isKnown = (name: unknown): name is string => typeof name === "string" && Object.hasOwn(names, name);
  if (Array.isArray(list) && list.every(isKnown)) return list.map((name) => names[name]);
  const other = Array.isArray(list) ? list.find((name) => !isKnown(name)) : list;
  const supported = Object.keys(names).map(kindOf).join(", ");
  throw unsupported(`"${key}" has ${kindOf(other)}; supported: ${supported}`);
}

/** Two accounts of the layers must agree. */
export function expectSameLayers(
  key: string,
  kinds: readonly SublayerName[] | null,
  otherKey: string,
  others: readonly SublayerName[] | null,
): void {
  if (!kinds || !others) return;
  if (kinds.length !== others.length) {
    throw contradiction(
      `"${key}" tells of ${kinds.length} layers, "${otherKey}" of ${others.length}; correct the wrong one`,
    );
  }
  const layer = kinds.findIndex((kind, i) => kind !== others[i]);
  if (layer < 0) return;
  throw contradiction(
    `"${key}" has ${kindOf(kinds[layer])} as layer ${layer}, "${otherKey}" ${kindOf(others[layer])}; ` +
      "correct the wrong one",
  );
}

// Rotary angles

/**
 * In f32 at every step, as transformers computes them, so that the results are its very numbers. `partial` is the
 * share of a head that is rotated where config.json is silent; without it only the whole head may be.
 */
export function readInverseFrequencies(
  raw: JsonObject,
  headDim: number,
  assumed: { theta: number; partial?: number },
): Float64Array {
  const { key, scaling, type } = ropeScaling(raw);
  const dims = rotaryDims(raw, scaling, headDim, assumed.partial);
  const f32 = Math.fround;
  const theta = positive(scaling.rope_theta == null ? raw : scaling, "rope_theta", assumed.theta);
  const angles = new Float64Array(dims / 2);
  for (let i = 0; i < angles.length; i++) angles[i] = f32(1 / f32(f32(theta) ** f32((2 * i) / dims)));
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
  return { key, scaling, type };
}

/** Of each head, from its first on. */
function rotaryDims(raw: JsonObject, scaling: JsonObject, headDim: number, assumed: number | undefined): number {
  const key = "partial_rotary_factor";
  const holders = [scaling, raw].filter((holder) => holder[key] != null);
  if (assumed === undefined) {
    const other = holders.find((holder) => holder[key] !== 1);
    if (other) throw unsupported(`"${key}" is ${kindOf(other[key])}; supported: 1`);
    return headDim;
  }
  const counts = holders.map((holder) => Math.trunc(headDim * positive(holder, key)));
  if (raw.attn_rotary_emb != null) counts.push(size(raw, "attn_rotary_emb"));
  const dims = counts[0] ?? Math.trunc(headDim * assumed);
  if (counts.some((other) => other !== dims)) {
    throw contradiction(
      `"${key}" and "attn_rotary_emb" tell of ${[...new Set(counts)].join(" and ")} rotary dimensions; ` +
        "remove the wrong one",
    );
  }
  if (dims > headDim) throw contradiction(`${dims} rotary dimensions are more than the head's ${headDim}`);
  if (dims < 2 || dims % 2 !== 0) {
    throw unsupported(
      `"${key}" makes ${dims} rotary dimensions of the head's ${headDim}; supported: an even number of them`,
    );
  }
  return dims;
}

// Values; `within` names the object they are in

/** The first of these keys that says something; the first of all where none does. */
export function spelling(raw: JsonObject, ...keys: string[]): string {
  return keys.find((key) => raw[key] != null) ?? keys[0];
}

export function size(raw: JsonObject, key: string, fallback?: number, most = SIZE_MAX, within?: string): number {
  const value = raw[key] ?? fallback;
  if (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most) return value as number;
  throw contradiction(`${path(key, within)} is ${kindOf(value)}, expected a whole number from 1 to ${most}`);
}

export function positive(raw: JsonObject, key: string, fallback?: number, within?: string): number {
  const value = raw[key] ?? fallback;
  if (typeof value === "number" && Math.fround(value) > 0 && Math.fround(value) < Infinity) return value;
  throw contradiction(`${path(key, within)} is ${kindOf(value)}, expected a number above 0`);
}

/** What is added under the root of a norm. */
export function epsilon(raw: JsonObject, key: string, fallback: number): number {
  const value = positive(raw, key, fallback);
  if (value < 1) return value;
  throw contradiction(`${path(key)} is ${value}, expected a number below 1`);
}

export function flag(raw: JsonObject, key: string, fallback: boolean): boolean {
  const value = raw[key] ?? fallback;
  if (typeof value === "boolean") return value;
  throw contradiction(`"${key}" is ${kindOf(value)}, expected true or false`);
}

/** One id, several, or (null) none. A default that this vocabulary has no room for is none. */
export function tokens(
  raw: JsonObject,
  file: string,
  key: string,
  vocabulary: number,
  fallback: number | null,
): number[] {
  const value = raw[key];
  if (value === undefined) return fallback !== null && fallback < vocabulary ? [fallback] : [];
  const ids: unknown[] = Array.isArray(value) ? value : value === null ? [] : [value];
  const wrong = ids.find((id) => !Number.isSafeInteger(id) || (id as number) < 0 || (id as number) >= vocabulary);
  if (wrong === undefined) return ids as number[];
  throw bad(`${file}: "${key}" has ${kindOf(wrong)}, expected token ids from 0 to ${vocabulary - 1}. ${CORRECT}`);
}

/** What to do about a small file of a checkpoint that is wrong. */
export const CORRECT = "Download the file again, or correct it.";

function path(key: string, within?: string): string {
  return within ? `"${key}" of "${within}"` : `"${key}"`;
}

export function bad(message: string): SnugError {
  return new SnugError("checkpoint", message);
}

export function contradiction(message: string): SnugError {
  return bad(`config.json: ${message}. ${CORRECT}`);
}

export function unsupported(message: string): SnugError {
  return new SnugError("unsupported", `config.json: ${message}. No pack can be made of this checkpoint.`);
}
