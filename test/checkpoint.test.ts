// Opening a checkpoint: what config.json means in each family and in each of its generations, what is refused and in
// which words, and that every tensor arrives under its role.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openCheckpoint, parseConfig } from "../packs/checkpoint";
import type { ModelConfig } from "../packs/config";
import {
  excludedTensors,
  expectedTensors,
  FAMILIES,
  type FamilyName,
  familyOf,
  findTensor,
  type Role,
  readOptionalTensor,
  readTensor,
  readTensorRows,
} from "../packs/families/index";
import { FAMILY_BAMBA, FAMILY_LLAMA, FAMILY_MAMBA2, FAMILY_NEMOTRON_H, FAMILY_QWEN2 } from "../packs/format";
import { type JsonObject, readJson } from "../packs/safetensors";
import type { ErrorCode } from "../runtime/errors";
import {
  patchJson,
  SMALL_CONFIGS,
  type StoredTensor,
  says,
  scratchFolder,
  writeCheckpoint,
  writeSafetensors,
} from "./write-checkpoint";

const MODELS = "../shared/models";
const skip = existsSync(MODELS) ? false : `${MODELS} is absent`;
const SMALL_CONFIG = SMALL_CONFIGS.llama;
const NAMES = FAMILIES.map(({ name }) => name);

/** A config as it comes, with keys changed; undefined removes one. */
function config(changes: JsonObject = {}, family: FamilyName = "llama") {
  return parseConfig(JSON.parse(JSON.stringify({ ...SMALL_CONFIGS[family], ...changes })));
}

// What a config means

test("every field of config.json has its place", () => {
  const { ropeInverseFrequencies, ...rest } = config({
    attention_bias: true,
    bos_token_id: 5,
    eos_token_id: [7, 6, 7],
  });
  assert.deepEqual(rest, {
    family: "llama",
    layers: 2,
    width: 48,
    vocabulary: 97,
    context: 128,
    heads: 6,
    kvHeads: 2,
    headDim: 12,
    normEps: 1e-5,
    mlpWidth: 80,
    gatedMlp: true,
    tiedHead: false,
    attentionBias: true,
    oBias: true,
    mlpBias: false,
    ssm: null,
    sublayers: [
      ["attention", "mlp"],
      ["attention", "mlp"],
    ],
    beginToken: 5,
    endTokens: [7, 6],
  });
  assert.equal(ropeInverseFrequencies.length, 6);
  assert.equal(familyOf(config()).id, FAMILY_LLAMA);
});

test("what config.json leaves out is what transformers assumes", () => {
  const bare = parseConfig({
    model_type: "llama",
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    vocab_size: 50,
  });
  const { ropeInverseFrequencies, ...rest } = bare;
  assert.deepEqual(rest, {
    family: "llama",
    layers: 1,
    width: 64,
    vocabulary: 50,
    context: 2048,
    heads: 4,
    kvHeads: 4,
    headDim: 16,
    normEps: 1e-6,
    mlpWidth: 96,
    gatedMlp: true,
    tiedHead: false,
    attentionBias: false,
    oBias: false,
    mlpBias: false,
    ssm: null,
    sublayers: [["attention", "mlp"]],
    beginToken: 1,
    endTokens: [2],
  });
  close(ropeInverseFrequencies, [1, 0.31622776, 0.1, 0.031622775, 0.01, 0.0031622776, 0.001, 0.00031622776]);
});

test("null is as good as absent; harmless keys are harmless", () => {
  const nulls = {
    head_dim: null,
    num_key_value_heads: null,
    rope_scaling: null,
    sliding_window: null,
    layer_types: null,
  };
  assert.equal(config({ ...nulls, quantization_config: null, num_experts: 0, num_local_experts: null }).headDim, 8);
  const harmless = {
    pretraining_tp: 2,
    use_cache: false,
    dtype: "bfloat16",
    torch_dtype: "float16",
    hidden_act: "swish",
  };
  assert.deepEqual(config(harmless), config());
  assert.deepEqual(config({ layer_types: ["full_attention", "full_attention"], pruned_heads: {} }), config());
  assert.deepEqual(config({ sliding_window: 4096, use_sliding_window: false }), config());
});

test("begin and end tokens: none, one, several, and those of generation_config.json", () => {
  assert.equal(config({ bos_token_id: null }).beginToken, null);
  assert.deepEqual(config({ eos_token_id: null }).endTokens, []);
  assert.deepEqual(config({ eos_token_id: undefined }).endTokens, [2]);
  assert.deepEqual(parseConfig({ ...SMALL_CONFIG, eos_token_id: 9 }, { eos_token_id: [8, 9, 0] }).endTokens, [9, 8, 0]);
  assert.deepEqual(parseConfig({ ...SMALL_CONFIG, eos_token_id: [9, 3] }, { eos_token_id: null }).endTokens, [9, 3]);
  const tiny = parseConfig({ ...SMALL_CONFIG, vocab_size: 2, eos_token_id: undefined });
  assert.deepEqual(tiny.endTokens, []); // the default, 2, does not exist
});

// Rotary angles

test("rotary angles: older and newer spelling agree", () => {
  const theta = (changes: JsonObject) => config({ rope_parameters: undefined, ...changes }).ropeInverseFrequencies;
  const newer = theta({ rope_parameters: { rope_type: "default", rope_theta: 500000 } });
  assert.deepEqual(theta({ rope_theta: 500000 }), newer);
  assert.deepEqual(theta({ rope_theta: 500000, rope_scaling: { type: "default" } }), newer);
  assert.deepEqual(theta({ rope_theta: 1, rope_parameters: { rope_theta: 500000 } }), newer);
  assert.notDeepEqual(theta({}), newer);
  const linear = theta({ rope_theta: 500000, rope_scaling: { type: "linear", factor: 4 } });
  assert.deepEqual(
    linear,
    newer.map((angle) => angle / 4),
  );
  assert.deepEqual(theta({ rope_parameters: { rope_type: "linear", rope_theta: 500000, factor: 4 } }), linear);
});

test("rotary angles: llama3 scaling equals what f32 arithmetic in another language gives", () => {
  const scaling = {
    factor: 8,
    high_freq_factor: 4,
    low_freq_factor: 1,
    original_max_position_embeddings: 64,
    rope_type: "llama3",
  };
  // tiny-llama's: kept, smoothed, and divided by 8. From numpy in f32.
  const want = [
    1.0, 0.44036662578582764, 0.07940301299095154, 0.010674637742340565, 0.004700753837823868, 0.0020700551103800535,
    0.0009115831344388425, 0.00040143076330423355, 0.00017677668074611574, 7.784655463183299e-5, 3.428102354519069e-5,
    1.5096217794052791e-5, 6.647869668086059e-6, 2.927499735960737e-6, 1.289173155782919e-6, 5.677088097399974e-7,
  ];
  const head = { head_dim: 32, rope_parameters: undefined };
  close(config({ ...head, rope_parameters: { ...scaling, rope_theta: 500000 } }).ropeInverseFrequencies, want);
  close(config({ ...head, rope_theta: 500000, rope_scaling: scaling }).ropeInverseFrequencies, want);
});

function close(got: Float64Array, want: number[]): void {
  assert.equal(got.length, want.length);
  want.forEach((value, i) => {
    assert.equal(got[i], Math.fround(got[i]), "an f32 value");
    assert.ok(Math.abs(got[i] - value) <= 2 ** -22 * value, `angle ${i}: ${got[i]}, expected ${value}`);
  });
}

// Families, as their files on hubs spell them

const llama3 = '"factor":32.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192';
const PATTERN_8B = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-";
const PATTERN_NANO = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-";

