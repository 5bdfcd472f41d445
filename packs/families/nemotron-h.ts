// Nemotron-H: each layer is one Mamba-2 mixer, one attention without positions, or one MLP of squared ReLU.

import {
  contradiction,
  epsilon,
  expectActivation,
  expectSameLayers,
  flag,
  NO_ATTENTION,
  NO_MLP,
  readHeads,
  readLayerCount,
  readLayerKinds,
  readOutline,
  readSsm,
  refuseSlidingWindow,
  type SsmKeys,
  type SublayerName,
  size,
  spelling,
  unsupported,
} from "../config";
import { FAMILY_NEMOTRON_H } from "../format";
import { type JsonObject, kindOf } from "../safetensors";
import type { Family } from "./family";
import { attentionRows, mambaRows, mlpRows, modelRows, normRow } from "./rows";

const LIST_NAMES: Record<string, SublayerName> = {
  linear_attention: "mamba",
  full_attention: "attention",
  mlp: "mlp",
  mamba: "mamba",
  attention: "attention",
};
const PATTERN_LETTERS: Record<string, SublayerName> = { M: "mamba", "*": "attention", "-": "mlp" };

const NORMS = ["backbone.layers.{layer}.norm.weight", "model.layers.{layer}.norm.weight"];
const MIXERS = ["backbone.layers.{layer}.mixer", "model.layers.{layer}.mixer"];

export const NEMOTRON_H: Family<"nemotron-h"> = {
  name: "nemotron-h",
  id: FAMILY_NEMOTRON_H,
  modelType: "nemotron_h",
  architecture: "NemotronHForCausalLM",
  read: (raw) => {
    // Keys of mixtures of experts have values in models without one too: the layers say whether they count.
    const kinds = readLayers(raw);
    refuseSlidingWindow(raw);
    const outline = readOutline(raw, { context: 4096, tiedHead: false, beginToken: 1, endToken: 2 });
    return {
      ...outline,
      ...(kinds.includes("attention") ? readAttention(raw, outline.width) : NO_ATTENTION),
      ...(kinds.includes("mlp") ? readMlp(raw) : NO_MLP),
      layers: kinds.length,
      sublayers: kinds.map((kind) => [kind]),
      normEps: epsilon(raw, spelling(raw, "layer_norm_epsilon", "rms_norm_eps", "norm_eps"), 1e-5),
      ssm: kinds.includes("mamba") ? readMamba(raw, outline.width) : null,
    };
  },
  model: modelRows(
    [
      "backbone.embeddings.weight",
      "model.embeddings.weight",
      "backbone.embedding.weight",
      "model.embedding.weight",
      "model.embed_tokens.weight",
    ],
    ["backbone.norm_f.weight", "model.norm_f.weight"],
  ),
  layer: [
    normRow("mixerNorm", ["mamba", "attention"], ...NORMS),
    ...mambaRows(...MIXERS),
    ...attentionRows(...MIXERS),
    normRow("mlpNorm", ["mlp"], ...NORMS),
    ...mlpRows(...MIXERS),
  ],
};

/** Newer files list the layers, older ones have a letter for each; the number of layers may be absent. */
function readLayers(raw: JsonObject): SublayerName[] {
  const pattern = readLayerKinds(raw, "hybrid_override_pattern", PATTERN_LETTERS);
  const listKey = spelling(raw, "layers_block_type", "layer_types");
  const list = readLayerKinds(raw, listKey, LIST_NAMES);
  expectSameLayers(listKey, list, "hybrid_override_pattern", pattern);
  const [key, kinds] = list ? [listKey, list] : ["hybrid_override_pattern", pattern];
  if (!kinds?.length) throw contradiction(`"${key}" is ${kindOf(raw[key])}, expected what each layer is`);
  if (raw.num_hidden_layers != null && readLayerCount(raw) !== kinds.length) {
    throw contradiction(
      `"num_hidden_layers" is ${raw.num_hidden_layers}, but "${key}" tells of ${kinds.length} layers`,
    );
  }
  return kinds;
}

function readAttention(raw: JsonObject, width: number) {
  const headDimKey = spelling(raw, "head_dim", "attention_head_dim");
  const attentionBias = flag(raw, "attention_bias", false);
  return {
    ...readHeads(raw, width, { kvHeads: 8, headDim: 128 }, headDimKey),
    attentionBias,
    oBias: attentionBias,
    ropeInverseFrequencies: NO_ATTENTION.ropeInverseFrequencies,
  };
}

function readMlp(raw: JsonObject) {
  expectActivation(raw, "mlp_hidden_act", "relu2");
  const widths = raw.intermediate_size;
  if (Array.isArray(widths) && widths.some((one) => one !== widths[0])) {
    throw unsupported(`"intermediate_size" is ${kindOf(widths)}; supported: MLPs of equal width`);
  }
  const mlpWidth = size(Array.isArray(widths) ? { intermediate_size: widths[0] } : raw, "intermediate_size");
  return { mlpWidth, mlpBias: flag(raw, "mlp_bias", false), gatedMlp: false };
}

function readMamba(raw: JsonObject, width: number) {
  expectActivation(raw, "mamba_hidden_act", "silu", "swish");
  const keys: SsmKeys = {
    heads: "mamba_num_heads",
    headDim: "mamba_head_dim",
    groups: spelling(raw, "n_groups", "mamba_n_groups", "mamba_num_groups"),
    state: "ssm_state_size",
    taps: spelling(raw, "conv_kernel", "mamba_d_conv"),
    // transformers 5.17 clamps to "time_step_min" instead, which is of initial values; NVIDIA's own code does not.
    // https://github.com/huggingface/transformers/pull/48989
    stepLimit: spelling(raw, "time_step_limit", "mamba_dt_limit"),
    projectionBias: "use_bias", // "mamba_proj_bias" is there, but nobody reads it
    convBias: spelling(raw, "use_conv_bias", "mamba_conv_bias"),
  };
  const ssm = readSsm(raw, width, keys, { groups: 8 });
  return { ...ssm, normGroups: ssm.groups };
}
