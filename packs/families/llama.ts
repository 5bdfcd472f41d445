// Llama: an attention and a gated MLP in every layer.

import {
  epsilon,
  expectActivation,
  expectSameLayers,
  type FamilyConfig,
  flag,
  type ModelConfig,
  readHeads,
  readInverseFrequencies,
  readLayerCount,
  readLayerKinds,
  readOutline,
  refuseExperts,
  refuseSlidingWindow,
  size,
} from "../config";
import { FAMILY_LLAMA } from "../format";
import type { JsonObject } from "../safetensors";
import type { Family } from "./family";
import { attentionRows, mlpRows, modelRows, normRow } from "./rows";

export const LLAMA: Family<"llama"> = {
  name: "llama",
  id: FAMILY_LLAMA,
  modelType: "llama",
  architecture: "LlamaForCausalLM",
  read: (raw) => {
    refuseSlidingWindow(raw);
    const attentionBias = flag(raw, "attention_bias", false);
    const mlpBias = flag(raw, "mlp_bias", false);
    return readTransformer(
      raw,
      { attentionBias, oBias: attentionBias, mlpBias },
      { context: 2048, tiedHead: false, beginToken: 1, endToken: 2 },
    );
  },
  model: modelRows(["model.embed_tokens.weight"], ["model.norm.weight"]),
  layer: [
    normRow("mixerNorm", ["attention"], "model.layers.{layer}.input_layernorm.weight"),
    ...attentionRows("model.layers.{layer}.self_attn"),
    normRow("mlpNorm", ["mlp"], "model.layers.{layer}.post_attention_layernorm.weight"),
    ...mlpRows("model.layers.{layer}.mlp"),
  ],
};

/** Any model of Llama's shape. */
export function readTransformer(
  raw: JsonObject,
  biases: Pick<ModelConfig, "attentionBias" | "oBias" | "mlpBias">,
  assumed: Parameters<typeof readOutline>[1],
): FamilyConfig {
  expectActivation(raw, "hidden_act", "silu", "swish");
  refuseExperts(raw);
  const layers = readLayerCount(raw);
  const kinds = readLayerKinds(raw, "layer_types", { full_attention: "attention" });
  expectSameLayers("layer_types", kinds, "num_hidden_layers", new Array(layers).fill("attention"));
  const outline = readOutline(raw, assumed);
  const heads = readHeads(raw, outline.width);
  return {
    ...outline,
    ...heads,
    ...biases,
    layers,
    sublayers: new Array(layers).fill(["attention", "mlp"]),
    normEps: epsilon(raw, "rms_norm_eps", 1e-6),
    mlpWidth: size(raw, "intermediate_size"),
    gatedMlp: true,
    ropeInverseFrequencies: readInverseFrequencies(raw, heads.headDim, { theta: 10000 }),
    ssm: null,
  };
}
