// npm run bench:together: what several texts at once bring, and how long a text waits while a prompt is read beside it. All in
// one run, in turn, medians; on the shape of Qwen2.5-0.5B with random weights, or another: npm run bench:together -- SHAPE GROUP;
// --turbo: with wider vectors, where the engine has them.

import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { SHAPES, syntheticSource } from "../../packs/index";
import { type Model, open } from "../../runtime/index";

const TOGETHER = 8;
const ROUNDS = 5;
const TOKENS = 24;
const PROMPT = 512;
const CHAT_TOKENS = 120;
const CHAT_ALONE_MS = 1000;
const GREEDY = { temperature: 0, repeatPenalty: 1 } as const;

const turbo = process.argv.includes("--turbo");
const [name = "qwen2.5-0.5b", group = "128"] = process.argv.slice(2).filter((word) => word !== "--turbo");
const shape = SHAPES[name];
if (shape === undefined) throw new Error(`${name} is no shape: there are ${Object.keys(SHAPES).join(", ")}`);
const pack = await open(await syntheticSource(shape, { weights: "q4", group: Number(group) }), { turbo });
const plan = pack.plan({ sequences: TOGETHER, context: 2048 });
const model = await pack.load(plan);
console.log(
  `${name}, 4 bit in groups of ${group}, ${plan.threads} threads, build ${pack.build.simd}${pack.build.turbo ? ", turbo" : ""}`,
);

let prompts = 0;

/** A prompt that begins as no other has. */
function promptOf(length: number): number[] {
  prompts++;
  return Array.from({ length }, (_, i) => (i * 7919 + prompts * 104_729) % model.vocabulary);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number;
}

/** Tokens a second of so many texts, from when all have begun. */
async function rate(of: Model, texts: number): Promise<number> {
  const times: number[] = [];
  const onToken = () => times.push(performance.now());
  const all = Array.from({ length: texts }, () =>
    of.generate(promptOf(8), { ...GREEDY, maxTokens: TOKENS, onToken }).result(),
  );
  await Promise.all(all);
  const seconds = ((times.at(-1) as number) - (times[texts - 1] as number)) / 1000;
  return (times.length - texts) / seconds;
}

await rate(model, 1);
const alone: number[] = [];
const together: number[] = [];
for (let round = 0; round < ROUNDS; round++) {
  alone.push(await rate(model, 1));
  together.push(await rate(model, TOGETHER));
}
const ratios = together.map((all, i) => all / (alone[i] as number));
console.log(`one text       ${median(alone).toFixed(1)} tok/s`);
console.log(`${TOGETHER} together     ${median(together).toFixed(1)} tok/s, ${median(ratios).toFixed(2)} times one`);

const longest: number[] = [];
const seconds: number[] = [];
for (let round = 0; round < ROUNDS; round++) {
  const times: number[] = [];
  const onToken = () => times.push(performance.now());
  const chat = model.generate(promptOf(32), { ...GREEDY, maxTokens: CHAT_TOKENS, onToken }).result();
  await sleep(CHAT_ALONE_MS);
  const started = performance.now();
  await model.generate(promptOf(PROMPT), { ...GREEDY, maxTokens: 1 }).result();
  seconds.push((performance.now() - started) / 1000);
  await chat;
  const gaps = times.slice(4).map((time, i) => time - (times[i + 3] as number));
  longest.push(Math.max(...gaps) / median(gaps));
}
console.log(
  `a prompt of ${PROMPT} beside a text  ${median(seconds).toFixed(1)} s; the text's longest gap ${median(longest).toFixed(2)} times its median one (${Math.min(...longest).toFixed(2)} to ${Math.max(...longest).toFixed(2)})`,
);
model.dispose();
process.exit();
