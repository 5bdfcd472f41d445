// The Prompt API over the pack that ships: the same answers as the model gives when it is asked directly, and the browser's
// names, events and exceptions.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { type Message, renderChat } from "../runtime/chat";
import {
  type GenerateOptions,
  type Model,
  open,
  type Pack,
  type Port,
  RemotePacks,
  SnugError,
  servePacks,
} from "../runtime/index";
import { type LanguageModelFactory, type LanguageModelSession, promptApi } from "../runtime/prompt-api";
import { watchModels } from "./all-returned";

watchModels();

const DEMO = "packs/demo/tale.snug";
const CONTEXT = 256;
const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, maxTokens: 12 };
const SYSTEM: Message = { role: "system", content: "Tell stories." };

let pack: Pack;
let model: Model;
let LanguageModel: LanguageModelFactory;

before(async () => {
  pack = await open(DEMO);
  model = await pack.load(pack.plan({ context: CONTEXT, threads: 1 }));
  LanguageModel = promptApi(model, GREEDY);
});
after(async () => {
  model.dispose();
  await pack.close();
});

const said = (role: string, content: string): Message => ({ role, content });
const answerTo = async (...messages: Message[]) => (await model.chat(messages, GREEDY).result()).text;
const tokensOf = (...messages: Message[]) => model.encode(renderChat(model.info, messages)).length;
/** A user's text of about this many tokens. */
const long = (tokens: number) => "word ".repeat(tokens).trim();

/** What is thrown has this name. */
const named = (name: string) => (error: unknown) => {
  assert.ok(error instanceof Error, String(error));
  assert.equal(error.name, name, error.message);
  return true;
};

async function read(stream: ReadableStream<string>): Promise<string[]> {
  const pieces: string[] = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
}

test("prompt: the answer to a chat's last turn, and what was said before is known", async () => {
  const session = await LanguageModel.create({ initialPrompts: [SYSTEM] });
  const first = await session.prompt("Who lives in the wood?");
  assert.equal(first, await answerTo(SYSTEM, said("user", "Who lives in the wood?")));
  assert.ok(first.length > 10);
  const second = await session.prompt([
    {
      role: "user",
      content: [
        { type: "text", value: "And " },
        { type: "text", value: "then?" },
      ],
    },
  ]);
  const turns = [said("user", "Who lives in the wood?"), said("assistant", first), said("user", "And then?")];
  assert.equal(second, await answerTo(SYSTEM, ...turns));
});

test("promptStreaming: pieces that make the answer", async () => {
  const session = await LanguageModel.create();
  const pieces = await read(session.promptStreaming("Who lives in the wood?"));
  assert.ok(pieces.length > 2, `${pieces.length} pieces`);
  assert.equal(pieces.join(""), await answerTo(said("user", "Who lives in the wood?")));
  assert.equal(
    await session.prompt("And then?"),
    await (await sessionOf(["Who lives in the wood?"])).prompt("And then?"),
  );
});

/** A session that was prompted with these. */
async function sessionOf(prompts: readonly string[]): Promise<LanguageModelSession> {
  const session = await LanguageModel.create();
  for (const prompt of prompts) await session.prompt(prompt);
  return session;
}

test("temperature, topK and the defaults arrive at the sampler", async () => {
  const drawing = promptApi(model, { ...GREEDY, seed: 5 });
  const session = await drawing.create({ temperature: 2, topK: 3 });
  assert.equal(session.temperature, 2);
  assert.equal(session.topK, 3);
  const direct = model.chat([said("user", "a fox")], { ...GREEDY, seed: 5, temperature: 2, topK: 3 });
  assert.equal(await session.prompt("a fox"), (await direct.result()).text);
  for (const [name, options] of [
    ["RangeError", { temperature: -1 }],
    ["RangeError", { temperature: Number.NaN }],
    ["RangeError", { topK: 0 }],
    ["RangeError", { topK: 1.5 }],
  ] as const)
    await assert.rejects(LanguageModel.create(options), named(name));
});

