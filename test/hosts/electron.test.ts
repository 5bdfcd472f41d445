// The Electron example, built by its own package.json, in everything but Electron: its main process with a stand-in for
// the module "electron", its model's processes in Node, its page in Chromium under the app's policy.

import assert from "node:assert/strict";
import { once } from "node:events";
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { type Browser, chromium, type Page } from "playwright-core";
import type { AppBridge } from "../../cli/electron/bridge";
import { scratchFolder } from "../write-checkpoint";
import { installed, output } from "./child";
import type * as StandIn from "./electron-stand-in";

const here = dirname(fileURLToPath(import.meta.url));
const pictures = join(here, "pictures");
const scratch = scratchFolder({ after });
const folder = join(scratch, "app");
/** Where the page is for Chromium, which does not know the app's scheme. */
const ORIGIN = "http://page.test";
const WAIT = { timeout: 20_000 };
/** Tokens: enough that a text can be stopped before its end, and the context has room for them. */
const LONG = 480;

let electron: typeof StandIn;
let browser: Browser;
/** What the pages had to say about errors and the policy. */
const complaints: string[] = [];

/** The example as it lies in a project of its own, with this snug and this electron installed. */
function install(target: string, electronPackage: string | undefined): void {
  cpSync("cli/electron", target, { recursive: true, filter: (file) => !/node_modules|dist$/.test(file) });
  mkdirSync(join(target, "node_modules/@types"), { recursive: true });
  symlinkSync(resolve("."), join(target, "node_modules/snug"));
  if (electronPackage === undefined) return;
  symlinkSync(electronPackage, join(target, "node_modules/electron"));
  symlinkSync(join(electronPackage, "../@types/node"), join(target, "node_modules/@types/node"));
}

function npmRun(script: string, target: string): Promise<string> {
  const PATH = [resolve("node_modules/.bin"), process.env.PATH].join(delimiter);
  return output(["npm", "run", "--silent", script], { cwd: target, env: { ...process.env, PATH } });
}

before(async () => {
  install(folder, undefined);
  await npmRun("build", folder);
  const target = join(folder, "node_modules/electron");
  await build({
    entryPoints: { index: "test/hosts/electron-stand-in.ts", "parent-port": "test/electron-parent-port.ts" },
    outdir: target,
    bundle: true,
    format: "esm",
    platform: "node",
  });
  writeFileSync(join(target, "package.json"), '{ "type": "module", "main": "index.js" }');
  electron = await import(pathToFileURL(join(target, "index.js")).href);
  browser = await chromium.launch({
    executablePath: installed("chromium", "chromium-browser", "google-chrome"),
    args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
  });
  await import(pathToFileURL(join(folder, "dist/main.js")).href);
  assert.equal(electron.standIn.windows.length, 0, "a window was opened before the app was ready");
  electron.standIn.start();
  await new Promise(setImmediate);
  mkdirSync(pictures, { recursive: true });
});
after(async () => {
  await browser?.close();
  for (const process of electron?.standIn.processes ?? []) process.kill();
});
afterEach(() => assert.deepEqual(complaints.splice(0), []));

