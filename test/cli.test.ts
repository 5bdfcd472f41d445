// The command line as people and scripts meet it: exit codes, what goes to stdout and what to stderr, and what is said
// about everything that can be wrong. Runs dist/cli.js on small random packs, and on the pack that ships.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { SMALL_CONFIGS, writeCheckpoint } from "./write-checkpoint";
import { packCheckpoint } from "./write-pack";

const CLI = resolve("dist/cli.js");
const DEMO = resolve("packs/demo/tale.snug");
const VOCABULARY = 600;
const POSITIONS = 100_000;
const AT_ONCE = 3; // processes, where cases do not depend on each other
const COMMANDS = ["run", "plan", "pack", "eval", "bench", "inspect"];
const TEMPLATE =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}" +
  "{% if add_generation_prompt %}assistant:{% endif %}";

let folder = "";
/** A pack with a tokenizer, a chat template and a quality curve; no token ends its texts. */
let words = "";
/** A pack without any of them. */
let ids = "";
/** A Bamba with a tokenizer: a layer with an attention between layers with an SSM. */
let hybrid = "";

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "snug-cli-"));
  words = join(folder, "words.snug");
  ids = join(folder, "ids.snug");
  hybrid = join(folder, "hybrid.snug");
  const files = { "tokenizer.json": readFileSync("test/fixtures/tokenizer.json", "utf8") };
  const sizes = { vocab_size: VOCABULARY, max_position_embeddings: POSITIONS };
  writeCheckpoint(join(folder, "words"), sizes, 1, { files });
  writeCheckpoint(join(folder, "ids"));
  const info = { name: "Words\x1b[2J", licence: "MIT", provenance: "made by a test", chatTemplate: TEMPLATE };
  const plain = await packCheckpoint(join(folder, "words"), { endTokens: [], info });
  writeFileSync(words, plain);
  const { units } = JSON.parse((await snug("plan", words, "--json")).stdout);
  const curve = [
    { units: 0, perplexity: 400, topOne: 0.05 },
    { units: Math.floor(units / 2), perplexity: 80, topOne: 0.1 },
    { units, perplexity: 40, topOne: 0.2 },
  ];
  writeFileSync(words, await packCheckpoint(join(folder, "words"), { endTokens: [], info, curve }));
  writeFileSync(ids, await packCheckpoint(join(folder, "ids"), { endTokens: [] }));
  writeCheckpoint(join(folder, "hybrid"), { ...SMALL_CONFIGS.bamba, vocab_size: VOCABULARY }, 1, { files });
  const split = { qkChannels: 4, voChannels: 4, mlpChannels: 24, bcChannels: 4, xzChannels: 4 };
  writeFileSync(hybrid, await packCheckpoint(join(folder, "hybrid"), { seed: 1, sizes: split, endTokens: [] }));
});

after(() => rmSync(folder, { recursive: true, force: true }));

// Help, version, wrong words

test("help and version go to stdout", async () => {
  const [bare, long, version] = await Promise.all([snug(), snug("--help"), snug("--version")]);
  assert.equal(bare.code, 0);
  assert.deepEqual(bare, long);
  for (const name of COMMANDS) assert.match(bare.stdout, new RegExp(`^  ${name} `, "m"));
  assert.equal(version.stdout, `${JSON.parse(readFileSync("package.json", "utf8")).version}\n`);
  for (const name of COMMANDS) {
    const { code, stdout, stderr } = await snug(name, "--help");
    assert.equal(code, 0, stderr);
    assert.match(stdout, new RegExp(`^  snug ${name} .*\\[options\\]$`, "m"));
    assert.match(stdout, /^ {2}--json /m);
    for (const line of stdout.split("\n")) assert.ok(line.length <= 80, `${name} --help is wider than 80: ${line}`);
    assert.equal(/^ {2}--read-twice +read the prompt twice/m.test(stdout), name === "run");
  }
});

