// snug bench, and what it measures with: the stopwatch, and rehearsals of plans.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { GpuExecutor } from "../runtime/gpu";
import { expectedSpeed, open, Stopwatch } from "../runtime/index";
import { Model } from "../runtime/model";
import { watchModels } from "./all-returned";
import { SMALL_CONFIGS, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const DEMO = resolve("packs/demo/tale.snug");
const SMALL =
  "llama-3.2-1b:hidden_size=64,intermediate_size=256,num_hidden_layers=2,num_attention_heads=4,num_key_value_heads=2";
const QUICK = ["--pp", "5", "--tg", "3", "--repetitions", "2", "--threads", "1"];

function bench(args: readonly string[], folder?: string) {
  return snug(["bench", ...args], folder);
}

/** Runs dist/cli.js; `folder`: for temporary files. */
async function snug(args: readonly string[], folder?: string) {
  const env = { ...process.env, LC_ALL: "C.UTF-8", ...(folder && { TMPDIR: folder }) };
  return promisify(execFile)(process.execPath, [resolve("dist/cli.js"), ...args], { env }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error) => ({ code: error.code as number, stdout: String(error.stdout), stderr: String(error.stderr) }),
  );
}

test("a shape is made and measured, and leaves no file", async (context) => {
  const folder = scratchFolder(context);
  const args = ["--shape", SMALL, "--vocabulary", "300", "--pruning", "0,0.25", "--context-at", "0,40", "--ops"];
  const { code, stdout, stderr } = await bench([...args, ...QUICK, "--json"], folder);
  assert.equal(code, 0, stderr);
  assert.deepEqual(readdirSync(folder), []);
  const facts = JSON.parse(stdout);
  assert.equal(facts.shape, SMALL);
  assert.equal(facts.vocabulary, 300);
  assert.equal(facts.threads, 1);
  assert.equal(facts.gpu, null);
  assert.equal(facts.gpuOps, null);
  assert.ok(facts.ceilings.readBytes > 1e8 && facts.ceilings.products > 1e8);
  assert.deepEqual(
    facts.results.map(({ name }: { name: string }) => name),
    ["pp5", "pp5", "tg3", "tg3", "tg3 at 40", "tg3 at 40"],
  );
  for (const { device, tokensPerSecond, repetitions, gain, promisedGain } of facts.results) {
    assert.equal(device, "cpu");
    assert.equal(repetitions.length, 2);
    assert.ok(tokensPerSecond >= Math.min(...repetitions) && tokensPerSecond <= Math.max(...repetitions));
    assert.ok(gain > 0 && promisedGain >= 1);
  }
  assert.equal(facts.results[3].pruningRate, facts.cuts[1].pruningRate);
  assert.ok(facts.cuts[1].weightBytesPerToken < facts.cuts[0].weightBytesPerToken);
  assert.ok(facts.results[2].expected > 0);
  assert.equal(facts.results[4].expected, null);
  for (const shares of [facts.ops.decode, facts.ops.prefill]) {
    const names = shares.map(({ op, matrix }: { op: string; matrix: string }) => `${op} ${matrix}`.trim());
    for (const name of ["matrix gate", "matrix head", "attention", "norm"]) assert.ok(names.includes(name), name);
    assert.ok(Math.abs(shares.reduce((sum: number, one: { share: number }) => sum + one.share, 0) - 1) < 1e-9);
  }
});

test("a pack is measured, in words", async () => {
  const { code, stdout, stderr } = await bench([DEMO, ...QUICK, "--ops"]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^ +pruned +tok\/s +least and most +plan said +GB\/s +GMAC\/s$/m);
  assert.match(stdout, /^ {2}pp5 +0 % +[\d.]+ /m);
  assert.match(stdout, /^ {2}tg3 +0 % +[\d.]+ .* [\d.]+ +\d+ % +[\d.]+ +\d+ %$/m);
  assert.match(stdout, /^ {2}ceiling /m);
  assert.match(stdout, /^ {2}matrix down +\d+ /m);
  for (const line of stdout.split("\n")) assert.ok(line.length <= 100, line);
});

test("the shape can be a config.json, and its pack be kept", async (context) => {
  const folder = scratchFolder(context);
  writeFileSync(join(folder, "config.json"), JSON.stringify(SMALL_CONFIGS.mamba2));
  const kept = join(folder, "kept.snug");
  const { code, stderr } = await bench(["--shape", join(folder, "config.json"), "--keep", kept, ...QUICK]);
  assert.equal(code, 0, stderr);
  assert.ok(statSync(kept).size > 1000);
  const pack = await open(kept);
  assert.equal(pack.shape.family, "mamba2");
  await pack.close();
});