test("append adds without an answer; a prefix begins the answer", async () => {
  const session = await LanguageModel.create();
  await session.append([said("user", "one"), said("assistant", "two")]);
  assert.equal(session.contextUsage, tokensOf(said("user", "one"), said("assistant", "two")));
  assert.equal(
    await session.prompt("three"),
    await answerTo(said("user", "one"), said("assistant", "two"), said("user", "three")),
  );
  const other = await LanguageModel.create();
  const prompt = [
    { role: "user", content: "a fox" },
    { role: "assistant", content: "The old fox", prefix: true },
  ];
  const text = `${renderChat(model.info, [said("user", "a fox")])}The old fox`;
  const rest = (await model.generate(model.encode(text), GREEDY).result()).text;
  assert.equal(await other.prompt(prompt), rest);
  const turns = [said("user", "a fox"), said("assistant", `The old fox${rest}`), said("user", "more")];
  assert.equal(await other.prompt("more"), await answerTo(...turns));
});

test("the context is measured in the model's own tokens", async () => {
  const session = await LanguageModel.create();
  assert.equal(session.contextWindow, CONTEXT);
  assert.equal(session.contextUsage, 0);
  assert.equal(await session.measureContextUsage("a fox"), tokensOf(said("user", "a fox")));
  const { tokens } = await model.chat([said("user", "a fox")], GREEDY).result();
  await session.prompt("a fox");
  assert.equal(session.contextUsage, tokensOf(said("user", "a fox")) + tokens.length);
  assert.equal(session.inputUsage, session.contextUsage);
  assert.equal(session.inputQuota, CONTEXT);
  assert.equal(await session.measureInputUsage("more"), await session.measureContextUsage("more"));
  const begun = await LanguageModel.create({ initialPrompts: [SYSTEM] });
  assert.equal(begun.contextUsage, tokensOf(SYSTEM));
});

test("an overflow drops the oldest turns, keeps the initial prompts, and is told", async () => {
  const session = await LanguageModel.create({ initialPrompts: [SYSTEM] });
  const events: string[] = [];
  session.addEventListener("contextoverflow", ({ type }) => events.push(type));
  session.oncontextoverflow = () => events.push("handler");
  await session.prompt(long(70));
  await session.prompt(long(60));
  assert.deepEqual(events, []);
  const third = await session.prompt(long(80));
  assert.deepEqual(events, ["handler", "contextoverflow"]);
  const second = await answerTo(
    SYSTEM,
    said("user", long(70)),
    said("assistant", await answerTo(SYSTEM, said("user", long(70)))),
    said("user", long(60)),
  );
  const kept = [SYSTEM, said("user", long(60)), said("assistant", second), said("user", long(80))];
  const alone = [SYSTEM, said("user", long(80))];
  const fits = tokensOf(...kept) <= CONTEXT - (GREEDY.maxTokens as number);
  assert.equal(third, await answerTo(...(fits ? kept : alone)));
  assert.ok(session.contextUsage <= CONTEXT);

  const before = session.contextUsage;
  const tooLong = long(2 * CONTEXT);
  await assert.rejects(session.prompt(tooLong), (error: DOMException & { requested: number; quota: number }) => {
    assert.equal(error.name, "QuotaExceededError");
    assert.equal(error.requested, tokensOf(SYSTEM, said("user", tooLong)));
    assert.equal(error.quota, CONTEXT);
    return true;
  });
  assert.equal(session.contextUsage, before, "what does not fit changes nothing");
  await assert.rejects(LanguageModel.create({ initialPrompts: [said("user", tooLong)] }), named("QuotaExceededError"));
});