test("wrong usage: exit code 2, nothing on stdout, and what to do", async () => {
  const text = join(folder, "text.txt");
  writeFileSync(text, "some words ".repeat(50));
  const cases: [args: string[], ...said: string[]][] = [
    [["rnu"], '"rnu" is no command', "snug run"],
    [["frobnicate"], "run, plan, pack, eval, bench, inspect"],
    [["toString"], '"toString" is no command'],
    [["tale.snug"], "did you mean snug run tale.snug?"],
    [["--memory", "1MB"], "--memory", "a command comes first"],
    [["run", words, "x", "--temprature", "1"], "unknown option --temprature", "did you mean --temperature?"],
    [["run", words, "x", "--mem", "1MB"], "did you mean --memory?"],
    [["run", words, "x", "--constructor"], "unknown option --constructor"],
    [["run", words, "-5 degrees"], "unknown option -5 degrees", "goes after --"],
    [["plan"], "FILE is missing"],
    [["run", "Once upon a time"], 'no file "Once upon a time"', "such as demo"],
    [["run", words, "two", "words"], '"words" is one argument too many', "in quotes"],
    [["plan", words, "more"], '"more" is one argument too many'],
    [["plan", words, "--memory"], "--memory needs a value", "SIZE"],
    [["plan", words, "--memory", "--json"], "--memory needs a value"],
    [["plan", words, "--json=yes"], "--json takes no value"],
    [["plan", words, "--memory", "12XB"], "--memory", '"12XB" is not a size', "MiB"],
    [["plan", words, "--memory", "-5MB"], "--memory", '"-5MB" is not a size'],
    [["plan", words, "--memory="], "--memory", '"" is not a size'],
    [["plan", words, "--memory", "1MB", "--pruning", "0.1"], "--memory and --pruning", "give one of them"],
    [["plan", words, "--pruning", "25"], "--pruning is a number from 0 to 1", '"25"'],
    [["plan", words, "--pruning", "NaN"], "--pruning is a number", '"NaN"'],
    [["plan", words, "--context", "0"], "--context is a whole number from 1", '"0"'],
    [["plan", words, "--context", "1e3"], "--context is a whole number", '"1e3"'],
    [["plan", words, "--context", "100001"], "at most 100000 positions, not 100001"],
    [["run", words, "x", "--device", "tpu"], "--device is one of cpu, gpu, auto", '"tpu"'],
    [["bench", words, "--device", "tpu"], "--device is one of cpu, gpu, auto, both", '"tpu"'],
    [["run", words, "x", "--temperature", "hot"], "--temperature is a number from 0 to 100", '"hot"'],
    [["run", words, "x", "--top-p", "-0.5"], "--top-p is a number from 0.000001 to 1", '"-0.5"'],
    [["run", words, "x", "--seed", "1.5"], "--seed is a whole number", '"1.5"'],
    [["run", words, "x", "--max-tokens", "0"], "--max-tokens is a whole number from 1"],
    [["run", words, "x", "--stop", ""], "--stop is empty"],
    [["run", words, "--tokens", "1,x,3"], "--tokens", '"x" is not one'],
    [["run", words, "--tokens", ","], "--tokens is empty"],
    [["run", words, "--tokens", "-1"], "--tokens", '"-1" is not one'],
    [["run", words, "--tokens", "600"], "600", "vocabulary's 600"],
    [["run", words, "--tokens", "9999999999"], "9999999999"],
    [["run", words, "x", "--tokens", "1"], "--tokens is the prompt"],
    [["run", words, "--tokens", "1", "--chat"], "--chat wants a text"],
    [["run", words, "x", "--system", "y"], "add --chat"],
    [["run", words, "", "--chat"], "the prompt is empty"],
    [["run", words, "x", "--read-twice"], "--read-twice is for models with a state", "Words", "sees its whole prompt"],
    [["run", hybrid, "x", "--read-twice=yes"], "--read-twice takes no value"],
    [["eval", words], "--text FILE", "--logits OUT"],
    [["eval", words, "--tokens", "1"], "--tokens needs --logits"],
    [["eval", words, "--logits", "x"], "--logits needs --tokens"],
    [["eval", words, "--text", text, "--logits", "x"], "leave one of them out"],
    [["eval", words, "--text", text, "--window", "1"], "--window is a whole number from 2"],
    [["pack", folder], "--output is missing", "-o FILE"],
    [["pack", folder, "-o", join(folder, "x"), "--weights", "q5"], "--weights is one of q4, q8, f32", '"q5"'],
    [["inspect", words, "--memory", "1MB"], "unknown option --memory"],
  ];
  await inParallel(cases, async ([args, ...said]) => refused(await snug(...args), 2, args, said));
});