test("wrong usage is refused before any work", async (context) => {
  const folder = scratchFolder(context);
  mkdirSync(join(folder, "there"));
  writeFileSync(join(folder, "list.json"), "[1]");
  const cases: [args: string[], ...said: string[]][] = [
    [["--shape", "llama-3.2-1bb"], "llama-3.2-1b?"],
    [["--shape", "gpt9"], "qwen2.5-0.5b", "config.json"],
    [["--shape", "qwen2.5-0.5b:hidden_size"], "key=value"],
    [["--shape", join(folder, "list.json")], "list.json"],
    [[DEMO, "--shape", "qwen2.5-0.5b"], "--shape"],
    [[DEMO, "--vocabulary", "100"], "--vocabulary"],
    [[DEMO, "--pp", "100000"], "100000"],
    [[DEMO, "--pp", "0", "--tg", "0"], "nothing to measure"],
    [[DEMO, "--pruning", "0,2"], "from 0 to 1"],
  ];
  for (const [args, ...said] of cases) {
    const { code, stdout, stderr } = await bench(args, folder);
    assert.equal(code, 2, `${args}: ${stderr}`);
    assert.equal(stdout, "");
    for (const words of said) assert.ok(stderr.includes(words), `${args}: ${stderr}`);
  }
  const { code, stderr } = await bench(["--shape", SMALL, "--keep", join(folder, "there")], folder);
  assert.equal(code, 1);
  assert.match(stderr, /--keep/);
  assert.deepEqual(readdirSync(folder).sort(), ["list.json", "there"]);
});

test("a plan says how fast it will be", async () => {
  const words = await snug(["plan", DEMO, "--pruning", "0.2"]);
  assert.match(words.stdout, /^ {2}Expected speed here: about \d+ tokens a second with /m);
  const facts = JSON.parse((await snug(["plan", DEMO, "--pruning", "0.2", "--json"])).stdout);
  assert.ok(facts.expectedTokensPerSecond > 0);
});

test("the stopwatch counts what a step reads and multiplies", async (context) => {
  const { folder } = writeCheckpoint(scratchFolder(context), SMALL_CONFIGS.llama, 1);
  const pack = await openBytes(await packCheckpoint(folder, { weights: "q8", group: 16 }));
  const model = await pack.load(pack.plan({ threads: 1 }));
  const watch = new Stopwatch(model);
  const work = watch.work();
  const matrix = (name: string) => work.filter((one) => one.matrix === name);
  assert.equal(matrix("gate").length, 2);
  assert.equal(matrix("down")[0]?.products, 48 * 80);
  assert.equal(matrix("down")[0]?.weightBytes, 48 * 80 * (1 + 2 / 16));
  assert.deepEqual(
    matrix("head").map(({ products, forOutputs }) => ({ products, forOutputs })),
    [{ products: 97 * 48, forOutputs: true }],
  );
  assert.ok((await watch.prefill(70)) > 0);
  assert.ok((await watch.decode(3, 70)) > 0);
  assert.equal((await watch.ops(5)).length, work.length);
  model.dispose();
});

test("the stopwatch refuses what is of the other device", async () => {
  const pack = await open(DEMO);
  const model = await pack.rehearse(pack.plan({ threads: 1, context: 8 }));
  await assert.rejects(new Stopwatch(model).gpuOps(1), { code: "usage", message: /for a model on a GPU/ });
  const executor: GpuExecutor = Object.create(GpuExecutor.prototype);
  const watch = new Stopwatch(new Model({ ...model.running, executor }, model.host, model.info));
  for (const measure of [() => watch.ops(1), () => watch.estimate(1), () => watch.ceilings()])
    await assert.rejects(measure, { code: "usage", message: /for a model on the CPU/ });
  model.dispose();
  await pack.close();
});

for (const [name, config] of Object.entries(SMALL_CONFIGS)) {
  test(`${name}: a rehearsal has the program of the model, and runs it`, async (context) => {
    const { folder } = writeCheckpoint(scratchFolder(context), config, 1);
    const pack = await openBytes(await packCheckpoint(folder, { seed: 1 }));
    for (const pruning of [0, 0.3]) {
      const plan = pack.plan({ pruning, threads: 1 });
      const [model, rehearsal] = [await pack.load(plan), await pack.rehearse(plan)];
      assert.deepEqual(new Stopwatch(rehearsal).work(), new Stopwatch(model).work());
      await rehearsal.logits([1, 2, 3], (logits) => assert.ok(logits.every((value) => value === 0)));
      for (const one of [model, rehearsal]) one.dispose();
      assert.ok((await expectedSpeed(pack, plan)) > 0);
    }
  });
}
