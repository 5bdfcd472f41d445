// The server of one browser: the page, the worker with the suite, and the fixtures; it is told what the suite logs and finds.

import { createReadStream, statSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import type { GpuReport } from "../../gpu-suite";
import { BUNDLES, fixturePath } from "./places";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".wasm": "application/wasm",
};
/** The page is isolated from others, so that fixtures may share memory between threads. */
const HEADERS = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const PAGE = '<!doctype html><html lang="en"><title>snug</title><script type="module" src="/page.js"></script></html>';

/** What the page sends in the end. */
export type Answer = { readonly report: GpuReport } | { readonly error: string };

/** What the page is asked for, in its address. */
type Query = Readonly<Record<"filter", string>> & Readonly<Partial<Record<"thorough", string>>>;

export class SuiteServer {
  /** Where the page is. */
  readonly address: string;
  /** What the suite found; rejects if it came to no end. */
  readonly report: Promise<GpuReport>;
  readonly #server: ReturnType<typeof createServer>;

  private constructor(server: ReturnType<typeof createServer>, query: Query, report: Promise<GpuReport>) {
    this.#server = server;
    this.report = report;
    const { port } = server.address() as AddressInfo;
    this.address = `http://127.0.0.1:${port}/?${new URLSearchParams(query)}`;
  }

  static async start(query: Query, log: (line: string) => void): Promise<SuiteServer> {
    let answer: (answer: Answer) => void = () => {};
    const answered = new Promise<Answer>((resolve) => {
      answer = resolve;
    });
    const serve = async (request: IncomingMessage, response: ServerResponse) => {
      const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname);
      for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
      if (path === "/") response.setHeader("Content-Type", TYPES[".html"] as string).end(PAGE);
      else if (path === "/alive") response.once("close", () => answer({ error: "the page has crashed" }));
      else if (path === "/log") log(await receive(request, response));
      else if (path === "/answer") answer(JSON.parse(await receive(request, response)) as Answer);
      else if (path.startsWith("/fixtures/")) sendFile(fixturePath(path.slice("/fixtures/".length)), response);
      else if (/^\/\w+\.js$/.test(path)) sendFile(join(BUNDLES, path), response);
      else response.writeHead(404).end();
    };
    const server = createServer((request, response) => {
      serve(request, response).catch((error: Error) => response.writeHead(400).end(error.message));
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const report = answered.then((given) => {
      if ("error" in given) throw new Error(given.error);
      return given.report;
    });
    report.catch(() => {}); // whoever waits for it is told
    return new SuiteServer(server, query, report);
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

function sendFile(path: string, response: ServerResponse): void {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) return void response.writeHead(404).end();
  const type = TYPES[extname(path)] ?? "application/octet-stream";
  response.writeHead(200, { "Content-Type": type, "Content-Length": size });
  createReadStream(path)
    .on("error", () => response.destroy())
    .pipe(response);
}

async function receive(request: IncomingMessage, response: ServerResponse): Promise<string> {
  let text = "";
  for await (const piece of request.setEncoding("utf8")) text += piece;
  response.end();
  return text;
}