/** Excerpts of config.json as it lies on hubs, and what must come of them. */
const HUB: [what: string, text: string, expected: Partial<ModelConfig>, pairs: number][] = [
  [
    "Llama 3.2 1B, older file",
    `{"architectures":["LlamaForCausalLM"],"attention_bias":false,"bos_token_id":128000,"eos_token_id":128001,
    "head_dim":64,"hidden_act":"silu","hidden_size":2048,"intermediate_size":8192,"max_position_embeddings":131072,
    "mlp_bias":false,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,
    "pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":{${llama3},"rope_type":"llama3"},"rope_theta":500000.0,
    "tie_word_embeddings":true,"torch_dtype":"bfloat16","use_cache":true,"vocab_size":128256}`,
    { family: "llama", layers: 16, heads: 32, kvHeads: 8, headDim: 64, tiedHead: true, attentionBias: false },
    32,
  ],
  [
    "Qwen2.5 0.5B, older file",
    `{"architectures":["Qwen2ForCausalLM"],"attention_dropout":0.0,"bos_token_id":151643,"eos_token_id":151645,
    "hidden_act":"silu","hidden_size":896,"intermediate_size":4864,"max_position_embeddings":32768,
    "max_window_layers":21,"model_type":"qwen2","num_attention_heads":14,"num_hidden_layers":24,
    "num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"sliding_window":32768,
    "tie_word_embeddings":true,"torch_dtype":"bfloat16","use_cache":true,"use_sliding_window":false,
    "vocab_size":151936}`,
    {
      ...{ family: "qwen2", layers: 24, width: 896, heads: 14, kvHeads: 2, headDim: 64, normEps: 1e-6 },
      ...{ attentionBias: true, oBias: false, mlpBias: false, gatedMlp: true, tiedHead: true, context: 32768 },
      ...{ beginToken: 151643, endTokens: [151645], ssm: null },
    },
    32,
  ],
  [
    "Qwen2, newer file: no bos, a list of eos, layer_types",
    `{"architectures":["Qwen2ForCausalLM"],"dtype":"bfloat16","eos_token_id":[5,7],"hidden_act":"silu",
    "hidden_size":128,"intermediate_size":320,"layer_types":["full_attention","full_attention"],
    "max_window_layers":28,"model_type":"qwen2","num_attention_heads":4,"num_hidden_layers":2,
    "num_key_value_heads":1,"rope_parameters":{"rope_theta":10000.0,"rope_type":"default"},"sliding_window":null,
    "tie_word_embeddings":false,"use_sliding_window":false,"vocab_size":512}`,
    {
      ...{ normEps: 1e-6, context: 32768, headDim: 32, beginToken: null, endTokens: [5, 7], tiedHead: false },
      sublayers: [
        ["attention", "mlp"],
        ["attention", "mlp"],
      ],
    },
    16,
  ],
  [
    "Mamba-2 780M, older file: a bare Infinity",
    `{"architectures":["Mamba2ForCausalLM"],"bos_token_id":0,"chunk_size":256,"conv_kernel":4,"eos_token_id":0,
    "expand":2,"head_dim":64,"hidden_act":"silu","hidden_size":1536,"initializer_range":0.1,
    "layer_norm_epsilon":1e-05,"model_type":"mamba2","n_groups":1,"num_heads":48,"num_hidden_layers":48,
    "pad_token_id":0,"rescale_prenorm_residual":false,"residual_in_fp32":true,"rms_norm":true,"state_size":128,
    "tie_word_embeddings":true,"time_step_floor":0.0001,"time_step_limit":[0.0, Infinity],"time_step_max":0.1,
    "time_step_min":0.001,"time_step_rank":96,"torch_dtype":"float32","use_bias":false,"use_cache":true,
    "use_conv_bias":true,"vocab_size":50288}`,
    {
      ...{ family: "mamba2", layers: 48, width: 1536, context: 1048576, normEps: 1e-5, tiedHead: true },
      ...{ heads: 0, kvHeads: 0, headDim: 0, attentionBias: false, oBias: false },
      ...{ mlpWidth: 0, mlpBias: false, gatedMlp: false },
      ...{ beginToken: 0, endTokens: [0] },
      ssm: {
        ...{ heads: 48, headDim: 64, groups: 1, state: 128, taps: 4, normGroups: 1, stepLeast: 0 },
        ...{ stepMost: Infinity, projectionBias: false, convBias: true },
      },
    },
    0,
  ],
  [
    "Mamba-2 with groups and what transformers assumes",
    `{"model_type":"mamba2","hidden_size":4096,"num_hidden_layers":2,"num_heads":128,"state_size":128,
    "norm_before_gate":true,"vocab_size":32768,"time_step_limit":[1e-3,1e30]}`,
    {
      ...{ beginToken: 0, endTokens: [2], tiedHead: false, normEps: 1e-5, sublayers: [["mamba"], ["mamba"]] },
      ssm: {
        ...{ heads: 128, headDim: 64, groups: 8, state: 128, taps: 4, normGroups: 1, stepLeast: 1e-3 },
        ...{ stepMost: 1e30, projectionBias: false, convBias: true },
      },
    },
    0,
  ],
  [
    "Bamba 9B, older file: attn_rotary_emb, mamba_dt_rank, no rope keys",
    `{"architectures":["BambaForCausalLM"],"attention_dropout":0.0,"attn_layer_indices":[1,3],"attn_rotary_emb":64,
    "bos_token_id":128000,"eos_token_id":128001,"hidden_act":"silu","hidden_size":4096,"intermediate_size":14336,
    "mamba_chunk_size":256,"mamba_conv_bias":true,"mamba_d_conv":4,"mamba_d_head":64,"mamba_d_state":128,
    "mamba_dt_rank":256,"mamba_expand":2,"mamba_n_groups":1,"mamba_n_heads":128,"mamba_proj_bias":false,
    "model_type":"bamba","num_attention_heads":32,"num_hidden_layers":4,"num_key_value_heads":8,
    "rms_norm_eps":1e-05,"tie_word_embeddings":false,"torch_dtype":"bfloat16","use_mamba_kernels":true,
    "vocab_size":128256}`,
    {
      ...{ family: "bamba", layers: 4, context: 262144, normEps: 1e-5, mlpWidth: 14336, gatedMlp: true },
      ...{ heads: 32, kvHeads: 8, headDim: 128, attentionBias: false, oBias: false, mlpBias: false },
      sublayers: [
        ["mamba", "mlp"],
        ["attention", "mlp"],
        ["mamba", "mlp"],
        ["attention", "mlp"],
      ],
      ssm: {
        ...{ heads: 128, headDim: 64, groups: 1, state: 128, taps: 4, normGroups: 1, stepLeast: 0 },
        ...{ stepMost: Infinity, projectionBias: false, convBias: true },
      },
    },
    32,
  ],
  [
    "Bamba, newer file: auto head size, its layers listed",
    `{"architectures":["BambaForCausalLM"],"attn_layer_indices":[1],"dtype":"bfloat16","hidden_size":128,
    "intermediate_size":256,"layers_block_type":["linear_attention","full_attention"],"mamba_d_head":"auto",
    "mamba_d_state":32,"mamba_n_heads":8,"model_type":"bamba","num_attention_heads":4,"num_hidden_layers":2,
    "partial_rotary_factor":0.5,
    "rope_parameters":{"partial_rotary_factor":0.5,"rope_theta":10000.0,"rope_type":"default"},
    "time_step_limit":[0.0,{"__float__":"Infinity"}],"vocab_size":512,"num_key_value_heads":null}`,
    { kvHeads: 4, headDim: 32, beginToken: 1, endTokens: [2] },
    8,
  ],
  [
    "Nemotron-H 8B, older file: a pattern, attention_head_dim, two names of epsilon, no time steps",
    `{"architectures":["NemotronHForCausalLM"],"attention_bias":false,"attention_head_dim":128,"bos_token_id":1,
    "chunk_size":128,"conv_kernel":4,"eos_token_id":2,"expand":2,"hidden_size":4096,
    "hybrid_override_pattern":"${PATTERN_8B}","intermediate_size":21504,"layer_norm_epsilon":1e-05,
    "mamba_head_dim":64,"mamba_hidden_act":"silu","mamba_num_heads":128,"mamba_proj_bias":false,
    "max_position_embeddings":8192,"mlp_bias":false,"mlp_hidden_act":"relu2","model_type":"nemotron_h","n_groups":8,
    "num_attention_heads":32,"num_hidden_layers":52,"num_key_value_heads":8,"rms_norm_eps":1e-05,
    "ssm_state_size":128,"tie_word_embeddings":false,"torch_dtype":"bfloat16","use_bias":false,
    "use_conv_bias":true,"vocab_size":131072}`,
    {
      ...{ family: "nemotron-h", layers: 52, heads: 32, kvHeads: 8, headDim: 128, context: 8192, normEps: 1e-5 },
      ...{ mlpWidth: 21504, gatedMlp: false, mlpBias: false, attentionBias: false, oBias: false },
      sublayers: [...PATTERN_8B].map((letter) => [
        letter === "M" ? "mamba" : letter === "*" ? "attention" : "mlp",
      ]) as ModelConfig["sublayers"],
      ssm: {
        ...{ heads: 128, headDim: 64, groups: 8, state: 128, taps: 4, normGroups: 8, stepLeast: 0 },
        ...{ stepMost: Infinity, projectionBias: false, convBias: true },
      },
    },
    0,
  ],
  [
    "Nemotron Nano 9B v2: an inner width that expand does not make, mamba_num_groups",
    `{"architectures":["NemotronHForCausalLM"],"expand":2,"head_dim":128,"hidden_size":4480,
    "hybrid_override_pattern":"${PATTERN_NANO}","intermediate_size":15680,"layer_norm_epsilon":1e-05,
    "mamba_head_dim":80,"mamba_num_groups":8,"mamba_num_heads":128,"max_position_embeddings":131072,
    "model_type":"nemotron_h","num_attention_heads":40,"num_hidden_layers":56,"num_key_value_heads":8,
    "ssm_state_size":128,"time_step_limit":[0.0, Infinity],"vocab_size":131072}`,
    { layers: 56, heads: 40, headDim: 128, context: 131072, beginToken: 1, endTokens: [2] },
    0,
  ],
  [
    "Nemotron-H, newer file: layers listed but not counted, keys of experts that it does not have",
    `{"architectures":["NemotronHForCausalLM"],"dtype":"bfloat16","head_dim":32,"hidden_size":128,
    "intermediate_size":[384],"layers_block_type":["linear_attention","mlp","full_attention"],"mamba_head_dim":32,
    "mamba_num_heads":8,"mamba_d_conv":3,"mamba_dt_limit":[0.01,"Infinity"],"mamba_n_groups":2,
    "mamba_conv_bias":false,"model_type":"nemotron_h","moe_intermediate_size":7688,"n_group":1,
    "n_routed_experts":8,"norm_eps":1e-06,"num_attention_heads":4,"num_experts_per_tok":2,"num_key_value_heads":2,
    "mtp_layers_block_type":["full_attention","moe"],"partial_rotary_factor":1.0,"rope_theta":10000,
    "sliding_window":null,"ssm_state_size":32,"vocab_size":512}`,
    {
      ...{ normEps: 1e-6, context: 4096, mlpWidth: 384, sublayers: [["mamba"], ["mlp"], ["attention"]] },
      ssm: {
        ...{ heads: 8, headDim: 32, groups: 2, state: 32, taps: 3, normGroups: 2, stepLeast: 0.01 },
        ...{ stepMost: Infinity, projectionBias: false, convBias: false },
      },
    },
    0,
  ],
  [
    "Nemotron-H without attention and without a state space",
    `{"model_type":"nemotron_h","hidden_size":128,"intermediate_size":384,"layer_types":["mlp"],"vocab_size":512}`,
    { heads: 0, kvHeads: 0, headDim: 0, mlpWidth: 384, ssm: null },
    0,
  ],
];

