// A checkpoint folder as a model hub lays it out: config.json read into one plain description, and every tensor that
// the description needs checked for presence, shape and dtype before any weight is read. What the description says:
// config.ts. Names and shapes: families/. Bytes: safetensors.ts. Tokenizer, chat template and generation settings are
// handed on as they are.

import { readdir, stat } from "node:fs/promises";
import { SnugError } from "../runtime/index";
import { bad, CORRECT, type ModelConfig, tokens, unsupported } from "./config";
import {
  type ExpectedTensor,
  excludedTensors,
  expectedTensors,
  FAMILIES,
  type Family,
  type FamilyName,
  findTensor,
  storedName,
} from "./families/index";
import { isObject, type JsonObject, kindOf, openTensors, readJson, readText, type Tensors } from "./safetensors";

const COMPARE_VALUES = 2 ** 20; // weights compared at once when a tied head is stored twice
/** Tokenizers in the formats that came before tokenizer.json. */
const OTHER_TOKENIZERS =
  /^(?:tokenizer\.model(?:\..+)?|.*\.tiktoken|vocab\.(?:json|txt)|merges\.txt|spiece\.model|sentencepiece\..*model|tekken\.json|tokenizer_config\.json)$/;

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
  if (!tokenizer) await refuseOtherTokenizers(folder);
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
  refuseAltered(raw);
  const config = family.read(raw);
  const more = tokens(generation ?? {}, "generation_config.json", "eos_token_id", config.vocabulary, null);
  return { ...config, family: family.name, endTokens: [...new Set([...config.endTokens, ...more])] };
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

function findFamily(raw: JsonObject): Family<FamilyName> {
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

/** Weights that are no longer what the model was trained as. */
function refuseAltered(raw: JsonObject): void {
  const key = ["quantization_config", "compression_config"].find((one) => raw[one]);
  if (key) {
    throw unsupported(
      `"${key}" is ${kindOf(raw[key])}: the weights are quantized already; take the original checkpoint`,
    );
  }
  if (isObject(raw.pruned_heads) && Object.keys(raw.pruned_heads).length > 0) {
    throw unsupported(`"pruned_heads" is ${kindOf(raw.pruned_heads)}; supported: layers of equal size`);
  }
}

async function refuseOtherTokenizers(folder: string): Promise<void> {
  const others = (await readdir(folder).catch(() => [])).filter((name) => OTHER_TOKENIZERS.test(name)).sort();
  if (others.length === 0) return;
  throw new SnugError(
    "unsupported",
    `${folder}: expected tokenizer.json, found ${others.join(", ")}. Older formats are not read: download ` +
      "tokenizer.json too or, if the model has none, let transformers write it (AutoTokenizer, save_pretrained).",
  );
}

function checkTensors(config: ModelConfig, tensors: Tensors): void {
  const head = untiedHead(config);
  if (!config.tiedHead && !tensors.entries.has(storedName(tensors, head))) {
    throw bad(
      `Tensor "${head.names[0]}" is missing. If the head of this model is its embedding, config.json must say ` +
        '"tie_word_embeddings": true; otherwise download the checkpoint again.',
    );
  }
  const used = new Set<string>();
  for (const tensor of expectedTensors(config)) {
    const name = storedName(tensors, tensor);
    tensors.expect(name, tensor.shape);
    used.add(name);
  }
  for (const { names, layer } of excludedTensors(config)) {
    const name = names.find((one) => tensors.entries.has(one) && !used.has(one));
    if (name === undefined) continue;
    throw bad(
      `Tensor "${name}" is in the weights, but config.json describes a model without it: layer ${layer} is ` +
        `${config.sublayers[layer].join(" and ")}. Correct the keys that end in "_bias" or that list the layers, or ` +
        "take config.json and weights from one checkpoint.",
    );
  }
}

/** Some checkpoints store a tied head a second time: the copy must be one. */
async function checkTiedHead(config: ModelConfig, tensors: Tensors): Promise<void> {
  const embedding = findTensor(config, "embedding");
  const name = storedName(tensors, untiedHead(config));
  if (!embedding || !tensors.entries.has(name)) return;
  const embeddingName = storedName(tensors, embedding);
  const rows = Math.max(1, Math.floor(COMPARE_VALUES / config.width));
  for (let first = 0; first < config.vocabulary; first += rows) {
    const count = Math.min(rows, config.vocabulary - first);
    const a = await tensors.readRows(embeddingName, first, count, embedding.shape);
    const b = await tensors.readRows(name, first, count, embedding.shape);
    const different = a.findIndex((value, i) => value !== b[i]);
    if (different >= 0) {
      throw bad(
        `config.json says "tie_word_embeddings": true, but "${name}" differs from "${embeddingName}" in row ` +
          `${first + Math.floor(different / config.width)}. Set it to false, or remove "${name}".`,
      );
    }
  }
}

function untiedHead(config: ModelConfig): ExpectedTensor {
  const head = findTensor({ ...config, tiedHead: false }, "head");
  if (!head) throw new SnugError("internal", `The family ${config.family} has no row for the head.`);
  return head;
}

function templateOf(tokenizerConfig: JsonObject | null): string | null {
  const value = tokenizerConfig?.chat_template ?? null;
  if (value === null || typeof value === "string") return value;
  const named = Array.isArray(value) ? value.filter(isObject) : [];
  const template = named.find((one) => one.name === "default")?.template ?? null;
  if (Array.isArray(value) && (template === null || typeof template === "string")) return template;
  throw bad(`tokenizer_config.json: "chat_template" is ${kindOf(value)}, expected a text or a list. ${CORRECT}`);
}
