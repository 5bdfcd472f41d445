// The suite's own fixtures, made before the hosts run: small packs of every family, and packs of the checkpoints that lie
// beside the project, with what their reference says.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { openCheckpoint } from "../../../packs/checkpoint";
import { openTensors } from "../../../packs/safetensors";
import { type Golden, type GpuFixtures, INDEX, type SmallPack } from "../../gpu-fixtures";
import { readLayout } from "../../read-pack";
import { readReference } from "../../read-reference";
import { forward } from "../../reference";
import { FAMILY_SHAPES, SHAPES, type Shape } from "../../small-models";
import { fixture } from "../../tokenizer-cases";
import { writeCheckpoint } from "../../write-checkpoint";
import { packCheckpoint, rateOf, type Weights } from "../../write-pack";
import { fixturePath } from "./places";

const CONTEXT = 320;
const SHARES = [1, 0.5, 0.15];
/** As many as the fixture's tokenizer has. */
const TEXT_VOCABULARY = 600;
/** One of each family. */
const TEXT_SHAPES = [...SHAPES.slice(0, 1), ...FAMILY_SHAPES].filter(
  ({ config }, i, all) => all.findIndex((one) => one.config.architectures === config.architectures) === i,
);
const MODELS = ["tiny/tiny-llama", "tiny/tiny-qwen2", "tiny/tiny-mamba2", "tiny/tiny-bamba", "tiny/tiny-nemotron-h"];
const TALES = ["tale-llama", "tale-qwen2", "tale-mamba2", "tale-bamba"];

/** Writes all of them; the checkpoints' are left out where there are none. */
export async function writeFixtures(): Promise<void> {
  mkdirSync(fixturePath("."), { recursive: true });
  const fixtures: GpuFixtures = { small: await writeSmall(), goldens: await writeGoldens() };
  writeFileSync(fixturePath(INDEX), JSON.stringify(fixtures));
}

async function writeSmall(): Promise<SmallPack[]> {
  const packs: SmallPack[] = [];
  for (const [index, shape] of [...SHAPES.slice(0, 2), ...FAMILY_SHAPES].entries())
    for (const weights of ["f32", "q8", "q4"] as const)
      packs.push(await writeOne(`small-${index}-${weights}.snug`, shape, weights, 700 + index, false));
  for (const [index, { config, sizes }] of TEXT_SHAPES.entries()) {
    const shape = {
      name: "with a tokenizer",
      config: { ...config, vocab_size: TEXT_VOCABULARY, tie_word_embeddings: false },
      sizes,
    };
    packs.push(await writeOne(`text-${index}.snug`, shape, "q4", 800 + index, true));
  }
  return packs;
}

async function writeOne(
  file: string,
  { name, config, sizes }: Shape,
  weights: Weights,
  seed: number,
  hasText: boolean,
): Promise<SmallPack> {
  const scratch = mkdtempSync(join(tmpdir(), "snug-gpu-"));
  try {
    const files = hasText ? { "tokenizer.json": fixture() } : {};
    const own = { ...config, max_position_embeddings: CONTEXT };
    const written = writeCheckpoint(scratch, own, seed, { files });
    const bytes = await packCheckpoint(scratch, { weights, seed, sizes });
    writeFileSync(fixturePath(file), bytes);
    const lengths = readLayout(bytes).units.map(({ length }) => length);
    const units = SHARES.map((share) => Math.ceil(lengths.length * share));
    const family = String(written.config.model_type);
    return {
      ...{ file, family, weights, hasText, name: `${family} ${weights}: ${name}` },
      cuts: units.map((count) => ({ units: count, pruning: rateOf(lengths, count) })),
    };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

interface GoldenText {
  readonly ids: readonly number[];
  readonly greedy: readonly number[];
  readonly greedy_prompt_tokens: number;
}

async function writeGoldens(): Promise<Golden[]> {
  const goldens: Golden[] = [];
  for (const path of [...MODELS, ...TALES]) {
    const folder = fixturePath(join("shared", path));
    if (!existsSync(folder)) continue;
    const name = basename(path);
    const [file, logits] = [`${name}.snug`, `${name}.logits`];
    writeFileSync(fixturePath(file), await packCheckpoint(folder, { seed: 1 }));
    const read = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
    const { ids, greedy, greedy_prompt_tokens: prompt }: GoldenText = read.cases?.[0] ?? read;
    const { values, reference } = await referenceLogits(folder, ids);
    writeFileSync(fixturePath(logits), new Uint8Array(values.buffer));
    goldens.push({ name, file, logits, reference, ids, prompt: prompt ?? ids.length, greedy });
  }
  return goldens;
}

/** Transformers clamps Nemotron-H's time steps where the model does not: there our own reference says what is right. */
async function referenceLogits(folder: string, ids: readonly number[]) {
  const checkpoint = await openCheckpoint(folder);
  try {
    if (checkpoint.config.family === "nemotron-h")
      return {
        values: Float32Array.from(forward(await readReference(checkpoint), ids).logits),
        reference: "test/reference.ts",
      };
  } finally {
    await checkpoint.close();
  }
  const tensors = await openTensors(folder, "golden.safetensors");
  try {
    return { values: Float32Array.from(await tensors.read("logits")), reference: "transformers" };
  } finally {
    await tensors.close();
  }
}