for (const [what, text, expected, pairs] of HUB) {
  test(`config.json on hubs: ${what}`, async (t) => {
    const folder = scratchFolder(t);
    writeFileSync(join(folder, "config.json"), text);
    const read = parseConfig((await readJson(folder, "config.json")) ?? {});
    assert.deepEqual({ ...read, ...expected }, read);
    assert.equal(read.sublayers.length, read.layers);
    assert.equal(read.ropeInverseFrequencies.length, pairs);
  });
}

test("rotary angles of a part of the head run over that part", () => {
  const angles = (changes: JsonObject) => config({ rope_parameters: undefined, ...changes }, "bamba");
  const partial = (factor: number) => ({ rope_parameters: { rope_theta: 10000, partial_rotary_factor: factor } });
  // Heads of 12: six rotary dimensions where nothing is said.
  const want = [1, 10000 ** (-2 / 6), 10000 ** (-4 / 6)];
  for (const changes of [{}, partial(0.5), partial(0.55), { partial_rotary_factor: 0.5 }, { attn_rotary_emb: 6 }]) {
    close(angles(changes).ropeInverseFrequencies, want);
  }
  close(angles(partial(0.34)).ropeInverseFrequencies, [1, 0.01]);
  assert.equal(angles(partial(1)).ropeInverseFrequencies.length, 6);
  const linear = { rope_parameters: { rope_type: "linear", factor: 2, rope_theta: 10000 } };
  close(
    angles(linear).ropeInverseFrequencies,
    want.map((angle) => angle / 2),
  );
});

test("the limits of time steps, in all spellings", () => {
  const inf = Infinity;
  for (const [value, least, most] of [
    [undefined, 0, inf],
    [null, 0, inf],
    [[0, { __float__: "Infinity" }], 0, inf],
    [[0.5, "Infinity"], 0.5, inf],
    [[0, "inf"], 0, inf],
    [[0, null], 0, inf],
    [[0.001, 0.1], 0.001, 0.1],
  ] as const) {
    const { ssm } = config({ time_step_limit: value }, "mamba2");
    assert.deepEqual([ssm?.stepLeast, ssm?.stepMost], [least, most], JSON.stringify(value));
  }
});

// What is refused: changes of config.json, code, words

