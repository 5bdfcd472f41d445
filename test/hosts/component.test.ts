// The component, transpiled by jco: the suite's ids, its errors, and memory for arguments that lies where no model does.
// From the repository's root, where build/component.core.wasm is.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { readLayout } from "../read-pack";
import { rateOf } from "../write-pack";
import { buildComponent, transpileComponent } from "./build-component";
import demo from "./demo-ids.json";

const DEMO = resolve("packs/demo/tale.snug");
const PACK = "/packs/tale.snug";
const GREEDY = { temperature: 0, repeatPenalty: 1 };
const DEFAULTS = { activations: "int8" } as const;

interface PlanOptions {
  memory?: bigint;
  pruning?: number;
  context?: number;
  rows?: number;
  activations: string;
}

/** What jco makes of component.wit. */
interface Model {
  open(path: string): void;
  planFor(options: PlanOptions): {
    keptUnits: number;
    totalBytes: bigint;
    context: number;
    expectedPerplexity?: number;
  };
  load(options: PlanOptions): ReturnType<Model["planFor"]>;
  encode(text: string): Uint32Array;
  decode(tokens: Uint32Array): Uint8Array;
  begin(
    prompt: { tag: "text"; val: string } | { tag: "tokens"; val: Uint32Array },
    options: { maxTokens?: number; temperature?: number; repeatPenalty?: number; seed?: bigint },
  ): number;
  next(): { token: number; text: string; finish?: "stop" | "length" } | undefined;
}

let folder = "";
let instances = 0;