/** Shows the window that was opened last. */
async function showWindow(): Promise<{ page: Page; window: StandIn.BrowserWindow }> {
  const opened = electron.standIn.windows.at(-1);
  assert.ok(opened, "no window was opened");
  const { window, address } = opened;
  const contents = window.webContents;
  const page = await browser.newPage({ viewport: { width: 640, height: 800 } });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  const ports: StandIn.StandInPort[] = [];
  const leave = () => {
    for (const port of ports.splice(0)) port.close();
  };
  page.on("framenavigated", leave);
  page.on("close", leave);
  const send = (call: string) => page.evaluate(call).catch(() => {}); // the page may be gone
  contents.show = (channel, message, port) => {
    if (port === undefined) return void send(`fromMain(${literal(channel)}, ${literal(message)})`);
    const id = ports.push(port) - 1;
    void send(`fromMain(${literal(channel)}, ${literal(message)}, ${id})`);
    port.own({
      hear: (said) => void page.evaluate(([to, what]) => fromPort(to, what), [id, said] as const).catch(() => {}),
      closed() {},
    });
  };
  await page.exposeBinding("toMain", (_, channel: string, args: unknown[]) =>
    electron.standIn.handlers.get(channel)?.({ sender: contents }, ...args),
  );
  await page.exposeBinding("toPort", (_, id: number, said: Call) => ports[id]?.post(asInTests(said)));
  await page.addInitScript(
    `${BRIDGE}((require) => {${readFileSync(window.options.webPreferences.preload, "utf8")}})(module);`,
  );
  await page.route(`${ORIGIN}/**`, async (route) => {
    const { protocol, host } = new URL(address);
    const url = route.request().url().replace(ORIGIN, `${protocol}//${host}`);
    const answer = await electron.standIn.schemes.get(protocol.slice(0, -1))?.(new Request(url));
    if (answer === undefined) return route.abort();
    await route.fulfill({
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: Buffer.from(await answer.arrayBuffer()),
    });
  });
  await page.goto(`${ORIGIN}${new URL(address).pathname}`);
  return { page, window };
}

interface Call {
  readonly method?: string;
  readonly args: readonly unknown[];
}

/** What the page sends, but each text is long and always the same. */
function asInTests(said: Call): unknown {
  if (said.method !== "generate") return said;
  const [model, prompt, options] = said.args;
  return { ...said, args: [model, prompt, { ...(options as object), seed: 1, maxTokens: LONG }] };
}

const literal = (value: unknown) => JSON.stringify(value);
// There on the page.
declare const app: AppBridge;
declare function fromPort(id: number, message: unknown): void;

/** Before the preload script: what it has of "electron", and the ends of the page's ports. */
const BRIDGE = `
const listeners = {}, ports = [];
const module = () => ({
  contextBridge: { exposeInMainWorld(name, value) { window[name] = value; } },
  ipcRenderer: {
    invoke: (channel, ...args) => toMain(channel, args),
    on(channel, listener) { listeners[channel] = listener; },
  },
});
window.fromMain = (channel, message, id) => {
  const brought = [];
  if (id !== undefined) {
    const { port1, port2 } = new MessageChannel();
    ports[id] = port1;
    port1.onmessage = ({ data }) => toPort(id, data);
    brought.push(port2);
  }
  listeners[channel]({ ports: brought }, message);
};
window.fromPort = (id, message) => ports[id].postMessage(message);
`;

const inTime = () => ({ signal: AbortSignal.timeout(WAIT.timeout) });
const newest = () => electron.standIn.processes.at(-1) as StandIn.UtilityProcess;
const openTale = async (page: Page) => {
  await page.getByRole("button", { name: "tale.snug" }).click();
  await page.getByLabel("At most").waitFor(WAIT);
};
const loadWith = async (page: Page, memory: string) => {
  await page.getByLabel("At most").fill(memory);
  await page.getByRole("button", { name: "Load" }).click();
  await page.locator("#load:enabled").waitFor(WAIT);
  await page.getByLabel("How it begins").waitFor(WAIT);
};
const textLonger = (page: Page, length: number) =>
  page.waitForFunction((least) => (document.getElementById("text")?.textContent ?? "").length > least, length, WAIT);
const idle = (page: Page) => page.locator("#stop:disabled").waitFor(WAIT);

test("its types fit Electron's", async (t) => {
  const types = resolve("build/hosts/node_modules/electron");
  if (!existsSync(types) && !process.env.SNUG_REQUIRE_ALL) return t.skip(`${types} is not there`);
  const checked = join(scratch, "checked");
  install(checked, types);
  await npmRun("check", checked);
});

