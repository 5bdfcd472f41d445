// Packs from a web server: what is fetched, what is kept, and what happens when the connection, the server or the store
// does what it should not.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, beforeEach, test } from "node:test";
import { Download, type OpenStore, type Store, type Version } from "../runtime/download";
import type { Source } from "../runtime/host";
import type { LoadOptions } from "../runtime/load";
import { openPack } from "../runtime/pack";
import { watchModels } from "./all-returned";
import { PackServer } from "./pack-server";
import { says } from "./write-checkpoint";
import { testHost } from "./write-pack";

watchModels();

const demo = new Uint8Array(readFileSync("packs/demo/tale.snug"));
const SMALL = { memory: "15MB", context: 256, threads: 1 };
const LARGE = { pruning: 0, context: 256, threads: 1 };
const FIRST_BYTES = 65536;

/** A store in memory, with what a device can do wrong. */
class MemoryStore implements Store {
  bytes = new Uint8Array(0);
  version: Version | null = null;
  room = Number.POSITIVE_INFINITY;
  openings = 0;
  isOpen = false;
  refuses = false;

  async open(): Promise<OpenStore> {
    if (this.refuses) throw new Error("no file system today");
    assert.equal(this.isOpen, false, "two readers at a time");
    this.isOpen = true;
    this.openings++;
    const store = this;
    return {
      get version() {
        return store.version;
      },
      get length() {
        return store.bytes.length;
      },
      read: (offset, target) => target.set(store.bytes.subarray(offset, offset + target.length)),
      write(offset, bytes) {
        if (offset + bytes.length > store.room) throw new Error("no room");
        const all = new Uint8Array(Math.max(store.bytes.length, offset + bytes.length));
        all.set(store.bytes);
        all.set(bytes, offset);
        store.bytes = all;
      },
      reset(version) {
        store.bytes = new Uint8Array(0);
        store.version = version;
      },
      close() {
        store.isOpen = false;
      },
    };
  }
}

const server = new PackServer(demo);
const url = await server.start();
after(() => server.stop());
let store = new MemoryStore();
beforeEach(() => {
  server.bytes = demo;
  server.behaviour = {};
  server.sent.length = 0;
  store = new MemoryStore();
});

const open = (from: Source = new Download(url, store)) => openPack(from, testHost, {});

/** Opens and loads; the tokens that the model says, and what the plan reads. */
async function run(from: Source, options: object, loading: LoadOptions = {}) {
  const pack = await open(from);
  const plan = pack.plan(options);
  const model = await pack.load(plan, loading);
  const { tokens } = await model.generate("Once", { temperature: 0, repeatPenalty: 1, maxTokens: 8 }).result();
  model.dispose();
  return { tokens, plan };
}

const fromFile = async (options: object) => {
  const source: Source = {
    name: "file",
    size: demo.length,
    read: async (at, to) => to.set(demo.subarray(at, at + to.length)),
  };
  return (await run(source, options)).tokens;
};
const expected = { small: await fromFile(SMALL), large: await fromFile(LARGE) };

for (const kept of [true, false])
  test(`only the bytes of the plan are fetched ${kept ? "and kept" : "where nothing can be kept"}`, async () => {
    const source = new Download(url, kept ? store : undefined);
    const progress: number[] = [];
    const { tokens, plan } = await run(source, SMALL, { onProgress: (p) => progress.push(p.downloadedBytes) });
    assert.deepEqual(tokens, expected.small);
    // What comes behind the header before the connection is left is fetched twice where nothing is kept.
    const fetched = source.downloadedBytes;
    assert.ok(fetched >= plan.readBytes && fetched <= plan.readBytes + (kept ? 0 : FIRST_BYTES), `${fetched} bytes`);
    if (kept) assert.equal(server.sentBytes, fetched);
    assert.equal(progress.at(-1), fetched);
    assert.equal(server.sent.length, 2, "one request for the header, one for the rest");
    assert.equal(store.bytes.length, kept ? plan.readBytes : 0);
    if (kept) assert.deepEqual(store.bytes, demo.slice(0, plan.readBytes));
  });

