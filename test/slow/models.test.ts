// The claims about real checkpoints, from the command line as a user has it: exact in f32, small in 4 bits. Packs each of
// them twice, which takes most of an hour; SNUG_SLOW_MODELS=tale-qwen2,… leaves the other large ones out. The times are
// printed, not judged.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { openTensors } from "../../packs/safetensors";
import type { Plan } from "../../runtime/index";

const MODELS = "../shared/models";
const CALIBRATION = "../shared/text/calibration.txt";
const VALID = "../shared/text/valid.txt";
const skip = existsSync(MODELS) ? false : "the shared models are not here";

const TINY = ["tiny-llama", "tiny-qwen2", "tiny-mamba2", "tiny-bamba", "tiny-nemotron-h"];

interface Claim {
  readonly model: string;
  /** Of the checkpoint in float, on all 240 windows of the held-out text. */
  readonly perplexity: number;
  /** What 4-bit weights reach on its first 48 windows: at most so many MB, or at this pruning rate. */
  readonly quality: readonly (readonly [limit: { megabytes: number } | { pruning: number }, perplexity: number])[];
}

/** Float on the first 48 windows: 31.51, 32.74, 41.35, 32.31. */
const CLAIMS: readonly Claim[] = [
  {
    model: "tale-llama",
    perplexity: 37.317,
    quality: [
      [{ megabytes: 16.73 }, 32.4],
      [{ megabytes: 14.72 }, 32.7],
      [{ megabytes: 13.6 }, 35],
      [{ megabytes: 12.18 }, 40.5],
    ],
  },
  {
    model: "tale-qwen2",
    perplexity: 38.368,
    quality: [
      [{ megabytes: 5.18 }, 34.2],
      [{ megabytes: 4.7 }, 37.5],
      [{ megabytes: 4.3 }, 44],
    ],
  },
  { model: "tale-mamba2", perplexity: 48.764, quality: [[{ pruning: 0.15 }, 1.2 * 41.35]] },
  { model: "tale-bamba", perplexity: 38.168, quality: [[{ pruning: 0.15 }, 1.2 * 32.31]] },
];

const chosen = process.env.SNUG_SLOW_MODELS?.split(",");

let folder = "";
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "snug-slow-"));
});
after(() => rm(folder, { recursive: true, force: true }));

async function snug<T>(...args: string[]): Promise<T> {
  const { stdout } = await promisify(execFile)("node", ["dist/cli.js", ...args, "--json"], { maxBuffer: 1 << 26 });
  return JSON.parse(stdout) as T;
}

async function pack(checkpoint: string, weights: string): Promise<string> {
  const path = join(folder, `${weights}-${checkpoint.split("/").at(-1)}.snug`);
  const text = existsSync(join(checkpoint, "tokenizer.json")) ? ["--calibration", CALIBRATION] : [];
  const facts = await snug<{ bytes: number; seconds: number }>(
    ...["pack", checkpoint, "-o", path, "--weights", weights, ...text],
  );
  console.log(`${checkpoint} as ${weights}: ${facts.bytes} bytes, packed in ${facts.seconds.toFixed(0)} s`);
  return path;
}

/** Largest difference from the golden logits over their largest magnitude, and the greedy continuations. */
async function checkGoldens(path: string, checkpoint: string): Promise<void> {
  interface Case {
    ids: number[];
    greedy: number[];
  }
  const golden = JSON.parse(readFileSync(join(checkpoint, "golden.json"), "utf8")) as Case & {
    cases?: Case[];
    greedy_prompt_tokens?: number;
  };
  const cases = golden.cases ?? [{ ids: golden.ids.slice(0, golden.greedy_prompt_tokens), greedy: golden.greedy }];
  const out = join(folder, "logits");
  await snug("eval", path, "--tokens", (golden.cases?.[0]?.ids ?? golden.ids).join(","), "--logits", out);
  const bytes = readFileSync(out);
  const got = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const tensors = await openTensors(checkpoint, "golden.safetensors");
  const want = await tensors.read("logits");
  await tensors.close();
  assert.equal(got.length, want.length);
  let difference = 0;
  let magnitude = 0;
  for (let i = 0; i < want.length; i++) {
    difference = Math.max(difference, Math.abs((got[i] as number) - (want[i] as number)));
    magnitude = Math.max(magnitude, Math.abs(want[i] as number));
  }
  console.log(`${path}: logits within ${(difference / magnitude).toExponential(1)} of the goldens`);
  assert.ok(difference / magnitude < 1e-4);
  for (const { ids, greedy } of cases) {
    const { tokens } = await snug<{ tokens: number[] }>(
      ...["run", path, "--tokens", ids.join(","), "--temperature", "0", "--repeat-penalty", "1"],
      ...["--max-tokens", String(greedy.length), "--pruning", "0"],
    );
    assert.deepEqual(tokens, greedy);
  }
  console.log(`${path}: ${cases.length} greedy texts equal the goldens`);
}

for (const name of TINY)
  test(`${name} in f32 is the checkpoint`, { skip }, async () => {
    const checkpoint = join(MODELS, "tiny", name);
    await checkGoldens(await pack(checkpoint, "f32"), checkpoint);
  });

for (const { model, perplexity: float, quality } of CLAIMS.filter((claim) => chosen?.includes(claim.model) ?? true)) {
  const checkpoint = join(MODELS, model);

  test(`${model} in f32 is the checkpoint`, { skip }, async () => {
    const path = await pack(checkpoint, "f32");
    await checkGoldens(path, checkpoint);
    const { perplexity } = await snug<{ perplexity: number }>("eval", path, "--text", VALID);
    console.log(`${model} f32: perplexity ${perplexity}`);
    assert.ok(Math.abs(perplexity / float - 1) < 0.001, `perplexity ${perplexity}`);
  });

  test(`${model} in 4 bits is good at every size`, { skip }, async () => {
    const path = await pack(checkpoint, "q4");
    for (const [limit, most] of quality) {
      let rate = "pruning" in limit ? limit.pruning : 0;
      let plan = await snug<Plan>("plan", path, "--pruning", rate.toFixed(3));
      if ("megabytes" in limit)
        for (; plan.weightsBytes > limit.megabytes * 1e6; rate += 0.002)
          plan = await snug<Plan>("plan", path, "--pruning", rate.toFixed(3));
      const { perplexity } = await snug<{ perplexity: number }>(
        ...["eval", path, "--text", VALID, "--windows", "48", "--pruning", String(plan.pruningRate)],
      );
      const facts = `${(plan.weightsBytes / 1e6).toFixed(2)} MB, ${(100 * plan.pruningRate).toFixed(1)} % pruned`;
      console.log(`${model}, ${facts}: perplexity ${perplexity.toFixed(2)} (at most ${most.toFixed(2)})`);
      assert.ok(perplexity <= most, `${facts}: perplexity ${perplexity}`);
    }
  });
}
