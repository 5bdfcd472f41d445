// A person's afternoon, replayed against snug serve: requests in bursts, of all kinds and lengths, some of them left in the
// middle. Nothing may be lost, and nothing may grow. SNUG_TRACE_SECONDS sets how long it goes on.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { after, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { type Random, random } from "./random";
import { ask, begin, errorOf, eventsOf, metric, until } from "./serve-client";

const SECONDS = Number(process.env.SNUG_TRACE_SECONDS ?? 8);
const MEAN_GAP_SECONDS = 0.15;
const CONTEXT = 512;
const LEFT_SHARE = 0.15;
/** What the objects of a process may come to that has only begun to tidy up. */
const HEAP_GROWTH_BYTES = 60e6;

const server = spawn(process.execPath, [
  ...[resolve("dist/cli.js"), "serve", resolve("packs/demo/tale.snug"), "--port", "0", "--context", String(CONTEXT)],
  ...["--parallel", "4", "--waiting", "8", "--threads", "1", "--quiet"],
]);
after(() => server.kill("SIGKILL"));

interface Request {
  readonly gapSeconds: number;
  readonly path: string;
  readonly body: { readonly stream: boolean; readonly [field: string]: unknown };
  /** Left so long after it began; undefined: its answer is waited for. */
  readonly leftSeconds: number | undefined;
}

interface Outcome {
  readonly kind: "answered" | "refused" | "left";
  readonly firstSeconds?: number;
  readonly seconds: number;
}

/** Gaps as of a Gamma distribution of shape 1/2, lengths as of log-normal ones (the shapes that arXiv 2401.17644 found). */
function draw(from: Random): Request {
  const gapSeconds = MEAN_GAP_SECONDS * from.normal() ** 2;
  const length = (median: number, most: number) => Math.min(most, Math.ceil(median * Math.exp(from.normal())));
  const words = Array.from({ length: length(30, 200) }, () => from.pick(["the ", "old ", "sea ", "and ", "went "]));
  const text = `${from.int(1000)} ${words.join("")}`;
  const isChat = from.int(2) === 0;
  const prompt = isChat ? { messages: [{ role: "user", content: text }] } : { prompt: text };
  const options = {
    max_tokens: length(30, 200),
    stream: from.int(3) > 0,
    seed: from.int(1e6),
    ...(from.int(4) === 0 && { priority: "background" }),
    ...(from.int(6) === 0 && { n: 1 + from.int(3) }),
    ...(from.int(6) === 0 && { stop: ["\n", "."] }),
    ...(from.int(8) === 0 && (isChat ? { logprobs: true, top_logprobs: 3 } : { logprobs: 3 })),
  };
  return {
    gapSeconds,
    path: isChat ? "/v1/chat/completions" : "/v1/completions",
    body: { ...prompt, ...options },
    leftSeconds: from.unit() < LEFT_SHARE ? from.unit() * 0.2 : undefined,
  };
}

async function replay(port: number, { path, body, leftSeconds }: Request): Promise<Outcome> {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const asked = begin(port, path);
  const closed = new Promise((done) => asked.once("close", done));
  let text = "";
  let status = 0;
  let type = "";
  let isWhole = false;
  let firstSeconds: number | undefined;
  asked.on("response", (response) => {
    status = response.statusCode as number;
    type = String(response.headers["content-type"]);
    response.setEncoding("utf8").on("data", (more: string) => {
      firstSeconds ??= seconds();
      text += more;
    });
    response.on("end", () => {
      isWhole = true;
    });
    response.on("error", () => {}); // left
  });
  asked.end(JSON.stringify(body));
  const leaving = leftSeconds === undefined ? undefined : setTimeout(() => asked.destroy(), leftSeconds * 1000);
  await closed;
  clearTimeout(leaving);
  if (!isWhole) {
    assert.notEqual(leftSeconds, undefined, `an answer was cut off: ${status} ${text}`);
    return { kind: "left", seconds: seconds() };
  }
  if (status !== 200) {
    assert.equal(status, 429, text);
    errorOf({ status, text, headers: { "content-type": type } });
    return { kind: "refused", seconds: seconds() };
  }
  const choices = body.stream ? eventsOf(text).flatMap((event) => event.choices) : JSON.parse(text).choices;
  const reasons = choices.map((choice: { finish_reason: string | null }) => choice.finish_reason);
  const ends = reasons.filter((reason: string | null) => reason !== null);
  assert.equal(ends.length, body.n ?? 1, text.slice(-500));
  assert.ok(ends.every((reason: string) => ["stop", "length"].includes(reason)));
  return { kind: "answered", seconds: seconds(), ...(body.stream && firstSeconds !== undefined && { firstSeconds }) };
}