test("what is kept is not fetched again, and needs no network", async () => {
  await run(new Download(url, store), SMALL);
  const before = server.sentBytes;
  server.behaviour = { status: 503, failures: 99 };
  assert.deepEqual((await run(new Download(url, store), SMALL)).tokens, expected.small);
  assert.equal(server.sentBytes, before);
});

test("a larger budget fetches the difference only", async () => {
  const { plan: small } = await run(new Download(url, store), SMALL);
  const before = server.sentBytes;
  const { tokens, plan } = await run(new Download(url, store), LARGE);
  assert.deepEqual(tokens, expected.large);
  assert.equal(server.sentBytes - before, plan.readBytes - small.readBytes);
  // And the same pack can go back to less, from what is there.
  assert.deepEqual((await run(new Download(url, store), SMALL)).tokens, expected.small);
  assert.equal(server.sentBytes - before, plan.readBytes - small.readBytes);
});

test("a server without ranges is stopped at the cut", async () => {
  server.behaviour = { ranges: false, delay: 1 };
  const { tokens, plan } = await run(new Download(url, store), SMALL);
  assert.deepEqual(tokens, expected.small);
  assert.ok(store.bytes.length >= plan.readBytes);
  assert.ok(store.bytes.length < plan.readBytes + 1e6, `${store.bytes.length} bytes for a plan of ${plan.readBytes}`);
  assert.deepEqual((await run(new Download(url, store), LARGE)).tokens, expected.large);
});

test("a server that does not say how long the file is, or answers with less than asked", async () => {
  server.behaviour = { tellsSize: false };
  assert.deepEqual((await run(new Download(url), SMALL)).tokens, expected.small);
  server.behaviour = { rangeMost: 1_000_000 };
  assert.deepEqual((await run(new Download(url, store), SMALL)).tokens, expected.small);
  assert.ok(server.sent.length > 8);
});

for (const kept of [true, false])
  test(`a connection that breaks is taken up where it broke (${kept ? "kept" : "not kept"})`, async () => {
    const source = new Download(url, kept ? store : undefined);
    const pack = await open(source);
    const plan = pack.plan(SMALL);
    server.behaviour = { breakAfter: 3_000_000, breaks: 2 };
    const model = await pack.load(plan);
    const { tokens } = await model.generate("Once", { temperature: 0, repeatPenalty: 1, maxTokens: 8 }).result();
    assert.deepEqual(tokens, expected.small);
    assert.equal(server.sent.length, 4);
    // Nothing that had come comes again, but for what followed the header where nothing is kept.
    const again = source.downloadedBytes - plan.readBytes;
    assert.ok(again >= 0 && again <= (kept ? 0 : FIRST_BYTES), `${again} bytes came twice`);
  });

test("without a network a download stops with a sentence, and goes on later from there", async () => {
  const pack = await open();
  const plan = pack.plan(SMALL);
  server.behaviour = { breakAfter: 2_000_000, breaks: 1 };
  const failing = pack.load(plan, {
    onProgress: ({ readBytes }) => {
      if (readBytes > 1e6) server.behaviour = { ...server.behaviour, status: 503, failures: 99 };
    },
  });
  await assert.rejects(failing, says("source", "connection broke at byte", "503", "what has come is kept"));
  assert.equal(store.isOpen, false);
  const came = store.bytes.length;
  assert.ok(came > 1e6 && came < plan.readBytes);
  server.behaviour = {};
  const before = server.sentBytes;
  assert.deepEqual((await run(new Download(url, store), SMALL)).tokens, expected.small);
  assert.equal(server.sentBytes - before, plan.readBytes - came);
});

test("stopping stops the network, and keeps what came", async () => {
  server.behaviour = { delay: 1 };
  const pack = await open();
  const stop = new AbortController();
  const loading = pack.load(pack.plan(LARGE), {
    signal: stop.signal,
    onProgress: ({ readBytes }) => readBytes > 1e6 && stop.abort(),
  });
  await assert.rejects(loading, says("aborted"));
  assert.equal(store.isOpen, false);
  const { length } = store.bytes;
  assert.ok(length > 1e6 && length < 5e6, `${length} bytes`);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(server.sentBytes < 8e6, "the server goes on sending");
  server.behaviour = {};
  assert.deepEqual((await run(new Download(url, store), LARGE)).tokens, expected.large);
});