test("what cannot be read or written: exit code 1, and what to do", async (context) => {
  const nowhere = join(folder, "no", "such", "file");
  const text = join(folder, "short.txt");
  const truncated = join(folder, "truncated.snug");
  const stub = join(folder, "stub.snug");
  const socket = join(folder, "socket"); // stands for whatever is there and is no file, such as a device
  const server = createServer().listen(socket);
  context.after(() => server.close());
  writeFileSync(text, "short ".repeat(20));
  writeFileSync(truncated, readFileSync(words).subarray(0, -100));
  writeFileSync(stub, readFileSync(words).subarray(0, 20));
  const cases: [args: string[], ...said: string[]][] = [
    [["run", nowhere, "x"], `cannot read ${nowhere}`, "no such file"],
    [["plan", folder], "is not a file", ".snug"],
    [["inspect", text], "is not a snug pack"],
    [["plan", truncated], "truncated.snug", "download the pack again"],
    [["inspect", stub], "stub.snug", "download the pack again"],
    [["run", words, "x", "--memory", "1000"], "does not fit", "1000 bytes", "smallest cut needs"],
    [["run", words, "a ".repeat(40), "--context", "8"], "prompt is", "room for 8", "shorten"],
    [
      ["run", hybrid, "--tokens", "1,2,3,4,5", "--read-twice", "--context", "8"],
      "the prompt, read twice, is 10",
      "room for 8",
    ],
    [["run", words, "x", "--device", "gpu"], "no WebGPU", "npm install webgpu"],
    [["eval", words, "--text", text, "--window", "8", "--device", "gpu"], "npm install webgpu"],
    [["bench", words, "--pp", "0", "--tg", "2", "--device", "both"], "npm install webgpu"],
    [["run", ids, "x"], "no tokenizer", "token ids"],
    [["run", ids, "x", "--chat"], "no chat template"],
    [["eval", words, "--text", nowhere], `cannot read the text ${nowhere}`, "no such file"],
    [["eval", words, "--text", folder], "it is a folder"],
    [["eval", words, "--text", text], "shorter than one window of 512 tokens", "--window"],
    [["eval", words, "--tokens", "1", "--logits", nowhere], `cannot write ${nowhere}`, "make it first"],
    [["eval", words, "--tokens", "1", "--logits", folder], "it is a folder"],
    [["eval", words, "--tokens", "1", "--logits", socket], "not a plain file"],
    [["pack", join(folder, "ids"), "-o", socket], "not a plain file"],
    [["pack", join(folder, "ids"), "-o", nowhere], `cannot write ${nowhere}`, "make it first"],
    [["pack", nowhere, "-o", join(folder, "x.snug")], nowhere],
    [["pack", folder, "-o", join(folder, "x.snug")], "config.json"],
  ];
  await inParallel(cases, async ([args, ...said]) => refused(await snug(...args), 1, args, said));
  assert.ok(statSync(socket).isSocket());
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith("x.snug")),
    [],
  );
});

test("SNUG_DEBUG=1 shows where an error came from", async () => {
  const { code, stderr } = await snug({ env: { SNUG_DEBUG: "1" } }, "plan", "nowhere.snug");
  assert.equal(code, 1);
  assert.match(stderr, /SnugError: cannot read nowhere.snug.*\n\s+at /);
});

// plan, inspect

test("plan --json has the documented shape", async () => {
  const { code, stdout, stderr } = await snug("plan", words, "--pruning", "0.4", "--context", "64", "--json");
  assert.equal(code, 0, stderr);
  assert.equal(stderr, "");
  const plan = JSON.parse(stdout);
  const { coreBytes, weightsBytes, kvBytes, stateBytes, scratchBytes, totalBytes } = plan;
  assert.equal(coreBytes + weightsBytes + kvBytes + stateBytes + scratchBytes, totalBytes);
  for (const name of ["memoryBytes", "pruningRate", "keptUnits", "units", "minimumBytes", "maximumBytes", "readBytes"])
    assert.equal(typeof plan[name], "number", name);
  assert.ok(plan.pruningRate > 0 && plan.pruningRate <= 0.4);
  assert.ok(plan.expectedPerplexity > 40 && plan.expectedPerplexity < 400);
  assert.equal(plan.context, 64);
  assert.deepEqual(
    plan.layers.map((layer: { layer: number }) => layer.layer),
    [0, 1],
  );
  assert.equal(plan.options, undefined);
});

