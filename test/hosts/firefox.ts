// Firefox, started as a person would: under a driver (WebDriver BiDi) a worker that starts another one now and then never
// comes back.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { browserHosts, type Settings, type Window } from "./browser";
import { endGroup, installed, output, start } from "./child";

/** Nothing opens beside the page, and nothing is sent anywhere. */
const PREFERENCES = {
  "browser.shell.checkDefaultBrowser": false,
  "browser.aboutwelcome.enabled": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "datareporting.policy.dataSubmissionEnabled": false,
  "toolkit.telemetry.enabled": false,
  "app.normandy.enabled": false,
  "services.settings.server": "data:,",
};
const ENDING_MILLISECONDS = 5000;

export const FIREFOX_HOSTS = browserHosts("Firefox", launch);

async function launch(_: Settings): Promise<Window> {
  const program = installed("firefox-esr", "firefox");
  const version = (await output([program, "--version"])).trim().replace("Mozilla ", "");
  const profile = mkdtempSync(join(tmpdir(), "snug-firefox-"));
  const remove = () => rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  process.once("exit", remove);
  const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
  writeFileSync(join(profile, "user.js"), lines.join(""));
  let end = async () => {};
  return {
    version,
    async visit(address) {
      const browser = start([program, "--headless", "--no-remote", "--profile", profile, address], { stdio: "ignore" });
      const ended = new Promise<void>((resolve) => browser.once("exit", () => resolve()));
      end = async () => {
        endGroup(browser);
        await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, ENDING_MILLISECONDS))]);
      };
      await ended;
      throw new Error("the browser ended");
    },
    async close() {
      await end();
      remove();
      process.off("exit", remove);
    },
  };
}
