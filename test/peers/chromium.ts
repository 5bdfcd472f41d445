// Contestants in pages of one headless Chromium, and the server that gives them their files.

import { existsSync } from "node:fs";
import { open } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname } from "node:path";
import { type Browser, type CDPSession, chromium } from "playwright-core";
import type { Call, Remote } from "./runner";

/** Which contestant a page becomes: see page.ts. */
export interface PageOptions {
  readonly contestant: "snug" | "wllama";
  readonly threads: number;
  /** Address of the model on the server. */
  readonly model: string;
  /** Of wllama: address of its folder, and its major version. */
  readonly library?: string;
  readonly major?: number;
}

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
// Headers that make a page "isolated": otherwise it may not share memory between threads.
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};
// Nothing goes out to the network, and a page that is not in front is not slowed down.
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
];
const CANDIDATES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export class Chromium {
  readonly version: string;
  readonly #browser: Browser;
  readonly #system: CDPSession;
  readonly #server: Server;

  private constructor(browser: Browser, system: CDPSession, server: Server) {
    this.#browser = browser;
    this.#system = system;
    this.#server = server;
    this.version = browser.version();
  }

  /** folders: what the server has, by the first part of an address. executable: default, the first that is installed. */
  static async launch(folders: Readonly<Record<string, string>>, executable?: string): Promise<Chromium> {
    const executablePath = executable ?? CANDIDATES.find((path) => existsSync(path));
    if (executablePath === undefined) throw new Error(`no Chromium in ${CANDIDATES.join(", ")}: give --chromium`);
    const browser = await chromium.launch({ executablePath, headless: true, args: ARGUMENTS });
    return new Chromium(browser, await browser.newBrowserCDPSession(), await serveFiles(folders));
  }

  /** Opens a page and makes it a contestant; rejects if it cannot be one. */
  async start(options: PageOptions): Promise<Remote> {
    const page = await this.#browser.newPage();
    const complaints: string[] = [];
    page.on("pageerror", ({ message }) => complaints.push(message));
    page.on("crash", () => complaints.push("the page crashed"));
    const { port } = this.#server.address() as AddressInfo;
    const attempt = async (call: Call) => {
      const busy = await this.#processorSeconds();
      const started = performance.now();
      const value = await page
        .evaluate(({ method, args }) => (window as unknown as PageWindow).contestant(method, args), call)
        .catch((error: Error) => {
          throw new Error([error.message, ...complaints].join("; "));
        });
      const wall = (performance.now() - started) / 1000;
      return { value, cores: ((await this.#processorSeconds()) - busy) / wall };
    };
    try {
      await page.goto(`http://127.0.0.1:${port}/bundles/page.html`);
      await page.waitForFunction(() => "contestant" in window);
      await attempt({ method: "start", args: [options] });
    } catch (error) {
      await page.close();
      throw error;
    }
    return { call: (method, ...args) => attempt({ method, args }), close: () => page.close() };
  }

  async close(): Promise<void> {
    await this.#browser.close();
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** Of all of the browser's processes, since they began. */
  async #processorSeconds(): Promise<number> {
    const { processInfo } = await this.#system.send("SystemInfo.getProcessInfo");
    return processInfo.reduce((sum, { cpuTime }) => sum + cpuTime, 0);
  }
}

export interface PageWindow {
  contestant(method: string, args: readonly unknown[]): Promise<unknown>;
}

async function serveFiles(folders: Readonly<Record<string, string>>): Promise<Server> {
  const server = createServer(async (request, response) => {
    const [, name = "", ...rest] = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname).split(
      "/",
    );
    const path = `${folders[name]}/${rest.join("/")}`;
    const file =
      folders[name] === undefined || rest.includes("..") ? undefined : await open(path).catch(() => undefined);
    if (file === undefined) return void response.writeHead(404, ISOLATED).end();
    const { size } = await file.stat();
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const [start, end] = range ? [Number(range[1]), Number(range[2])] : [0, size - 1];
    response.writeHead(range ? 206 : 200, {
      ...ISOLATED,
      "Content-Type": TYPES[extname(path)] ?? "application/octet-stream",
      "Content-Length": end - start + 1,
      ...(range ? { "Content-Range": `bytes ${start}-${end}/${size}` } : {}),
    });
    if (request.method !== "HEAD") return void file.createReadStream({ start, end }).pipe(response);
    response.end();
    await file.close();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}