test("plan --device gpu: what would lie in a GPU's memory, though there is none", async () => {
  const gpu = ["--device", "gpu", "--context", "64"];
  const [json, cut, people] = await Promise.all([
    snug("plan", words, ...gpu, "--json"),
    snug("plan", words, ...gpu, "--pruning", "0.4", "--json"),
    snug("plan", words, ...gpu),
  ]);
  assert.equal(json.code, 0, json.stderr);
  assert.match(json.stderr, /^How fast it will be is not known here: .*npm install webgpu/);
  const [all, less] = [json, cut].map(({ stdout }) => JSON.parse(stdout));
  assert.equal(all.device, "gpu");
  assert.equal(all.keptUnits, all.units);
  assert.equal(all.expectedTokensPerSecond, null);
  const { coreBytes, weightsBytes, kvBytes, stateBytes, scratchBytes, totalBytes, deviceBytes } = all;
  assert.equal(coreBytes + weightsBytes + kvBytes + stateBytes + scratchBytes, totalBytes);
  assert.ok(deviceBytes > kvBytes && deviceBytes < totalBytes);
  assert.ok(less.deviceBytes < deviceBytes && less.keptUnits < all.units);
  assert.equal(people.code, 0, people.stderr);
  assert.match(people.stdout, /budget: everything, as the GPU's memory is not known; --memory cuts/);
  assert.match(
    people.stdout,
    new RegExp(`^  on the GPU +${String(deviceBytes).replace(/\B(?=(\d{3})+$)/g, ",")} `, "m"),
  );
  assert.doesNotMatch(people.stdout, /Expected speed/);
});

test("sizes may be written in several ways", async () => {
  const bytes = async (size: string) => {
    const { stdout } = await snug("plan", words, "--memory", size, "--json");
    return { ...JSON.parse(stdout), expectedTokensPerSecond: 0 };
  };
  const [plain, decimal, fraction, binary] = await Promise.all(["2000000", "2MB", "0.002GB", "2MiB"].map(bytes));
  assert.equal(plain.memoryBytes, 2e6);
  assert.deepEqual(decimal, plain);
  assert.deepEqual(fraction, plain);
  assert.equal(binary.memoryBytes, 2 ** 21);
});

test("plan for people: parts, layers and a chart with the cut marked, at 80 columns", async () => {
  const { code, stdout, stderr } = await snug("plan", words, "--pruning", "0.4", "--context", "64");
  assert.equal(code, 0, stderr);
  assert.ok(!stdout.includes("\x1b")); // no terminal, no colours; nor a pack's own escapes
  for (const part of ["weights", "KV cache", "state", "scratch", "total", "budget"])
    assert.match(stdout, new RegExp(`^  ${part} +[0-9,]+ `, "m"));
  assert.match(stdout, /^ +layer +qk +vo +mlp$/m);
  assert.match(stdout, /pruning rate/);
  assert.match(stdout, /expected perplexity, logarithmic/);
  assert.equal(stdout.split("▲").length - 1, 2);
  assert.match(stdout, /▇/);
  for (const line of stdout.split("\n")) assert.ok(line.length <= 80, `wider than 80: ${line}`);
});

test("without UTF-8 in the locale the picture is plain ASCII", async () => {
  const ascii = { env: { LANG: "C", LC_ALL: "" } };
  const { stdout } = await snug(ascii, "plan", words, "--pruning", "0.4");
  assert.match(stdout, /#/);
  assert.match(stdout, /\^/);
  assert.match(stdout, /^[\x20-\x7e\n]*$/u);
});

test("inspect tells what a pack is", async () => {
  const people = await snug("inspect", words);
  assert.equal(people.code, 0, people.stderr);
  for (const fact of ["Words?[2J", "MIT", "made by a test", "2 layers", "vocabulary 600", "has a chat template"])
    assert.ok(people.stdout.includes(fact), `${fact} in ${people.stdout}`);
  const facts = JSON.parse((await snug("inspect", ids, "--json")).stdout);
  assert.equal(facts.bytes, readFileSync(ids).length);
  assert.equal(facts.chatTemplate, false);
  assert.equal(facts.cuts[0].pruningRate, 0);
  assert.equal(facts.cuts[0].keptUnits, facts.units);
  assert.equal(facts.cuts[0].expectedPerplexity, null);
});

test("plan and inspect of a hybrid: its kinds of units where a layer has them, and its state", async () => {
  const args = [hybrid, "--pruning", "0.4", "--context", "64"];
  const [people, script] = await Promise.all([snug("plan", ...args), snug("plan", ...args, "--json")]);
  assert.equal(people.code, 0, people.stderr);
  for (const line of people.stdout.split("\n")) assert.ok(line.length <= 80, `wider than 80: ${line}`);
  const plan = JSON.parse(script.stdout);
  const { coreBytes, weightsBytes, kvBytes, stateBytes, scratchBytes, totalBytes } = plan;
  assert.ok(kvBytes > 0 && stateBytes > 0);
  assert.equal(coreBytes + weightsBytes + kvBytes + stateBytes + scratchBytes, totalBytes);
  const bytesOf = (part: string) =>
    new RegExp(`^  ${part} +([0-9,]+) `, "m").exec(people.stdout)?.[1]?.replaceAll(",", "");
  assert.equal(bytesOf("state"), String(stateBytes));
  assert.equal(bytesOf("KV cache"), String(kvBytes));
  const kinds: string[][] = plan.layers.map((layer: { stacks: { kind: string }[] }) =>
    layer.stacks.map(({ kind }) => kind).toSorted(),
  );
  assert.deepEqual(kinds, [
    ["bc", "mlp", "xz"],
    ["mlp", "qk", "vo"],
    ["bc", "mlp", "xz"],
  ]);
  // Every kind has a column, and a layer has something in the columns of its own kinds only.
  const [title = "", ...rows] = people.stdout.slice(people.stdout.search(/^ +layer /m)).split("\n");
  const columns = [...title.matchAll(/\S+/g)].slice(1).map(({ 0: kind, index }) => ({ kind, from: index }));
  assert.deepEqual(
    columns.map(({ kind }) => kind),
    ["qk", "vo", "bc", "xz", "mlp"],
  );
  for (const [layer, own] of kinds.entries()) {
    const row = rows[layer] as string;
    const shown = columns.filter(({ from }, i) => row.slice(from, columns[i + 1]?.from).trim() !== "");
    assert.deepEqual(shown.map(({ kind }) => kind).toSorted(), own, row);
  }
  const at = (context: number) =>
    snug("plan", hybrid, "--context", String(context), "--json").then(({ stdout }) => JSON.parse(stdout));
  const [short, long] = await Promise.all([at(32), at(128)]);
  assert.equal(short.stateBytes, long.stateBytes); // however long the text
  assert.equal(short.kvBytes * 4, long.kvBytes);

  const { stdout, stderr } = await snug("inspect", hybrid);
  const facts = ["bamba, 3 layers of width 48", "4 heads of 12 (2 for keys and values)"];
  facts.push("8 heads of 12, a state of 24 dimensions in 2 groups", "qk 12, vo 12, bc 24, xz 12, mlp 72");
  for (const fact of facts) assert.ok(stdout.includes(fact), `${fact} in ${stdout}${stderr}`);
  const shape = JSON.parse((await snug("inspect", hybrid, "--json")).stdout);
  assert.deepEqual(shape.ssm, { heads: 8, headDim: 12, state: 24, groups: 2 });
  assert.deepEqual(shape.channels, { qk: 12, vo: 12, bc: 24, xz: 12, mlp: 72 });
  assert.equal(JSON.parse((await snug("inspect", ids, "--json")).stdout).ssm, null);
});

// run

test("run: text on stdout, words on stderr, all of it in --json", async () => {
  const options = ["--seed", "7", "--max-tokens", "12", "--context", "64"];
  const [people, script] = await Promise.all([
    snug("run", words, "some words", ...options),
    snug("run", words, "some words", ...options, "--json"),
  ]);
  assert.equal(people.code, 0, people.stderr);
  assert.match(people.stderr, /^budget +[\d.]+ [MG]B: \d+ % of /m); // how the memory was found
  assert.match(people.stderr, /^kept +\d+ of \d+ units, nothing is pruned, expected perplexity 40.00$/m);
  assert.match(people.stderr, /^answer +\d+ tokens, [\d.]+ tok\/s.*seed 7/m);
  assert.equal(script.stderr, "");
  const result = JSON.parse(script.stdout);
  assert.equal(people.stdout.replace(/\n$/, ""), result.text.replace(/\n$/, ""));
  assert.equal(result.tokens.length, result.decode.tokens);
  assert.equal(result.finishReason, "length");
  assert.equal(result.tokens.length, 12);
  assert.equal(result.seed, 7);
  for (const speed of [result.prompt, result.decode])
    assert.deepEqual(Object.keys(speed), ["tokens", "seconds", "tokensPerSecond"]);
  assert.equal(result.plan.keptUnits, result.plan.units);
});

test("run: the prompt may come from stdin, as it is there or without it", async () => {
  const options = ["--seed", "7", "--max-tokens", "6", "--context", "64", "--json"];
  const text = async (input: string | Buffer, ...args: string[]) => {
    const { code, stdout, stderr } = await snug({ input }, "run", words, ...args, ...options);
    assert.equal(code, 0, stderr);
    return { ...JSON.parse(stdout), stderr };
  };
  const argument = await text("", "some words");
  assert.deepEqual((await text("some words\n")).tokens, argument.tokens);
  assert.deepEqual((await text("some words\n", "-")).tokens, argument.tokens);
  const broken = await text(Buffer.from([0x61, 0xff, 0xfe, 0x62]));
  assert.deepEqual(broken.tokens, (await text("a\ufffd\ufffdb")).tokens);
  const absent = await text("");
  assert.match(absent.stderr, /No prompt was given: continuing "Once upon a time"/);
  assert.deepEqual(absent.tokens, (await text("", "Once upon a time")).tokens);
});

test("run: token ids in, token ids out where there is no tokenizer", async () => {
  const options = ["--tokens", "1, 2,3", "--temperature", "0", "--max-tokens", "4"];
  const { code, stdout, stderr } = await snug("run", ids, ...options);
  assert.equal(code, 0, stderr);
  const { tokens, text } = JSON.parse((await snug("run", ids, ...options, "--json")).stdout);
  assert.equal(tokens.length, 4);
  assert.equal(text, "");
  assert.equal(stdout, `${tokens.join(",")}\n`);
});

test("run: --read-twice reads the prompt, and reads it again", async () => {
  const run = async (...args: string[]) => {
    const options = ["--temperature", "0", "--max-tokens", "4", "--context", "64"];
    const { code, stdout, stderr } = await snug("run", hybrid, ...args, ...options, "--json");
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout);
  };
  const [twice, written, words] = await Promise.all([
    run("--tokens", "1,2,3", "--read-twice"),
    run("--tokens", "1,2,3,1,2,3"),
    run("some words", "--read-twice"),
  ]);
  assert.deepEqual(twice.tokens, written.tokens);
  assert.equal(twice.prompt.tokens, 6);
  assert.equal(words.prompt.tokens, 2 * (await run("some words")).prompt.tokens);
});

test("run: a chat goes through the template, with its system turn", async () => {
  const options = ["--temperature", "0", "--max-tokens", "5", "--context", "256", "--json"];
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await snug("run", words, ...args, ...options);
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout);
  };
  const chat = await run("Hello there", "--chat", "--system", "Be brief");
  const written = await run("system: Be brief\nuser: Hello there\nassistant:");
  assert.deepEqual(chat.tokens, written.tokens);
});