test("a clone knows what its original knew, and goes its own way", async () => {
  const session = await sessionOf(["a fox"]);
  const copy = await session.clone();
  assert.equal(copy.contextUsage, session.contextUsage);
  const answer = await session.prompt("and a hen");
  assert.notEqual(copy.contextUsage, session.contextUsage);
  assert.equal(await copy.prompt("and a hen"), answer);
  session.destroy();
  assert.equal((await copy.prompt("once more")).length > 0, true);
});

test("prompts of one session wait for each other", async () => {
  const session = await LanguageModel.create();
  const answers = await Promise.all([
    session.prompt("one"),
    session.prompt("two"),
    read(session.promptStreaming("three")),
  ]);
  const other = await LanguageModel.create();
  for (const [i, prompt] of ["one", "two", "three"].entries())
    assert.equal([answers[i]].flat().join(""), await other.prompt(prompt), prompt);
});

test("a signal stops a prompt; it is forgotten, and the session goes on", async () => {
  const endless = promptApi(model, { temperature: 0 });
  const session = await endless.create();
  const stop = new AbortController();
  const reader = session.promptStreaming("a fox", { signal: stop.signal }).getReader();
  assert.equal((await reader.read()).done, false);
  const waiting = session.prompt("a hen", { signal: stop.signal });
  stop.abort();
  await assert.rejects(waiting, named("AbortError"));
  await assert.rejects(async () => {
    while (!(await reader.read()).done);
  }, named("AbortError"));
  assert.equal(session.contextUsage, 0);
  const reason = new Error("enough");
  await assert.rejects(session.prompt("a fox", { signal: AbortSignal.abort(reason) }), reason);
  const left = session.promptStreaming("a fox");
  for await (const _ of left) break; // cancels it
  await session.append("a hen");
  assert.equal(session.contextUsage, tokensOf(said("user", "a hen")));
});

test("destroy ends what is under way, and what comes later", async () => {
  const stop = new AbortController();
  const endless = promptApi(model, { temperature: 0 });
  for (const end of [(session: LanguageModelSession) => session.destroy(), () => stop.abort()]) {
    const session = await endless.create({ signal: stop.signal });
    const copy = await session.clone();
    const running = session.prompt("a fox");
    const waiting = session.prompt("a hen");
    setImmediate(end, session);
    await Promise.all([running, waiting].map((prompt) => assert.rejects(prompt, named("AbortError"))));
    await assert.rejects(session.prompt("a fox"), named("InvalidStateError"));
    await assert.rejects(session.clone(), named("InvalidStateError"));
    await assert.rejects(read(session.promptStreaming("a fox")), named("InvalidStateError"));
    if (stop.signal.aborted) await assert.rejects(copy.append("a"), named("InvalidStateError"));
    else await copy.append("a");
  }
  await assert.rejects(LanguageModel.create({ signal: stop.signal }), named("AbortError"));
});

test("what a page may pass that makes no sense", async () => {
  const session = await LanguageModel.create();
  const cases: [error: string, input: unknown][] = [
    ["TypeError", undefined],
    ["TypeError", 5],
    ["TypeError", []],
    ["TypeError", [null]],
    ["TypeError", [{ role: "tool", content: "a" }]],
    ["TypeError", [{ role: "constructor", content: "a" }]],
    ["TypeError", [{ role: "user" }]],
    ["TypeError", [{ role: "user", content: [{ type: "text" }] }]],
    ["NotSupportedError", [{ role: "user", content: [{ type: "image", value: new Uint8Array(4) }] }]],
    ["NotSupportedError", [{ role: "user", content: [null] }]],
    ["NotSupportedError", [{ role: "system", content: "a" }]],
    ["SyntaxError", [{ role: "user", content: "a", prefix: true }]],
    [
      "SyntaxError",
      [
        { role: "assistant", content: "a", prefix: true },
        { role: "user", content: "a" },
      ],
    ],
  ];
  for (const [error, input] of cases) {
    await assert.rejects(session.prompt(input as string), named(error), JSON.stringify(input));
    await assert.rejects(session.append(input as string), named(error));
    await assert.rejects(read(session.promptStreaming(input as string)), named(error));
  }
  await assert.rejects(session.prompt("a", { responseConstraint: { type: "object" } }), named("NotSupportedError"));
  await assert.rejects(LanguageModel.create({ tools: [{}] }), named("NotSupportedError"));
  const late = [said("user", "a"), SYSTEM];
  await assert.rejects(LanguageModel.create({ initialPrompts: late }), named("TypeError"));
  assert.equal(session.contextUsage, 0);
});

