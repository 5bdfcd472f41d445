// snug serve as programs meet it: the API's routes over the demo pack, and everything that can be wrong with a request.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { loopbackHosts } from "../cli/server/guard";
import { type Access, Server, type ServerOptions } from "../cli/server/server";
import { type Model, open } from "../runtime/index";
import { watchModels } from "./all-returned";
import { type Random, random } from "./random";
import { ask, begin, errorOf, eventsOf, metric, post, type Question, sendBytes, until } from "./serve-client";
import { ScriptedModel } from "./serve-model";

watchModels();

const PROMPT = "Once upon a time";
const PARALLEL = 4;
const JSON_TYPE = { "Content-Type": "application/json" };
const FUZZED = Number(process.env.SNUG_FUZZED ?? 2000);

const opened: Server[] = [];

interface Served {
  readonly port: number;
  readonly server: Server;
  readonly accesses: Access[];
  readonly faults: unknown[];
}

async function serve(
  model: ConstructorParameters<typeof Server>[0],
  options: Partial<ServerOptions> = {},
): Promise<Served> {
  const accesses: Access[] = [];
  const faults: unknown[] = [];
  const server = new Server(model, {
    ...{ name: model.info.name, parallel: PARALLEL, waiting: 8, bodyBytes: 100_000, timeoutSeconds: 60 },
    ...{ hosts: loopbackHosts("127.0.0.1"), origins: [], key: undefined },
    onEnd: (access) => accesses.push(access),
    onFault: (error) => faults.push(error),
    ...options,
  });
  opened.push(server);
  const { port } = await server.listen("127.0.0.1", 0);
  return { port, server, accesses, faults };
}

let model: Model;
let demo: Served;

before(async () => {
  const pack = await open("packs/demo/tale.snug");
  model = await pack.load(pack.plan({ context: 256, sequences: PARALLEL, threads: 1 }));
  await pack.close();
  demo = await serve(model);
});

after(async () => {
  for (const server of opened) await server.close(0);
  model.dispose();
  assert.deepEqual(demo.faults, []);
});

const complete = (body: object) => post(demo.port, "/v1/completions", body);
const stream = async (path: string, body: object) =>
  eventsOf((await ask(demo.port, { path, body: { ...body, stream: true } })).text);

// Routes

test("models: the one there is, by its name", async () => {
  const list = JSON.parse((await ask(demo.port, { path: "/v1/models" })).text);
  assert.equal(list.object, "list");
  assert.equal(list.data.length, 1);
  const [about] = list.data;
  assert.equal(about.id, "tale-llama");
  assert.equal(about.object, "model");
  assert.equal(about.context_length, 256);
  const one = await ask(demo.port, { path: "/v1/models/tale-llama?x=1" });
  assert.deepEqual(JSON.parse(one.text), about);
  const none = await ask(demo.port, { path: "/v1/models/gpt%2F5" });
  assert.equal(none.status, 404);
  assert.equal(errorOf(none).code, "model_not_found");
  assert.match(errorOf(none).message, /"gpt\/5".*"tale-llama"/);
});

test("a name with slashes", async () => {
  const { port } = await serve(new ScriptedModel(), { name: "some/one: x" });
  for (const id of ["some/one:%20x", encodeURIComponent("some/one: x")]) {
    const { text } = await ask(port, { path: `/v1/models/${id}` });
    assert.equal(JSON.parse(text).id, "some/one: x");
  }
});

test("health, a method that is wrong, a path that is", async () => {
  assert.deepEqual(JSON.parse((await ask(demo.port, { path: "/health" })).text), { status: "ok" });
  const head = await ask(demo.port, { method: "HEAD", path: "/health" });
  assert.deepEqual([head.status, head.text], [200, ""]);
  const cases: [method: string, path: string, status: number, allow?: string][] = [
    ["POST", "/health", 405, "GET, HEAD"],
    ["GET", "/v1/completions", 405, "POST"],
    ["DELETE", "/v1/models", 405, "GET, HEAD"],
    ["OPTIONS", "/v1/chat/completions", 405, "POST"],
    ["GET", "/", 404],
    ["GET", "/v1/models/{id}", 404],
    ["GET", "/v1/completions/", 404],
    ["GET", "/toString", 404],
    ["GET", "//health", 404],
    ["GET", "/v1/models/%ff", 404],
    ["POST", "/v1/embeddings", 404],
  ];
  for (const [method, path, status, allow] of cases) {
    const reply = await ask(demo.port, { method, path });
    assert.equal(reply.status, status, `${method} ${path}`);
    assert.equal(reply.headers.allow, allow);
    errorOf(reply);
  }
});

// Texts

test("completions: a text, its ids, and lists of them are one prompt", async () => {
  const options = { max_tokens: 12, seed: 3, model: "tale-llama" };
  const ids = model.prompt(PROMPT);
  const text = await complete({ ...options, prompt: PROMPT });
  assert.match(text.id, /^cmpl-\w+$/);
  assert.equal(text.object, "text_completion");
  assert.equal(text.model, "tale-llama");
  assert.ok(Math.abs(text.created - Date.now() / 1000) < 60);
  const [choice] = text.choices;
  assert.deepEqual({ ...choice, text: "" }, { index: 0, text: "", logprobs: null, finish_reason: "length" });
  assert.deepEqual(text.usage, {
    prompt_tokens: ids.length,
    completion_tokens: 12,
    total_tokens: ids.length + 12,
  });
  const result = await model.generate(PROMPT, { maxTokens: 12, seed: 3 }).result();
  assert.equal(choice.text, result.text);
  for (const prompt of [ids, [PROMPT], [ids]])
    assert.deepEqual((await complete({ ...options, prompt })).choices, text.choices);
});

test("completions: several prompts, each with its answers", async () => {
  const { port } = await serve(new ScriptedModel({ text: (prompt, seed) => `${prompt}, ${seed}` }));
  const body = { prompt: ["one", "three"], n: 3, seed: 5 };
  const { choices, usage } = await post(port, "/v1/completions", { ...body, logprobs: 1 });
  const texts = ["one, 5", "one, 6", "one, 7", "three, 5", "three, 6", "three, 7"];
  for (const [i, text] of texts.entries()) {
    assert.deepEqual([choices[i].index, choices[i].text, choices[i].finish_reason], [i, text, "stop"]);
    assert.equal(choices[i].logprobs.tokens.join(""), text);
  }
  const made = texts.join("").length + texts.length; // each with an end token
  assert.deepEqual(usage, { prompt_tokens: 8, completion_tokens: made, total_tokens: made + 8 });
  const events = eventsOf((await ask(port, { path: "/v1/completions", body: { ...body, stream: true } })).text);
  for (const [i, text] of texts.entries())
    assert.equal(textOf(events.filter(({ choices: [one] }) => one.index === i)), text);
});

