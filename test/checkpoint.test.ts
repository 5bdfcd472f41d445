// Opening a checkpoint: what config.json means in each of its generations, what is refused and in which words, and
// that every tensor arrives under its role.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openCheckpoint, parseConfig } from "../packs/checkpoint";
import {
  expectedTensors,
  FAMILIES,
  familyOf,
  findTensor,
  readOptionalTensor,
  readTensor,
  readTensorRows,
} from "../packs/families";
import { FAMILY_LLAMA } from "../packs/format";
import type { JsonObject } from "../packs/safetensors";
import type { ErrorCode } from "../runtime/errors";
import { patchJson, SMALL_CONFIG, says, scratchFolder, writeCheckpoint, writeSafetensors } from "./write-checkpoint";

const MODELS = "../shared/models";
const skip = existsSync(MODELS) ? false : `${MODELS} is absent`;

/** A config as it comes, with keys changed; undefined removes one. */
function config(changes: JsonObject = {}) {
  return parseConfig(JSON.parse(JSON.stringify({ ...SMALL_CONFIG, ...changes })));
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
    tiedHead: false,
    attentionBias: true,
    oBias: true,
    mlpBias: false,
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
    tiedHead: false,
    attentionBias: false,
    oBias: false,
    mlpBias: false,
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

const SIZES =
  "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size";
for (const key of [...SIZES.split(" "), "max_position_embeddings"]) {
  test(`"${key}" must be a sensible whole number`, () => {
    const required = !["num_key_value_heads", "head_dim", "max_position_embeddings"].includes(key);
    for (const value of [0, -1, 1.5, "48", true, [], {}, 2 ** 31, 1e300, ...(required ? [null, undefined] : [])]) {
      assert.throws(() => config({ [key]: value }), says("checkpoint", `"${key}"`, "whole number"));
    }
  });
}

// Folders

test("a written checkpoint opens, and every tensor arrives under its role", async (t) => {
  const biases = { attention_bias: true, mlp_bias: true };
  for (const [seed, overrides] of [{}, { ...biases }, { tie_word_embeddings: true, head_dim: undefined }].entries()) {
    const options = { dtype: "F16" as const, shards: 1 + seed };
    const written = writeCheckpoint(join(scratchFolder(t), "model"), overrides, seed, options);
    const checkpoint = await openCheckpoint(written.folder);
    let count = 0;
    for (const { role, layer, name } of expectedTensors(checkpoint.config)) {
      assert.deepEqual(await readTensor(checkpoint, role, layer), written.tensors.get(name)?.values, name);
      assert.deepEqual(await readOptionalTensor(checkpoint, role, layer), written.tensors.get(name)?.values, name);
      count++;
    }
    assert.equal(count, written.tensors.size);
    assert.equal(count, 2 + Number(seed !== 2) + 2 * (9 + 7 * Number(seed === 1)));
    await checkpoint.close();
  }
});

test("roles, rows, and what a model does not have", async (t) => {
  const { folder, tensors } = writeCheckpoint(scratchFolder(t), { tie_word_embeddings: true });
  const checkpoint = await openCheckpoint(folder);
  t.after(() => checkpoint.close());
  const embedding = tensors.get("model.embed_tokens.weight")?.values;
  assert.deepEqual(await readTensorRows(checkpoint, "embedding", 0, 90, 7), embedding?.slice(90 * 48));
  assert.deepEqual(findTensor(checkpoint.config, "k", 1), {
    ...{ role: "k", layer: 1, name: "model.layers.1.self_attn.k_proj.weight" },
    shape: [24, 48],
  });
  assert.equal(findTensor(checkpoint.config, "head"), null);
  assert.equal(await readOptionalTensor(checkpoint, "qBias", 0), null);
  await assert.rejects(() => readTensor(checkpoint, "head"), says("internal", "head"));
});

test("every family's table is whole: one row per role", () => {
  for (const family of FAMILIES) {
    const roles = [...family.model, ...family.layer].map((row) => row.role);
    assert.equal(new Set(roles).size, roles.length);
    assert.ok(family.layer.every((row) => row.name.includes("{layer}")));
    assert.ok(family.model.every((row) => !row.name.includes("{layer}")));
  }
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

for (const [changes, ...words] of DISAGREE) {
  test(`weights that contradict ${JSON.stringify(changes)} are refused when the folder is opened`, async (t) => {
    const { folder } = writeCheckpoint(scratchFolder(t));
    patchJson(folder, "config.json", changes);
    await assert.rejects(() => openCheckpoint(folder), says("checkpoint", ...words));
  });
}

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

test("the shared checkpoints: Llama opens, the others are refused by name", { skip }, async () => {
  const tale = await openCheckpoint(`${MODELS}/tale-llama`);
  const { layers, width, heads, kvHeads, headDim, mlpWidth, tiedHead, beginToken, endTokens } = tale.config;
  assert.deepEqual([layers, width, heads, kvHeads, headDim, mlpWidth, tiedHead], [8, 512, 8, 2, 64, 1536, true]);
  assert.deepEqual([beginToken, endTokens], [0, [0]]);
  assert.ok(tale.tokenizer);
  assert.match(tale.chatTemplate ?? "", /im_start/);
  const declared = JSON.parse(readFileSync(`${MODELS}/tale-llama/model.safetensors.index.json`, "utf8"));
  assert.deepEqual([...tale.tensors.entries.keys()].sort(), Object.keys(declared.weight_map).sort());
  await tale.close();
  for (const [name, architecture] of [
    ["tale-mamba2", "Mamba2ForCausalLM"],
    ["tale-bamba", "BambaForCausalLM"],
  ]) {
    await assert.rejects(
      () => openCheckpoint(`${MODELS}/${name}`),
      says("unsupported", architecture, "LlamaForCausalLM"),
    );
  }
});