test("windows are closed in, and the page's address is the app's own", () => {
  const { window, address } = electron.standIn.windows[0] as (typeof electron.standIn.windows)[0];
  const { contextIsolation, sandbox, nodeIntegration } = window.options.webPreferences;
  assert.deepEqual(
    { contextIsolation, sandbox, nodeIntegration },
    { contextIsolation: true, sandbox: true, nodeIntegration: false },
  );
  assert.equal(address, "snug-app://page/index.html");
  assert.deepEqual(window.webContents.windowOpenHandler?.(), { action: "deny" });
  let prevented = 0;
  window.webContents.emit("will-navigate", { preventDefault: () => prevented++ });
  assert.equal(prevented, 1);
});

test("open, plan, load, text as it comes, stop, another budget", async () => {
  const { page, window } = await showWindow();
  await openTale(page);
  assert.match((await page.locator("#facts").textContent()) ?? "", /^tale-llama: 8 layers, 14\.\d\d MB\.$/);
  assert.match((await page.locator("#spare").textContent()) ?? "", /can spare [\d.]+ [MG]B: 80 % of/);
  await page.getByLabel("At most").fill("15MB");
  await page.waitForFunction(() => /^1[45]\.\d\d MB keep /.test(document.getElementById("kept")?.textContent ?? ""));
  await page.getByLabel("At most").fill("1 MB");
  await page.getByText("does not fit").waitFor(WAIT);
  await page.getByRole("button", { name: "Load" }).click();
  await page
    .getByRole("alert")
    .getByText(/^tale\.snug does not fit.* the smallest cut needs/)
    .waitFor(WAIT);
  assert.ok(await page.getByLabel("How it begins").isHidden());
  await page.screenshot({ path: join(pictures, "electron-error.png"), fullPage: true });

  await loadWith(page, "15MB");
  assert.ok(await page.getByRole("alert").isHidden());
  await page.evaluate(() => {
    const text = document.getElementById("text") as HTMLElement;
    new MutationObserver((_, observer) => {
      if ((text.textContent ?? "").length <= 60) return;
      observer.disconnect();
      document.getElementById("stop")?.click();
    }).observe(text, { childList: true });
  });
  await page.getByRole("button", { name: "Go on" }).click();
  await textLonger(page, 60);
  await idle(page);
  const stopped = (await page.locator("#text").textContent()) ?? "";
  assert.match(stopped, /^Once upon a time\S*\s/);
  assert.equal(await page.locator("#speed").textContent(), "", "it ended before it was stopped");
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(await page.locator("#text").textContent(), stopped);
  assert.ok(await page.getByRole("alert").isHidden());

  await loadWith(page, "20MB");
  await page.getByLabel("How it begins").fill("The old fox said");
  await page.getByRole("button", { name: "Go on" }).click();
  await idle(page);
  assert.match((await page.locator("#speed").textContent()) ?? "", /^\d+ tokens, \d+ a second$/);
  await page.screenshot({ path: join(pictures, "electron.png"), fullPage: true });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 360, height: 640 });
  assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways");
  await page.screenshot({ path: join(pictures, "electron-dark.png"), fullPage: true });

  const { child } = newest();
  const ended = once(child, "exit", inTime());
  await page.close();
  window.close();
  await ended;
  assert.ok(electron.standIn.hasQuit, "the app goes on without a window");
});

/** What somebody does who wants another window. */
function newWindow(): Promise<{ page: Page; window: StandIn.BrowserWindow }> {
  const items = electron.standIn.menu.flatMap(({ submenu }) => submenu ?? []);
  const item = items.find(({ label }) => label === "New window");
  assert.ok(item?.click);
  item.click();
  return showWindow();
}

