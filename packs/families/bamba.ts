// Bamba: in every layer a Mamba-2 mixer or, in a few, an attention, then a gated MLP.

import {
  contradiction,
  epsilon,
  expectActivation,
  expectSameLayers,
  flag,
  NO_ATTENTION,
  readHeads,
  readInverseFrequencies,
  readLayerCount,
  readLayerKinds,
  readOutline,
  readSsm,
  refuseExperts,
  refuseSlidingWindow,
  type SsmKeys,
  type SublayerName,
  size,
  spelling,
} from "../config";
import { FAMILY_BAMBA } from "../format";
import { type JsonObject, kindOf } from "../safetensors";
import type { Family } from "./family";
import { attentionRows, mambaRows, mlpRows, modelRows, normRow } from "./rows";

const KEYS: SsmKeys = {
  heads: "mamba_n_heads",
  headDim: "mamba_d_head",
  groups: "mamba_n_groups",
  state: "mamba_d_state",
  taps: "mamba_d_conv",
  expand: "mamba_expand",
  stepLimit: "time_step_limit",
  projectionBias: "mamba_proj_bias",
  convBias: "mamba_conv_bias",
};
const LAYER_NAMES: Record<string, SublayerName> = {
  full_attention: "attention",
  linear_attention: "mamba",
  attention: "attention",
  mamba: "mamba",
};

export const BAMBA: Family<"bamba"> = {
  name: "bamba",
  id: FAMILY_BAMBA,
  modelType: "bamba",
  architecture: "BambaForCausalLM",
  read: (raw) => {
    expectActivation(raw, "hidden_act", "silu", "swish");
    refuseExperts(raw);
    refuseSlidingWindow(raw);
    const kinds = readMixers(raw);
    const outline = readOutline(raw, { context: 262144, tiedHead: false, beginToken: 1, endToken: 2 });
    return {
      ...outline,
      ...(kinds.includes("attention") ? readAttention(raw, outline.width) : NO_ATTENTION),
      layers: kinds.length,
      sublayers: kinds.map((kind) => [kind, "mlp"]),
      normEps: epsilon(raw, "rms_norm_eps", 1e-5),
      mlpWidth: size(raw, "intermediate_size"),
      mlpBias: flag(raw, "mlp_bias", false),
      gatedMlp: true,
      ssm: kinds.includes("mamba") ? { ...readSsm(raw, outline.width, KEYS, { groups: 1 }), normGroups: 1 } : null,
    };
  },
  model: modelRows(["model.embed_tokens.weight"], ["model.final_layernorm.weight"]),
  layer: [
    normRow("mixerNorm", ["mamba", "attention"], "model.layers.{layer}.input_layernorm.weight"),
    ...mambaRows("model.layers.{layer}.mamba"),
    ...attentionRows("model.layers.{layer}.self_attn"),
    normRow("mlpNorm", ["mlp"], "model.layers.{layer}.pre_ff_layernorm.weight"),
    ...mlpRows("model.layers.{layer}.feed_forward"),
  ],
};

/** "attn_layer_indices" says which layers have an attention; some files list all layers as well. */
function readMixers(raw: JsonObject): SublayerName[] {
  const indices = raw.attn_layer_indices ?? [];
  const layers = readLayerCount(raw);
  const isLayer = (index: unknown) =>
    Number.isSafeInteger(index) && (index as number) >= 0 && (index as number) < layers;
  const wrong = Array.isArray(indices) ? indices.find((index) => !isLayer(index)) : indices;
  if (wrong !== undefined) {
    throw contradiction(`"attn_layer_indices" has ${kindOf(wrong)}, expected layers from 0 to ${layers - 1}`);
  }
  const kinds: SublayerName[] = new Array(layers).fill("mamba");
  for (const layer of indices as number[]) kinds[layer] = "attention";
  const key = spelling(raw, "layers_block_type", "layer_types");
  expectSameLayers(key, readLayerKinds(raw, key, LAYER_NAMES), "attn_layer_indices", kinds);
  return kinds;
}

function readAttention(raw: JsonObject, width: number) {
  const heads = readHeads(raw, width, { kvHeads: 8 });
  const attentionBias = flag(raw, "attention_bias", false);
  return {
    ...heads,
    attentionBias,
    oBias: attentionBias,
    ropeInverseFrequencies: readInverseFrequencies(raw, heads.headDim, { theta: 10000, partial: 0.5 }),
  };
}
