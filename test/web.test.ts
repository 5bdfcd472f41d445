// The page's parts that need no browser: its words, its geometry, the conversation, what comes from outside, the server,
// and that its markup, its code and the policy that it is served under fit together.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { buildPage } from "../cli/web/build";
import { Conversation } from "../cli/web/conversation";
import { drawNetwork, memoryBar, pathOf, type Rect } from "../cli/web/geometry";
import { presetsOfAddress, presetsOfMessage } from "../cli/web/presets";
import { PAGE_HEADERS, rangeOf, serveFolders } from "../cli/web/server";
import { Spoken } from "../cli/web/spoken";
import * as words from "../cli/web/words";
import { SnugError } from "../runtime/errors";
import { type DeviceChoice, open, type Pack } from "../runtime/index";
import type { LayerPlan, Plan, StackPlan } from "../runtime/plan";
import { scratchFolder } from "./write-checkpoint";

const HERE = "https://page.example/app/";
const scratch = scratchFolder({ after });
let pack: Pack;

before(async () => {
  pack = await open("packs/demo/tale.snug");
});
after(() => pack.close());

const planOf = (memory: number): Plan => pack.plan({ memory, context: 512, threads: 1 });

// Words

test("sizes are short, decimal, and never of the wrong unit", () => {
  const said = [0, 999, 1000, 640_400, 999_499, 999_500, 9_994_000, 9_996_000, 99_960_000, 999_499_999, 1.23e9];
  assert.deepEqual(said.map(words.size), [
    "0 bytes",
    "999 bytes",
    "1 KB",
    "640 KB",
    "999 KB",
    "1.00 MB",
    "9.99 MB",
    "10.0 MB",
    "100 MB",
    "999 MB",
    "1.23 GB",
  ]);
  assert.equal(words.progress(4_200_000, 11_718_528), "4.20 of 11.7 MB");
  assert.equal(words.progress(65_536, 11_718_528), "66 KB of 11.7 MB");
  assert.equal(words.progress(12e6, 11e6), "11.0 of 11.0 MB");
});

test("only nothing is 0 %, only all is 100 %", () => {
  assert.deepEqual([0, 1e-6, 0.004, 0.252, 0.996, 1].map(words.percent), [
    "0 %",
    "under 1 %",
    "under 1 %",
    "25 %",
    "over 99 %",
    "100 %",
  ]);
});

test("a plan is said in words", () => {
  const whole = planOf(1e9);
  const cut = planOf(17e6);
  assert.match(words.cutWords(whole), /^Nothing is cut/);
  assert.match(words.cutWords(cut), new RegExp(`is cut: ${cut.keptUnits} of 160 units stay`));
  assert.match(words.qualityWords(cut, whole.expectedPerplexity), /^Expected perplexity 3\d\.\d, uncut 32\.1; lower/);
  assert.match(words.qualityWords({ ...cut, expectedPerplexity: null }, null), /does not say/);
  assert.equal(words.downloadWords(cut, 0), `Loading downloads ${words.size(cut.readBytes)}.`);
  assert.equal(words.downloadWords(cut, 65_536), words.downloadWords(cut, 0));
  assert.match(words.downloadWords(cut, 5e6), / more; 5\.00 MB is on this device\.$/);
  assert.match(words.downloadWords(cut, cut.readBytes), /nothing to download/);
  assert.match(words.downloadWords(cut, null), /of the file/);
  const kept = [...words.networkWords(cut).matchAll(/(\d+) of (\d+) units/g)].map(([, n]) => Number(n));
  assert.equal(
    kept.reduce((sum, n) => sum + n, 0),
    cut.keptUnits,
  );
});

test("one thread is explained where the page is to blame, and a budget that is too small where it is", () => {
  assert.doesNotMatch(words.threadWords(1, true), /isolated/);
  assert.match(words.threadWords(1, false), /isolated/);
  assert.match(words.threadWords(4, true), /4 threads/);
  const plan = planOf(17e6);
  assert.doesNotMatch(words.budgetWords({ bytes: 20e6, how: "known" }, plan), /may not load/);
  assert.match(words.budgetWords({ bytes: 2e6, how: "assumed" }, plan), /assumed.*smallest cut takes 11\.2 MB/);
});