const REFUSED: [changes: JsonObject, code: ErrorCode, ...words: string[]][] = [
  [
    { architectures: ["MistralForCausalLM"], model_type: "mistral" },
    "unsupported",
    "MistralForCausalLM",
    "LlamaForCausalLM",
  ],
  [{ architectures: ["LlamaForSequenceClassification"] }, "unsupported", "LlamaForSequenceClassification"],
  [{ architectures: ["MambaForCausalLM"] }, "unsupported", "MambaForCausalLM", '"llama"'],
  [{ model_type: "qwen2" }, "unsupported", '"qwen2"', "supported"],
  [{ architectures: undefined, model_type: undefined }, "unsupported", "nothing", "LlamaForCausalLM"],
  [{ architectures: "LlamaForCausalLM", model_type: "x" }, "unsupported", '"x"'],
  [{ hidden_act: "gelu" }, "unsupported", "hidden_act", '"gelu"', '"silu"'],
  [{ hidden_act: 3 }, "unsupported", "hidden_act", "3"],
  [{ sliding_window: 4096 }, "unsupported", "sliding_window", "4096"],
  [{ layer_types: ["full_attention", "sliding_attention"] }, "unsupported", "layer_types", "sliding_attention"],
  [{ layer_types: "x" }, "unsupported", "layer_types"],
  [{ layer_types: ["full_attention"] }, "checkpoint", "layer_types", "1 layers", "num_hidden_layers", "2"],
  [{ num_local_experts: 8 }, "unsupported", "num_local_experts", "8", "experts"],
  [{ num_experts: 8 }, "unsupported", "num_experts", "experts"],
  [{ n_routed_experts: 64 }, "unsupported", "n_routed_experts"],
  [{ num_experts_per_tok: 2 }, "unsupported", "num_experts_per_tok"],
  [{ moe_intermediate_size: 64 }, "unsupported", "moe_intermediate_size"],
  [{ quantization_config: { quant_method: "gptq" } }, "unsupported", "quantization_config", "gptq", "original"],
  [{ compression_config: { format: "x" } }, "unsupported", "compression_config"],
  [{ pruned_heads: { 1: [0] } }, "unsupported", "pruned_heads"],
  [{ rope_parameters: { rope_type: "yarn", factor: 4 } }, "unsupported", "rope_parameters", '"yarn"', '"llama3"'],
  [
    { rope_parameters: undefined, rope_scaling: { type: "dynamic", factor: 2 } },
    "unsupported",
    "rope_scaling",
    '"dynamic"',
  ],
  [{ rope_parameters: { rope_type: 5 } }, "unsupported", "rope_parameters", "5"],
  [{ rope_parameters: { full_attention: { rope_theta: 1e4 } } }, "unsupported", "full_attention"],
  [{ partial_rotary_factor: 0.5 }, "unsupported", "partial_rotary_factor", "0.5"],
  [{ rope_parameters: { partial_rotary_factor: 0.5 } }, "unsupported", "partial_rotary_factor"],
  [{ rope_scaling: { type: "linear", factor: 2 } }, "checkpoint", "rope_parameters", "rope_scaling", "different"],
  [{ rope_parameters: [1] }, "checkpoint", "rope_parameters", "object"],
  [{ rope_parameters: { rope_theta: 0 } }, "checkpoint", "rope_theta", "above 0"],
  [{ rope_parameters: { rope_theta: "10000" } }, "checkpoint", "rope_theta", '"10000"'],
  [{ rope_parameters: { rope_theta: 1e300 } }, "checkpoint", "rope_theta"],
  [{ rope_parameters: { rope_type: "linear" } }, "checkpoint", '"factor" of "rope_parameters"', "nothing"],
  [{ rope_parameters: { rope_type: "llama3", factor: 8 } }, "checkpoint", '"low_freq_factor" of "rope_parameters"'],
  [
    { rope_parameters: { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 } },
    "checkpoint",
    '"original_max_position_embeddings" of "rope_parameters"',
  ],
  [
    {
      rope_parameters: {
        ...{ rope_type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 4 },
        original_max_position_embeddings: 64,
      },
    },
    "checkpoint",
    "high_freq_factor",
    "low_freq_factor",
  ],
  [{ num_key_value_heads: 4 }, "checkpoint", '"num_attention_heads" 6', '"num_key_value_heads" 4'],
  [{ num_key_value_heads: 12 }, "checkpoint", "num_key_value_heads"],
  [{ head_dim: undefined, hidden_size: 50 }, "checkpoint", "hidden_size", "50", "num_attention_heads"],
  [{ head_dim: 7 }, "checkpoint", "7", "odd"],
  [{ tie_word_embeddings: "yes" }, "checkpoint", "tie_word_embeddings", '"yes"'],
  [{ attention_bias: 1 }, "checkpoint", "attention_bias", "true or false"],
  [{ mlp_bias: "no" }, "checkpoint", "mlp_bias"],
  [{ rms_norm_eps: 0 }, "checkpoint", "rms_norm_eps"],
  [{ rms_norm_eps: -1e-5 }, "checkpoint", "rms_norm_eps"],
  [{ rms_norm_eps: "1e-5" }, "checkpoint", "rms_norm_eps", '"1e-5"'],
  [{ bos_token_id: 97 }, "checkpoint", "bos_token_id", "97", "0 to 96"],
  [{ bos_token_id: "0" }, "checkpoint", "bos_token_id"],
  [{ eos_token_id: [0, -1] }, "checkpoint", "eos_token_id", "-1"],
  [{ eos_token_id: 1.5 }, "checkpoint", "eos_token_id", "1.5"],
];

for (const [changes, code, ...words] of REFUSED) {
  test(`config.json with ${JSON.stringify(changes).slice(0, 80)} is refused`, () => {
    assert.throws(() => config(changes), says(code, "config.json", ...words));
  });
}