for (const [where, at] of [
  ["prelude", 20],
  ["header", 500],
  ["fixed part", 400_000],
  ["a unit", 9_000_000],
] as const)
  test(`damage in what is kept is mended from the network: ${where}`, async () => {
    await run(new Download(url, store), SMALL);
    store.bytes[at] = (store.bytes[at] as number) ^ 0x41;
    const before = server.sentBytes;
    const { tokens, plan } = await run(new Download(url, store), SMALL);
    assert.deepEqual(tokens, expected.small);
    const fetched = server.sentBytes - before;
    assert.ok(fetched > 0 && fetched < 2e6, `${fetched} bytes`);
    assert.deepEqual(store.bytes, demo.slice(0, plan.readBytes));
  });

test("damage that the network cannot mend", async () => {
  await run(new Download(url, store), SMALL);
  store.bytes[9_000_000] = (store.bytes[9_000_000] as number) ^ 1;
  server.behaviour = { status: 404, failures: 1 };
  await assert.rejects(run(new Download(url, store), SMALL), says("source", "on this device is damaged", "404"));
  // The server's own file is damaged: it is not kept.
  server.bytes = demo.slice();
  server.bytes[9_000_000] = 7;
  await assert.rejects(run(new Download(url, store), SMALL), says("pack", "damaged"));
  assert.equal(store.bytes.length, 0);
  assert.equal(store.isOpen, false);
  server.bytes = demo;
  assert.deepEqual((await run(new Download(url, store), SMALL)).tokens, expected.small);
});

for (const [what, before, later] of [
  ["ETag", { etag: '"1"' }, { etag: '"2"' }],
  ["date", { lastModified: "Mon, 01 Jan 2024 00:00:00 GMT" }, { lastModified: "Tue, 02 Jan 2024 00:00:00 GMT" }],
] as const)
  test(`a file that changed on the server is not mixed with what is kept of it: ${what}`, async () => {
    server.behaviour = before;
    await run(new Download(url, store), SMALL);
    server.behaviour = later;
    await assert.rejects(run(new Download(url, store), LARGE), says("source", "has changed", "open it again"));
    assert.deepEqual((await run(new Download(url, store), LARGE)).tokens, expected.large);
  });

test("weak ETags say nothing", async () => {
  server.behaviour = { etag: 'W/"1"' };
  await run(new Download(url, store), SMALL);
  server.behaviour = { etag: 'W/"2"' };
  assert.deepEqual((await run(new Download(url, store), LARGE)).tokens, expected.large);
});

test("a device without room, or without a file system, runs the pack all the same", async () => {
  store.room = 3_000_000;
  assert.deepEqual((await run(new Download(url, store), SMALL)).tokens, expected.small);
  assert.ok(store.bytes.length <= store.room);
  assert.ok(server.sentBytes < demo.length);
  store.refuses = true;
  assert.deepEqual((await run(new Download(url, store), SMALL)).tokens, expected.small);
});

test("what is no pack is refused, and not kept", async () => {
  server.bytes = new TextEncoder().encode("<!doctype html><title>Welcome</title>".repeat(10));
  await assert.rejects(open(), says("pack", "not a snug pack"));
  assert.equal(store.bytes.length, 0);
  server.bytes = new Uint8Array(0);
  await assert.rejects(open(), says("source", "ended at byte 0"));
  server.bytes = demo.subarray(0, 5_000_000);
  await assert.rejects(open(), says("pack", "ends early"));
  server.bytes = demo;
  server.behaviour = { status: 404 };
  await assert.rejects(open(), says("source", "404 Not Found"));
  await assert.rejects(open(new Download("http://127.0.0.1:1/x.snug")), says("source", "connection broke"));
});

test("two loads of one pack wait for each other", async () => {
  const pack = await open();
  const models = await Promise.all([SMALL, LARGE, SMALL].map((options) => pack.load(pack.plan(options))));
  assert.equal(server.sentBytes, demo.length, "each byte came once");
  for (const model of models) model.dispose();
  assert.equal(store.isOpen, false);
});