before(async () => {
  // Below the packages that the module imports.
  folder = mkdtempSync(join(dirname(fileURLToPath(import.meta.url)), "component-"));
  mkdirSync(join(folder, "packs"));
  cpSync(DEMO, join(folder, "packs", "tale.snug"));
  writeFileSync(join(folder, "packs", "text.snug"), "hello");
  const component = await buildComponent(readFileSync("build/component.core.wasm"), "assembly/component.wit");
  mkdirSync(join(folder, "module"));
  writeFileSync(join(folder, "module", "package.json"), '{"type":"module"}');
  for (const [name, bytes] of await transpileComponent(component, "snug"))
    if (!name.endsWith(".d.ts")) writeFileSync(join(folder, "module", name), bytes);
  const shim = await import("@bytecodealliance/preview2-shim/filesystem");
  shim._setPreopens({ "/packs": join(folder, "packs") });
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** Each evaluation of the module is an instance. */
async function instantiate(): Promise<Model> {
  const copy = join(folder, `module-${++instances}`);
  cpSync(join(folder, "module"), copy, { recursive: true });
  return (await import(pathToFileURL(join(copy, "snug.js")).href)).model;
}

function generate(model: Model, prompt: Parameters<Model["begin"]>[0], options: Parameters<Model["begin"]>[1]) {
  model.begin(prompt, options);
  const tokens: number[] = [];
  let text = "";
  let finish: string | undefined;
  for (let piece = model.next(); piece !== undefined; piece = model.next()) {
    assert.equal(finish, undefined, "a piece after the last");
    tokens.push(piece.token);
    text += piece.text;
    finish = piece.finish;
  }
  return { tokens, text, finish };
}

/** A result that is an error, as jco throws it. */
const refuses = (code: string, sentence: RegExp) => (error: { payload?: { code: string; message: string } }) => {
  assert.equal(error.payload?.code, code, String(error));
  assert.match(error.payload.message, sentence);
  return true;
};

const { units } = readLayout(new Uint8Array(readFileSync(DEMO)));
for (const one of demo.cases) {
  test(`the ids of the suite: ${one.text}, ${one.plan.memory}, ${one.plan.activations}`, async () => {
    const model = await instantiate();
    model.open(PACK);
    // As many units as the suite's budget keeps: the adapter's memory counts here.
    const lengths = units.map(({ length }) => length);
    const { context, activations } = one.plan;
    const plan = model.load({ pruning: rateOf(lengths, one.keptUnits), context, activations });
    assert.equal(plan.keptUnits, one.keptUnits);
    const options = { ...GREEDY, maxTokens: one.tokens.length };
    const { tokens } = generate(model, { tag: "tokens", val: Uint32Array.from(one.prompt) }, options);
    assert.deepEqual(tokens, one.tokens);
  });
}

test("text in, text out; a seed repeats itself; arguments of any length, before a generation and within", async () => {
  const model = await instantiate();
  model.open(PACK);
  model.load({ ...DEFAULTS, context: 256 });
  const prompt = { tag: "text", val: "The old lighthouse" } as const;
  const options = { maxTokens: 40, temperature: 0.9, repeatPenalty: 1, seed: 3n };
  const want = generate(model, prompt, options);
  assert.equal(new TextDecoder().decode(model.decode(Uint32Array.from(want.tokens))), want.text);
  assert.equal(want.finish, "length");
  assert.deepEqual(generate(model, prompt, options), want);
  assert.notDeepEqual(generate(model, prompt, { ...options, seed: 4n }).tokens, want.tokens);

  const long = "the quick brown fox “é” ".repeat(20_000);
  const tokens = model.encode(long);
  assert.ok(tokens.length > 200_000);
  assert.equal(new TextDecoder().decode(model.decode(tokens)), long);
  assert.deepEqual(generate(model, prompt, options), want);

  model.begin(prompt, options);
  const within = want.tokens.map(() => {
    const piece = model.next();
    assert.deepEqual(model.encode(long), tokens);
    return piece?.token;
  });
  assert.deepEqual(within, want.tokens);
  assert.equal(model.next(), undefined);
  assert.equal(model.begin(prompt, { maxTokens: 0 }), model.encode(prompt.val).length);
  assert.equal(model.next(), undefined);
});

test("what is wrong is an error with a code and a sentence, and the instance goes on", async () => {
  const model = await instantiate();
  assert.throws(() => model.planFor(DEFAULTS), refuses("usage", /no pack is open/));
  assert.throws(() => model.next(), refuses("usage", /no model is loaded/));
  assert.throws(() => model.encode("x".repeat(1e6)), refuses("usage", /no model is loaded/));
  assert.throws(() => model.open("/packs/none.snug"), refuses("source", /\/packs\/none\.snug: there is no such file/));
  assert.throws(() => model.open("/elsewhere/x"), refuses("source", /outside the folders/));
  assert.throws(() => model.open("/packs/text.snug"), refuses("pack", /is not a snug pack/));
  assert.throws(() => model.load(DEFAULTS), refuses("usage", /no pack is open/));
  model.open(PACK);
  assert.throws(() => model.open(`/packs/${"x".repeat(100_000)}`), refuses("source", /cannot read/));
  assert.throws(() => model.planFor({ ...DEFAULTS, memory: 1n, pruning: 0 }), refuses("usage", /not both/));
  assert.throws(() => model.planFor({ ...DEFAULTS, memory: 1000n }), refuses("budget", /the smallest cut needs/));
  assert.throws(() => model.planFor({ ...DEFAULTS, pruning: 1.5 }), refuses("usage", /between 0 and 1/));
  assert.throws(() => model.planFor({ ...DEFAULTS, pruning: Number.NaN }), refuses("usage", /between 0 and 1/));
  assert.throws(() => model.planFor({ ...DEFAULTS, context: 99_999 }), refuses("usage", /at most 2048 positions/));
  assert.throws(() => model.planFor({ ...DEFAULTS, context: 0 }), refuses("usage", /context must be/));
  assert.throws(() => model.planFor({ ...DEFAULTS, rows: 0 }), refuses("usage", /rows must be/));
  const planned = model.planFor({ ...DEFAULTS, memory: 17_000_000n, context: 512 });
  assert.ok(planned.totalBytes <= 17_000_000n && planned.keptUnits > 100);
  assert.deepEqual(model.load({ ...DEFAULTS, memory: 17_000_000n, context: 512 }), planned);
  for (const again of [() => model.open(PACK), () => model.load(DEFAULTS), () => model.planFor(DEFAULTS)])
    assert.throws(again, refuses("usage", /a model is loaded: another one needs another instance/));
  const tokens = (...ids: number[]) => ({ tag: "tokens", val: Uint32Array.from(ids) }) as const;
  assert.throws(() => model.begin(tokens(), {}), refuses("usage", /the prompt is empty/));
  assert.throws(
    () => model.begin(tokens(8192), {}),
    refuses("usage", /token id 8192 is not below the vocabulary's 8192/),
  );
  assert.throws(() => model.begin(tokens(...Array(513).fill(1)), {}), refuses("context", /513 tokens long/));
  assert.throws(
    () => model.begin(tokens(1), { temperature: -1 }),
    refuses("usage", /temperature must be between 0 and/),
  );
  assert.throws(() => model.begin(tokens(1), { temperature: Number.NaN }), refuses("usage", /temperature must be/));
  assert.throws(() => model.decode(Uint32Array.of(1, 8192)), refuses("usage", /token id 8192/));
  assert.equal(model.next(), undefined);
  const { finish } = generate(model, { tag: "text", val: "Once upon a time" }, { maxTokens: 5, ...GREEDY });
  assert.equal(finish, "length");
});