/** The same for the other families. */
const REFUSED_MORE: [family: FamilyName, changes: JsonObject, code: ErrorCode, ...words: string[]][] = [
  ["qwen2", { use_sliding_window: true }, "unsupported", '"use_sliding_window" is true'],
  ["qwen2", { use_sliding_window: 1 }, "checkpoint", "use_sliding_window", "true or false"],
  ["qwen2", { layer_types: ["full_attention", "sliding_attention"] }, "unsupported", "layer_types"],
  ["qwen2", { rope_scaling: { type: "yarn", factor: 4 } }, "unsupported", "rope_scaling", '"yarn"'],
  ["qwen2", { rope_scaling: { type: "mrope", mrope_section: [1] } }, "unsupported", '"mrope"'],
  ["qwen2", { partial_rotary_factor: 0.5 }, "unsupported", "partial_rotary_factor"],
  ["qwen2", { hidden_act: "gelu" }, "unsupported", "hidden_act"],
  ["qwen2", { num_experts: 60 }, "unsupported", "num_experts"],
  ["qwen2", { architectures: ["Qwen2MoeForCausalLM"] }, "unsupported", "Qwen2MoeForCausalLM", "Qwen2ForCausalLM"],
  ["qwen2", { quantization_config: { quant_method: "awq" } }, "unsupported", "quantization_config"],
  ["qwen2", { num_key_value_heads: 2 }, "checkpoint", '"num_attention_heads" 5', '"num_key_value_heads" 2'],

  ["mamba2", { num_heads: 7 }, "checkpoint", '"num_heads" 7', '"n_groups" 3'],
  ["mamba2", { n_groups: 4 }, "checkpoint", '"num_heads" 6', '"n_groups" 4'],
  ["mamba2", { expand: 3 }, "checkpoint", '"expand"', "144", '"num_heads" 6', '"head_dim" 16'],
  ["mamba2", { head_dim: undefined, hidden_size: 47 }, "checkpoint", '"expand"', "94", '"num_heads" 6'],
  ["mamba2", { expand: "2" }, "checkpoint", '"expand"', '"2"'],
  ["mamba2", { conv_kernel: 1 }, "unsupported", '"conv_kernel" is 1', "2 to 8"],
  ["mamba2", { conv_kernel: 9 }, "unsupported", '"conv_kernel" is 9', "2 to 8"],
  ["mamba2", { hidden_act: "relu" }, "unsupported", '"hidden_act"', '"relu"', '"silu"'],
  ["mamba2", { layer_types: ["linear_attention", "full_attention"] }, "unsupported", "layer_types"],
  ["mamba2", { time_step_limit: [0] }, "checkpoint", '"time_step_limit"', "[0]"],
  ["mamba2", { time_step_limit: 0.1 }, "checkpoint", '"time_step_limit"', "0.1"],
  ["mamba2", { time_step_limit: [-1, 1] }, "checkpoint", '"time_step_limit"', "[-1,1]"],
  ["mamba2", { time_step_limit: [0.1, 0.1] }, "checkpoint", '"time_step_limit"', "[0.1,0.1]"],
  ["mamba2", { time_step_limit: [0, { __float__: "NaN" }] }, "checkpoint", '"time_step_limit"', "NaN"],
  ["mamba2", { time_step_limit: [0, "much"] }, "checkpoint", '"time_step_limit"', "much"],
  ["mamba2", { layer_norm_epsilon: 0 }, "checkpoint", '"layer_norm_epsilon"'],
  ["mamba2", { use_bias: 1 }, "checkpoint", '"use_bias"'],
  ["mamba2", { use_conv_bias: "yes" }, "checkpoint", '"use_conv_bias"'],
  ["mamba2", { model_type: "mamba" }, "unsupported", '"mamba"', "Mamba2ForCausalLM"],
  ["mamba2", { architectures: undefined, model_type: undefined, d_model: 768, n_layer: 24 }, "unsupported", "nothing"],

  ["bamba", { attn_layer_indices: [3] }, "checkpoint", "attn_layer_indices", "3", "0 to 2"],
  ["bamba", { attn_layer_indices: [-1] }, "checkpoint", "attn_layer_indices", "-1"],
  ["bamba", { attn_layer_indices: 1 }, "checkpoint", "attn_layer_indices"],
  ["bamba", { layers_block_type: ["mamba", "mamba", "mamba"] }, "checkpoint", "layers_block_type", "layer 1"],
  ["bamba", { layers_block_type: ["mamba", "attention"] }, "checkpoint", "layers_block_type", "2 layers"],
  ["bamba", { layers_block_type: ["mamba", "mlp", "mamba"] }, "unsupported", "layers_block_type", '"mlp"'],
  ["bamba", { mamba_n_heads: 9, mamba_n_groups: 1 }, "checkpoint", '"mamba_expand"', "96", '"mamba_n_heads" 9'],
  ["bamba", { mamba_d_head: 13 }, "checkpoint", '"mamba_d_head" 13', "96"],
  ["bamba", { mamba_d_head: "wide" }, "checkpoint", '"mamba_d_head"', '"wide"'],
  ["bamba", { mamba_n_groups: 3 }, "checkpoint", '"mamba_n_heads" 8', '"mamba_n_groups" 3'],
  ["bamba", { mamba_d_conv: 16 }, "unsupported", '"mamba_d_conv" is 16'],
  ["bamba", { num_attention_heads: 5 }, "checkpoint", '"num_attention_heads" 5'],
  ["bamba", { head_dim: 13 }, "checkpoint", "13", "odd"],
  ["bamba", { partial_rotary_factor: 0.25 }, "checkpoint", "partial_rotary_factor", "6 and 3"],
  ["bamba", { attn_rotary_emb: 12 }, "checkpoint", "attn_rotary_emb", "6 and 12"],
  ["bamba", { rope_parameters: { partial_rotary_factor: 0.45 } }, "unsupported", "partial_rotary_factor", "5", "12"],
  ["bamba", { rope_parameters: { partial_rotary_factor: 2 } }, "checkpoint", "24", "12"],
  ["bamba", { rope_parameters: { partial_rotary_factor: "x" } }, "checkpoint", "partial_rotary_factor", '"x"'],
  ["bamba", { rope_parameters: { rope_type: "yarn" } }, "unsupported", "rope_parameters", '"yarn"'],
  ["bamba", { hidden_act: "gelu" }, "unsupported", "hidden_act"],
  ["bamba", { num_local_experts: 4 }, "unsupported", "num_local_experts"],
  ["bamba", { sliding_window: 128 }, "unsupported", "sliding_window"],
  ["bamba", { architectures: ["GraniteMoeHybridForCausalLM"] }, "unsupported", "GraniteMoeHybrid", "BambaForCausalLM"],

  ["nemotron-h", { layers_block_type: ["mamba", "moe"] }, "unsupported", "layers_block_type", '"moe"', '"mlp"'],
  [
    "nemotron-h",
    { layers_block_type: undefined, hybrid_override_pattern: "M-E*" },
    "unsupported",
    '"hybrid_override_pattern" has "E"',
    '"M"',
  ],
  ["nemotron-h", { layers_block_type: undefined }, "checkpoint", "hybrid_override_pattern", "nothing"],
  ["nemotron-h", { layers_block_type: [] }, "checkpoint", "layers_block_type", "[]"],
  ["nemotron-h", { layers_block_type: 5 }, "unsupported", "layers_block_type", "5"],
  ["nemotron-h", { hybrid_override_pattern: "M-*-*" }, "checkpoint", "hybrid_override_pattern", "layer 4"],
  ["nemotron-h", { hybrid_override_pattern: "M-*-" }, "checkpoint", "hybrid_override_pattern", "of 4"],
  ["nemotron-h", { num_hidden_layers: 4 }, "checkpoint", '"num_hidden_layers" is 4', "5 layers"],
  ["nemotron-h", { mlp_hidden_act: "silu" }, "unsupported", "mlp_hidden_act", '"silu"', '"relu2"'],
  ["nemotron-h", { mamba_hidden_act: "gelu" }, "unsupported", "mamba_hidden_act"],
  ["nemotron-h", { sliding_window: 4096 }, "unsupported", "sliding_window"],
  ["nemotron-h", { intermediate_size: [104, 96] }, "unsupported", "intermediate_size", "[104,96]"],
  ["nemotron-h", { intermediate_size: [] }, "checkpoint", "intermediate_size"],
  ["nemotron-h", { head_dim: 21 }, "checkpoint", "21", "odd"],
  ["nemotron-h", { num_key_value_heads: 2 }, "checkpoint", "num_key_value_heads"],
  ["nemotron-h", { n_groups: 4 }, "checkpoint", '"mamba_num_heads" 6', '"n_groups" 4'],
  ["nemotron-h", { conv_kernel: 12 }, "unsupported", "conv_kernel"],
  ["nemotron-h", { layer_norm_epsilon: null, norm_eps: -1 }, "checkpoint", "norm_eps", "-1"],
  ["nemotron-h", { model_type: "nemotron_h_puzzle" }, "unsupported", "nemotron_h_puzzle"],
];

for (const [family, changes, code, ...words] of REFUSED_MORE) {
  test(`${family} with ${JSON.stringify(changes).slice(0, 80)} is refused`, () => {
    assert.throws(() => config(changes, family), says(code, "config.json", ...words));
  });
}

test("keys of an attention mean nothing in a model without one", () => {
  const keys = { num_attention_heads: 7, num_key_value_heads: 2, head_dim: 3 };
  assert.equal(config({ attn_layer_indices: [], ...keys }, "bamba").heads, 0);
  assert.equal(config({ layers_block_type: ["mamba", "mlp"], ...keys }, "nemotron-h").heads, 0);
  const attentionOnly = { layers_block_type: ["attention"], mamba_num_heads: 0, intermediate_size: 0 };
  assert.deepEqual(config(attentionOnly, "nemotron-h").ssm, null);
});

const SIZES: Record<FamilyName, { required: string; optional: string }> = {
  llama: {
    required: "hidden_size intermediate_size num_hidden_layers num_attention_heads vocab_size",
    optional: "num_key_value_heads head_dim max_position_embeddings",
  },
  qwen2: {
    required: "hidden_size intermediate_size num_hidden_layers num_attention_heads vocab_size",
    optional: "num_key_value_heads head_dim max_position_embeddings",
  },
  mamba2: {
    required: "hidden_size num_hidden_layers num_heads state_size vocab_size",
    optional: "head_dim n_groups conv_kernel",
  },
  bamba: {
    required:
      "hidden_size intermediate_size num_hidden_layers num_attention_heads mamba_n_heads mamba_d_state vocab_size",
    optional: "num_key_value_heads mamba_d_head mamba_n_groups mamba_d_conv max_position_embeddings",
  },
  "nemotron-h": {
    required:
      "hidden_size intermediate_size num_attention_heads mamba_num_heads mamba_head_dim ssm_state_size vocab_size",
    optional: "num_key_value_heads head_dim n_groups conv_kernel num_hidden_layers max_position_embeddings",
  },
};

for (const family of NAMES) {
  const { required, optional } = SIZES[family];
  for (const key of `${required} ${optional}`.split(" ")) {
    test(`"${key}" of ${family} must be a sensible whole number`, () => {
      const wrong = [0, -1, 1.5, "48", true, key === "intermediate_size" ? {} : [], {}, 2 ** 31, 1e300];
      for (const value of [...wrong, ...(required.split(" ").includes(key) ? [null, undefined] : [])]) {
        assert.throws(() => config({ [key]: value }, family), says("checkpoint", `"${key}"`, "whole number"));
      }
    });
  }
}

// Folders