test("completions: several prompts of the demo pack, each as if it were alone", async () => {
  const prompts = [PROMPT, "The old lighthouse"];
  const body = { max_tokens: 5, seed: 1 };
  const { choices, usage } = await complete({ ...body, prompt: prompts, n: 2 });
  assert.equal(usage.completion_tokens, 20);
  let read = 0;
  for (const [i, prompt] of prompts.entries()) {
    const alone = await complete({ ...body, prompt });
    read += alone.usage.prompt_tokens;
    assert.equal(choices[2 * i].text, alone.choices[0].text);
    assert.equal(choices[2 * i + 1].text, (await complete({ ...body, prompt, seed: 2 })).choices[0].text);
  }
  assert.equal(usage.prompt_tokens, read);
});

test("completions: 16 tokens unless told otherwise, none if asked for none, the prompt first if asked to", async () => {
  assert.equal((await complete({ prompt: PROMPT, seed: 1 })).usage.completion_tokens, 16);
  const none = await complete({ prompt: PROMPT, max_tokens: 0, echo: true });
  assert.equal(none.choices[0].text, PROMPT);
  assert.equal(none.usage.completion_tokens, 0);
  const echoed = await complete({ prompt: model.prompt(PROMPT), max_tokens: 4, seed: 1, echo: true });
  const plain = await complete({ prompt: PROMPT, max_tokens: 4, seed: 1 });
  assert.ok(echoed.choices[0].text.endsWith(PROMPT + plain.choices[0].text));
  const events = await stream("/v1/completions", { prompt: PROMPT, max_tokens: 4, seed: 1, echo: true });
  assert.equal(textOf(events), PROMPT + plain.choices[0].text);
});

test("a seed repeats a text, and another gives another", async () => {
  const text = async (seed: number) => (await complete({ prompt: PROMPT, max_tokens: 20, seed })).choices[0].text;
  const first = await text(7);
  assert.equal(await text(7), first);
  assert.notEqual(await text(8), first);
  assert.equal(await text(-7), await text(-7));
  assert.notEqual(await text(-7), first);
});

test("sampling: what a request says is what the model is asked", async () => {
  const scripted = new ScriptedModel();
  const { port } = await serve(scripted);
  const sampling = { temperature: 0.5, top_p: 0, top_k: 3, min_p: 0.1, repeat_penalty: 1, priority: "background" };
  await post(port, "/v1/completions", { prompt: "a", ...sampling, seed: -1, stop: "x", n: 2, max_tokens: 9 });
  const asked = scripted.asked.map(({ signal: _, onToken: __, ...options }) => options);
  const expected = {
    ...{ temperature: 0.5, topP: 1e-6, topK: 3, minP: 0.1, repeatPenalty: 1, priority: "background" },
    ...{ stop: ["x"], maxTokens: 9 },
  };
  assert.deepEqual(asked, [
    { ...expected, seed: 2 ** 53 - 1 },
    { ...expected, seed: 0 },
  ]);
  scripted.asked.length = 0;
  const nothing = {
    temperature: null,
    top_p: null,
    seed: null,
    stop: null,
    n: null,
    stream: null,
    stream_options: null,
  };
  await post(port, "/v1/chat/completions", { messages: [{ role: "user", content: "a" }], ...nothing });
  assert.deepEqual(
    scripted.asked.map(({ signal: _, onToken: __, ...options }) => options),
    [{}],
  );
});

test("stop texts end an answer, and are no part of it", async () => {
  const whole = (await complete({ prompt: PROMPT, max_tokens: 30, temperature: 0 })).choices[0].text;
  const stop = whole.slice(20, 24);
  for (const stops of [stop, ["never in it", stop]]) {
    const body = { prompt: PROMPT, max_tokens: 30, temperature: 0, stop: stops };
    const cut = whole.slice(0, whole.indexOf(stop));
    const [choice] = (await complete(body)).choices;
    assert.equal(choice.text, cut);
    assert.equal(choice.finish_reason, "stop");
    const events = await stream("/v1/completions", body);
    assert.equal(textOf(events), cut);
    assert.equal(events.at(-1).choices[0].finish_reason, "stop");
  }
});

test("a stream holds what the answer at once does, and the usage if asked for", async () => {
  const body = { prompt: PROMPT, max_tokens: 12, seed: 5 };
  const whole = await complete(body);
  const reply = await ask(demo.port, { path: "/v1/completions", body: { ...body, stream: true } });
  assert.match(String(reply.headers["content-type"]), /^text\/event-stream/);
  const events = eventsOf(reply.text);
  assert.equal(textOf(events), whole.choices[0].text);
  assert.equal(new Set(events.map(({ id }) => id)).size, 1);
  for (const event of events) {
    assert.equal(event.object, "text_completion");
    assert.ok(!("usage" in event));
  }
  const reasons = events.map(({ choices }) => choices[0].finish_reason);
  assert.deepEqual(reasons, [...reasons.slice(1).map(() => null), "length"]);
  const counted = await stream("/v1/completions", { ...body, stream_options: { include_usage: true } });
  assert.deepEqual(counted.pop(), { ...counted[0], choices: [], usage: whole.usage });
  assert.ok(counted.every(({ usage }) => usage === null));
});

test("chat: through the template, whole and streamed", async () => {
  const messages = [
    { role: "developer", content: "Be brief." },
    {
      role: "user",
      content: [
        { type: "text", text: "Tell me" },
        { type: "text", text: "a story." },
      ],
    },
  ];
  const said = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Tell me\na story." },
  ];
  const body = { messages, max_completion_tokens: 10, max_tokens: 99, seed: 4 };
  const reply = await post(demo.port, "/v1/chat/completions", body);
  const result = await model.chat(said, { maxTokens: 10, seed: 4 }).result();
  assert.match(reply.id, /^chatcmpl-\w+$/);
  assert.equal(reply.object, "chat.completion");
  const [choice] = reply.choices;
  assert.deepEqual(choice.message, { role: "assistant", content: result.text, refusal: null });
  assert.equal(choice.finish_reason, result.finishReason);
  assert.equal(choice.logprobs, null);
  assert.equal(reply.usage.prompt_tokens, result.prompt.tokens);
  assert.equal(reply.usage.completion_tokens, result.tokens.length);

  const events = await stream("/v1/chat/completions", body);
  assert.ok(events.every(({ object }) => object === "chat.completion.chunk"));
  const deltas = events.map(({ choices }) => choices[0].delta);
  assert.deepEqual(deltas.shift(), { role: "assistant", content: "" });
  assert.deepEqual(deltas.pop(), {});
  assert.equal(deltas.map(({ content }) => content).join(""), result.text);
  assert.equal(events.at(-1).choices[0].finish_reason, result.finishReason);
});

test("chat: several answers, each begun once in a stream", async () => {
  const messages = [{ role: "user", content: "Who are you?" }];
  const body = { messages, max_tokens: 6, seed: 1, n: 3 };
  const whole = await post(demo.port, "/v1/chat/completions", body);
  const events = await stream("/v1/chat/completions", { ...body, stream_options: { include_usage: true } });
  assert.deepEqual(events.pop().usage, whole.usage);
  for (const { index, message, finish_reason } of whole.choices) {
    const own = events.filter(({ choices }) => choices[0].index === index).map(({ choices }) => choices[0]);
    assert.deepEqual(own[0].delta, { role: "assistant", content: "" });
    assert.equal(own.map(({ delta }) => delta.content ?? "").join(""), message.content);
    assert.equal(own.filter((one) => one.finish_reason !== null).length, 1);
    assert.equal(own.at(-1).finish_reason, finish_reason);
  }
  assert.equal(new Set(whole.choices.map(({ message }: { message: { content: string } }) => message.content)).size, 3);
});