test("where it runs, and why", () => {
  const plan = planOf(17e6);
  const onGpu = pack.plan({ memory: 30e6, context: 512, device: "gpu" });
  const say = (of: Plan, choice: DeviceChoice | null, isOpen = false) =>
    words.placeWords(of, { isOpen, choice, gpu: "a chip", isolated: true, page: HERE });
  const [slow, fast] = [
    { prefill: 5, decode: 4 },
    { prefill: 900, decode: 550 },
  ];
  assert.equal(say(plan, null), words.threadWords(1, true));
  assert.match(say(plan, null, true), /both are timed/);
  assert.equal(say(onGpu, null), "Runs on the GPU (a chip).");
  assert.match(
    say(onGpu, { device: "gpu", reason: "", cpu: slow, gpu: fast }),
    /GPU \(a chip\)\..* 550 .* CPU 4\.00\.$/,
  );
  assert.match(say(plan, { device: "cpu", reason: "", cpu: fast, gpu: slow }), /one thread\..* 550 .* GPU 4\.00\.$/);
  const none = say(plan, { device: "cpu", reason: "there is no WebGPU here", cpu: null, gpu: null });
  assert.match(none, /The GPU is not used: There is no WebGPU here\.$/);
  const small = { device: "cpu", reason: `${HERE}my.snug does not fit`, cpu: null, gpu: null } as const;
  assert.match(say(plan, small), /The GPU is not used: my\.snug does not fit\.$/);
});

test("errors are sentences that say what to do", () => {
  const said = (error: unknown) => words.errorWords(error, HERE);
  const broken = new SnugError("source", `cannot read https://far.example/a/my%20pack.snug: the connection broke`);
  assert.equal(
    said(broken),
    "Cannot read my pack.snug of far.example: the connection broke. Check the address and the connection, then try again.",
  );
  assert.match(said(new SnugError("source", `cannot read ${HERE}my.snug: no`)), /^Cannot read my\.snug: no\./);
  assert.match(said(new SnugError("context", "9 tokens do not fit")), /^9 tokens do not fit\. Start a new chat/);
  assert.match(said(new TypeError("x is undefined")), /Reload the page/);
  assert.match(said("odd"), /^odd\. /);
  assert.match(said(new SnugError("source", "cannot read https://far.example/%E0%A4: no")), /%E0%A4 of far\.example/);
});

// Geometry

const BOX: Rect = { x: 100, y: 1, width: 226, height: 158 };

test("the bar's parts lie side by side, add up to the plan, and end within its budget", () => {
  for (const memory of [planOf(1e9).minimumBytes, 15e6, 17e6, 1e9]) {
    const plan = planOf(memory);
    const { segments, budget } = memoryBar(plan);
    let end = 0;
    for (const { start, size } of segments) {
      assert.ok(Math.abs(start - end) < 1e-12);
      end = start + size;
    }
    assert.ok(Math.abs(end - plan.totalBytes / plan.maximumBytes) < 1e-9);
    assert.ok(end <= budget + 1e-9 && budget <= 1);
    assert.equal(
      segments.reduce((sum, { bytes }) => sum + bytes, 0),
      plan.totalBytes,
    );
  }
});

test("every unit of the demo is drawn once, kept ones below cut ones, nothing outside the box", () => {
  const plan = planOf(17e6);
  const { kept, cut, bands } = drawNetwork(plan.layers, BOX);
  assert.deepEqual(
    bands.map(({ kinds }) => kinds),
    [["mlp"], ["vo"], ["qk"]],
  );
  // Units of qk and vo are too low to be drawn one by one: at most a block of each sort for a stack.
  const tall = plan.layers.flatMap(({ stacks }) => stacks.filter(({ kind }) => kind === "mlp"));
  const inMlp = (rect: Rect) => rect.y < (bands[1] as Rect).y - 1;
  assert.equal(kept.filter(inMlp).length, sum(tall, "keptUnits"));
  assert.equal(cut.filter(inMlp).length, sum(tall, "units") - sum(tall, "keptUnits"));
  for (const rect of [...kept, ...cut]) assertInside(rect, BOX);
  for (const column of new Set(kept.map(({ x }) => x))) {
    const at = (rects: readonly Rect[]) => rects.filter((rect) => rect.x === column && inMlp(rect));
    const highestKept = Math.min(...at(kept).map(({ y }) => y));
    for (const { y, height } of at(cut)) assert.ok(y + height <= highestKept);
  }
});

