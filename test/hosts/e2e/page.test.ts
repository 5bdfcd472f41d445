// The demo page, as somebody with a phone meets it: choosing, fitting, loading, talking, coming back without a network.
// Pictures of what was seen lie in the build folder, for people.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { buildPage } from "../../../cli/web/build";
import { serveFolders } from "../../../cli/web/server";
import { BROWSERS, CHROMIUM_ARGUMENTS, CHROMIUM_GPU, chromiumPath } from "./browsers";

const PHONE = { width: 390, height: 844 };
/** A GPU that the CPU plays takes its time to compile kernels. */
const GPU_MS = 240_000;
const DESKTOP = { width: 1280, height: 800 };
const pictures = join(dirname(fileURLToPath(import.meta.url)), "pictures");

describe("the page, in Chromium", { skip: BROWSERS.Chromium?.missing() ?? false }, () => {
  let folder: string;
  let server: Server;
  let address: string;
  let context: BrowserContext;
  let page: Page;
  const complaints: string[] = [];

  before(async () => {
    mkdirSync(pictures, { recursive: true });
    folder = mkdtempSync(join(tmpdir(), "snug-page-"));
    await buildPage(join(folder, "site"));
    const folders = [
      { path: "/packs/", folder: resolve("packs") },
      { path: "/", folder: join(folder, "site") },
    ];
    server = await serveFolders(folders, { port: 0 });
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  });
  after(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const visit = async (more: readonly string[] = []) => {
    const executablePath = chromiumPath();
    const profile = mkdtempSync(join(folder, "profile-"));
    const phone = { viewport: PHONE, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
    const args = [...CHROMIUM_ARGUMENTS, ...more];
    context = await chromium.launchPersistentContext(profile, { executablePath, args, ...phone });
    page = await context.newPage();
    complaints.length = 0;
    page.on("pageerror", ({ message }) => complaints.push(message));
    page.on("console", (message) => {
      if (message.type() === "error") complaints.push(message.text());
    });
    await page.goto(address);
  };
  beforeEach(() => visit());
  afterEach(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });

  const picture = (name: string) => page.screenshot({ path: join(pictures, `${name}.png`) });
  const text = async (selector: string) => (await page.textContent(selector)) ?? "";
  const phase = (name: string, timeout = 30_000) => page.waitForSelector(`body[data-phase=${name}]`, { timeout });
  const overflow = () => page.evaluate("document.documentElement.scrollWidth - innerWidth");

  async function load(memory?: string): Promise<void> {
    await page.click("#packs button.pack");
    await phase("fitting");
    if (memory !== undefined) {
      await page.fill("#memory", memory);
      await page.press("#memory", "Enter");
    }
    await page.waitForSelector("#fit[data-plan=shown]");
    await page.click("#load");
    await phase("ready");
  }

  async function say(words: string): Promise<string> {
    await page.fill("#prompt", words);
    await page.press("#prompt", "Enter");
    await page.waitForSelector("#send[data-action=send]");
    return text("article.assistant >> nth=-1");
  }

  test("a first visit on a phone: from the pack to an answer", async () => {
    await picture("1-choosing");
    assert.equal(await overflow(), 0);
    await page.click("#packs button.pack");
    await phase("fitting");
    await page.waitForSelector("#fit[data-plan=shown]");
    assert.match(await text("#spare"), /memory/);
    assert.equal(await page.isVisible("#device"), false, "there is no GPU to choose");
    await picture("2-fitting");
    const whole = await page.locator("#network").getAttribute("aria-label");
    await page.fill("#memory", "16MB");
    await page.press("#memory", "Enter");
    const isSmaller = (before: string | null) =>
      document.querySelector("#network")?.getAttribute("aria-label") !== before;
    await page.waitForFunction(isSmaller, whole);
    await picture("3-smaller");
    assert.match(await text("#cut"), /\d.*%/);
    assert.equal(await overflow(), 0);
    await page.click("#load");
    await phase("ready");
    const answer = await say("Tell me about a king");
    assert.ok(answer.length > 40, answer);
    assert.match(await text("#speed"), /[\d,]+ tokens, [\d,]+ a second/);
    await picture("4-talking");
    assert.equal(await overflow(), 0);
  });

  test("an answer can be stopped, and the chat goes on", async () => {
    await load();
    await page.click("text=Options");
    await page.fill("#max-tokens", "400");
    await page.fill("#prompt", "Tell me a long story");
    // Faster than a driver's click: an answer takes less than half a second.
    await page.evaluate(() => {
      new MutationObserver((_, observer) => {
        const button = document.querySelector<HTMLButtonElement>("#send[data-action=stop]");
        if ((document.querySelector("article.assistant")?.textContent ?? "").length < 40 || button === null) return;
        observer.disconnect();
        button.click();
      }).observe(document.body, { childList: true, subtree: true, characterData: true });
    });
    await page.press("#prompt", "Enter");
    await page.waitForSelector("article.assistant");
    await page.waitForSelector("#send[data-action=send]");
    const answer = () => text("article.assistant >> nth=-1");
    const stopped = await answer();
    assert.ok(stopped.length > 0 && stopped.length < 1000, `${stopped.length} characters: it was not stopped`);
    await page.waitForTimeout(300);
    assert.equal(await answer(), stopped);
    assert.ok((await say("And then?")).length > 0);
  });

  test("a budget that is too small is refused with a sentence", async () => {
    await page.click("#packs button.pack");
    await phase("fitting");
    await page.fill("#memory", "5MB");
    await page.press("#memory", "Enter");
    await page.waitForSelector("#fit-error:not(:empty)");
    assert.match(await text("#fit-error"), /MB/);
    await picture("5-too-small");
  });

  test("the next visit works without a network, down to the answer", async () => {
    await load();
    await page.evaluate("navigator.serviceWorker.ready.then(() => true)");
    await page.reload();
    await context.setOffline(true);
    await page.reload();
    await page.waitForSelector("#packs button.pack");
    assert.equal(await page.evaluate("crossOriginIsolated"), true);
    await load();
    assert.ok((await say("Who are you?")).length > 0);
    await picture("6-offline");
    complaints.splice(
      0,
      complaints.length,
      ...complaints.filter((text) => !text.includes("ERR_INTERNET_DISCONNECTED")),
    );
  });

  test("with a GPU there is a choice, and the page says what came of it", async () => {
    await context.close();
    await visit(CHROMIUM_GPU);
    await page.click("#packs button.pack");
    await phase("fitting");
    await page.waitForSelector("#device:visible");
    assert.equal(await page.inputValue("#device"), "cpu", "the CPU plays this GPU");
    assert.match(await text("#runs-on"), /thread/);
    await page.selectOption("#device", "auto");
    await page.waitForFunction(() => document.querySelector("#runs-on")?.textContent?.includes("both are timed"));
    await picture("8-devices");
    assert.equal(await overflow(), 0);
    await page.setViewportSize(DESKTOP);
    await page.focus("#device");
    await page.keyboard.press("ArrowUp");
    assert.equal(await page.inputValue("#device"), "gpu");
    await page.waitForFunction(() => document.querySelector("#runs-on")?.textContent?.startsWith("Runs on the GPU"));
    await page.keyboard.press("ArrowDown");
    await page.waitForSelector("#load:enabled");
    await page.click("#load");
    await phase("ready");
    assert.match(await text("#runs-on"), /The GPU is not used: The only GPU here is one that the CPU plays\.$/);
    assert.ok((await say("Hello")).length > 0);
    await page.locator("#grounds").scrollIntoViewIfNeeded();
    await picture("9-chosen");
    assert.equal(await overflow(), 0);
  });

  test("a GPU that was asked for runs the model", async () => {
    await context.close();
    await visit(CHROMIUM_GPU);
    await page.click("#packs button.pack");
    await phase("fitting");
    await page.waitForSelector("#device:visible");
    await page.selectOption("#device", "gpu");
    await page.fill("#memory", "32MB");
    await page.press("#memory", "Enter");
    await page.waitForFunction(() => document.querySelector("#runs-on")?.textContent?.startsWith("Runs on the GPU"));
    await page.waitForSelector("#fit[data-plan=shown]");
    await page.click("#load");
    await phase("ready", GPU_MS);
    assert.match(await text("#runs-on"), /^Runs on the GPU/);
    await page.click("text=Options");
    await page.fill("#max-tokens", "8");
    assert.ok((await say("Hello")).length > 0);
    assert.match(await text("#speed"), /[\d,]+ tokens, [\d.,]+ a second/);
    await picture("10-on-the-gpu");
  });

  test("on a desktop, in the dark, with the keyboard alone", async () => {
    await page.setViewportSize(DESKTOP);
    await page.emulateMedia({ colorScheme: "dark" });
    await page.focus("#packs button.pack");
    await page.keyboard.press("Enter");
    await phase("fitting");
    await page.waitForSelector("#fit[data-plan=shown]");
    await page.focus("#slider");
    await page.keyboard.press("Home");
    await page.waitForSelector("#fit[data-plan=shown]");
    assert.match((await page.locator("#slider").getAttribute("aria-valuetext")) ?? "", /MB/);
    await page.focus("#load");
    await page.keyboard.press("Enter");
    await phase("ready");
    await page.focus("#prompt");
    await page.keyboard.type("Hello");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#send[data-action=send]");
    await picture("7-desktop");
    assert.equal(await overflow(), 0);
  });
});