test("truncation: the oldest turns are left out where they are too many, and how many is said", async () => {
  // Of scripted models each letter is a token: 15, 15, 10 and 8 here.
  const turns = ["system: 678901", "user: 67890123", "user: 678", "user: 6"];
  const messages = turns.map((turn) => ({ role: turn.split(":")[0], content: turn.split(": ")[1] }));
  const asks = (body: object) => ({ path: "/v1/chat/completions", body: { messages, max_tokens: 4, ...body } });
  for (const [context, dropped, read] of [
    [52, "0", 48],
    [51, "1", 33],
    [37, "1", 33],
    [36, "2", 23],
    [24, "2", 23],
  ] as const) {
    const { port } = await serve(new ScriptedModel({ context }));
    for (const stream of [false, true]) {
      const options = stream ? { stream, stream_options: { include_usage: true } } : {};
      const reply = await ask(port, asks({ truncation: "auto", n: 2, ...options }));
      assert.equal(reply.status, 200, reply.text);
      assert.equal(reply.headers["x-snug-dropped-turns"], dropped);
      const { usage } = stream ? eventsOf(reply.text).at(-1) : JSON.parse(reply.text);
      assert.deepEqual(usage, { prompt_tokens: read, completion_tokens: 8, total_tokens: read + 8 });
    }
    for (const disabled of [{}, { truncation: "disabled" }, { truncation: null }]) {
      const reply = await ask(port, asks(disabled));
      assert.equal(reply.headers["x-snug-dropped-turns"], undefined);
      assert.equal(reply.status, context < 48 ? 400 : 200);
      if (reply.status === 400) assert.equal(errorOf(reply).code, "context_length_exceeded");
    }
  }
  const { port } = await serve(new ScriptedModel({ context: 23 }));
  const reply = await ask(port, asks({ truncation: "auto" }));
  assert.equal(reply.status, 400);
  const { code, message: words } = errorOf(reply);
  assert.equal(code, "context_length_exceeded");
  assert.match(words, /without older turns the prompt is 23 tokens long, the context has room for 23/);
});

test("truncation on the demo pack: the answer is that to the turns that are left", async () => {
  const turn = (i: number) => [
    { role: "user", content: `${i}: ${"word ".repeat(20)}` },
    { role: "assistant", content: "And so it was. ".repeat(3) },
  ];
  const system = { role: "system", content: "Tell stories." };
  const turns = Array.from({ length: 9 }, (_, i) => turn(i)).flat();
  const asked = { role: "user", content: "What then?" };
  const options = { max_tokens: 10, temperature: 0, repeat_penalty: 1 };
  const body = { ...options, messages: [system, ...turns, asked], truncation: "auto" };
  const { headers, text } = await ask(demo.port, { path: "/v1/chat/completions", body });
  const dropped = Number(headers["x-snug-dropped-turns"]);
  assert.ok(dropped > 0 && dropped < turns.length && dropped % 2 === 0, `${dropped} turns`);
  const kept = { ...options, messages: [system, ...turns.slice(dropped), asked] };
  const direct = await post(demo.port, "/v1/chat/completions", kept);
  assert.deepEqual(JSON.parse(text).choices, direct.choices);
  assert.deepEqual(JSON.parse(text).usage, direct.usage);
  assert.ok(direct.usage.prompt_tokens + 10 <= 256);
});

test("a pack without a chat template answers no chat, and says what to do", async () => {
  const { port } = await serve(new ScriptedModel({ chatTemplate: null }));
  const reply = await ask(port, {
    path: "/v1/chat/completions",
    body: { messages: [{ role: "user", content: "a" }] },
  });
  assert.equal(reply.status, 400);
  assert.match(errorOf(reply).message, /no chat template.*\/v1\/completions/);
});

// Logprobs

test("logprobs: of the model's own, beside every token", async () => {
  const body = { prompt: PROMPT, max_tokens: 8, seed: 2, logprobs: 3 };
  const [choice] = (await complete(body)).choices;
  const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs;
  assert.equal(tokens.length, 8);
  assert.equal(tokens.join(""), choice.text);
  assert.equal(text_offset[0], 0);
  for (const [i, token] of tokens.entries()) {
    if (i > 0) assert.equal(text_offset[i], text_offset[i - 1] + tokens[i - 1].length);
    const top = top_logprobs[i];
    assert.ok([3, 4].includes(Object.keys(top).length), JSON.stringify(top));
    assert.equal(top[token], token_logprobs[i]);
    for (const logprob of Object.values(top) as number[]) assert.ok(logprob <= 0 && logprob > -100);
    const likeliest = Object.values(top).slice(0, 3) as number[];
    assert.deepEqual(
      likeliest,
      [...likeliest].sort((a, b) => b - a),
    );
    assert.ok(likeliest.reduce((sum, logprob) => sum + Math.exp(logprob), 0) <= 1 + 1e-5);
  }
  const streamed = await stream("/v1/completions", body);
  assert.deepEqual(
    streamed.flatMap(({ choices }) => choices[0].logprobs.token_logprobs),
    token_logprobs,
  );
});

test("logprobs: in a chat's shape, with their bytes", async () => {
  const messages = [{ role: "user", content: "Hello" }];
  const body = { messages, max_tokens: 6, temperature: 0, repeat_penalty: 1, logprobs: true, top_logprobs: 2 };
  const [choice] = (await post(demo.port, "/v1/chat/completions", body)).choices;
  const { content, refusal } = choice.logprobs;
  assert.equal(refusal, null);
  const bytes = content.flatMap((one: { bytes: number[] }) => one.bytes);
  assert.equal(String(Buffer.from(bytes)), choice.message.content);
  for (const { token, logprob, top_logprobs } of content) {
    assert.equal(top_logprobs.length, 2);
    // The likeliest was taken.
    assert.equal(top_logprobs[0].token, token);
    assert.equal(top_logprobs[0].logprob, logprob);
    assert.ok(top_logprobs[1].logprob <= logprob);
  }
});

test("logprobs: parts of characters as bytes, and nothing of what a stop text took", async () => {
  const { port } = await serve(new ScriptedModel({ text: "a€𝄞b stop" }));
  const body = { prompt: "x", max_tokens: 100, logprobs: 0, stop: " st" };
  const [choice] = (await post(port, "/v1/completions", body)).choices;
  assert.equal(choice.text, "a€𝄞b");
  const { tokens, text_offset } = choice.logprobs;
  assert.deepEqual(tokens, ["a", ..."e2 82 ac f0 9d 84 9e".split(" ").map((byte) => `bytes:\\x${byte}`), "b"]);
  assert.deepEqual(text_offset, [0, 1, 1, 1, 2, 2, 2, 2, 3]);
  const { text } = await ask(port, { path: "/v1/completions", body: { ...body, stream: true } });
  const events = eventsOf(text);
  assert.deepEqual(
    events.flatMap(({ choices }) => choices[0].logprobs.tokens),
    tokens,
  );
  for (const { choices } of events) if (choices[0].text === "€") assert.equal(choices[0].logprobs.tokens.length, 3);
});