test("run: --device auto takes the CPU where there is no GPU, and says why", async () => {
  const args = ["run", words, "some words", "--seed", "1", "--max-tokens", "4", "--context", "64"];
  const [cpu, auto] = await Promise.all([snug(...args), snug(...args, "--device", "auto")]);
  assert.equal(auto.code, 0, auto.stderr);
  assert.equal(auto.stdout, cpu.stdout);
  assert.match(auto.stderr, /^--device auto takes the CPU: .*npm install webgpu/m);
  for (const { stderr } of [cpu, auto]) assert.match(stderr, /^device +CPU, \d+ threads?$/m);
  assert.doesNotMatch(cpu.stderr, /auto|GPU/);
});

test("run: a smaller budget prunes, and a stop text ends the text", async () => {
  const options = ["--temperature", "0", "--max-tokens", "30", "--context", "64", "--json"];
  const whole = JSON.parse((await snug("run", words, "a", ...options, "--pruning", "0.3")).stdout);
  assert.ok(whole.plan.pruningRate > 0 && whole.plan.pruningRate <= 0.3);
  const stop = whole.text.slice(2, 5);
  const cut = JSON.parse((await snug("run", words, "a", ...options, "--pruning", "0.3", `--stop=${stop}`)).stdout);
  assert.equal(cut.text, whole.text.slice(0, whole.text.indexOf(stop)));
  assert.equal(cut.finishReason, "stop");
});

