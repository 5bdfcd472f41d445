// The server of the page, the bundles and the packs, for one browser: what it says is what a strict site would say.

import { createReadStream, statSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import type { Case, Result } from "./case";
import type { Places } from "./host";

export interface PageTask {
  readonly cases: readonly Case[];
  readonly threads: number;
}

export interface PageReport {
  readonly agent: string;
  readonly isolated: boolean;
  readonly simd: string;
  readonly results: readonly Result[];
}

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
// No eval, no blobs: compiled WebAssembly and the site's own files are all that snug needs.
const STRICT = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; img-src 'self'",
};
/** A page with these is isolated from others, and may share memory between threads. */
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export class PageServer {
  /** Where the page is. */
  readonly address: string;
  /** What the page found; rejects if it could not run the cases. */
  readonly report: Promise<PageReport>;
  readonly #server: ReturnType<typeof createServer>;
  #asked = "nothing";

  private constructor(server: ReturnType<typeof createServer>, report: Promise<PageReport>) {
    this.#server = server;
    this.report = report;
    this.address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/page.html`;
  }

  static async start(cases: readonly Case[], threads: number, isolated: boolean, places: Places): Promise<PageServer> {
    const packs = [...new Set(cases.map(({ pack }) => pack))];
    const address = (pack: string) => `/packs/${packs.indexOf(pack)}.snug`;
    const task: PageTask = { cases: cases.map((one) => ({ ...one, pack: address(one.pack) })), threads };
    const files = new Map(packs.map((pack) => [address(pack), pack]));
    for (const name of ["page.html", "page.js"]) files.set(`/${name}`, join(places.build, name));
    const headers = { ...STRICT, ...(isolated ? ISOLATED : {}) };
    const { promise, resolve, reject } = withResolvers<PageReport>();
    promise.catch(() => {}); // whoever waits for it is told
    const server = createServer((request, response) => {
      const { pathname } = new URL(request.url ?? "/", "http://localhost");
      if (pathname === "/report")
        return void receive(request, response).then(({ error, ...report }) => {
          if (error === undefined) resolve(report as PageReport);
          else reject(new Error(error));
        }, reject);
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      if (pathname === "/task.json") return void response.end(JSON.stringify(task));
      const bundle = /^\/dist\/([\w.-]+\.(?:js|wasm))$/.exec(pathname)?.[1];
      sendFile(bundle === undefined ? files.get(pathname) : join(places.dist, bundle), request, response);
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const started = new PageServer(server, promise);
    server.prependListener("request", ({ url = "/" }: IncomingMessage) => {
      started.#asked = url;
    });
    return started;
  }

  /** Path of the last request. */
  get asked(): string {
    return this.#asked;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

function sendFile(path: string | undefined, request: IncomingMessage, response: ServerResponse): void {
  const size = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false })?.size;
  if (path === undefined || size === undefined) return void response.writeHead(404).end();
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  const [start, end] = range ? [Number(range[1]), Math.min(Number(range[2]), size - 1)] : [0, size - 1];
  response.writeHead(range ? 206 : 200, {
    "Content-Type": TYPES[extname(path)] ?? "application/octet-stream",
    "Content-Length": end - start + 1,
    "Accept-Ranges": "bytes",
    ...(range ? { "Content-Range": `bytes ${start}-${end}/${size}` } : {}),
  });
  createReadStream(path, { start, end })
    .on("error", () => response.destroy())
    .pipe(response);
}

async function receive(request: IncomingMessage, response: ServerResponse): Promise<{ error?: string }> {
  let text = "";
  for await (const piece of request.setEncoding("utf8")) text += piece;
  response.end();
  return JSON.parse(text) as { error?: string };
}

function withResolvers<T>() {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}