// Bad requests

/** A stream that at once fills what lies between the server and a client. */
const TORRENT = { prompt: "a".repeat(2_500_000), echo: true, max_tokens: 1e9, stream: true, n: 8 };
const TORRENT_BYTES = 3_000_000;
const message = (content: unknown, role: unknown = "user") => ({ messages: [{ role, content }] });
const WRONG: [path: string, body: object, ...said: string[]][] = [
  ["completions", {}, "prompt must be", "missing"],
  ["completions", { prompt: null }, "prompt must be"],
  ["completions", { prompt: "" }, "empty"],
  ["completions", { prompt: 5 }, "prompt must be", "not 5"],
  ["completions", { prompt: [] }, "prompt must be"],
  ["completions", { prompt: [[]] }, "prompt must be"],
  ["completions", { prompt: {} }, "prompt must be", "not an object"],
  ["completions", { prompt: ["a", 1] }, "prompt must be"],
  ["completions", { prompt: [1, "a"] }, "prompt must be"],
  ["completions", { prompt: [[1], "a"] }, "prompt must be"],
  ["completions", { prompt: [[[1]]] }, "prompt must be"],
  ["completions", { prompt: [-1] }, "-1 in prompt is not a token id"],
  ["completions", { prompt: [1.5] }, "1.5 in prompt"],
  ["completions", { prompt: [[1], [1e9]] }, "1000000000 in prompt"],
  ["completions", { prompt: "a ".repeat(3000) }, "room for 256"],
  ["completions", { prompt: new Array(300).fill(1) }, "room for 256"],
  ["completions", { prompt: "a", n: 0 }, "n must be a whole number from 1 to 8", "not 0"],
  ["completions", { prompt: "a", n: 9 }, "n must be"],
  ["completions", { prompt: "a", n: 1.5 }, "n must be"],
  ["completions", { prompt: "a", n: "1" }, "n must be", "not a text"],
  ["completions", { prompt: ["a", "a"], n: 8 }, "16 answers", "12"],
  ["completions", { prompt: "a", temperature: -1 }, "temperature must be a number from 0 to 2", "not -1"],
  ["completions", { prompt: "a", temperature: "hot" }, "temperature must be"],
  ["completions", { prompt: "a", top_p: 1.1 }, "top_p must be"],
  ["completions", { prompt: "a", top_k: -1 }, "top_k must be"],
  ["completions", { prompt: "a", min_p: 2 }, "min_p must be"],
  ["completions", { prompt: "a", repeat_penalty: 0 }, "repeat_penalty must be"],
  ["completions", { prompt: "a", priority: 3 }, 'one of "interactive", "background"'],
  ["completions", { prompt: "a", max_tokens: -1 }, "max_tokens must be"],
  ["completions", { prompt: "a", max_tokens: 2.5 }, "max_tokens must be"],
  ["completions", { prompt: "a", seed: 1.5 }, "seed must be"],
  ["completions", { prompt: "a", seed: 1e300 }, "seed must be"],
  ["completions", { prompt: "a", stop: "" }, "stop must be"],
  ["completions", { prompt: "a", stop: ["a", 1] }, "stop must be"],
  ["completions", { prompt: "a", stop: ["a", "b", "c", "d", "e"] }, "stop may be 4 texts", "not 5"],
  ["completions", { prompt: "a", stop: "x".repeat(1001) }, "stop must be"],
  ["completions", { prompt: "a", stop: "\ud83d" }, "stop must be"],
  ["completions", { prompt: "a", stream: "yes" }, "stream must be true or false"],
  ["completions", { prompt: "a", stream_options: { include_usage: true } }, "stream: true alone"],
  ["completions", { prompt: "a", stream: true, stream_options: 1 }, "stream_options must be an object"],
  ["completions", { prompt: "a", stream: true, stream_options: { include_usage: 1 } }, "stream_options.include_usage"],
  ["completions", { prompt: "a", logprobs: true }, "logprobs must be a whole number"],
  ["completions", { prompt: "a", logprobs: 21 }, "logprobs must be"],
  ["completions", { prompt: "a", logprobs: 1, echo: true }, "echo with logprobs"],
  ["completions", { prompt: "a", best_of: 2 }, "best_of"],
  ["completions", { prompt: "a", suffix: "z" }, "suffix is not supported"],
  ["completions", { prompt: "a", frequency_penalty: 0.5 }, "frequency_penalty is not supported"],
  ["completions", { prompt: "a", presence_penalty: -1 }, "presence_penalty is not supported"],
  ["completions", { prompt: "a", logit_bias: { 5: 1 } }, "logit_bias is not supported"],
  ["completions", { prompt: "a", model: 5 }, "model must be a text"],
  ["completions", { prompt: "a", truncation: "auto" }, 'truncation must be one of "disabled"'],
  ["chat/completions", {}, "messages must be a list", "missing"],
  ["chat/completions", { messages: [] }, "messages must be a list"],
  ["chat/completions", { messages: "hi" }, "messages must be a list"],
  ["chat/completions", { messages: ["hi"] }, "messages[0] must be an object", "not a text"],
  ["chat/completions", { messages: [null] }, "messages[0] must be an object", "not null"],
  ["chat/completions", { messages: [{ content: "a" }] }, "messages[0].role must be one of", "missing"],
  ["chat/completions", message("a", "tool"), "messages[0].role must be one of"],
  ["chat/completions", message("a", "__proto__"), "messages[0].role must be one of"],
  ["chat/completions", message(null), "messages[0].content must be a text"],
  ["chat/completions", message([]), "messages[0].content must be a text"],
  ["chat/completions", message(["a"]), "messages[0].content[0] must be an object"],
  ["chat/completions", message([{ type: "image_url", image_url: {} }]), "messages[0].content[0] must be a text"],
  ["chat/completions", message([{ type: "text" }]), "messages[0].content[0] must be a text"],
  ["chat/completions", { messages: [{ role: "assistant", content: "a", tool_calls: [{}] }] }, "tool_calls is not"],
  ["chat/completions", message("a ".repeat(3000)), "room for 256"],
  ["chat/completions", { ...message("a"), max_tokens: 0 }, "max_tokens must be"],
  ["chat/completions", { ...message("a"), logprobs: 3 }, "logprobs must be true or false"],
  ["chat/completions", { ...message("a"), truncation: "drop" }, 'truncation must be one of "auto", "disabled"'],
  ["chat/completions", { ...message("a"), truncation: true }, "truncation must be one of", "not true"],
  ["chat/completions", { ...message("a ".repeat(3000)), truncation: "auto" }, "room for 256", "the last turn"],
  ["chat/completions", { ...message("a"), top_logprobs: 3 }, "top_logprobs wants logprobs"],
  ["chat/completions", { ...message("a"), logprobs: true, top_logprobs: 21 }, "top_logprobs must be"],
  ["chat/completions", { ...message("a"), tools: [{ type: "function" }] }, "tools is not supported"],
  ["chat/completions", { ...message("a"), tool_choice: "required" }, "tool_choice is not supported"],
  ["chat/completions", { ...message("a"), functions: [{}] }, "functions is not supported"],
  ["chat/completions", { ...message("a"), response_format: { type: "json_object" } }, "response_format is not"],
  ["chat/completions", { ...message("a"), response_format: "text" }, "response_format is not"],
  ["chat/completions", { ...message("a"), modalities: ["text", "audio"] }, "modalities is not supported"],
  ["chat/completions", { ...message("a"), audio: {} }, "audio is not supported"],
  ["chat/completions", { ...message("a"), reasoning_effort: "high" }, "reasoning_effort is not supported"],
];

