// Saved sessions on a page, in real browsers: kept on the device, and taken up again at the next visit.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PackServer } from "../../pack-server";
import { BROWSERS, type Browser, type Tab } from "./browsers";
import { site } from "./site";

const bundles = dirname(fileURLToPath(import.meta.url));
const demo = new Uint8Array(readFileSync("packs/demo/tale.snug"));
const SMALL = { memory: "15MB", context: 256, threads: 1 };
const NAME = "a fox \u{1f98a}/../";

for (const [name, { missing, launch }] of Object.entries(BROWSERS))
  describe(name, { skip: missing() }, () => {
    let browser: Browser;
    let tab: Tab;
    let server: PackServer;
    let pack: string;
    before(async () => {
      browser = await launch();
      server = new PackServer(demo, site(resolve("dist"), bundles, false));
      pack = await server.start();
      tab = await browser.tab();
      await tab.goto(new URL("/", pack).href);
    });
    after(async () => {
      await browser?.close();
      server?.stop();
    });

    test("kept at one visit, taken up at the next, and forgotten", async () => {
      const { branch, next } = await tab.visit("converse", pack, SMALL, NAME);
      assert.equal(next.length, 8);
      assert.deepEqual(branch, next);
      const [kept, ...others] = await tab.visit("storedSessions");
      assert.deepEqual([kept?.name, others], [NAME, []]);
      assert.ok(kept !== undefined && kept.bytes > 1000);
      assert.equal((await tab.visit("stored")).length, 1, "a session is no pack");
      await tab.goto(new URL("/", pack).href);
      assert.deepEqual(await tab.visit("takeUp", pack, SMALL, NAME), next);
      await assert.rejects(
        tab.visit("takeUp", pack, { ...SMALL, memory: "17MB" }, NAME),
        /^Error: usage: .*another cut/,
      );
      await assert.rejects(tab.visit("takeUp", pack, SMALL, "none"), /^Error: source: no session is kept/);
      await tab.visit("forgetSession", NAME);
      assert.deepEqual(await tab.visit("storedSessions"), []);
      assert.deepEqual((await tab.visit("about")).violations, []);
    });
  });
