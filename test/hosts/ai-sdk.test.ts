// The pack that ships as a model of the Vercel AI SDK: of the current one, and of the one before, which is what npm installs
// on Node 20.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import * as current from "ai";
import * as six from "ai-6";
import { type ChatModel, languageModel, snugProvider } from "../../runtime/ai-sdk";
import type * as Snug from "../../runtime/index";
import { scratchFolder } from "../write-checkpoint";

const here = dirname(fileURLToPath(import.meta.url));
const scratch = scratchFolder({ after });
const CONTEXT = 256;
const GREEDY = { temperature: 0, maxOutputTokens: 16, providerOptions: { snug: { repeatPenalty: 1 } } };
const DIRECT = { temperature: 0, maxTokens: 16, repeatPenalty: 1 };

let pack: Snug.Pack;
let model: Snug.Model;

before(async () => {
  Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false });
  const { open } = (await import(pathToFileURL(resolve("dist/index.js")).href)) as typeof Snug;
  pack = await open("packs/demo/tale.snug");
  model = await pack.load(pack.plan({ context: CONTEXT, threads: 1 }));
});
after(async () => {
  model.dispose();
  await pack.close();
});

const versionOf = (name: string) =>
  JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8")).version as string;

test("a reader that cancels ends the generation, and the model is free", async () => {
  let signal: AbortSignal | undefined;
  const { info, plan } = model;
  const watched: ChatModel = {
    info,
    plan,
    encode: (text) => model.encode(text),
    generate: (prompt, options) => model.generate(prompt, options),
    fit: (messages, options) => model.fit(messages, options),
    chat(messages, options) {
      signal = options?.signal;
      return model.chat(messages, options);
    },
  };
  const prompt = [{ role: "user" as const, content: [{ type: "text", text: "a fox" }] }];
  const { stream } = await languageModel(watched).doStream({ prompt, temperature: 0 });
  const types: string[] = [];
  for await (const { type } of stream) if (types.push(type) === 5) break;
  assert.deepEqual(types, ["stream-start", "response-metadata", "text-start", "text-delta", "text-delta"]);
  assert.equal(signal?.aborted, true);
  const direct = await model.chat([{ role: "user", content: "a fox" }], DIRECT).result();
  assert.equal(direct.tokens.length, 16);
});