test("what a page makes up is refused, by the main process and by the model's", async () => {
  const { page, window: own } = await newWindow();
  const started = electron.standIn.processes.length;
  for (const name of ["../../package.json", resolve("packs/demo/tale.snug"), "other.snug", { path: "tale.snug" }])
    await assert.rejects(
      page.evaluate((name) => app.open(name as string), name),
      /comes with no pack called/,
    );
  await assert.rejects(page.evaluate("app.restart()"), /opened no pack yet/);
  assert.equal(electron.standIn.processes.length, started);

  await openTale(page);
  const answer = page.evaluate(async (path) => {
    const port = await new Promise<MessagePort>((resolve) => {
      window.addEventListener("message", ({ ports }) => resolve(ports[0] as MessagePort), {
        once: true,
        capture: true,
      });
      void app.open("tale.snug");
    });
    // The page has the same port: what it opens is answered too.
    return new Promise((resolve) => {
      port.addEventListener("message", ({ data }) => data.failure === 99 && resolve(data.message));
      port.postMessage({ call: 99, method: "open", args: [path, {}] });
    });
  }, resolve("packs/demo/tale.snug"));
  assert.match((await answer) as string, /^this process serves tale\.snug, not/);
  await page.close();
  own.close();
});

test("a file that a person chooses is served, wherever it is", async () => {
  const { page, window } = await newWindow();
  electron.standIn.chosen = [];
  const started = electron.standIn.processes.length;
  await page.getByRole("button", { name: "Choose a file" }).click();
  await page.evaluate("0");
  assert.equal(electron.standIn.processes.length, started, "nothing was chosen");
  const file = join(scratch, "mine.snug");
  copyFileSync("packs/demo/tale.snug", file);
  electron.standIn.chosen = [file];
  await page.getByRole("button", { name: "Choose a file" }).click();
  await page.getByLabel("At most").waitFor(WAIT);
  electron.standIn.chosen = [resolve("package.json")];
  await page.getByRole("button", { name: "Choose a file" }).click();
  await page.getByRole("alert").getByText("is not a snug pack").waitFor(WAIT);
  await page.close();
  window.close();
});

test("a process that dies is replaced, and the page says so", async () => {
  const { page, window } = await newWindow();
  await openTale(page);
  await loadWith(page, "15MB");
  await page.getByRole("button", { name: "Go on" }).click();
  await textLonger(page, 30);
  const dead = newest();
  dead.kill();
  await page
    .getByRole("alert")
    .getByText("The model's process ended (code 9). Another one takes its place.")
    .waitFor(WAIT);
  await page.getByLabel("At most").waitFor(WAIT);
  assert.notEqual(newest(), dead);
  assert.ok(await page.getByLabel("How it begins").isHidden());
  await page.screenshot({ path: join(pictures, "electron-death.png"), fullPage: true });
  // One that has done nothing yet is not: it could die again and again.
  const idleOne = newest();
  const count = electron.standIn.processes.length;
  idleOne.kill();
  await page
    .getByRole("alert")
    .getByText(/^The model's process ended \(code 9\)\.$/)
    .waitFor(WAIT);
  assert.equal(electron.standIn.processes.length, count);
  await openTale(page);
  await loadWith(page, "15MB");
  await page.getByRole("button", { name: "Go on" }).click();
  await textLonger(page, 30);
  await page.close();
  window.close();
});

test("each window has a process of its own, which ends with it", async () => {
  const first = await newWindow();
  await openTale(first.page);
  const firstProcess = newest();
  const second = await newWindow();
  await openTale(second.page);
  const secondProcess = newest();
  await loadWith(second.page, "15MB");
  const ended = once(firstProcess, "exit", inTime());
  await first.page.close();
  first.window.close();
  await ended;
  await second.page.getByRole("button", { name: "Go on" }).click();
  await textLonger(second.page, 30);
  // Loaded anew, the page has nothing; what it had has ended.
  const gone = once(secondProcess, "exit", inTime());
  await second.page.reload();
  assert.deepEqual(await gone, [0]);
  await openTale(second.page);
  assert.ok(await second.page.getByRole("alert").isHidden());
  await second.page.close();
  second.window.close();
});