/** Overrides of the small configs, and how many tensors the checkpoint then has. */
const WRITTEN: [family: FamilyName, overrides: JsonObject, tensors: number][] = [
  ["llama", {}, 3 + 2 * 9],
  ["llama", { attention_bias: true, mlp_bias: true }, 3 + 2 * 16],
  ["llama", { tie_word_embeddings: true, head_dim: undefined }, 2 + 2 * 9],
  ["qwen2", {}, 2 + 2 * 12],
  ["mamba2", {}, 2 + 2 * 9],
  ["mamba2", { use_bias: true, use_conv_bias: false, tie_word_embeddings: false }, 3 + 2 * 10],
  ["bamba", {}, 3 + 3 * 5 + 2 * 8 + 4],
  ["bamba", { mamba_proj_bias: true, attention_bias: true, mlp_bias: true }, 3 + 3 * 8 + 2 * 10 + 8],
  ["bamba", { attn_layer_indices: null, num_attention_heads: undefined }, 3 + 3 * 13],
  ["nemotron-h", {}, 3 + 2 * 9 + 2 * 3 + 5],
  ["nemotron-h", { attention_bias: true, mlp_bias: true, use_bias: true }, 3 + 2 * 11 + 2 * 5 + 9],
];

for (const [seed, [family, overrides, count]] of WRITTEN.entries()) {
  test(`a written ${family} opens, and every tensor arrives under its role: ${JSON.stringify(overrides)}`, async (t) => {
    const folder = join(scratchFolder(t), "model");
    const options = { dtype: "F16" as const, shards: 1 + (seed % 3) };
    const written = writeCheckpoint(folder, { ...SMALL_CONFIGS[family], ...overrides }, seed, options);
    assert.equal(written.tensors.size, count);
    const checkpoint = await openCheckpoint(folder);
    t.after(() => checkpoint.close());
    assert.equal(checkpoint.config.family, family);
    const seen = new Set<string>();
    for (const { role, layer, names } of expectedTensors(checkpoint.config)) {
      const values = written.tensors.get(names[0])?.values;
      assert.deepEqual(await readTensor(checkpoint, role, layer), values, names[0]);
      assert.deepEqual(await readOptionalTensor(checkpoint, role, layer), values, names[0]);
      seen.add(names[0]);
    }
    assert.equal(seen.size, count);
    for (const { role, layer } of excludedTensors(checkpoint.config)) {
      assert.equal(await readOptionalTensor(checkpoint, role, layer), null, `${role} of layer ${layer}`);
    }
  });
}

test("a layer has the tensors of its sublayers and no others", () => {
  const rolesOf = (family: FamilyName, changes: JsonObject, layer: number) =>
    [...expectedTensors(config(changes, family))]
      .filter((tensor) => tensor.layer === layer && tensor.role.search(/^(embedding|head|finalNorm)$/) < 0)
      .map(({ role }) => role)
      .join(" ");
  const mamba = "inProj conv dtBias aLog d gatedNorm outProj";
  assert.equal(rolesOf("llama", {}, 1), "mixerNorm q k v o mlpNorm gate up down");
  assert.equal(rolesOf("qwen2", {}, 0), "mixerNorm q k v o qBias kBias vBias mlpNorm gate up down");
  assert.equal(rolesOf("mamba2", { use_bias: true }, 1), `mixerNorm ${mamba} convBias inProjBias outProjBias`);
  assert.equal(rolesOf("bamba", {}, 0), `mixerNorm ${mamba} convBias mlpNorm gate up down`);
  assert.equal(rolesOf("bamba", {}, 1), "mixerNorm q k v o mlpNorm gate up down");
  assert.equal(rolesOf("nemotron-h", {}, 0), `mixerNorm ${mamba} convBias`);
  assert.equal(rolesOf("nemotron-h", { mlp_bias: true }, 1), "mlpNorm up down upBias downBias");
  assert.equal(rolesOf("nemotron-h", {}, 2), "mixerNorm q k v o");
  const shape = (role: Role, layer: number) => findTensor(config({}, "nemotron-h"), role, layer)?.shape;
  assert.deepEqual(shape("inProj", 0), [2 * 72 + 2 * 2 * 28 + 6, 48]);
  assert.deepEqual(shape("conv", 4), [72 + 2 * 2 * 28, 1, 4]);
  assert.deepEqual(shape("outProj", 4), [48, 72]);
  assert.equal(shape("inProj", 1), undefined);
  assert.equal(shape("inProj", 5), undefined);
});

test("random weights of a state space are such as training makes", async (t) => {
  const { tensors } = writeCheckpoint(scratchFolder(t), { ...SMALL_CONFIGS.mamba2, num_hidden_layers: 40 });
  const all = (end: string) =>
    [...tensors].flatMap(([name, { values }]) => (name.endsWith(end) ? [...values] : [])).sort((a, b) => a - b);
  const [aLog, dtBias] = [all("A_log"), all("dt_bias")];
  const [least, most] = [aLog[0], aLog.at(-1) ?? NaN];
  assert.ok(least >= 0 && least < 0.7 && most > 2.6 && most < 2.78, `A_log from ${least} to ${most}`);
  const steps = dtBias.map((bias) => Math.log1p(Math.exp(bias)));
  assert.ok(steps[0] > 0.0009 && steps[0] < 0.002, `least step ${steps[0]}`);
  assert.ok((steps.at(-1) ?? NaN) > 0.1 && (steps.at(-1) ?? NaN) < 0.21, `largest step ${steps.at(-1)}`);
});

test("roles, rows, and what a model does not have", async (t) => {
  const { folder, tensors } = writeCheckpoint(scratchFolder(t), { tie_word_embeddings: true });
  const checkpoint = await openCheckpoint(folder);
  t.after(() => checkpoint.close());
  const embedding = tensors.get("model.embed_tokens.weight")?.values;
  assert.deepEqual(await readTensorRows(checkpoint, "embedding", 0, 90, 7), embedding?.slice(90 * 48));
  assert.deepEqual(findTensor(checkpoint.config, "k", 1), {
    ...{ role: "k", layer: 1, names: ["model.layers.1.self_attn.k_proj.weight"] },
    shape: [24, 48],
  });
  assert.equal(findTensor(checkpoint.config, "head"), null);
  assert.equal(await readOptionalTensor(checkpoint, "qBias", 0), null);
  await assert.rejects(() => readTensor(checkpoint, "head"), says("internal", "head"));
});

test("every family's table is whole: one row per role", () => {
  const ids = [FAMILY_LLAMA, FAMILY_QWEN2, FAMILY_MAMBA2, FAMILY_BAMBA, FAMILY_NEMOTRON_H];
  assert.deepEqual(
    FAMILIES.map(({ id }) => id),
    ids,
  );
  for (const family of FAMILIES) {
    const roles = [...family.model, ...family.layer].map((row) => row.role);
    assert.equal(new Set(roles).size, roles.length);
    assert.ok(family.layer.every(({ names }) => names.length > 0 && names.every((name) => name.includes("{layer}"))));
    assert.ok(family.model.every(({ names }) => names.length > 0 && !names.some((name) => name.includes("{layer}"))));
    assert.ok(family.layer.every((row) => row.sublayers));
    assert.equal(familyOf(config({}, family.name)), family);
  }
});

/** Writes a checkpoint whose tensors have other names. */
function writeRenamed(folder: string, base: JsonObject, rename: (name: string) => string) {
  const { tensors } = writeCheckpoint(folder, base);
  const renamed = new Map([...tensors].map(([name, tensor]) => [rename(name), tensor]));
  writeSafetensors(join(folder, "model.safetensors"), renamed);
  return renamed;
}