for (const [name, ai] of [
  ["ai", current],
  ["ai-6", six],
] as const) {
  const version = `ai ${versionOf(name)}`;

  test(`${version}: generateText is the model's answer, with what it took`, async () => {
    const messages = [
      {
        role: "user" as const,
        content: [
          { type: "text", text: "a " },
          { type: "text", text: "fox" },
        ],
      },
      { role: "assistant" as const, content: "Once" },
      { role: "user" as const, content: "and then" },
    ];
    const result = await ai.generateText({ model: languageModel(model), system: "Tell stories.", messages, ...GREEDY });
    const turns = [
      { role: "system", content: "Tell stories." },
      { role: "user", content: "a fox" },
      { role: "assistant", content: "Once" },
      { role: "user", content: "and then" },
    ];
    const direct = await model.chat(turns, DIRECT).result();
    assert.equal(result.text, direct.text);
    assert.equal(result.finishReason, "length");
    assert.equal(result.usage.inputTokens, direct.prompt.tokens);
    assert.equal(result.usage.outputTokens, 16);
    assert.equal(result.usage.totalTokens, direct.prompt.tokens + 16);
    assert.equal(result.response.modelId, "tale-llama");
    assert.deepEqual(result.warnings ?? [], []);
  });

  test(`${version}: streamText gives the same text piece by piece`, async () => {
    const stream = ai.streamText({ model: languageModel(model), prompt: "a fox", ...GREEDY });
    const pieces: string[] = [];
    for await (const piece of stream.textStream) pieces.push(piece);
    const direct = await model.chat([{ role: "user", content: "a fox" }], DIRECT).result();
    assert.equal(pieces.join(""), direct.text);
    assert.ok(pieces.length > 4, `${pieces.length} pieces`);
    assert.equal(await stream.finishReason, "length");
    assert.equal((await stream.usage).outputTokens, 16);
  });

  test(`${version}: settings arrive, and a stop text ends the text`, async () => {
    const settings = { model: languageModel(model), prompt: "a fox", seed: 5, temperature: 1.5, topK: 7 };
    const result = await ai.generateText({ ...settings, maxOutputTokens: 16 });
    const drawn = { seed: 5, temperature: 1.5, topK: 7, maxTokens: 16 };
    const direct = await model.chat([{ role: "user", content: "a fox" }], drawn).result();
    assert.equal(result.text, direct.text);
    assert.equal(result.providerMetadata?.snug?.seed, 5);
    const stop = direct.text.slice(4, 8);
    const cut = await ai.generateText({ ...settings, maxOutputTokens: 16, stopSequences: [stop] });
    assert.equal(cut.text, direct.text.slice(0, direct.text.indexOf(stop)));
    assert.equal(cut.finishReason, "stop");
  });

  test(`${version}: what the model cannot follow is a warning, in both ways of asking`, async () => {
    const settings = {
      ...GREEDY,
      model: languageModel(model),
      prompt: "a fox",
      presencePenalty: 1,
      frequencyPenalty: 0.5,
      tools: { look: { inputSchema: ai.jsonSchema({ type: "object", properties: {} }) } },
      providerOptions: { snug: { repeatPenalty: "high", frobnicate: 1 } },
    };
    const wanted = [
      "presencePenalty",
      "frequencyPenalty",
      "tools",
      "providerOptions.snug.repeatPenalty",
      "providerOptions.snug.frobnicate",
    ];
    const { warnings } = await ai.generateText(settings);
    assert.deepEqual(
      warnings?.map(({ type, feature }) => [type, feature]),
      wanted.map((feature) => ["unsupported", feature]),
    );
    const stream = ai.streamText(settings);
    for await (const _ of stream.textStream);
    assert.deepEqual(await stream.warnings, warnings);
  });

  test(`${version}: an abort ends the generation, and the model is free`, async () => {
    const endless = { model: languageModel(model), prompt: "a fox", temperature: 0 };
    const stop = new AbortController();
    let aborted = 0;
    const stream = ai.streamText({ ...endless, abortSignal: stop.signal, onAbort: () => aborted++ });
    const types: string[] = [];
    for await (const { type } of stream.fullStream) {
      types.push(type);
      if (types.filter((one) => one === "text-delta").length === 3) stop.abort();
    }
    assert.equal(aborted, 1);
    assert.ok(types.includes("abort") && !types.includes("error") && !types.includes("finish"), types.join());
    const later = new AbortController();
    setTimeout(() => later.abort(), 30);
    await assert.rejects(ai.generateText({ ...endless, abortSignal: later.signal }), { name: "AbortError" });
    assert.ok((await ai.generateText({ ...endless, maxOutputTokens: 4 })).text.length > 0);
  });

  test(`${version}: errors are the model's own`, async () => {
    const settings = { model: languageModel(model), maxRetries: 0 };
    const long = "word ".repeat(CONTEXT);
    await assert.rejects(ai.generateText({ ...settings, prompt: long }), { code: "context", name: "SnugError" });
    const errors: unknown[] = [];
    const stream = ai.streamText({ ...settings, prompt: long, onError: ({ error }) => void errors.push(error) });
    const types: string[] = [];
    for await (const { type } of stream.fullStream) types.push(type);
    assert.ok(types.includes("error"), types.join());
    assert.deepEqual(
      errors.map((error) => (error as { code: string }).code),
      ["context"],
    );
    const image = { type: "image", image: new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]) };
    const messages = [{ role: "user" as const, content: [image] }];
    await assert.rejects(ai.generateText({ ...settings, messages }), { code: "unsupported" });
  });

  test(`${version}: models by their names, in a registry`, async () => {
    const registry = ai.createProviderRegistry({ snug: snugProvider({ tale: model }) });
    const { response } = await ai.generateText({ model: registry.languageModel("snug:tale"), prompt: "a", ...GREEDY });
    assert.equal(response.modelId, "tale");
    for (const id of ["snug:another", "snug:constructor"])
      assert.throws(() => registry.languageModel(id), /there is no model ".*": snugProvider\(\) was given tale/);
  });

  test(`${version}: its types take the model`, async () => {
    const program = join(scratch, `${name}.ts`);
    const lines = [
      `import { createProviderRegistry, generateText, type LanguageModel, streamText } from "ai";`,
      `import type { Model } from ${JSON.stringify(resolve("runtime/model"))};`,
      `import type { RemoteModel } from ${JSON.stringify(resolve("runtime/remote"))};`,
      `import { languageModel, snugProvider } from ${JSON.stringify(resolve("runtime/ai-sdk"))};`,
      "declare const near: Model;",
      "declare const far: RemoteModel;",
      "const model: LanguageModel = languageModel(near);",
      'void generateText({ model, prompt: "" });',
      'void streamText({ model: languageModel(far), prompt: "" });',
      "void createProviderRegistry({ snug: snugProvider({ near, far }) });",
      "// @ts-expect-error: no model",
      "languageModel(5);",
    ];
    writeFileSync(program, lines.join("\n"));
    const config = join(scratch, `${name}.json`);
    writeFileSync(
      config,
      JSON.stringify({
        extends: resolve("tsconfig.json"),
        compilerOptions: { types: [], paths: { ai: [join(here, "node_modules", name)] } },
        include: [],
        files: [program, ...["packs/assemblyscript.d.ts", "gpu/shader-text.d.ts"].map((file) => resolve(file))],
      }),
    );
    const tsc = resolve("node_modules/typescript/bin/tsc");
    await promisify(execFile)(process.execPath, [tsc, "-p", config]).catch((error: { stdout: string }) =>
      assert.fail(error.stdout),
    );
  });
}
