// Texts that models generate through the runtime, as whoever uses it does: "golden", "greedy" and "sampled".

import type { GenerateOptions } from "../runtime/generation";
import type { Host } from "../runtime/host";
import type { Model } from "../runtime/model";
import { openPack } from "../runtime/pack";
import type { PlanOptions } from "../runtime/plan";
import { writeRows } from "../runtime/rows";
import type { Golden, SmallPack } from "./gpu-fixtures";
import { compare, expect, expectEqual, type GpuContext, type GpuTest, hostOf, sourceOf } from "./gpu-test";
import demo from "./hosts/demo-ids.json";
import { random } from "./random";

const GOLDEN_ROWS = 16;
/** Between a logit and the reference's, in logits. */
const GOLDEN_BOUND = 1e-3;
/** Where the two largest logits are closer, either may be taken for the larger. */
const NEAR_TIE = 2e-3;
const NEW_TOKENS = 40;
const PROMPT_TOKENS = 19;

export const GREEDY = { temperature: 0, repeatPenalty: 1 } as const;

export function textTests(context: GpuContext): GpuTest[] {
  // Elsewhere "cut" and "fault" have shown the same kernels; here each model compiles its own, for a device of its own.
  if (!context.executes || !context.thorough) return [];
  const { small, goldens } = context.fixtures;
  const hook = { pause: () => {} };
  const host = hostOf(context, () => hook.pause());
  const texts = small.filter(({ hasText }) => hasText);
  return [
    ...goldens.map((golden) => ({ name: `golden ${golden.name}`, run: () => goldenTest(context, host, golden) })),
    ...demo.cases.map((one) => ({
      name: `golden demo ${one.plan.activations} ${one.plan.memory}: ${one.text}`,
      run: () => demoTest(context, host, one as DemoCase),
    })),
    ...texts.map((pack) => ({ name: `greedy ${pack.name}`, run: () => greedyTest(context, host, pack) })),
    ...texts.map((pack) => ({
      name: `greedy ended early ${pack.name}`,
      run: () => earlyTest(context, host, hook, pack),
    })),
    ...texts.map((pack) => ({ name: `session ${pack.name}`, run: () => sessionTest(context, host, pack) })),
    ...texts.map((pack) => ({ name: `together ${pack.name}`, run: () => togetherTest(context, host, pack) })),
    ...texts.map((pack) => ({ name: `sampled ${pack.name}`, run: () => sampledTest(context, host, pack) })),
  ];
}

/** Loads a pack for the time of some work. */
export async function withModel<T>(
  { fetchBytes }: GpuContext,
  host: Host,
  file: string,
  options: PlanOptions,
  work: (model: Model) => Promise<T>,
): Promise<T> {
  const pack = await openPack(sourceOf(await fetchBytes(file), file), host, {});
  const model = await pack.load(pack.plan(options));
  try {
    return await work(model);
  } finally {
    model.dispose();
  }
}

export async function tokensOf(model: Model, prompt: readonly number[], options: GenerateOptions) {
  return (await model.generate(prompt, options).result()).tokens;
}

/** A seeded random prompt. */
export function promptOf({ vocabulary }: Model): number[] {
  const { int } = random(31);
  return Array.from({ length: PROMPT_TOKENS }, () => int(vocabulary));
}

async function goldenTest(context: GpuContext, host: Host, golden: Golden): Promise<void> {
  const { name, file, ids, prompt, greedy, reference } = golden;
  const bytes = await context.fetchBytes(golden.logits);
  const want = new Float32Array(bytes.slice().buffer);
  const rows = GOLDEN_ROWS;
  const options = { pruning: 0, context: 256, activations: "f32", device: "gpu", rows, outputs: rows } as const;
  await withModel(context, host, file, options, async (model) => {
    const got = new Float32Array(want.length);
    await model.logits(ids, (logits, position) => got.set(logits, position * model.vocabulary));
    const largest = want.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const off = compare(got, want, GOLDEN_BOUND / largest, `logits of ${reference}`) * largest;
    const start = ids.slice(0, prompt);
    const tokens = await tokensOf(model, start, { ...GREEDY, maxTokens: greedy.length });
    const same = await sameTokens(context, model, start, tokens, greedy, name);
    context.note(
      `golden ${name}: logits at most ${off.toExponential(1)} from ${reference}'s, of which the largest is ${largest.toFixed(1)}; ${same} of ${greedy.length} tokens the same`,
    );
  });
}