const ENDLESS = ["--context", String(POSITIONS), "--temperature", "0", "--repeat-penalty", "1"];

test("Ctrl-C ends a run with what there is, and 130", async () => {
  for (const json of [false, true]) {
    const child = start(["run", words, "a", ...ENDLESS, ...(json ? ["--json"] : [])]);
    await (json ? new Promise((done) => setTimeout(done, 1200)) : child.firstOutput);
    child.process.kill("SIGINT");
    const { code, stdout, stderr } = await child.ended;
    assert.equal(code, 130, stderr);
    assert.match(stderr, /snug: stopped\n$/);
    if (json) assert.equal(JSON.parse(stdout).finishReason, "aborted");
    else assert.notEqual(stdout, "");
  }
});

test("Ctrl-C while the prompt is read from stdin", async () => {
  const child = start(["run", words, "-"]);
  await new Promise((done) => setTimeout(done, 600));
  child.process.kill("SIGINT");
  assert.equal((await child.ended).code, 130);
});

test("a reader that goes away ends the program quietly", async () => {
  const child = start(["run", words, "a", ...ENDLESS]);
  await child.firstOutput;
  child.process.stdout.destroy();
  const { code, stderr } = await child.ended;
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /EPIPE|error/i);
});

// eval, pack

test("eval: perplexity of a text", async () => {
  const text = join(folder, "eval.txt");
  writeFileSync(text, "The cat sat on the mat, and then it sat on the hat. <|endoftext|>".repeat(40));
  const options = ["--text", text, "--window", "32"];
  const { code, stdout, stderr } = await snug("eval", words, ...options, "--windows", "5", "--json");
  assert.equal(code, 0, stderr);
  const result = JSON.parse(stdout);
  assert.equal(result.tokens, 5 * 31);
  assert.ok(result.perplexity > 1 && result.topOne >= 0 && result.topOne <= 1 && result.seconds > 0);
  assert.equal(result.plan.context, 32);
  assert.equal(result.plan.keptUnits, result.plan.units); // everything, unless told otherwise
  const pruned = await snug("eval", words, ...options, "--pruning", "0.4");
  assert.equal(pruned.code, 0, pruned.stderr);
  assert.match(pruned.stdout, /^perplexity +[\d.]+\n/);
  assert.match(pruned.stderr, /The text has \d+ windows of 32 tokens; 240 were asked for/);
  assert.match(pruned.stderr, /^50 % window/m);
});