test("a model that is loaded when it is needed: availability, and a monitor", async () => {
  let loads = 0;
  let fail = true;
  const lazy = promptApi(async ({ onProgress }) => {
    loads++;
    if (fail) throw new SnugError("source", "the network is gone");
    return pack.load(pack.plan({ context: 64, threads: 1 }), { onProgress });
  }, GREEDY);
  assert.equal(await lazy.availability(), "downloadable");
  await assert.rejects(lazy.create(), /the network is gone/);
  assert.equal(await lazy.availability(), "downloadable");
  fail = false;
  const shares: number[] = [];
  const monitor = (target: EventTarget) =>
    target.addEventListener("downloadprogress", (event) => {
      const { loaded, total } = event as Event & { loaded: number; total: number };
      assert.equal(total, 1);
      shares.push(loaded);
    });
  const stop = new AbortController();
  const both = [lazy.create({ monitor }), lazy.create({ signal: stop.signal })] as const;
  assert.equal(await lazy.availability(), "downloading");
  stop.abort();
  await assert.rejects(both[1], named("AbortError"));
  const session = await both[0];
  assert.equal(loads, 2, "one load for both");
  assert.equal(await lazy.availability(), "available");
  assert.deepEqual([shares[0], shares.at(-1)], [0, 1]);
  assert.ok(shares.length > 2 && shares.every((share, i) => i === 0 || share > (shares[i - 1] as number)), `${shares}`);
  assert.equal(session.contextWindow, 64);
  assert.ok((await session.prompt("a fox")).length > 0);

  for (const options of [{ expectedInputs: [{ type: "image" }] }, { expectedOutputs: [{ type: "audio" }] }]) {
    assert.equal(await lazy.availability(options), "unavailable");
    await assert.rejects(lazy.create(options), named("NotSupportedError"));
  }
  assert.equal(await lazy.availability({ expectedInputs: [{ type: "text" }] }), "available");
  const mute = promptApi(Object.assign(Object.create(model), { info: { ...model.info, chatTemplate: null } }));
  assert.equal(await mute.availability(), "unavailable");
  await assert.rejects(mute.create(), named("NotSupportedError"));
});

test("a model at the other end of a channel does as well", async (context) => {
  const { port1, port2 } = new MessageChannel();
  context.after(() => port1.close());
  const endOf = (port: MessagePort): Port => ({
    post: (message) => port.postMessage(message),
    listen: (hear) => port.on("message", hear),
  });
  servePacks(endOf(port2), async () => open(DEMO));
  const remote = await new RemotePacks(endOf(port1)).open("demo");
  const plan = await remote.plan({ context: CONTEXT, threads: 1 });
  const far = promptApi((options) => remote.load(plan, options), GREEDY);
  const session = await far.create({ initialPrompts: [SYSTEM] });
  const near = await LanguageModel.create({ initialPrompts: [SYSTEM] });
  assert.equal(await session.prompt("a fox"), await near.prompt("a fox"));
  assert.equal((await read(session.promptStreaming("and a hen"))).join(""), await near.prompt("and a hen"));
  assert.equal(session.contextUsage, near.contextUsage);
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 50);
  const endless = await promptApi((options) => remote.load(plan, options), { temperature: 0 }).create();
  await assert.rejects(endless.prompt("a fox", { signal: stop.signal }), named("AbortError"));
});
