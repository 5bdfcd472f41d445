// A model on a GPU of a page, in Chromium, whose GPU is played by the CPU here: the same tokens, from the network and from
// what is kept, and when kernels are there while the bytes still come. The times that are printed compare with each other only.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { after, afterEach, beforeEach, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PackServer } from "../../pack-server";
import { DEMO, Expected, WHOLE } from "../expected";
import { BROWSERS, type Browser, CHROMIUM_GPU, type Kind, type Tab } from "./browsers";
import { site } from "./site";
import type { Timed } from "./visitor";

const bundles = dirname(fileURLToPath(import.meta.url));
const dist = resolve("dist");
const demo = new Uint8Array(readFileSync(DEMO));
/** Of the server, between pieces of 16 KB: about 10 MB a second. */
const DELAY_MS = 1;

const chromium = BROWSERS.Chromium as Kind;
const expected = await Expected.of(dist);

describe("a GPU of a page, in Chromium", { skip: chromium.missing() }, () => {
  let browser: Browser;
  let tab: Tab;
  let server: PackServer;
  let address: string;
  const asked: string[] = [];

  /** A page that was not open before, of the same profile. */
  const newPage = async () => {
    tab = await browser.tab();
    await tab.goto(new URL("/", address).href);
  };
  beforeEach(async () => {
    const page = site(dist, bundles, true);
    server = new PackServer(demo, (request, response) => {
      asked.push(request.url ?? "");
      page(request, response);
    });
    server.behaviour = { delay: DELAY_MS };
    address = await server.start();
    asked.length = 0;
  });
  afterEach(async () => {
    const { violations } = await tab.visit("about");
    await browser.close();
    server.stop();
    assert.deepEqual(violations, [], "the content security policy was broken");
  });
  after(() => expected.close());

  /** Sums up what was measured, for people. */
  const say = (what: string, { read, loaded, firstText, pipelines, pipelinesAsked }: Timed) => {
    const kernels =
      pipelines.length === 0
        ? ""
        : `; ${pipelines.length} kernels from ${pipelinesAsked} to ${Math.max(...pipelines)} ms, ${pipelines.filter((at) => at < read).length} of them before the last byte`;
    console.log(`${what}: last byte ${read} ms, loaded ${loaded} ms, first text ${firstText} ms${kernels}`);
  };

  describe("with a GPU", () => {
    beforeEach(async () => {
      browser = await chromium.launch(CHROMIUM_GPU);
      await newPage();
    });

    test("says what the CPU says, from the network and from what is kept; kernels are compiled meanwhile", async () => {
      const cold = await tab.visit("time", address, "gpu", WHOLE);
      say("GPU, first visit", cold);
      assert.ok(cold.plan.deviceBytes > 0 && cold.dispatches > 0);
      assert.equal(cold.plan.options.device, "gpu");
      await expected.assertSame(cold.tokens);
      assert.equal(cold.downloadedBytes, cold.plan.readBytes);
      assert.ok(cold.pipelinesAsked < cold.read / 2, "kernels were asked for late");
      assert.ok(
        cold.pipelines.some((at) => at < cold.read),
        "no kernel was there before the last byte",
      );

      await newPage();
      const warm = await tab.visit("time", address, "gpu", WHOLE);
      say("GPU, next visit", warm);
      assert.ok(warm.plan.deviceBytes > 0 && warm.dispatches > 0);
      assert.equal(warm.downloadedBytes, 0);
      assert.deepEqual(warm.tokens, cold.tokens);
      assert.equal(asked.filter((url) => url === "/dist/browser-gpu.js").length, 2);
    });

    test("the CPU beside it, for comparison", async () => {
      const cold = await tab.visit("time", address, "cpu", WHOLE);
      say("CPU, first visit", cold);
      await newPage();
      const warm = await tab.visit("time", address, "cpu", WHOLE);
      say("CPU, next visit", warm);
      for (const { tokens, dispatches, plan } of [cold, warm]) {
        assert.deepEqual(tokens, expected.tokens);
        assert.equal(plan.deviceBytes, 0);
        assert.equal(dispatches, 0);
      }
      assert.ok(!asked.includes("/dist/browser-gpu.js"), "the GPU's part was fetched for nothing");
    });
  });

  test("auto without a GPU is the CPU, and says why; asking for one is refused with a sentence", async () => {
    browser = await chromium.launch();
    await newPage();
    const { tokens, plan, choice } = await tab.visit("time", address, "auto", WHOLE);
    assert.deepEqual(tokens, expected.tokens);
    assert.equal(plan.deviceBytes, 0);
    assert.equal(choice?.device, "cpu");
    assert.match(choice?.reason ?? "", /GPU/);
    await assert.rejects(tab.visit("time", address, "gpu", WHOLE), /^Error: gpu: .*GPU/);
  });
});