test("areas are bytes: a larger stack of a band is as much taller", () => {
  const layers = [layerOf(0, ["mlp", 6, 12, 1000]), layerOf(1, ["mlp", 2, 3, 2000])];
  const { kept, bands } = drawNetwork(layers, BOX);
  const heights = [0, 1].map((column) =>
    kept.filter(({ x }) => x === BOX.x + column * 113).reduce((total, { height }) => total + height + 1, 0),
  );
  const band = (bands[0] as Rect).height;
  assert.ok(Math.abs((heights[0] as number) - band / 2) < 1e-9);
  assert.ok(Math.abs((heights[1] as number) - band / 3) < 1e-9);
});

test("hybrid, tiny, huge and empty networks are drawn too", () => {
  const hybrid = [
    layerOf(0, ["bc", 1, 2, 10], ["xz", 4, 4, 1000]),
    layerOf(1, ["qk", 2, 4, 100], ["vo", 0, 4, 100], ["mlp", 8, 8, 900]),
  ];
  const { bands } = drawNetwork(hybrid, BOX);
  assert.deepEqual(
    bands.map(({ kinds }) => kinds),
    [["mlp"], ["xz", "vo"], ["bc", "qk"]],
  );
  const huge = Array.from({ length: 64 }, (_, layer) => layerOf(layer, ["mlp", 70, 112, 400_000], ["qk", 4, 8, 9]));
  for (const layers of [hybrid, huge, [], [layerOf(0)], [layerOf(0, ["mlp", 0, 0, 0])]]) {
    const { kept, cut } = drawNetwork(layers, BOX);
    for (const rect of [...kept, ...cut]) assertInside(rect, BOX);
    assert.ok(kept.length + cut.length <= 64 * 4, "thin units are drawn as blocks");
  }
});

test("rectangles become one path", () => {
  assert.equal(pathOf([]), "");
  assert.equal(
    pathOf([
      { x: 1, y: 2.005, width: 3, height: 4 },
      { x: 0, y: 0, width: 1 / 3, height: 1 },
    ]),
    "M1 2.01h3v4h-3zM0 0h0.33v1h-0.33z",
  );
});

function layerOf(layer: number, ...stacks: [StackPlan["kind"], number, number, number][]): LayerPlan {
  return {
    layer,
    stacks: stacks.map(([kind, keptUnits, units, unitBytes]) => ({
      kind,
      keptUnits,
      units,
      unitBytes,
      keptChannels: keptUnits,
      channels: units,
    })),
  };
}

function sum(stacks: readonly StackPlan[], what: "keptUnits" | "units"): number {
  return stacks.reduce((total, stack) => total + stack[what], 0);
}

function assertInside({ x, y, width, height }: Rect, box: Rect): void {
  const drawn = JSON.stringify({ x, y, width, height });
  assert.ok([x, y, width, height].every(Number.isFinite) && width > 0 && height > 0, drawn);
  assert.ok(x >= box.x && x + width <= box.x + box.width + 1e-9, drawn);
  assert.ok(y >= box.y - 1e-9 && y + height <= box.y + box.height + 1e-9, drawn);
}

// Conversation

test("a chat sends all turns but the one that is being written", () => {
  const chat = new Conversation();
  assert.equal(chat.canAsk("  "), false);
  chat.ask(" Hello ");
  assert.equal(chat.canAsk("more"), false);
  assert.throws(() => chat.ask("more"));
  assert.deepEqual(chat.messages, [{ role: "user", content: "Hello" }]);
  chat.append("Hi");
  chat.append(" there");
  chat.finish();
  chat.ask("And?");
  assert.deepEqual(
    chat.messages.map(({ role, content }) => `${role}: ${content}`),
    ["user: Hello", "assistant: Hi there", "user: And?"],
  );
  chat.finish(); // stopped before the first word
  assert.equal(chat.turns.length, 3);
  chat.append("too late");
  assert.equal(chat.turns.length, 3);
});

test("a question that failed comes back", () => {
  const chat = new Conversation();
  chat.ask("first");
  chat.append("answer");
  chat.finish();
  chat.ask("second");
  assert.equal(chat.withdraw(), "second");
  assert.deepEqual(
    chat.turns.map(({ content }) => content),
    ["first", "answer"],
  );
  chat.clear();
  assert.equal(chat.withdraw(), "");
});