test("what is wrong with a request is said, with the field that is to blame", async () => {
  for (const [path, body, ...said] of WRONG) {
    const reply = await ask(demo.port, { path: `/v1/${path}`, body });
    const shown = JSON.stringify(body).slice(0, 200);
    assert.equal(reply.status, 400, `${shown}: ${reply.text}`);
    const { message: words, type } = errorOf(reply);
    assert.equal(type, "invalid_request_error");
    for (const word of said) assert.ok(words.includes(word), `${shown}: "${words}" should say "${word}"`);
  }
  const tooLong = await ask(demo.port, { path: "/v1/completions", body: { prompt: "a ".repeat(3000), stream: true } });
  assert.equal(tooLong.status, 400);
  assert.equal(errorOf(tooLong).code, "context_length_exceeded");
  const foreign = await ask(demo.port, { path: "/v1/completions", body: { prompt: "a", model: "gpt-5" } });
  assert.equal(foreign.status, 404);
  assert.equal(errorOf(foreign).code, "model_not_found");
  assert.equal(errorOf(foreign).param, "model");
});

test("fields that change nothing may come", async () => {
  const scripted = new ScriptedModel();
  const { port } = await serve(scripted);
  const idle = {
    ...{
      user: "me",
      metadata: { a: "b" },
      store: true,
      service_tier: "auto",
      parallel_tool_calls: true,
      whatever: [1],
    },
    ...{
      frequency_penalty: 0,
      presence_penalty: 0,
      logit_bias: {},
      tools: [],
      tool_choice: "none",
      best_of: 1,
      suffix: "",
    },
    ...{ response_format: { type: "text" }, modalities: ["text"], __proto__: { stop: 5 } },
  };
  await post(port, "/v1/completions", { prompt: "a", ...idle });
  await post(port, "/v1/chat/completions", { ...message("a"), ...idle });
  const raw = '{"prompt": "a", "__proto__": {"n": 100}, "constructor": 1}';
  const { status } = await ask(port, { path: "/v1/completions", headers: JSON_TYPE, body: raw });
  assert.equal(status, 200);
  assert.equal(scripted.asked.length, 3);
});

test("bodies that are no JSON, or too much of it", async () => {
  const path = "/v1/completions";
  const cases: [question: Omit<Question, "path">, status: number, said: string][] = [
    [{ body: '{"prompt": "a"}' }, 415, "application/json"],
    [{ headers: { "Content-Type": "text/plain" }, body: '{"prompt": "a"}' }, 415, "application/json"],
    [{ headers: { "Content-Type": "application/json; charset=latin1" }, body: "{}" }, 415, "application/json"],
    [{ headers: { ...JSON_TYPE, "Content-Encoding": "gzip" }, body: "{}" }, 415, "Content-Encoding"],
    [{ method: "POST", headers: JSON_TYPE }, 400, "not JSON"],
    [{ headers: JSON_TYPE, body: "{" }, 400, "not JSON"],
    [{ headers: JSON_TYPE, body: "[1]" }, 400, "must be a JSON object, not a list"],
    [{ headers: JSON_TYPE, body: "null" }, 400, "must be a JSON object, not null"],
    [{ headers: JSON_TYPE, body: '"text"' }, 400, "must be a JSON object, not a text"],
    [{ headers: JSON_TYPE, body: Uint8Array.from([0x7b, 0xff, 0x7d]) }, 400, "not UTF-8"],
    [{ headers: JSON_TYPE, body: `{"prompt": ${"[".repeat(90_000)}` }, 400, "not JSON"],
    [{ headers: JSON_TYPE, body: `{"prompt": ${"[".repeat(45_000)}${"]".repeat(45_000)}}` }, 400, "prompt must be"],
    [{ headers: JSON_TYPE, body: `{"user": "${"x".repeat(100_001)}"}` }, 413, "100000 bytes"],
    [{ headers: JSON_TYPE, body: "x".repeat(5_000_000) }, 413, "100000 bytes"],
  ];
  for (const [question, status, said] of cases) {
    const reply = await ask(demo.port, { path, ...question });
    assert.equal(reply.status, status, `${String(question.body).slice(0, 50)}: ${reply.text}`);
    assert.ok(errorOf(reply).message.includes(said), reply.text);
  }
  const utf8 = {
    headers: { "Content-Type": 'Application/JSON; charset="UTF-8"' },
    body: '{"prompt": "a", "max_tokens": 1}',
  };
  assert.equal((await ask(demo.port, { path, ...utf8 })).status, 200);
});

test("a body that is too large in chunks of no declared length", async () => {
  for (const size of [200_000, 2_000_000]) {
    const status = await new Promise<number | undefined>((done) => {
      const asked = begin(demo.port, "/v1/completions");
      asked.on("response", (response) => {
        response.resume();
        done(response.statusCode);
      });
      asked.on("error", () => done(undefined)); // hung up on, which is an answer too
      for (let sent = 0; sent < size; sent += 50_000) asked.write(" ".repeat(50_000));
      asked.end();
    });
    assert.ok(status === 413 || (status === undefined && size > 800_000), `${size}: ${status}`);
  }
});

test("bytes that are no HTTP", async () => {
  for (const bytes of [
    "\0\0\0\0",
    "GET\r\n\r\n",
    "hello\r\n\r\n",
    "GET /health HTTP/9.9\r\n\r\n",
    "\x16\x03\x01\x02\x00",
  ]) {
    const reply = await sendBytes(demo.port, bytes);
    assert.match(reply, /^HTTP\/1\.1 400 /, JSON.stringify(bytes));
    assert.ok(JSON.parse(reply.split("\r\n\r\n")[1] as string).error.message);
  }
  const flood = `GET /health HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(40_000)}\r\n\r\n`;
  assert.match(await sendBytes(demo.port, flood), /^HTTP\/1\.1 431 /);
  const expects = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: a miracle\r\n\r\n";
  assert.match(await sendBytes(demo.port, expects), /^HTTP\/1\.1 417 [\s\S]*"error"/);
  assert.equal((await ask(demo.port, { path: "/health" })).status, 200);
});