test("eval: logits of tokens, row by row", async () => {
  const run = async (tokens: string, name: string) => {
    const path = join(folder, name);
    const { code, stdout, stderr } = await snug("eval", ids, "--tokens", tokens, "--logits", path, "--json");
    assert.equal(code, 0, stderr);
    assert.equal(existsSync(`${path}.partial`), false);
    const bytes = readFileSync(path);
    assert.equal(JSON.parse(stdout).bytes, bytes.length);
    return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4));
  };
  const long = Array.from({ length: 70 }, (_, i) => i % 97); // more than one step of rows
  const all = await run(long.join(), "all.f32");
  assert.equal(all.length, 70 * 97);
  assert.ok(all.every(Number.isFinite));
  const first = await run(long.slice(0, 3).join(), "first.f32");
  for (const [i, value] of first.entries()) assert.ok(Math.abs(value - (all[i] as number)) < 1e-4);
});

test("pack: a checkpoint without a tokenizer becomes a pack", async () => {
  const output = join(folder, "packed.snug");
  const { code, stdout, stderr } = await snug("pack", join(folder, "ids"), "-o", output, "--weights", "f32", "--json");
  assert.equal(code, 0, stderr);
  const facts = JSON.parse(stdout);
  assert.equal(facts.bytes, readFileSync(output).length);
  assert.ok(facts.units > 0 && facts.seconds > 0 && facts.qualityCurve.length > 0);
  assert.match(stderr, /^\d+ % \S/m); // progress, a line now and then
  const plan = JSON.parse((await snug("plan", output, "--json")).stdout);
  assert.equal(plan.units, facts.units);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith("packed")),
    ["packed.snug"],
  );
});

