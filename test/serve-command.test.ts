// The command snug serve: what it says, whom it lets in, and how it ends. Runs dist/cli.js.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join, resolve } from "node:path";
import { after, test } from "node:test";
import { ask, begin, errorOf, eventsOf, metric, post, until } from "./serve-client";
import { scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { packCheckpoint } from "./write-pack";

const CLI = resolve("dist/cli.js");
const DEMO = resolve("packs/demo/tale.snug");
const PROMPT = "Once upon a time";
const folder = scratchFolder({ after });
const running = new Set<ChildProcess>();
after(() => {
  for (const child of running) child.kill("SIGKILL");
});

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts snug serve. */
function start(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [CLI, "serve", ...args], {
    env: { ...process.env, SNUG_DEBUG: "", SNUG_API_KEY: "", ...env },
  });
  running.add(child);
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    child[name].setEncoding("utf8").on("data", (text: string) => {
      said[name] += text;
    });
  const ended = once(child, "close").then(([code]): Ended => {
    running.delete(child);
    return { code: code as number | null, ...said };
  });
  return { child, said, ended };
}

/** Starts snug serve on a small part of the demo pack's context, and waits for its address. */
async function serve(args: readonly string[] = [], env: Record<string, string> = {}) {
  const started = start([DEMO, "--port", "0", "--context", "256", "--threads", "1", ...args], env);
  const address = () => /^http:\/\/(\S+):(\d+)\/v1\n$/.exec(started.said.stdout);
  await Promise.race([until(() => address() !== null, "it says where it is"), started.ended]);
  const [, host, port] = address() ?? [];
  assert.ok(host !== undefined, started.said.stderr);
  return { ...started, host, port: Number(port) };
}

test("it says where it is, answers, and ends with Ctrl-C", async () => {
  const { child, ended, host, port, said } = await serve();
  assert.equal(host, "127.0.0.1");
  assert.match(said.stderr, /^pack +tale-llama/m);
  assert.match(said.stderr, /^plan .*, context 256$/m);
  const body = { prompt: PROMPT, max_tokens: 5, seed: 1 };
  const { choices } = await post(port, "/v1/completions", body);
  assert.ok(choices[0].text.length > 5);
  const { text } = await ask(port, { path: "/v1/completions", body: { ...body, stream: true } });
  assert.equal(
    eventsOf(text)
      .map((event) => event.choices[0].text)
      .join(""),
    choices[0].text,
  );
  await ask(port, { path: "/nowhere?secret" });
  child.kill("SIGINT");
  const { code, stderr } = await ended;
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^POST \/v1\/completions 200 4 \+ 5 tokens \d+ ms$/m);
  assert.match(stderr, /^GET \/nowhere 404 \d+ ms$/m);
  assert.doesNotMatch(stderr, /secret|^\s+at /m);
});

test("--name, --quiet, --timeout, --waiting, --body-limit", async () => {
  const limits = ["--timeout", "0.05", "--parallel", "1", "--waiting", "0", "--body-limit", "1KB"];
  const { child, ended, port } = await serve(["--name", "gpt-5", "--quiet", ...limits]);
  const path = "/v1/completions";
  // A step of this model takes some milliseconds at most, 200 of them more than the time that there is.
  const { choices, model } = await post(port, path, { prompt: PROMPT, max_tokens: 240, stop: "\0", model: "gpt-5" });
  assert.equal(model, "gpt-5");
  assert.ok(["length", "stop"].includes(choices[0].finish_reason));
  const two = await ask(port, { path, body: { prompt: "a", n: 2 } });
  assert.equal(two.status, 400);
  assert.match(errorOf(two).message, /2 answers/);
  assert.equal((await ask(port, { path, body: { prompt: "a".repeat(2000) } })).status, 413);
  child.kill("SIGTERM");
  const { code, stderr } = await ended;
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /POST/);
});

