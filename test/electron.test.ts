// The Electron example without Electron: what the page may have, and the model's process as a plain Node process behind
// a stand-in for Electron's ports. What needs a browser is in hosts/electron.test.ts.

import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { build } from "esbuild";
import { packNamed, packsIn } from "../cli/electron/packs";
import { PAGE, pageFile } from "../cli/electron/page-files";
import { type ElectronPort, servePack } from "../cli/electron/serve";
import { SnugError } from "../runtime/errors";
import { RemotePacks } from "../runtime/remote";
import { watchModels } from "./all-returned";
import type { ToChild } from "./electron-parent-port";
import { says, scratchFolder } from "./write-checkpoint";

watchModels();

const TALE = resolve("packs/demo/tale.snug");
const SMALL = { memory: "15MB", context: 64, threads: 1 };
const GREEDY = { temperature: 0, repeatPenalty: 1, maxTokens: 8 };
/** In the project, so that its name leads to it. */
const MODEL = resolve("build/electron/model.js");

const scratch = scratchFolder({ after });
const channel = new MessageChannel();
const packs = new RemotePacks({
  post: (message) => channel.port1.postMessage(message),
  listen: (hear) => channel.port1.on("message", hear),
});
const children = new Set<ChildProcess>();
before(async () => {
  servePack(electronPort(channel.port2), TALE);
  await build({
    entryPoints: ["cli/electron/model.ts"],
    inject: ["test/electron-parent-port.ts"],
    outfile: MODEL,
    bundle: true,
    packages: "external",
    format: "esm",
    platform: "node",
  });
});
after(() => {
  channel.port1.close();
  for (const child of children) child.kill("SIGKILL");
});

/** Events instead of messages, and nothing before start(). */
function electronPort(port: MessagePort): ElectronPort {
  let hear: (event: { data: unknown }) => void;
  return {
    on(_, listener) {
      hear = listener;
    },
    postMessage: (message) => port.postMessage(message),
    start: () => port.on("message", (data) => hear({ data })),
  };
}

/** The model's process, started as the main process would start it, and a page's end of its port. */
function startModel(pack: string) {
  const child = fork(MODEL, { serialization: "advanced", cwd: dirname(pack) });
  children.add(child);
  const tell = (told: ToChild) => child.send(told);
  tell({ first: { pack: basename(pack) } });
  const page = new RemotePacks({
    post: (message) => tell({ message }),
    listen: (hear) => child.on("message", hear),
  });
  return { child, tell, page };
}

test("a page opens the app's pack by its name, plans, loads, and gets text", async () => {
  const pack = await packs.open("tale.snug");
  assert.match(pack.spare.how, /memory|limit/);
  const told: number[] = [];
  const model = await pack.load(await pack.plan(SMALL), { onProgress: ({ readBytes }) => told.push(readBytes) });
  assert.equal(told.at(-1), model.plan.readBytes);
  const pieces: string[] = [];
  const generation = model.generate("Once upon a time", GREEDY);
  for await (const piece of generation) pieces.push(piece);
  assert.equal(pieces.join(""), (await generation.result()).text);
  assert.ok(pieces.length > 3);
  await model.dispose();
});

test("a page that makes up a path is refused", async () => {
  for (const wanted of [TALE, "./tale.snug", "other.snug", "https://example.com/tale.snug", "", null, { size: 1 }])
    await assert.rejects(packs.open(wanted), says("usage", "this process serves tale.snug, not"));
});

test("the main process knows the names in its folder, and nothing else", async () => {
  const folder = join(scratch, "packs");
  mkdirSync(join(folder, "folder.snug"), { recursive: true });
  writeFileSync(join(scratch, "secret.snug"), "");
  writeFileSync(join(folder, "notes.txt"), "");
  writeFileSync(join(folder, "mine.snug"), "");
  symlinkSync(join(scratch, "secret.snug"), join(folder, "linked.snug"));
  assert.deepEqual(await packsIn(folder), ["mine.snug"]);
  assert.equal(await packNamed(folder, "mine.snug"), join(folder, "mine.snug"));
  const others = [
    "notes.txt",
    "folder.snug",
    "linked.snug",
    "../secret.snug",
    join(folder, "mine.snug"),
    "",
    0,
    ["mine.snug"],
  ];
  for (const name of others) await assert.rejects(packNamed(folder, name), /comes with no pack called/);
});

test("the page's scheme reaches the page's files, under the policy", async () => {
  const page = await pageFile(PAGE, "cli/electron");
  assert.equal(await page.text(), readFileSync("cli/electron/index.html", "utf8"));
  assert.match(page.headers.get("content-type") ?? "", /^text\/html/);
  const policy = page.headers.get("content-security-policy") ?? "";
  assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.doesNotMatch(policy, /unsafe/);
  for (const path of ["main.ts", "../package.json", "%2e%2e%2fpackage.json", "/", "toString"])
    assert.equal((await pageFile(new URL(path, PAGE).href, "cli/electron")).status, 404, path);
});

test("a process that dies takes its model along; the page is told, and another one goes on", async () => {
  const { child, page } = startModel(TALE);
  const pack = await page.open("tale.snug");
  const model = await pack.load(await pack.plan(SMALL));
  const generation = model.generate("Once", { ...GREEDY, maxTokens: 48 });
  let text = "";
  const ended = once(child, "exit").then(() => page.fail(new SnugError("internal", "the process ended")));
  await assert.rejects(
    async () => {
      for await (const piece of generation) {
        text += piece;
        child.kill("SIGKILL");
      }
    },
    says("internal", "the process ended"),
  );
  await ended;
  assert.notEqual(text, "");
  await assert.rejects(pack.plan(SMALL), says("internal", "the process ended"));
  const next = startModel(TALE);
  assert.equal((await next.page.open("tale.snug")).size, pack.size);
});

test("a process ends with its page", async () => {
  const { child, tell, page } = startModel(TALE);
  await page.open("tale.snug");
  tell({ closed: true });
  assert.deepEqual(await once(child, "exit", { signal: AbortSignal.timeout(10_000) }), [0, null]);
});

test("a pack that is gone, or is none, is an error with words", async () => {
  const missing = join(scratch, "missing.snug");
  await assert.rejects(
    startModel(missing).page.open("missing.snug"),
    says("source", "cannot read missing.snug: there is no such file"),
  );
  await assert.rejects(
    startModel(resolve("package.json")).page.open("package.json"),
    says("pack", "is not a snug pack"),
  );
});