// Who may ask

test("pages of other sites are refused, whatever they try", async () => {
  const { port } = demo;
  const refused: Record<string, string>[] = [
    { Origin: "https://evil.example" },
    { Origin: "null" },
    { Origin: `http://localhost:${port + 1}` },
    { Origin: "https://evil.example", "Sec-Fetch-Site": "same-origin" },
    { "Sec-Fetch-Site": "cross-site" },
    { "Sec-Fetch-Site": "same-site" },
    { Host: "evil.example" },
    { Host: `evil.example:${port}` },
    { Host: "127.0.0.1.evil.example" },
    { Host: "localhost.evil.example:80" },
  ];
  for (const headers of refused) {
    for (const path of ["/v1/models", "/health", "/metrics", "/nowhere"]) {
      const reply = await ask(port, { path, headers });
      assert.equal(reply.status, 403, JSON.stringify(headers));
      assert.equal(errorOf(reply).code, "cross_site");
      assert.ok(!Object.keys(reply.headers).some((name) => name.startsWith("access-control")));
    }
    const asks = { "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type" };
    const preflight = await ask(port, { method: "OPTIONS", path: "/v1/completions", headers: { ...headers, ...asks } });
    assert.equal(preflight.status, 403);
  }
  const allowed: Record<string, string>[] = [
    { Host: "localhost" },
    { Host: `LocalHost:${port}` },
    { Host: "[::1]:1" },
    { "Sec-Fetch-Site": "none" },
    { "Sec-Fetch-Site": "same-origin" },
  ];
  for (const headers of allowed) {
    const reply = await ask(port, { path: "/v1/models", headers });
    assert.equal(reply.status, 200, JSON.stringify(headers));
    assert.ok(!Object.keys(reply.headers).some((name) => name.startsWith("access-control")));
  }
  assert.match(await sendBytes(port, "GET /health HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 403 /);
});

test("an origin that was named may ask, and no other", async () => {
  const origin = "http://localhost:5173";
  const { port } = await serve(new ScriptedModel(), { origins: [origin] });
  const asks = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
  };
  const preflight = await ask(port, {
    ...{ method: "OPTIONS", path: "/v1/completions" },
    headers: { Origin: origin, "Sec-Fetch-Site": "same-site", ...asks },
  });
  assert.equal(preflight.status, 204);
  assert.equal(preflight.headers["access-control-allow-origin"], origin);
  assert.equal(preflight.headers["access-control-allow-headers"], "authorization,content-type");
  const reply = await ask(port, {
    ...{ path: "/v1/completions", body: { prompt: "a" } },
    headers: { Origin: origin, "Sec-Fetch-Site": "same-site" },
  });
  assert.equal(reply.status, 200);
  assert.equal(reply.headers["access-control-allow-origin"], origin);
  assert.equal(reply.headers.vary, "Origin");
  const wrong = await ask(port, { path: "/v1/nothing", headers: { Origin: origin } });
  assert.equal(wrong.headers["access-control-allow-origin"], origin); // the page may read what was wrong
  for (const other of ["http://localhost:5174", `${origin}.evil.example`, "http://LOCALHOST:5173", "*"]) {
    const refused = await ask(port, { path: "/v1/models", headers: { Origin: other } });
    assert.equal(refused.status, 403);
    assert.equal(refused.headers["access-control-allow-origin"], undefined);
  }
});

test("a key: nobody without it, but for the health", async () => {
  const { port } = await serve(new ScriptedModel(), { key: "sesame", hosts: null });
  for (const authorization of ["", "Bearer", "Bearer ", "Bearer wrong", "Bearer sesame2", "Basic sesame", "sesame"]) {
    for (const question of [
      { path: "/v1/models" },
      { path: "/metrics" },
      { path: "/nowhere" },
      { path: "/v1/completions", body: { prompt: "a" } },
    ]) {
      const reply = await ask(port, { ...question, headers: authorization ? { Authorization: authorization } : {} });
      assert.equal(reply.status, 401, authorization);
      assert.equal(reply.headers["www-authenticate"], "Bearer");
      const { code, type } = errorOf(reply);
      assert.deepEqual([code, type], ["invalid_api_key", "authentication_error"]);
    }
  }
  const headers = { Authorization: "Bearer sesame", Host: "my-machine.local:8080" };
  assert.equal((await post(port, "/v1/completions", { prompt: "a" }, headers)).choices[0].text, "A text.");
  assert.equal((await ask(port, { path: "/health" })).status, 200);
});

// Limits, and ends

test("a client that leaves ends its answers at once", async () => {
  const endless = new ScriptedModel({ endless: true });
  const { port, accesses } = await serve(endless);
  for (const body of [
    { prompt: "a", max_tokens: 1e9, n: 2 },
    { prompt: "a", max_tokens: 1e9, stream: true },
  ]) {
    const asked = begin(port, "/v1/completions");
    asked.end(JSON.stringify(body));
    if (body.stream) await once(asked, "response");
    await until(async () => (await metric(port, "snug_running")) > 0, "running");
    asked.destroy();
    await until(async () => (await metric(port, "snug_running")) === 0, "ended");
    assert.equal(endless.running, 0);
  }
  const { made } = endless;
  await new Promise((done) => setTimeout(done, 50));
  assert.equal(endless.made, made);
  const left = accesses.filter(({ path }) => path === "/v1/completions").map(({ status }) => status);
  assert.deepEqual(left, [499, 499]);
});

test("a client of the demo pack that leaves frees its rows", async () => {
  const asked = begin(demo.port, "/v1/completions");
  asked.end(JSON.stringify({ prompt: PROMPT, max_tokens: 1e9, n: 4, stream: true }));
  const [response] = await once(asked, "response");
  await once(response, "data");
  asked.destroy();
  await until(async () => (await metric(demo.port, "snug_running")) === 0, "ended");
  await until(() => model.engine.load.running === 0, "left the engine");
  assert.equal((await complete({ prompt: PROMPT, max_tokens: 3 })).usage.completion_tokens, 3);
});

test("a client that reads nothing is not written for without end", async () => {
  const endless = new ScriptedModel({ endless: true, context: 1e9 });
  const { port } = await serve(endless, { bodyBytes: TORRENT_BYTES });
  const asked = begin(port, "/v1/completions");
  asked.end(JSON.stringify(TORRENT));
  const [response] = await once(asked, "response");
  response.pause();
  let before = -1;
  let same = 0;
  await until(() => {
    same = endless.made === before ? same + 1 : 0;
    before = endless.made;
    return same >= 10;
  }, "the server waits");
  response.resume();
  await until(() => endless.made > before, "it goes on");
  asked.destroy();
  await until(() => endless.running === 0, "ended");
});

test("more than there is room for is told to come again", async () => {
  let go = () => {};
  const gate = new Promise<void>((open) => {
    go = open;
  });
  const scripted = new ScriptedModel({ before: () => gate });
  const { port } = await serve(scripted, { parallel: 2, waiting: 1 });
  const three = post(port, "/v1/completions", { prompt: "a", n: 3 });
  await until(async () => (await metric(port, "snug_running")) === 2, "two run");
  assert.equal(await metric(port, "snug_waiting"), 1);
  for (const stream of [false, true]) {
    const refused = await ask(port, { path: "/v1/completions", body: { prompt: "a", stream } });
    assert.equal(refused.status, 429);
    assert.equal(errorOf(refused).type, "rate_limit_error");
    assert.ok(Number(refused.headers["retry-after"]) > 0);
  }
  const never = await ask(port, { path: "/v1/completions", body: { prompt: "a", n: 4 } });
  assert.equal(never.status, 400);
  go();
  assert.equal((await three).choices.length, 3);
  assert.equal(await metric(port, "snug_waiting"), 0);
  assert.equal((await post(port, "/v1/completions", { prompt: "a" })).choices.length, 1);
});

test("a model that is busy: 429, and the other answers of the request end", async () => {
  const scripted = new ScriptedModel({ most: 1, endless: true });
  const { port } = await serve(scripted);
  const refused = await ask(port, { path: "/v1/completions", body: { prompt: "a", n: 2, max_tokens: 1e9 } });
  assert.equal(refused.status, 429);
  assert.equal(scripted.running, 0);
  assert.equal(await metric(port, "snug_running"), 0);
});

test("time is up: what there is of an answer, or a refusal where there is nothing", async () => {
  const endless = await serve(new ScriptedModel({ endless: true }), { timeoutSeconds: 0.3 });
  const body = { prompt: "a", max_tokens: 1e9 };
  const whole = await post(endless.port, "/v1/completions", body);
  assert.equal(whole.choices[0].finish_reason, "length");
  assert.match(whole.choices[0].text, /^A text\.A text\./);
  assert.equal(whole.usage.completion_tokens, whole.choices[0].text.length);
  const { text } = await ask(endless.port, { path: "/v1/completions", body: { ...body, stream: true } });
  assert.equal(eventsOf(text).at(-1).choices[0].finish_reason, "length");
  const chat = await post(endless.port, "/v1/chat/completions", message("a"));
  assert.equal(chat.choices[0].finish_reason, "length");
  const { prompt_tokens, completion_tokens, total_tokens } = chat.usage;
  assert.deepEqual([prompt_tokens, total_tokens], ["user: a\n".length, prompt_tokens + completion_tokens]);
  assert.ok(completion_tokens > 0);

  const stuck = await serve(new ScriptedModel({ before: () => new Promise(() => {}) }), { timeoutSeconds: 0.1 });
  for (const stream of [false, true]) {
    const refused = await ask(stuck.port, { path: "/v1/completions", body: { prompt: "a", stream } });
    assert.equal(refused.status, 503);
    assert.equal(errorOf(refused).code, "timeout");
  }
});

test("a client that sends its request too slowly, or takes its answer too slowly, is left", async () => {
  const endless = new ScriptedModel({ endless: true, context: 1e9 });
  const { port, accesses } = await serve(endless, { clientSeconds: 0.3, timeoutSeconds: 2, bodyBytes: TORRENT_BYTES });
  const head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  for (const begun of [head, `${head}Content-Length: 100\r\n\r\n{"prompt": `, "G"]) {
    const reply = await sendBytes(port, begun, 10_000);
    assert.match(reply, /^HTTP\/1\.1 408 [\s\S]*"error"/, begun);
  }
  const asked = begin(port, "/v1/completions");
  asked.end(JSON.stringify(TORRENT));
  const [response] = await once(asked, "response");
  response.on("error", () => {}); // cut off
  response.pause();
  // The other one had sent its headers, and not its body.
  await until(() => accesses.filter(({ status }) => status === 499).length === 2, "left");
  assert.equal(endless.running, 0);
});

test("what goes wrong in the middle of a stream ends it with an error, and says nothing of how", async () => {
  const before = (made: number) => {
    if (made === 3) throw new Error("a secret");
  };
  const { port, faults } = await serve(new ScriptedModel({ before }));
  const { status, text } = await ask(port, { path: "/v1/completions", body: { prompt: "a", stream: true } });
  assert.equal(status, 200);
  assert.doesNotMatch(text, /DONE|secret/);
  const last = JSON.parse((text.trimEnd().split("\n\n").pop() as string).slice("data: ".length));
  assert.equal(last.error.type, "server_error");
  const whole = await ask(port, { path: "/v1/completions", body: { prompt: "a" } });
  assert.equal(whole.status, 500);
  assert.doesNotMatch(whole.text, /secret/);
  assert.equal(faults.length, 2);
  assert.match(String(faults[0]), /a secret/);
});

test("an ending server lets answers come to their end, and takes no more", async () => {
  let go = () => {};
  const gate = new Promise<void>((open) => {
    go = open;
  });
  const scripted = new ScriptedModel({ before: (made) => (made > 1 ? gate : undefined) });
  const { port, server } = await serve(scripted);
  const asked = ask(port, { path: "/v1/completions", body: { prompt: "a", stream: true } });
  await until(() => scripted.made > 1, "begun");
  const closed = server.close(60);
  await assert.rejects(ask(port, { path: "/health" }), /ECONNREFUSED/);
  go();
  assert.equal(textOf(eventsOf((await asked).text)), "A text.");
  await closed;
});

test("an ending server does not wait for what does not end", async () => {
  const { port, server } = await serve(new ScriptedModel({ endless: true }));
  const body = { prompt: "a", max_tokens: 1e9 };
  const whole = ask(port, { path: "/v1/completions", body });
  const streamed = ask(port, { path: "/v1/completions", body: { ...body, stream: true } });
  await until(async () => (await metric(port, "snug_running")) === 2, "running");
  await server.close(0.05);
  const refused = await whole;
  assert.equal(refused.status, 503);
  assert.equal(errorOf(refused).code, "ending");
  assert.match((await streamed).text, /"code":"ending"/);
});

// Metrics

test("metrics: what was asked, read and made", async () => {
  const { port, accesses } = await serve(new ScriptedModel({ text: "0123456789", endless: true }));
  await post(port, "/v1/completions", { prompt: "abc", max_tokens: 5, n: 2 });
  await ask(port, { path: "/v1/completions", body: { prompt: "abc", max_tokens: 4, stream: true } });
  await ask(port, { path: "/nowhere" });
  await ask(port, { path: "/v1/completions", body: {} });
  const reply = await ask(port, { path: "/metrics" });
  assert.equal(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
  const value = (name: string) => {
    const line = reply.text.split("\n").find((one) => one.startsWith(`${name} `));
    assert.ok(line, `${name} is not among\n${reply.text}`);
    return Number(line.slice(name.length));
  };
  assert.equal(value('snug_requests_total{route="/v1/completions",status="200"}'), 2);
  assert.equal(value('snug_requests_total{route="/v1/completions",status="400"}'), 1);
  assert.equal(value('snug_requests_total{route="other",status="404"}'), 1);
  assert.equal(value("snug_generated_tokens_total"), 14);
  assert.equal(value("snug_prompt_tokens_total"), 9);
  assert.equal(value("snug_time_to_first_token_seconds_count"), 3);
  assert.equal(value("snug_time_per_output_token_seconds_count"), 11);
  assert.equal(value('snug_time_per_output_token_seconds_bucket{le="+Inf"}'), 11);
  assert.equal(value("snug_model_memory_bytes"), 12_345_678);
  assert.equal(value("snug_kv_blocks_held"), 12);
  assert.equal(value("snug_sent_away_total"), 3);
  assert.ok(value("process_resident_memory_bytes") > 1e6);
  // Every line is what Prometheus reads, and every family is announced.
  const announced = new Set<string>();
  for (const line of reply.text.trimEnd().split("\n")) {
    const [, name] = /^# TYPE (\w+) (?:counter|gauge|histogram)$/.exec(line) ?? [];
    if (name !== undefined) announced.add(name);
    if (line.startsWith("#")) continue;
    assert.match(line, /^\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?\d+(\.\d+)?(e[+-]?\d+)?$/);
    const [family = ""] = /^\w+/.exec(line) ?? [];
    assert.ok(announced.has(family) || announced.has(family.replace(/_(bucket|sum|count)$/, "")), line);
  }
  const usages = accesses.map(({ usage }) => usage && [usage.prompt_tokens, usage.completion_tokens]);
  assert.deepEqual(usages, [[3, 10], [3, 4], null, null, null]);
});

test("metrics of the demo pack", async () => {
  const before = await metric(demo.port, "snug_generated_tokens_total");
  await complete({ prompt: PROMPT, max_tokens: 7 });
  assert.equal(await metric(demo.port, "snug_generated_tokens_total"), before + 7);
  assert.equal(await metric(demo.port, "snug_model_memory_bytes"), model.memoryBytes);
});

// Fuzzing

test(`${FUZZED} requests of every kind: each is answered, or refused in words`, async () => {
  const draw = random(20_261);
  console.log(`SNUG_TEST_SEED=${draw.seed} repeats this`);
  const statuses = new Map<number, number>();
  for (let i = 0; i < FUZZED; i++) {
    if (draw.int(20) === 0) {
      await sendBytes(demo.port, randomBytes(draw), 1);
      continue;
    }
    const question = randomQuestion(draw);
    const reply = await ask(demo.port, question);
    const shown = `${JSON.stringify(question).slice(0, 500)}: ${reply.status} ${reply.text.slice(0, 300)}`;
    statuses.set(reply.status, (statuses.get(reply.status) ?? 0) + 1);
    assert.ok(reply.status === 200 || (reply.status >= 400 && reply.status < 500), shown);
    if (question.method === "HEAD") assert.equal(reply.text, "", shown);
    else if (reply.status !== 200) errorOf(reply);
    else if (!reply.text.startsWith("data: ")) assert.ok(reply.text !== "" && !reply.text.includes('"error"'), shown);
    else eventsOf(reply.text);
  }
  console.log(
    [...statuses]
      .sort(([a], [b]) => a - b)
      .map(([status, count]) => `${status}: ${count}`)
      .join(", "),
  );
  assert.ok((statuses.get(200) ?? 0) > 20 && (statuses.get(400) ?? 0) > 200, "hardly a request got through");
  assert.equal(await metric(demo.port, "snug_running"), 0);
  const alive = await complete({ prompt: PROMPT, max_tokens: 5, temperature: 0 });
  assert.equal(alive.usage.completion_tokens, 5);
});

const PATHS = ["/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/tale-llama", "/health", "/metrics"];
const VALUES: readonly unknown[] = [
  ...[null, true, false, 0, 1, -1, 2, 0.5, 1e308, -1e-9, 2 ** 53, "", "a", "Once", "\0", "\ud800", "€".repeat(50)],
  ...[[], [[]], {}, [1], [1, 2, 3], ["a"], ["a", "b"], [null], [1, "a"], { a: 1 }, { type: "text" }, { role: "user" }],
];
const FIELDS = [
  ...["prompt", "messages", "n", "stop", "seed", "temperature", "top_p", "top_k", "min_p", "logprobs", "top_logprobs"],
  ...["stream", "stream_options", "echo", "best_of", "user", "model", "priority", "tools", "logit_bias", "max_tokens"],
  ...["response_format", "frequency_penalty", "repeat_penalty", "max_completion_tokens", "__proto__", "toString", "x"],
  ...["truncation"],
];

function randomQuestion(draw: Random): Question {
  const path = draw.int(10) === 0 ? `/${randomText(draw)}` : draw.pick(PATHS.slice(0, draw.int(3) === 0 ? 6 : 2));
  const headers: Record<string, string> = draw.int(10) === 0 ? {} : { ...JSON_TYPE };
  if (draw.int(15) === 0) headers[draw.pick(["Origin", "Host", "Sec-Fetch-Site", "Authorization"])] = randomText(draw);
  const method = draw.int(12) === 0 ? draw.pick(["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]) : undefined;
  if (draw.int(12) === 0 && method !== "HEAD") return { path, headers, ...(method && { method }) };
  return { path, headers, body: randomBody(draw), method: method ?? "POST" };
}

/** A request that is in order but for some fields, as JSON that may be cut or bent. */
function randomBody(draw: Random): string {
  const body: Record<string, unknown> = {
    ...(draw.int(10) > 0 && { prompt: PROMPT, messages: [{ role: "user", content: "Hello" }] }),
    max_tokens: draw.int(4),
  };
  for (let changes = draw.int(4); changes > 0; changes--) {
    const name = draw.pick(FIELDS);
    const value = draw.pick(VALUES);
    // With no limit a text is as long as the context, which is a test of the model rather than of requests.
    if (name.startsWith("max_") && (typeof value !== "number" || value > 100)) continue;
    Object.defineProperty(body, name, { value, enumerable: true, configurable: true, writable: true });
  }
  if (draw.int(6) === 0) body.messages = [{ role: draw.pick(["user", "system", "x"]), content: draw.pick(VALUES) }];
  let text = JSON.stringify(body);
  if (draw.int(8) === 0) text = text.slice(0, draw.int(text.length));
  if (draw.int(8) === 0) {
    const at = draw.int(text.length + 1);
    text = text.slice(0, at) + randomText(draw) + text.slice(at + 1);
  }
  return text;
}

function randomText(draw: Random): string {
  return Array.from({ length: 1 + draw.int(12) }, () => String.fromCharCode(0x21 + draw.int(94))).join("");
}

/** Bytes that may begin like a request. */
function randomBytes(draw: Random): Uint8Array {
  const begin = draw.pick([
    "",
    "GET ",
    "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n",
    "PRI * HTTP/2.0\r\n\r\n",
  ]);
  const bytes = Uint8Array.from({ length: draw.int(200) }, () => draw.int(256));
  return Buffer.concat([Buffer.from(begin), bytes]);
}

/** All the text of a stream of one completion. */
// biome-ignore lint/suspicious/noExplicitAny: events as they came
function textOf(events: readonly any[]): string {
  return events.map(({ choices }) => choices[0].text).join("");
}
