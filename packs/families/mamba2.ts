// Mamba-2: nothing but Mamba-2 mixers.

import {
  epsilon,
  expectActivation,
  expectSameLayers,
  NO_ATTENTION,
  NO_MLP,
  readLayerCount,
  readLayerKinds,
  readOutline,
  readSsm,
  refuseExperts,
  type SsmKeys,
} from "../config";
import { FAMILY_MAMBA2 } from "../format";
import type { Family } from "./family";
import { mambaRows, modelRows, normRow } from "./rows";

const CONTEXT = 1048576; // its state has no end: config.json names none

const KEYS: SsmKeys = {
  heads: "num_heads",
  headDim: "head_dim",
  groups: "n_groups",
  state: "state_size",
  taps: "conv_kernel",
  expand: "expand",
  stepLimit: "time_step_limit",
  projectionBias: "use_bias",
  convBias: "use_conv_bias",
};

export const MAMBA2: Family<"mamba2"> = {
  name: "mamba2",
  id: FAMILY_MAMBA2,
  modelType: "mamba2",
  architecture: "Mamba2ForCausalLM",
  read: (raw) => {
    expectActivation(raw, "hidden_act", "silu", "swish");
    refuseExperts(raw);
    const layers = readLayerCount(raw);
    const kinds = readLayerKinds(raw, "layer_types", { linear_attention: "mamba", mamba: "mamba" });
    expectSameLayers("layer_types", kinds, "num_hidden_layers", new Array(layers).fill("mamba"));
    const outline = readOutline(raw, { context: CONTEXT, tiedHead: false, beginToken: 0, endToken: 2 });
    return {
      ...outline,
      ...NO_ATTENTION,
      ...NO_MLP,
      layers,
      sublayers: new Array(layers).fill(["mamba"]),
      normEps: epsilon(raw, "layer_norm_epsilon", 1e-5),
      // transformers norms the whole inner width, whatever the groups; mamba_ssm norms each group.
      // https://github.com/huggingface/transformers/pull/40861
      ssm: { ...readSsm(raw, outline.width, KEYS, { groups: 8 }), normGroups: 1 },
    };
  },
  model: modelRows(["backbone.embeddings.weight", "backbone.embedding.weight"], ["backbone.norm_f.weight"]),
  layer: [
    normRow("mixerNorm", ["mamba"], "backbone.layers.{layer}.norm.weight"),
    ...mambaRows("backbone.layers.{layer}.mixer"),
  ],
};
