// Hosts that run the suite in a dedicated worker of a page: browsers without a window, started as a person would.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { installed } from "../child";
import type { GpuHost } from "./host";
import { run } from "./process";
import { SuiteServer } from "./server";
import { lavapipe } from "./vulkan";

/** Nothing opens beside the page, and nothing is sent anywhere; WebGPU runs on a driver that the browser does not trust. */
const CHROMIUM_ARGUMENTS = [
  ...["--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync"],
  ...["--disable-background-networking", "--disable-component-update", "--enable-unsafe-webgpu"],
];
const FIREFOX_PREFERENCES = {
  "dom.webgpu.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
  "browser.shell.checkDefaultBrowser": false,
  "browser.aboutwelcome.enabled": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "datareporting.policy.dataSubmissionEnabled": false,
  "toolkit.telemetry.enabled": false,
  "app.normandy.enabled": false,
  "services.settings.server": "data:,",
};
/** What Chromium writes all the time where there is no desktop. */
const NOISE = /ERROR:dbus\//;

/** How a browser is started. */
interface Start {
  readonly command: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

export const BROWSER_HOSTS: readonly GpuHost[] = [
  browserHost("chromium", (profile) => ({
    command: [
      installed("chromium", "chromium-browser", "google-chrome"),
      ...CHROMIUM_ARGUMENTS,
      `--user-data-dir=${profile}`,
    ],
    env: {},
  })),
  browserHost("firefox", (profile) => {
    const preferences = Object.entries(FIREFOX_PREFERENCES);
    const settings = preferences.map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
    writeFileSync(join(profile, "user.js"), settings.join(""));
    const program = installed("firefox-esr", "firefox");
    return { command: [program, "--headless", "--no-remote", "--profile", profile], env: lavapipe() };
  }),
];

function browserHost(name: string, prepare: (profile: string) => Start): GpuHost {
  return {
    name,
    async run({ filter, thorough, log, signal }) {
      const profile = mkdtempSync(join(tmpdir(), `snug-gpu-${name}-`));
      const remove = () => rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
      process.once("exit", remove);
      const done = new AbortController();
      let browser: Promise<unknown> = Promise.resolve();
      try {
        const { command, env } = prepare(profile);
        const server = await SuiteServer.start({ filter, ...(thorough && { thorough: "yes" }) }, log);
        done.signal.addEventListener("abort", () => server.stop());
        const take = (line: string) => NOISE.test(line) || log(line);
        const either = AbortSignal.any([signal, done.signal]);
        browser = run([...command, server.address], { env, log: take, signal: either });
        return await Promise.race([server.report, browser.then(() => fail("the browser ended"))]);
      } finally {
        done.abort();
        await browser.catch(() => {});
        remove();
        process.off("exit", remove);
      }
    },
  };
}

function fail(message: string): never {
  throw new Error(message);
}