for (const [family, pattern, replacement, head] of [
  ["mamba2", /^backbone.embeddings/, "backbone.embedding", "backbone.embedding.weight"],
  ["nemotron-h", /^backbone./, "model.", "model.embeddings.weight"],
  ["nemotron-h", /^backbone.embeddings/, "model.embed_tokens", "model.embed_tokens.weight"],
] as const) {
  test(`other names of ${family} are known: ${replacement}`, async (t) => {
    const folder = scratchFolder(t);
    const base = { ...SMALL_CONFIGS[family], tie_word_embeddings: true };
    const renamed = writeRenamed(folder, base, (name) => name.replace(pattern, replacement));
    const checkpoint = await openCheckpoint(folder);
    t.after(() => checkpoint.close());
    assert.deepEqual(await readTensor(checkpoint, "embedding"), renamed.get(head)?.values);
    const rows = await readTensorRows(checkpoint, "embedding", 0, 96, 1);
    assert.deepEqual(rows, renamed.get(head)?.values.slice(96 * 48));
    for (const { role, layer } of expectedTensors(checkpoint.config)) await readTensor(checkpoint, role, layer);
    const copy = renamed.get(head) as StoredTensor;
    const values = Float32Array.from(copy.values);
    values[0] += 1;
    writeSafetensors(join(folder, "model.safetensors"), new Map([...renamed, ["lm_head.weight", { ...copy, values }]]));
    await assert.rejects(() => openCheckpoint(folder), says("checkpoint", "lm_head.weight", head, "row 0"));
  });
}

test("a tensor that is missing has its usual name in the message", async (t) => {
  const folder = scratchFolder(t);
  for (const [family, usual] of [
    ["mamba2", "backbone.embeddings.weight"],
    ["nemotron-h", "backbone.layers.1.mixer.up_proj.weight"],
  ] as const) {
    writeRenamed(folder, SMALL_CONFIGS[family], (name) => (name === usual ? "x" : name));
    await assert.rejects(() => openCheckpoint(folder), says("checkpoint", `"${usual}" is missing`));
  }
});

test("tokenizers in other formats are refused by name", async (t) => {
  for (const file of ["tokenizer.model", "tokenizer.model.v3", "vocab.json", "merges.txt", "qwen.tiktoken"]) {
    const folder = join(scratchFolder(t), "model");
    writeCheckpoint(folder, {}, 1, { files: { [file]: "x" } });
    await assert.rejects(() => openCheckpoint(folder), says("unsupported", file, "expected tokenizer.json"));
    writeFileSync(join(folder, "tokenizer.json"), "{}");
    await (await openCheckpoint(folder)).close();
  }
});

test("a folder with weights of another format says so", async (t) => {
  const { folder } = writeCheckpoint(scratchFolder(t));
  unlinkSync(join(folder, "model.safetensors"));
  writeFileSync(join(folder, "pytorch_model.bin"), "");
  await assert.rejects(() => openCheckpoint(folder), says("checkpoint", "found pytorch_model.bin", "as safetensors"));
});

test("files beside the weights are handed on", async (t) => {
  const folder = scratchFolder(t);
  const tokenizerConfig = { bos_token: "<s>", chat_template: "older" };
  writeCheckpoint(folder, { eos_token_id: 4 }, 1, {
    files: {
      "tokenizer.json": { version: "1.0" },
      "tokenizer_config.json": tokenizerConfig,
      "generation_config.json": { eos_token_id: [4, 5] },
    },
  });
  const open = async () => {
    const checkpoint = await openCheckpoint(folder);
    await checkpoint.close();
    return checkpoint;
  };
  const first = await open();
  assert.deepEqual(first.tokenizer, { version: "1.0" });
  assert.deepEqual(first.tokenizerConfig, tokenizerConfig);
  assert.deepEqual(first.generationConfig, { eos_token_id: [4, 5] });
  assert.deepEqual(first.config.endTokens, [4, 5]);
  assert.equal(first.chatTemplate, "older");

  writeFileSync(join(folder, "chat_template.jinja"), "newer {{ é }}\n");
  assert.equal((await open()).chatTemplate, "newer {{ é }}\n");
  unlinkSync(join(folder, "chat_template.jinja"));
  const named = [
    { name: "tool_use", template: "with tools" },
    { name: "default", template: "plain" },
  ];
  patchJson(folder, "tokenizer_config.json", { chat_template: named });
  assert.equal((await open()).chatTemplate, "plain");
  patchJson(folder, "tokenizer_config.json", { chat_template: [named[0]] });
  assert.equal((await open()).chatTemplate, null);
  for (const wrong of [7, { default: "x" }, [{ name: "default", template: 7 }]]) {
    patchJson(folder, "tokenizer_config.json", { chat_template: wrong });
    await assert.rejects(open, says("checkpoint", "tokenizer_config.json", "chat_template"));
  }
  for (const file of ["tokenizer_config.json", "tokenizer.json", "generation_config.json"]) {
    writeFileSync(join(folder, file), "{");
    await assert.rejects(open, says("checkpoint", file, "not JSON"));
    unlinkSync(join(folder, file));
  }
  const bare = await open();
  const { tokenizer, chatTemplate, generationConfig } = bare;
  assert.deepEqual([tokenizer, bare.tokenizerConfig, generationConfig, chatTemplate], [null, null, null, null]);
});

test("a folder that is none, or has no config.json, is refused", async (t) => {
  const folder = scratchFolder(t);
  await assert.rejects(() => openCheckpoint(join(folder, "no")), says("source", "no", "does not exist"));
  writeFileSync(join(folder, "file"), "");
  await assert.rejects(() => openCheckpoint(join(folder, "file")), says("source", "expected a folder"));
  await assert.rejects(() => openCheckpoint(join(folder, "file", "x")), says("source", "file"));
  await assert.rejects(() => openCheckpoint(folder), says("checkpoint", "expected config.json"));
  mkdirSync(join(folder, "config.json"));
  await assert.rejects(() => openCheckpoint(folder), says("checkpoint", "config.json", "plain file"));
});

test("config.json and generation_config.json that are damaged are refused", async (t) => {
  const { folder } = writeCheckpoint(scratchFolder(t));
  writeFileSync(join(folder, "generation_config.json"), '{"eos_token_id": [0, 97]}');
  await assert.rejects(
    () => openCheckpoint(folder),
    says("checkpoint", "generation_config.json", "eos_token_id", "97"),
  );
  for (const [text, word] of [
    ["", "not JSON"],
    ["{", "not JSON"],
    ["[]", "JSON object"],
    ["7", "JSON object"],
  ]) {
    writeFileSync(join(folder, "config.json"), text);
    await assert.rejects(() => openCheckpoint(folder), says("checkpoint", "config.json", word));
  }
});

/** Keys of config.json that then disagree with the weights, and the tensor that shows it. */
const DISAGREE: [changes: JsonObject, ...words: string[]][] = [
  [{ hidden_size: 96 }, "model.embed_tokens.weight", "[97, 96]", "[97, 48]"],
  [{ vocab_size: 98 }, "model.embed_tokens.weight", "[98, 48]"],
  [{ intermediate_size: 81 }, "model.layers.0.mlp.gate_proj.weight", "[81, 48]", "[80, 48]"],
  [{ num_attention_heads: 4 }, "model.layers.0.self_attn.q_proj.weight", "[48, 48]", "[72, 48]"],
  [{ num_key_value_heads: 3 }, "model.layers.0.self_attn.k_proj.weight", "[36, 48]", "[24, 48]"],
  [{ head_dim: 14 }, "model.layers.0.self_attn.q_proj.weight", "[84, 48]"],
  [{ num_hidden_layers: 3 }, "model.layers.2.input_layernorm.weight", "missing"],
  [{ attention_bias: true }, "model.layers.0.self_attn.q_proj.bias", "missing"],
  [{ mlp_bias: true }, "model.layers.0.mlp.gate_proj.bias", "missing"],
];