test(`${SECONDS} seconds of bursts: nothing is lost, nothing grows`, async () => {
  let said = "";
  server.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  server.stderr.resume();
  await until(() => said.endsWith("/v1\n"), "the server listens");
  const port = Number(new URL(said.trim()).port);
  const from = random(4711);
  console.log(`SNUG_TEST_SEED=${from.seed} repeats this`);
  await ask(port, { path: "/v1/completions", body: { prompt: "a", n: 4, max_tokens: 50 } });
  const before = { memory: await metric(port, "snug_model_memory_bytes"), heap: await metric(port, "snug_heap_bytes") };

  const outcomes: Promise<Outcome>[] = [];
  for (const end = performance.now() + SECONDS * 1000; performance.now() < end; ) {
    const request = draw(from);
    await wait(request.gapSeconds * 1000);
    const outcome = replay(port, request);
    outcome.catch(() => {}); // which is looked at in the end
    outcomes.push(outcome);
  }
  const ended = await Promise.all(outcomes);
  await until(async () => (await metric(port, "snug_running")) === 0, "all have ended");

  const count = (kind: Outcome["kind"]) => ended.filter((one) => one.kind === kind).length;
  console.log(
    `${ended.length} requests: ${count("answered")} answered, ${count("refused")} refused, ${count("left")} left`,
  );
  const answered = ended.filter(({ kind }) => kind === "answered");
  console.log(`first token: ${percentiles(answered.flatMap(({ firstSeconds }) => firstSeconds ?? []))}`);
  console.log(`whole answer: ${percentiles(answered.map(({ seconds }) => seconds))}`);
  assert.ok(count("answered") > ended.length / 2);
  // The server counts what the clients do: none is forgotten. One who left may have been answered before that was seen.
  const statuses = async (status: number) => {
    const { text } = await ask(port, { path: "/metrics" });
    const lines = text.matchAll(
      new RegExp(`^snug_requests_total\\{route="/v1/[^"]*completions",status="${status}"\\} (\\d+)$`, "gm"),
    );
    return [...lines].reduce((sum, [, value]) => sum + Number(value), 0);
  };
  const [fine, refused, left] = [await statuses(200), await statuses(429), await statuses(499)];
  assert.ok(fine >= 1 + count("answered") && refused >= count("refused") && left <= count("left"));
  const reached = fine + refused + left;
  assert.ok(
    reached <= 1 + ended.length && reached >= 1 + ended.length - count("left"),
    `${reached} of ${ended.length}`,
  );
  assert.equal(await metric(port, "snug_waiting"), 0);
  assert.equal(await metric(port, "snug_kv_blocks_held"), 0, "blocks were kept");
  assert.equal(await metric(port, "snug_model_memory_bytes"), before.memory);
  const heap = await metric(port, "snug_heap_bytes");
  console.log(`heap: ${(before.heap / 1e6).toFixed(1)} MB before, ${(heap / 1e6).toFixed(1)} MB after`);
  assert.ok(heap < before.heap + HEAP_GROWTH_BYTES, `${heap}`);
  server.kill("SIGINT");
  const [code] = await once(server, "close");
  assert.equal(code, 0);
});

function percentiles(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return [0.5, 0.9, 0.99].map((share) => `p${share * 100} ${(at(share) * 1000).toFixed(0)} ms`).join(", ");
}