test("pack: Ctrl-C leaves nothing under the final name", async () => {
  const out = join(folder, "interrupted");
  mkdirSync(out);
  const checkpoint = join(folder, "deeper");
  writeCheckpoint(checkpoint, { num_hidden_layers: 12 });
  const child = start(["pack", checkpoint, "-o", join(out, "x.snug")]);
  await child.firstWords;
  child.process.kill("SIGINT");
  const { code, stderr } = await child.ended;
  assert.equal(code, 130, stderr);
  assert.deepEqual(readdirSync(out), []);
});

// The pack that ships

test("the demo: a plan, then a story", { skip: existsSync(DEMO) ? false : `${DEMO} is absent` }, async () => {
  const { code, stdout, stderr } = await snug("run", DEMO, "--seed", "1", "--max-tokens", "40");
  assert.equal(code, 0, stderr);
  assert.ok(stdout.length > 40, stdout);
  assert.match(stderr, /No prompt was given/);
  assert.match(stderr, /^plan +[\d.]+ MB of [\d.]+ MB/m);
});

// Running the program

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Settings {
  readonly input?: string | Buffer;
  readonly env?: Record<string, string>;
}

/** Runs a command to its end; the first argument may be settings. */
async function snug(...args: (Settings | string)[]): Promise<Ended> {
  const [settings = {}] = args.filter((arg) => typeof arg === "object");
  const child = start(
    args.filter((arg) => typeof arg === "string"),
    settings.env,
  );
  child.process.stdin.on("error", () => {}); // it may end without reading
  child.process.stdin.end(settings.input ?? "");
  return child.ended;
}

/** Starts a command whose stdin stays open. */
function start(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [CLI, ...args], {
    env: { ...process.env, LC_ALL: "", LC_CTYPE: "", LANG: "C.UTF-8", SNUG_DEBUG: "", ...env },
  });
  const collect = (stream: NodeJS.ReadableStream) => {
    const chunks: Buffer[] = [];
    const first = new Promise<void>((done) => {
      stream.on("data", (chunk) => done(void chunks.push(chunk)));
      child.on("close", () => done());
    });
    return { first, text: () => String(Buffer.concat(chunks)) };
  };
  const out = collect(child.stdout);
  const err = collect(child.stderr);
  const ended = new Promise<Ended>((done) => {
    child.on("close", (code) => done({ code, stdout: out.text(), stderr: err.text() }));
  });
  return { process: child, firstOutput: out.first, firstWords: err.first, ended };
}

function refused(ended: Ended, code: number, args: readonly string[], said: readonly string[]): void {
  const { stdout, stderr } = ended;
  const shown = `snug ${args.join(" ")}: ${stderr}`;
  assert.equal(ended.code, code, shown);
  assert.equal(stdout, "", shown);
  for (const word of said) assert.ok(stderr.includes(word), `${shown} should say "${word}"`);
  assert.doesNotMatch(stderr, /^\s+at /m, shown); // no stack trace
  assert.equal(/^See snug .*--help\.$/m.test(stderr), code === 2, shown);
}

async function inParallel<T>(cases: readonly T[], run: (one: T) => Promise<void>): Promise<void> {
  const left = [...cases];
  const worker = async () => {
    for (let one = left.shift(); one !== undefined; one = left.shift()) await run(one);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
