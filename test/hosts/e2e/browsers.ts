// Chromium and Firefox behind one face: tabs that visit a page and run the steps of visitor.ts there.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";
import { installed } from "../child";
import { CannotRun } from "../host";
import type { Steps } from "./visitor";

export interface Tab {
  goto(address: string): Promise<void>;
  /** Runs a step; rejects with an Error whose message is "code: words". */
  visit<Name extends keyof Steps>(
    name: Name,
    ...args: Parameters<Steps[Name]>
  ): Promise<Awaited<ReturnType<Steps[Name]>>>;
  close(): Promise<void>;
}

export interface Browser {
  readonly version: string;
  tab(): Promise<Tab>;
  close(): Promise<void>;
}

/** What both drivers' pages have. */
interface DrivenPage {
  goto(address: string): Promise<unknown>;
  evaluate(work: string): Promise<unknown>;
  close(): Promise<void>;
}

/** Nothing goes out to the network. */
export const CHROMIUM_ARGUMENTS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const READY_MS = 20_000;

/** A GPU that the CPU plays, for Chromium without a window. */
export const CHROMIUM_GPU = ["--enable-unsafe-webgpu"];

export interface Kind {
  /** Why it cannot be launched here, or false. */
  missing(): string | false;
  /** more: arguments of the command line, for Chromium. */
  launch(more?: readonly string[]): Promise<Browser>;
}

const CHROMIUM = ["chromium", "chromium-browser", "google-chrome"];
const FIREFOX = ["firefox-esr", "firefox"];

/** The path of Chromium; throws CannotRun where there is none. */
export const chromiumPath = () => installed(...CHROMIUM);

export const BROWSERS: Readonly<Record<string, Kind>> = {
  Chromium: {
    missing: () => missing(CHROMIUM),
    async launch(more = []) {
      const folder = mkdtempSync(join(tmpdir(), "snug-chromium-"));
      const options = { executablePath: chromiumPath(), args: [...CHROMIUM_ARGUMENTS, ...more] };
      const context = await chromium.launchPersistentContext(folder, options);
      return {
        version: context.browser()?.version() ?? "",
        tab: async () => tabOf(await context.newPage()),
        async close() {
          await context.close();
          rmSync(folder, { recursive: true, force: true });
        },
      };
    },
  },
  Firefox: {
    missing: () => missing(FIREFOX),
    async launch() {
      const options = { browser: "firefox", executablePath: installed(...FIREFOX), headless: true } as const;
      const browser = await puppeteer.launch(options);
      return {
        version: await browser.version(),
        tab: async () => tabOf(await browser.newPage()),
        close: () => browser.close(),
      };
    },
  },
};

/** Why none of these programs can be started, or false. Where nothing may be skipped, that is an error. */
export function missing(names: readonly string[]): string | false {
  try {
    installed(...names);
    return false;
  } catch (error) {
    if (!(error instanceof CannotRun) || process.env.SNUG_REQUIRE_ALL) throw error;
    return error.message;
  }
}

export function tabOf(page: DrivenPage): Tab {
  return {
    async goto(address) {
      await page.goto(address);
      const end = Date.now() + READY_MS;
      while (!(await page.evaluate("'visit' in window"))) {
        if (Date.now() > end) throw new Error(`the page at ${address} has no visitor`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async visit(name, ...args) {
      const answer = await page.evaluate(`window.visit(${JSON.stringify(name)}, ${JSON.stringify(args)})`);
      const { value, code, message } = answer as { value?: never; code: string; message: string };
      if (message !== undefined) throw new Error(`${code}: ${message}`);
      return value as never;
    },
    close: () => page.close(),
  };
}