/** How many tokens are the same; a difference that is no near tie is an error. */
async function sameTokens(
  { note }: GpuContext,
  model: Model,
  prompt: readonly number[],
  got: readonly number[],
  want: readonly number[],
  name: string,
): Promise<number> {
  const at = want.findIndex((token, i) => token !== got[i]);
  if (at < 0) return want.length;
  let [own, right, most] = [0, 0, 0];
  await model.logits([...prompt, ...want.slice(0, at)], (logits, position) => {
    if (position < prompt.length + at - 1) return;
    own = logits[got[at] as number] as number;
    right = logits[want[at] as number] as number;
    most = Math.max(...logits);
  });
  expect(
    most - Math.min(own, right) <= NEAR_TIE,
    `token ${at} is ${got[at]} (logit ${own}) instead of ${want[at]} (logit ${right})`,
  );
  note(`${name}: a near tie at token ${at}: ${got[at]} has ${own}, ${want[at]} has ${right}`);
  return at;
}

type DemoCase = Omit<(typeof demo.cases)[number], "plan"> & { readonly plan: PlanOptions };

/** The tokens that the CPU makes; with activations in 8 bit the prompts are such that rounding decides nothing. */
async function demoTest(context: GpuContext, host: Host, { plan, prompt, tokens }: DemoCase): Promise<void> {
  const options = { ...plan, device: "gpu", rows: GOLDEN_ROWS, outputs: GOLDEN_ROWS } as const;
  // A plan for a GPU takes other memory for its cache and its steps: the CPU's plan says what is kept.
  const pack = await openPack(sourceOf(await context.fetchBytes("demo.snug"), "demo.snug"), host, {});
  const kept = pack.plan({ ...plan, device: "cpu" });
  const { memory: _, ...others } = options;
  await withModel(context, host, "demo.snug", { ...others, pruning: kept.pruningRate }, async (model) => {
    expectEqual([model.plan.keptUnits], [kept.keptUnits], "units kept");
    const got = await tokensOf(model, prompt, { ...GREEDY, maxTokens: tokens.length });
    await sameTokens(context, model, prompt, got, tokens, "demo");
  });
}

const TEXT_OPTIONS = { pruning: 0.3, context: 256, rows: GOLDEN_ROWS, device: "gpu" } as const;

/** Tokens that run ahead on the device are those of a step at a time. */
async function greedyTest(context: GpuContext, host: Host, { file }: SmallPack): Promise<void> {
  await withModel(context, host, file, TEXT_OPTIONS, async (model) => {
    const prompt = promptOf(model);
    const tokens = await tokensOf(model, prompt, { ...GREEDY, maxTokens: NEW_TOKENS });
    expectEqual(tokens, await stepByStep(model, prompt, NEW_TOKENS), "tokens");
    const seen = new Set(tokens).size;
    expect(seen > 2, `only ${seen} different tokens: this shows little`);
  });
}

async function stepByStep(model: Model, prompt: readonly number[], count: number): Promise<number[]> {
  const { core, executor, plan, vocabulary } = model;
  let logits = new Float32Array();
  const read = async (tokens: readonly number[], position: number, wanted: boolean) => {
    const last = tokens.length - 1;
    writeRows(core, tokens, position, (row) => wanted && row === last);
    await (wanted ? executor.logits(tokens.length) : executor.run(tokens.length));
    if (wanted) logits = core.floats(core.exports.logits_ptr(), vocabulary).slice();
  };
  for (let at = 0; at < prompt.length; at += plan.rows) {
    const chunk = prompt.slice(at, at + plan.rows);
    await read(chunk, at, at + chunk.length === prompt.length);
  }
  const tokens: number[] = [];
  for (;;) {
    const best = logits.indexOf(Math.max(...logits));
    tokens.push(best);
    if (tokens.length === count || model.endTokens.has(best)) return tokens;
    await read([best], prompt.length + tokens.length - 1, true);
  }
}

/** Whoever ends a generation early, in whatever way, finds the model as it was. */
async function earlyTest(
  context: GpuContext,
  host: Host,
  hook: { pause: () => void },
  { file }: SmallPack,
): Promise<void> {
  await withModel(context, host, file, TEXT_OPTIONS, async (model) => {
    const prompt = promptOf(model);
    const whole = { ...GREEDY, maxTokens: NEW_TOKENS };
    const tokens = await tokensOf(model, prompt, whole);
    const again = async (after: string) => expectEqual(await tokensOf(model, prompt, whole), tokens, after);

    expectEqual(await tokensOf(model, prompt, { ...GREEDY, maxTokens: 5 }), tokens.slice(0, 5), "5 tokens");
    await again("after maxTokens");

    let pieces = 0;
    for await (const _ of model.generate(prompt, whole)) if (++pieces === 2) break;
    expect(pieces === 2, "the text came in fewer than 2 pieces");
    await again("after a loop that was left");

    for (const pauses of [1, 4, 9]) {
      const stop = new AbortController();
      let left = pauses;
      hook.pause = () => {
        if (--left === 0) stop.abort();
      };
      const ending = await model
        .generate(prompt, { ...whole, signal: stop.signal })
        .result()
        .then(
          () => "it ended by itself",
          (error: { code?: string }) => error.code,
        );
      hook.pause = () => {};
      expect(ending === "aborted", `aborted after ${pauses} pauses: ${ending}`);
      await again(`after an abort at pause ${pauses}`);
    }
    await tokensOf(model, prompt.toReversed(), { ...GREEDY, maxTokens: 7 });
    await again("after another prompt");
  });
}