/** The same for the other families. */
const DISAGREE_MORE: [family: FamilyName, changes: JsonObject, ...words: string[]][] = [
  ["qwen2", { intermediate_size: 89 }, "model.layers.0.mlp.gate_proj.weight", "[89, 40]"],
  ["mamba2", { num_heads: 12, head_dim: 8 }, "backbone.layers.0.mixer.in_proj.weight", "[324, 48]", "[318, 48]"],
  ["mamba2", { state_size: 21 }, "backbone.layers.0.mixer.in_proj.weight", "[324, 48]"],
  ["mamba2", { conv_kernel: 3 }, "backbone.layers.0.mixer.conv1d.weight", "[216, 1, 3]", "[216, 1, 4]"],
  ["mamba2", { use_bias: true }, "backbone.layers.0.mixer.in_proj.bias", "missing"],
  ["mamba2", { use_conv_bias: false }, "backbone.layers.0.mixer.conv1d.bias", "_bias"],
  ["bamba", { attn_layer_indices: [0, 1] }, "model.layers.0.self_attn.q_proj.weight", "missing"],
  ["bamba", { mamba_conv_bias: false }, "model.layers.0.mamba.conv1d.bias", "without it", "mamba and mlp"],
  ["bamba", { mamba_proj_bias: true }, "model.layers.0.mamba.in_proj.bias", "missing"],
  [
    "nemotron-h",
    { layers_block_type: ["mamba", "mlp", "attention", "mlp", "attention"] },
    "backbone.layers.4.mixer.q_proj.weight",
    "missing",
  ],
  ["nemotron-h", { mlp_bias: true }, "backbone.layers.1.mixer.up_proj.bias", "missing"],
];

for (const [family, changes, ...words] of [...DISAGREE.map((one) => ["llama", ...one] as const), ...DISAGREE_MORE]) {
  test(`weights of ${family} that contradict ${JSON.stringify(changes)} are refused on opening`, async (t) => {
    const { folder } = writeCheckpoint(scratchFolder(t), SMALL_CONFIGS[family]);
    patchJson(folder, "config.json", changes);
    await assert.rejects(() => openCheckpoint(folder), says("checkpoint", ...words));
  });
}

test("tensors of a sublayer that its layer does not have are refused, not dropped", async (t) => {
  const folder = scratchFolder(t);
  const zeros = (...shape: number[]): StoredTensor => {
    return { dtype: "F32", shape, values: new Float32Array(shape.reduce((a, b) => a * b)) };
  };
  for (const [family, name, layer] of [
    ["nemotron-h", "backbone.layers.1.mixer.gate_proj.weight", "layer 1 is mlp"],
    ["nemotron-h", "model.layers.2.mixer.A_log", "layer 2 is attention"],
    ["bamba", "model.layers.0.self_attn.q_proj.weight", "layer 0 is mamba and mlp"],
    ["qwen2", "model.layers.1.self_attn.o_proj.bias", "layer 1 is attention and mlp"],
  ] as const) {
    const { tensors } = writeCheckpoint(folder, SMALL_CONFIGS[family]);
    writeSafetensors(join(folder, "model.safetensors"), new Map([...tensors, [name, zeros(1)]]));
    await assert.rejects(() => openCheckpoint(folder), says("checkpoint", name, layer));
  }
});

test("biases that config.json does not know of are refused, not dropped", async (t) => {
  const { folder } = writeCheckpoint(scratchFolder(t), { mlp_bias: true });
  patchJson(folder, "config.json", { mlp_bias: false });
  await assert.rejects(() => openCheckpoint(folder), says("checkpoint", "gate_proj.bias", "_bias"));
});

test("a head: missing, tied, or stored twice", async (t) => {
  const { folder, tensors } = writeCheckpoint(scratchFolder(t), { tie_word_embeddings: true });
  patchJson(folder, "config.json", { tie_word_embeddings: false });
  await assert.rejects(
    () => openCheckpoint(folder),
    says("checkpoint", "lm_head.weight", '"tie_word_embeddings": true'),
  );

  patchJson(folder, "config.json", { tie_word_embeddings: true });
  const embedding = tensors.get("model.embed_tokens.weight");
  assert.ok(embedding);
  const path = join(folder, "model.safetensors");
  writeSafetensors(path, new Map([...tensors, ["lm_head.weight", embedding]]));
  await (await openCheckpoint(folder)).close();

  const values = Float32Array.from(embedding.values);
  values[50 * 48 + 3] += 1;
  writeSafetensors(path, new Map([...tensors, ["lm_head.weight", { ...embedding, values }]]));
  await assert.rejects(() => openCheckpoint(folder), says("checkpoint", "lm_head.weight", "row 50", "Set it to false"));
});

test("tensors that no model needs are left alone", async (t) => {
  const { folder, tensors } = writeCheckpoint(scratchFolder(t));
  const values = Float32Array.of(1, 0.5);
  const extra = ["model.layers.0.self_attn.rotary_emb.inv_freq", { dtype: "F32", shape: [2], values }] as const;
  writeSafetensors(join(folder, "model.safetensors"), new Map([...tensors, extra]));
  await (await openCheckpoint(folder)).close();
});

test("the shared checkpoints open, with no tensor left over", { skip }, async () => {
  const mamba = { heads: 10, headDim: 64, groups: 1, state: 64, taps: 4, normGroups: 1, stepLeast: 0 };
  const expected: Record<string, [family: FamilyName, layers: string, heads: number[], ssm: object | null]> = {
    "tale-llama": ["llama", "am ".repeat(8), [8, 2, 64, 32], null],
    "tale-qwen2": ["qwen2", "am ".repeat(6), [5, 1, 64, 32], null],
    "tale-mamba2": ["mamba2", "s ".repeat(10), [0, 0, 0, 0], mamba],
    "tale-bamba": ["bamba", "sm sm am sm sm am ", [5, 1, 64, 16], mamba],
    "tiny/tiny-llama": ["llama", "am ".repeat(3), [4, 2, 32, 16], null],
    "tiny/tiny-qwen2": ["qwen2", "am ".repeat(3), [4, 1, 32, 16], null],
    "tiny/tiny-mamba2": ["mamba2", "s ".repeat(3), [0, 0, 0, 0], { groups: 2, state: 32, normGroups: 1 }],
    "tiny/tiny-bamba": ["bamba", "sm am sm am ", [4, 2, 32, 8], { heads: 8, groups: 1, normGroups: 1 }],
    "tiny/tiny-nemotron-h": ["nemotron-h", "s m s a m ", [4, 2, 32, 0], { heads: 8, groups: 2, normGroups: 2 }],
  };
  for (const [name, [family, layers, heads, ssm]] of Object.entries(expected)) {
    const checkpoint = await openCheckpoint(`${MODELS}/${name}`);
    const { config, tensors } = checkpoint;
    const letters = { attention: "a", mlp: "m", mamba: "s" };
    const spelled = config.sublayers.map((layer) => `${layer.map((one) => letters[one]).join("")} `).join("");
    assert.deepEqual([config.family, spelled], [family, layers], name);
    const { ropeInverseFrequencies: angles } = config;
    assert.deepEqual([config.heads, config.kvHeads, config.headDim, angles.length], heads, name);
    assert.deepEqual({ ...config.ssm, ...ssm }, { ...config.ssm }, name);
    assert.equal(config.ssm?.stepMost ?? Infinity, Infinity);
    const names = [...expectedTensors(config)].map((tensor) => tensor.names[0]);
    assert.deepEqual(names.sort(), [...tensors.entries.keys()].sort(), name);
    await checkpoint.close();
  }
  const tale = await openCheckpoint(`${MODELS}/tale-llama`);
  const { layers, width, heads, kvHeads, headDim, mlpWidth, tiedHead, beginToken, endTokens } = tale.config;
  assert.deepEqual([layers, width, heads, kvHeads, headDim, mlpWidth, tiedHead], [8, 512, 8, 2, 64, 1536, true]);
  assert.deepEqual([beginToken, endTokens], [0, [0]]);
  assert.ok(tale.tokenizer);
  assert.match(tale.chatTemplate ?? "", /im_start/);
  const declared = JSON.parse(readFileSync(`${MODELS}/tale-llama/model.safetensors.index.json`, "utf8"));
  assert.deepEqual([...tale.tensors.entries.keys()].sort(), Object.keys(declared.weight_map).sort());
  await tale.close();
});