test("a text is continued where it ends, with or without more words", () => {
  const text = new Conversation();
  text.mode = "continue";
  assert.equal(text.canAsk(""), false);
  text.ask("Once upon a time ");
  assert.equal(text.text, "Once upon a time");
  text.append(" there was");
  text.finish();
  text.ask("");
  assert.equal(text.text, "Once upon a time there was");
  text.append(" a fox.");
  text.finish();
  text.ask("It slept.");
  assert.equal(text.text, "Once upon a time there was a fox. It slept.");
});

test("a screen reader hears sentences, in batches, and all of the text once", () => {
  const spoken = new Spoken();
  const heard: string[] = [];
  const text = "One fox. Two. Foxes met 3.5 hares! Why? So. And then, at last, the end came slowly";
  let now = 0;
  for (const letter of text) {
    const said = spoken.push(letter, now);
    now += 100;
    if (said !== null) heard.push(said);
  }
  assert.ok(heard.length >= 2 && heard.length <= 3, heard.join(" | "));
  for (const said of heard) assert.match(said, /[.!?]$/);
  assert.equal([...heard, spoken.end()].join(" "), text);
  assert.equal(spoken.end(), "");
});

// From outside

test("a link or an app presets what is well-formed, and nothing else", () => {
  assert.deepEqual(presetsOfAddress(`${HERE}?pack=packs/a.snug&memory=300MB&context=1024&load=1`), {
    pack: `${HERE}packs/a.snug`,
    memory: "300MB",
    context: 1024,
  });
  const hostile = ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "http://", "", "blob:x"];
  for (const value of hostile)
    assert.deepEqual(presetsOfAddress(`${HERE}?pack=${encodeURIComponent(value)}`), {}, value);
  assert.deepEqual(presetsOfAddress(`${HERE}?memory=lots&context=-4`), {});
  assert.deepEqual(presetsOfAddress(`${HERE}?context=0`), {});
  assert.deepEqual(presetsOfMessage({ type: "snug", memory: 3e8, context: 512 }, HERE), { memory: 3e8, context: 512 });
  assert.deepEqual(presetsOfMessage({ type: "snug", pack: 7, memory: {}, context: 1.5 }, HERE), {});
  for (const data of [null, "snug", 4, { memory: 3e8 }, []]) assert.equal(presetsOfMessage(data, HERE), null);
});

// The server

let server: Server;
const content = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 251));

before(async () => {
  const root = join(scratch, "site");
  mkdirSync(join(root, "page", ".git"), { recursive: true });
  mkdirSync(join(root, "packs", "folder"), { recursive: true });
  writeFileSync(join(root, "secret"), "secret");
  writeFileSync(join(root, "page", ".git", "config"), "secret");
  writeFileSync(join(root, "page", "index.html"), "<!doctype html>");
  writeFileSync(join(root, "page", "core.wasm"), "");
  writeFileSync(join(root, "packs", "a.snug"), content);
  server = await serveFolders(
    [
      { path: "/packs/", folder: join(root, "packs") },
      { path: "/", folder: join(root, "page") },
    ],
    { port: 0 },
  );
});
after(() => server.close());

/** As a client that does not tidy the path. */
async function ask(path: string, headers: Record<string, string> = {}, method = "GET") {
  const { port } = server.address() as AddressInfo;
  const sent = request({ port, host: "127.0.0.1", path, headers, method }).end();
  const [response] = await once(sent, "response");
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  return { status: response.statusCode as number, headers: response.headers, body: Buffer.concat(chunks) };
}

test("files come with their types, and with headers that isolate the page", async () => {
  const page = await ask("/?pack=x#y");
  assert.equal(page.status, 200);
  assert.equal(page.headers["content-type"], "text/html; charset=utf-8");
  for (const [name, value] of Object.entries(PAGE_HEADERS)) assert.equal(page.headers[name.toLowerCase()], value);
  assert.equal((await ask("/core.wasm")).headers["content-type"], "application/wasm");
  assert.equal((await ask("/nothing")).status, 404);
  assert.equal((await ask("/packs/")).status, 404);
  assert.equal((await ask("/packs/folder")).status, 404);
  const head = await ask("/packs/a.snug", {}, "HEAD");
  assert.equal(head.headers["content-length"], "1000");
  assert.equal(head.body.length, 0);
  assert.equal((await ask("/", {}, "POST")).status, 405);
});

