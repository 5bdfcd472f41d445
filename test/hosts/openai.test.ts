// snug serve as the programs know it that speak to OpenAI: its official client, and the AI SDK. Runs dist/cli.js, from the
// repository's root, after npm run build.

import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { resolve } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI, {
  type APIError,
  APIUserAbortError,
  AuthenticationError,
  BadRequestError,
  NotFoundError,
  RateLimitError,
} from "openai";
import { metric, until } from "../serve-client";
import { endGroup, start } from "./child";

const KEY = "sesame";
const ANSWERS = 4; // at a time, or waiting
const OPTIONS = ["--port", "0", "--parallel", "2", "--waiting", String(ANSWERS - 2), "--threads", "1", "--quiet"];
const model = "tale-llama";
const prompt = "Once upon a time";
const messages = [{ role: "user" as const, content: "Tell me a story." }];
/** As long as the context is. */
const LONG = { model, messages, n: ANSWERS, temperature: 1.5, repeat_penalty: 2 };

let server: ChildProcess;
let baseURL = "";
let client: OpenAI;
let sdk: ReturnType<typeof createOpenAICompatible>;

before(async () => {
  Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false });
  server = start([process.execPath, resolve("dist/cli.js"), "serve", "demo", ...OPTIONS], {
    env: { ...process.env, SNUG_API_KEY: KEY },
  });
  let said = "";
  server.stdout?.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  server.stderr?.resume();
  await until(() => said.endsWith("/v1\n"), "the server listens");
  baseURL = said.trim();
  client = new OpenAI({ baseURL, apiKey: KEY, maxRetries: 0 });
  sdk = createOpenAICompatible({ name: "snug", baseURL, apiKey: KEY, includeUsage: true });
});
after(() => endGroup(server));

const counted = (name: string) => metric(Number(new URL(baseURL).port), name, { Authorization: `Bearer ${KEY}` });
const running = () => counted("snug_running");
const ended = (route: string, status: number) =>
  counted(`snug_requests_total{route="/v1/${route}",status="${status}"}`);
const isFree = () => until(async () => (await running()) === 0, "its answers have ended");

// OpenAI's client