test("Ctrl-C lets an answer come to its end, a second one does not", async () => {
  for (const times of [1, 2]) {
    const { child, ended, port } = await serve(["--grace", "60"]);
    const body = { prompt: PROMPT, max_tokens: 200, temperature: 0, stop: "\0", stream: true };
    const asked = begin(port, "/v1/completions");
    asked.end(JSON.stringify(body));
    const [response] = await once(asked, "response");
    let text = "";
    response.setEncoding("utf8").on("data", (more: string) => {
      text += more;
    });
    response.on("error", () => {}); // cut off
    await until(() => text !== "", "it has begun");
    if (times === 2) response.pause();
    child.kill("SIGINT");
    if (times === 2) {
      await assert.rejects(async () => {
        for (;;) await ask(port, { path: "/health" });
      });
      child.kill("SIGINT");
    }
    const { code, stderr } = await ended;
    if (times === 1) {
      assert.equal(code, 0, stderr);
      const reason = eventsOf(text).at(-1).choices[0].finish_reason;
      assert.ok(["length", "stop"].includes(reason), reason);
    } else if (code !== 0) {
      // It may have been faster than the second.
      assert.equal(code, 130, stderr);
    }
  }
});

test("--grace 0: Ctrl-C ends what runs", async () => {
  const { child, ended, port } = await serve(["--grace", "0", "--parallel", "1"]);
  const bodies = Array.from({ length: 20 }, () => ({ prompt: PROMPT, max_tokens: 250, stop: "\0" }));
  const replies = bodies.map((body) => ask(port, { path: "/v1/completions", body }));
  await until(async () => (await metric(port, "snug_waiting")) > 10, "they wait");
  child.kill("SIGINT");
  const refused = (await Promise.all(replies)).filter(({ status }) => status === 503);
  assert.ok(refused.length > 5, `${refused.length}`);
  for (const reply of refused) assert.equal(errorOf(reply).code, "ending");
  assert.equal((await ended).code, 0);
});

test("others than this machine want a key", async () => {
  const { child, ended, port } = await serve(["--host", "0.0.0.0"], { SNUG_API_KEY: "sesame" });
  assert.equal((await ask(port, { path: "/v1/models" })).status, 401);
  const headers = { Authorization: "Bearer sesame", Host: "any.example" };
  assert.equal((await ask(port, { path: "/v1/models", headers })).status, 200);
  assert.equal((await ask(port, { path: "/health" })).status, 200);
  child.kill("SIGINT");
  assert.equal((await ended).code, 0);
});

test("what cannot be served, and how, is said", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  writeCheckpoint(join(folder, "ids"));
  const ids = join(folder, "ids.snug");
  writeFileSync(ids, await packCheckpoint(join(folder, "ids")));
  const { port } = taken.address() as AddressInfo;
  const cases: [args: string[], code: number, ...said: string[]][] = [
    [["--host", "0.0.0.0"], 2, "wants a key", "SNUG_API_KEY", "--api-key KEY"],
    [["--host", "::"], 2, "wants a key"],
    [["--host", "no such host"], 2, "--host no such host cannot be found"],
    [["--port", "70000"], 2, "--port is a whole number from 0 to 65535"],
    [["--api-key", "two words"], 2, "the API key goes into a header"],
    [["--allow-origin", "*"], 2, "--allow-origin is an origin"],
    [["--allow-origin", "null"], 2, "--allow-origin is an origin"],
    [["--allow-origin", "https://page.example/"], 2, "without a path"],
    [["--parallel", "0"], 2, "--parallel is a whole number from 1 to 64"],
    [["--memory", "1MB", "--pruning", "0.5"], 2, "exclude each other"],
    [["--prot", "80"], 2, "did you mean --port?"],
    [[DEMO, "--port", String(port), "--context", "64"], 1, `port ${port} is taken`, "--port"],
    [[ids], 1, "has no tokenizer"],
    [[join(folder, "nowhere.snug")], 1, "cannot read", "no such file"],
  ];
  for (const [args, code, ...said] of cases) {
    const ended = await start(args).ended;
    const shown = `snug serve ${args.join(" ")}: ${ended.stderr}`;
    assert.equal(ended.code, code, shown);
    assert.equal(ended.stdout, "", shown);
    for (const word of said) assert.ok(ended.stderr.includes(word), `${shown} should say "${word}"`);
    assert.doesNotMatch(ended.stderr, /^\s+at /m, shown);
  }
  taken.close();
});

test("its help is no wider than others'", async () => {
  const { code, stdout } = await start(["--help"]).ended;
  assert.equal(code, 0);
  assert.match(stdout, /^ {2}snug serve \[FILE\] \[options\]$/m);
  for (const line of stdout.split("\n")) assert.ok(line.length <= 80, line);
});