test("nothing outside the folders is served", async () => {
  const paths = ["/../secret", "/%2e%2e/secret", "/packs/../../secret", "/packs/..%2fsecret", "/..%5csecret"];
  for (const path of [...paths, "/.git/config", "/%00", "/%E0%A4", "//etc/passwd", "/packs//etc/passwd"]) {
    const { status, body } = await ask(path);
    assert.equal(status, 404, path);
    assert.doesNotMatch(body.toString(), /secret|root:/);
  }
});

test("ranges are served as asked, or all of the file", async () => {
  for (const [range, start, end] of [
    ["bytes=0-0", 0, 0],
    ["bytes=10-99", 10, 99],
    ["bytes=990-", 990, 999],
    ["bytes=990-5000", 990, 999],
    ["bytes=-10", 990, 999],
    ["bytes=-5000", 0, 999],
  ] as const) {
    const { status, headers, body } = await ask("/packs/a.snug", { Range: range });
    assert.equal(status, 206, range);
    assert.equal(headers["content-range"], `bytes ${start}-${end}/1000`);
    assert.deepEqual(body, content.subarray(start, end + 1));
  }
  for (const range of ["bytes=5-2", "bytes=0-1,5-6", "items=0-1", "bytes=-", "bytes=a-b"])
    assert.equal((await ask("/packs/a.snug", { Range: range })).status, 200, range);
  for (const range of ["bytes=1000-", "bytes=-0"]) {
    const { status, headers } = await ask("/packs/a.snug", { Range: range });
    assert.equal(status, 416, range);
    assert.equal(headers["content-range"], "bytes */1000");
  }
  assert.equal(rangeOf("bytes=0-", 0), "none");
});

test("a file that is known is not sent again, one that has changed is sent whole", async () => {
  const { etag } = (await ask("/packs/a.snug")).headers;
  assert.match(etag as string, /^"[\w-]+"$/);
  assert.equal((await ask("/packs/a.snug", { "If-None-Match": etag as string })).status, 304);
  const range = "bytes=10-19";
  assert.equal((await ask("/packs/a.snug", { Range: range, "If-Range": etag as string })).status, 206);
  assert.equal((await ask("/packs/a.snug", { Range: range, "If-Range": '"other"' })).status, 200);
});

// The whole

const sources = readdirSync("cli/web");
const read = (name: string) => readFileSync(join("cli/web", name), "utf8");
const markup = read("index.html");

test("the page has every element that its code looks for", () => {
  const code = sources.filter((name) => name.endsWith(".ts")).map(read);
  const wanted = new Set(
    code.flatMap((text) => [...text.matchAll(/\bfind(?:<\w+>)?\("([\w-]+)"\)/g)].map(([, id]) => id)),
  );
  assert.ok(wanted.size > 30, `only ${wanted.size} ids were found`);
  for (const id of wanted) assert.equal(markup.split(` id="${id}"`).length, 2, `#${id}`);
});

test("the page needs no inline code or style, which its policy forbids, and nothing from elsewhere", () => {
  assert.doesNotMatch(markup, /<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:/i);
  assert.doesNotMatch(PAGE_HEADERS["Content-Security-Policy"] as string, /unsafe-inline|'unsafe-eval'/);
  for (const name of sources.filter((file) => /\.(?:html|css|webmanifest)$/.test(file)))
    assert.doesNotMatch(read(name), /(?:src|href|url\()\s*=?\s*["']?(?:https?:)?\/\//, name);
  assert.doesNotMatch(sources.map(read).join(""), /innerHTML|outerHTML|insertAdjacentHTML|document\.write\b/);
});

test("the built page is whole: the service worker keeps every file, under a name of its own for each build", async () => {
  const folder = join(scratch, "built");
  const files = await buildPage(folder);
  assert.deepEqual([...files].sort(), readdirSync(folder).sort());
  const worker = readFileSync(join(folder, "service-worker.js"), "utf8");
  for (const file of files) assert.equal(worker.includes(`"${file}"`), file !== "service-worker.js", file);
  assert.match(worker, /"[0-9a-f]{16}"/);
  const cores = ["", ".relaxed", ".threads", ".relaxed.threads"].map((build) => `core${build}.wasm`);
  for (const file of ["browser-worker.js", "browser-thread.js", "browser-gpu.js", ...cores])
    assert.ok(files.includes(file), file);
  for (const [, file] of markup.matchAll(/(?:src|href)="([^"]+)"/g)) assert.ok(files.includes(file as string), file);
});