test("the client lists the model", async () => {
  const ids: string[] = [];
  for await (const { id } of client.models.list()) ids.push(id);
  assert.deepEqual(ids, [model]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("the client completes a prompt, at once and in a stream", async () => {
  const body = { model, prompt, max_tokens: 12, seed: 1, stop: ["never in it"] };
  const whole = await client.completions.create({ ...body, logprobs: 2 });
  const [choice] = whole.choices;
  assert.ok(choice && choice.text.length > 10);
  assert.equal(choice.finish_reason, "length");
  assert.equal(choice.logprobs?.tokens.join(""), choice.text);
  assert.equal(whole.usage?.completion_tokens, 12);
  let text = "";
  for await (const { choices } of await client.completions.create({ ...body, stream: true }))
    text += choices[0]?.text ?? "";
  assert.equal(text, choice.text);
});

test("the client chats, at once, in a stream, and with the stream's helper", async () => {
  const body = { model, messages, max_completion_tokens: 12, seed: 1 };
  const whole = await client.chat.completions.create({ ...body, logprobs: true, top_logprobs: 2 });
  const [choice] = whole.choices;
  assert.equal(choice?.message.role, "assistant");
  const content = choice?.message.content as string;
  assert.ok(content.length > 5);
  assert.equal(choice?.logprobs?.content[0]?.top_logprobs.length, 2);
  const stream = await client.chat.completions.create({
    ...body,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage: object | null | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage;
  }
  assert.equal(text, content);
  assert.deepEqual(usage, whole.usage);
  const helped = client.chat.completions.stream(body);
  let said = "";
  helped.on("content", (more) => {
    said += more;
  });
  assert.equal((await helped.finalChatCompletion()).choices[0]?.message.content, content);
  assert.equal(said, content);
});

test("the client gets several answers to one prompt", async () => {
  const { choices, usage } = await client.chat.completions.create({ model, messages, n: 3, max_tokens: 8, seed: 1 });
  assert.deepEqual(
    choices.map(({ index }) => index),
    [0, 1, 2],
  );
  assert.equal(new Set(choices.map(({ message }) => message.content)).size, 3);
  assert.ok((usage?.completion_tokens ?? 0) > 10);
});

test("the client aborts a stream, and an answer", async () => {
  const controller = new AbortController();
  const stream = await client.chat.completions.create({ ...LONG, stream: true }, { signal: controller.signal });
  for await (const _ of stream) controller.abort();
  await isFree();
  const late = new AbortController();
  const whole = client.chat.completions.create(LONG, { signal: late.signal });
  await until(async () => (await running()) > 0, "it runs");
  late.abort();
  await assert.rejects(whole, APIUserAbortError);
  await isFree();
  for await (const _ of await client.completions.create({ model, prompt, max_tokens: 500, stream: true })) break;
  await isFree();
  // Each of them was left in the middle.
  assert.equal(await ended("chat/completions", 499), 2);
  assert.equal(await ended("completions", 499), 1);
});

test("the client has a class for everything that is wrong", async () => {
  const chat = (body: object) => client.chat.completions.create({ model, messages, max_tokens: 4, ...body });
  const says = (kind: new (...args: never[]) => APIError, code: string | null, param: string | null, words: RegExp) => {
    return (error: unknown) => {
      assert.ok(error instanceof kind, String(error));
      assert.deepEqual([error.code, error.param], [code, param]);
      assert.match(error.message, words);
      assert.match(String(error.requestID), /^req_/);
      return true;
    };
  };
  await assert.rejects(chat({ temperature: 9 }), says(BadRequestError, null, "temperature", /from 0 to 2, not 9/));
  const tools = [{ type: "function", function: { name: "f" } }];
  await assert.rejects(chat({ tools }), says(BadRequestError, "unsupported_parameter", "tools", /not supported/));
  await assert.rejects(
    chat({ model: "gpt-5" }),
    says(NotFoundError, "model_not_found", "model", /"gpt-5".*"tale-llama"/),
  );
  const long = client.completions.create({ model, prompt: "word ".repeat(5000), stream: true });
  await assert.rejects(long, says(BadRequestError, "context_length_exceeded", null, /room for/));
  const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
  const refused = stranger.completions.create({ model, prompt });
  await assert.rejects(refused, says(AuthenticationError, "invalid_api_key", null, /key is wrong/));
});

test("the client hears that the server is busy, and comes again if it may", async () => {
  const busy = new AbortController();
  const stream = await client.chat.completions.create({ ...LONG, stream: true }, { signal: busy.signal });
  const body = { model, prompt, max_tokens: 4, seed: 1 };
  await assert.rejects(client.completions.create(body), RateLimitError);
  const patient = new OpenAI({ baseURL, apiKey: KEY, maxRetries: 5 });
  const answer = patient.completions.create(body).then((completion) => completion);
  await until(async () => (await ended("completions", 429)) >= 2, "it was refused once");
  busy.abort();
  for await (const _ of stream);
  assert.equal((await answer).usage?.completion_tokens, 4);
});

// The AI SDK

test("the AI SDK makes a text, as a chat and as a completion", async () => {
  const chat = await generateText({
    model: sdk.chatModel(model),
    prompt: "Tell me a story.",
    maxOutputTokens: 12,
    seed: 1,
  });
  const direct = await client.chat.completions.create({ model, messages, max_tokens: 12, seed: 1 });
  assert.equal(chat.text, direct.choices[0]?.message.content);
  assert.equal(chat.usage.outputTokens, direct.usage?.completion_tokens);
  assert.equal(chat.usage.inputTokens, direct.usage?.prompt_tokens);
  assert.equal(chat.response.modelId, model);
  const completion = await generateText({ model: sdk.completionModel(model), prompt, maxOutputTokens: 12, seed: 1 });
  assert.ok(completion.text.length > 5);
});

test("the AI SDK streams a text, with its usage and its end", async () => {
  const settings = { model: sdk.chatModel(model), prompt: "Tell me a story.", maxOutputTokens: 12, seed: 1 };
  const streamed = streamText(settings);
  let text = "";
  let pieces = 0;
  for await (const piece of streamed.textStream) {
    text += piece;
    pieces++;
  }
  assert.ok(pieces > 3);
  const whole = await generateText(settings);
  assert.equal(text, whole.text);
  assert.equal(await streamed.finishReason, whole.finishReason);
  assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
});

test("the AI SDK aborts a stream", async () => {
  const controller = new AbortController();
  let aborted = false;
  const streamed = streamText({
    ...{ model: sdk.chatModel(model), prompt: "Tell me a story.", temperature: 1.5, abortSignal: controller.signal },
    onAbort: () => {
      aborted = true;
    },
  });
  for await (const _ of streamed.textStream) controller.abort();
  assert.ok(aborted);
  await isFree();
});

test("the AI SDK hears what is wrong", async () => {
  const chat = { model: sdk.chatModel(model), maxRetries: 0 };
  const says = (status: number, words: RegExp) => (error: Error & { statusCode?: number }) => {
    assert.equal(error.statusCode, status);
    assert.match(error.message, words);
    return true;
  };
  await assert.rejects(generateText({ ...chat, prompt: "a", temperature: 9 }), says(400, /temperature must be/));
  await assert.rejects(
    generateText({ ...chat, prompt: "a", presencePenalty: 1 }),
    says(400, /presence_penalty is not/),
  );
  await assert.rejects(generateText({ ...chat, prompt: "word ".repeat(5000) }), says(400, /room for/));
  const other = { model: sdk.chatModel("gpt-5"), maxRetries: 0 };
  await assert.rejects(generateText({ ...other, prompt: "a" }), says(404, /no model "gpt-5"/));
  const errors: unknown[] = [];
  const streamed = streamText({ ...other, prompt: "a", onError: ({ error }) => errors.push(error) });
  for await (const _ of streamed.textStream);
  assert.equal(errors.length, 1);
});