/** The sampler chooses alike from what a device says and from what the CPU says, where both compute in f32. */
async function sampledTest(context: GpuContext, host: Host, { file }: SmallPack): Promise<void> {
  const exact = { ...TEXT_OPTIONS, activations: "f32" } as const;
  const settings = [
    { temperature: 0.7, seed: 1 },
    { temperature: 1, topK: 5, seed: 2, repeatPenalty: 1 },
    { temperature: 1.5, topK: 0, topP: 1, minP: 0, seed: 3 },
  ];
  const texts = async (model: Model) => {
    const all: number[] = [];
    for (const one of settings) all.push(...(await tokensOf(model, promptOf(model), { ...one, maxTokens: 12 })));
    return all;
  };
  const gpu = await withModel(context, host, file, exact, texts);
  expectEqual(gpu, await withModel(context, host, file, { ...exact, device: "cpu" }, texts), "tokens");
}

/** Turns of a session, whose greedy steps run ahead: left early, and with something new behind them. */
async function sessionTest(context: GpuContext, host: Host, { file }: SmallPack): Promise<void> {
  const options = { pruning: 0, context: 128, rows: 16, activations: "f32", device: "gpu" } as const;
  await withModel(context, host, file, options, async (model) => {
    const session = model.session();
    session.append(promptOf(model));
    for (const maxTokens of [9, 3, 6]) {
      // Left in the middle, with something new behind it, and at once taken up again.
      for await (const _ of session.generate({ ...GREEDY, maxTokens: 8 })) break;
      session.append([7, 8, 9]);
      const all = [...session.tokens];
      const turn = await session.generate({ ...GREEDY, maxTokens }).result();
      expectEqual(turn.tokens, await tokensOf(model, all, { ...GREEDY, maxTokens }), "tokens of a turn");
    }
    await session.dispose();
  });
}

const SHARED_TOKENS = 70;
const BRANCHES = 5;

/** Texts that begin alike, more than have room at once, and branches of a session: as on the CPU, and what they share is read once. */
async function togetherTest(context: GpuContext, host: Host, { file }: SmallPack): Promise<void> {
  const exact = { pruning: 0, context: 160, activations: "f32", kv: "f32" } as const;
  const options = { ...GREEDY, maxTokens: 12 };
  const promptsOf = ({ vocabulary }: Model) => {
    const { int } = random(77);
    const shared = Array.from({ length: SHARED_TOKENS }, () => int(vocabulary));
    return Array.from({ length: BRANCHES }, (_, branch) => [...shared, branch + 1, int(vocabulary)]);
  };
  const want = await withModel(context, host, file, { ...exact, device: "cpu" }, async (model) => {
    const all: (readonly number[])[] = [];
    for (const prompt of promptsOf(model)) all.push(await tokensOf(model, prompt, options));
    return all;
  });
  await withModel(context, host, file, { ...exact, device: "gpu", rows: 48, sequences: 3 }, async (model) => {
    const { engine, plan } = model;
    const prompts = promptsOf(model);
    const first = prompts[0] as number[];
    expectEqual(await tokensOf(model, first, options), want[0] as readonly number[], "the first text");
    const before = engine.rows;
    const together = await Promise.all(prompts.map((prompt) => tokensOf(model, prompt, options)));
    expectEqual(together.flat(), want.flat(), "texts that began alike");
    // Whole blocks of what all begin with are there; of each text, what is behind them is read, and its tokens but the last.
    const most = BRANCHES * ((SHARED_TOKENS % 32) + 2 + options.maxTokens - 1);
    if (plan.stateBytes === 0)
      expect(engine.rows - before <= most, `${engine.rows - before} rows were read, not ${most}`);
    const session = model.session();
    session.append(first.slice(0, SHARED_TOKENS));
    const branches = await Promise.all(prompts.map(() => session.fork()));
    for (const [i, branch] of branches.entries()) branch.append((prompts[i] as number[]).slice(SHARED_TOKENS));
    const forked = await Promise.all(branches.map((branch) => branch.generate(options).result()));
    expectEqual(
      forked.flatMap(({ tokens }) => tokens),
      want.flat(),
      "branches",
    );
    await Promise.all([session, ...branches].map((one) => one.dispose()));
    engine.check();
    expectEqual([engine.heldBlocks, engine.heldSlots], [0, 0], "blocks and slots that are held");
  });
}
