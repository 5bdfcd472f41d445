// Chromium, through Playwright.

import { chromium } from "playwright-core";
import { browserHosts, type Settings, type Window } from "./browser";
import { installed } from "./child";

const ARGUMENTS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
  ...["--disable-background-networking", "--disable-component-update"],
];

export const CHROMIUM_HOSTS = browserHosts("Chromium", launch);

async function launch(_: Settings): Promise<Window> {
  const executablePath = installed("chromium", "chromium-browser", "google-chrome");
  const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS });
  return {
    version: `Chromium ${browser.version()}`,
    async visit(address) {
      const page = await browser.newPage();
      const ended = new Promise<never>((_, reject) => {
        page.on("crash", () => reject(new Error("the page crashed")));
        page.on("pageerror", ({ message }) => reject(new Error(`the page failed: ${message}`)));
        browser.on("disconnected", () => reject(new Error("the browser ended")));
      });
      await Promise.race([page.goto(address), ended]);
      return ended;
    },
    close: () => browser.close(),
  };
}
