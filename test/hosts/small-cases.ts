// Small models of every family, made on the spot, and what the plain f64 reference says that follows a prompt: a clone
// without any model has these.

import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { keptOf, readCut, readLayout } from "../read-pack";
import { forward, type ReferenceModel } from "../reference";
import { FAMILY_SHAPES, randomTokens, SHAPES } from "../small-models";
import { writeCheckpoint } from "../write-checkpoint";
import { packCheckpoint, rateOf, type Weights } from "../write-pack";
import type { Case } from "./case";

const PROMPT_TOKENS = 12;
const NEW_TOKENS = 20;
/** How far the likeliest must be ahead, of the largest logit: a hundred times what f32 and f64 differ by. */
const LEAD = 1e-3;
const ATTEMPTS = 100;
const CUTS: readonly (readonly [Weights, share: number])[] = [
  ["f32", 1],
  ["f32", 0.4],
  ["q8", 0.8],
  ["q4", 0.6],
];

/** Writes the packs into a folder. */
export async function smallCases(folder: string): Promise<Case[]> {
  const cases: Case[] = [];
  for (const [index, { name, config, sizes }] of [...SHAPES.slice(0, 2), ...FAMILY_SHAPES].entries()) {
    const seed = 900 + index;
    const scratch = join(folder, "checkpoint");
    const { config: written } = writeCheckpoint(scratch, config, seed);
    for (const weights of new Set(CUTS.map(([one]) => one))) {
      const bytes = await packCheckpoint(scratch, { weights, seed, sizes, endTokens: [] });
      const path = join(folder, `small-${index}-${weights}.snug`);
      writeFileSync(path, bytes);
      const layout = readLayout(bytes);
      for (const [one, share] of CUTS) {
        if (one !== weights) continue;
        const units = Math.ceil(layout.units.length * share);
        const reference = readCut(bytes, layout, keptOf(layout, units));
        cases.push({
          name: `${written.model_type}, ${weights}, ${units} of ${layout.units.length} units: ${name}`,
          pack: path,
          plan: {
            pruning: rateOf(
              layout.units.map(({ length }) => length),
              units,
            ),
            context: 64,
            activations: "f32",
          },
          ...clearText(reference, seed),
          maxTokens: NEW_TOKENS,
          keptUnits: units,
        });
      }
    }
    rmSync(scratch, { recursive: true });
  }
  return cases;
}

/** A prompt whose every next token is clearly the likeliest: rounding decides nothing. */
function clearText(model: ReferenceModel, seed: number): Pick<Case, "prompt" | "tokens"> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const prompt = randomTokens(PROMPT_TOKENS, model.vocabulary, seed * ATTEMPTS + attempt);
    const tokens = clearTokens(model, prompt);
    if (tokens !== undefined) return { prompt, tokens };
  }
  throw new Error(`no prompt of ${ATTEMPTS} has a clear continuation`);
}

function clearTokens(model: ReferenceModel, prompt: readonly number[]): number[] | undefined {
  const all = [...prompt];
  for (let i = 0; i < NEW_TOKENS; i++) {
    const logits = forward(model, all).logits.subarray(-model.vocabulary);
    const best = logits.indexOf(Math.max(...logits));
    const size = logits.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
    const close = logits.some((logit, id) => id !== best && (logits[best] as number) - logit < LEAD * size);
    if (close) return undefined;
    all.push(best);
  }
  return all.slice(prompt.length);
}
