// The cases, the same for every host: small models made on the spot, the shared tiny checkpoints, and the demo pack.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { readLayout } from "../read-pack";
import type { Case } from "./case";
import { output } from "./child";
import demo from "./demo-ids.json";
import { smallCases } from "./small-cases";

const TINY = "../shared/models/tiny";
const DEMO_PACK = "packs/demo/tale.snug";

/** Packs what has to be packed into a folder. dist: the product's bundles. */
export async function makeCases(folder: string, dist: string): Promise<Case[]> {
  return [...(await smallCases(folder)), ...(await tinyCases(folder, dist)), ...demoCases()];
}

interface Golden {
  readonly ids: readonly number[];
  readonly greedy: readonly number[];
  readonly greedy_prompt_tokens: number;
}

/** Checkpoints with what the original implementation said, in f32; nothing where they are not. */
async function tinyCases(folder: string, dist: string): Promise<Case[]> {
  const cases: Case[] = [];
  for (const name of existsSync(TINY) ? readdirSync(TINY) : []) {
    const pack = join(folder, `${name}.snug`);
    const checkpoint = join(TINY, name);
    await output([process.execPath, join(dist, "cli.js"), "pack", checkpoint, "-o", pack, "--weights", "f32"]);
    const golden = JSON.parse(readFileSync(join(checkpoint, "golden.json"), "utf8")) as Golden;
    cases.push({
      name,
      pack,
      plan: { pruning: 0, context: 128, activations: "f32" },
      prompt: golden.ids.slice(0, golden.greedy_prompt_tokens),
      maxTokens: golden.greedy.length,
      tokens: golden.greedy,
      keptUnits: readLayout(readFileSync(pack)).units.length,
    });
  }
  return cases;
}

/**
 * What Node 20 said, kept in demo-ids.json. With f32 activations every engine computes the same to 1e-5 of a logit, and
 * no two logits are closer. Activations in 8 bit make differences in the last bit, which relaxed SIMD allows, into 0.03:
 * those cases have prompts where the likeliest token is at least 0.09 ahead.
 */
function demoCases(): Case[] {
  const cases = demo.cases as (Pick<Case, "plan" | "prompt" | "tokens" | "keptUnits"> & { text: string })[];
  return cases.map(({ text, ...one }) => ({
    ...one,
    name: `demo, ${one.plan.memory}, ${one.plan.activations} activations: ${text}`,
    pack: resolve(DEMO_PACK),
    maxTokens: one.tokens.length,
  }));
}
