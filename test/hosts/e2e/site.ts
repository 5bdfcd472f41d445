// A small site with snug on it, under the strictest policy that it promises to work with, and a pack server beside it.

import { readFileSync } from "node:fs";
import type { RequestListener } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".wasm": "application/wasm",
};
const PAGE =
  '<!doctype html><html lang="en"><title>snug</title><script type="module" src="/visitor.js"></script></html>';
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; img-src data:";

/** snug's worker, watched by gpu-probe.ts. */
const PROBED_WORKER = 'import "/gpu-probe.js"; import "/dist/browser-worker.js";';
const BUNDLES = ["/visitor.js", "/gpu-probe.js"];

/** Serves a page with visitor.ts, the product's bundles and its modules. isolated: may the page share memory? */
export function site(dist: string, bundles: string, isolated: boolean): RequestListener {
  return ({ url = "/" }, response) => {
    const path = normalize(new URL(url, "http://localhost").pathname);
    response.setHeader("Content-Security-Policy", POLICY);
    if (isolated) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    if (path === "/") {
      response.setHeader("Content-Type", TYPES[".html"] as string);
      return void response.end(PAGE);
    }
    if (path === "/probed-worker.js") {
      response.setHeader("Content-Type", TYPES[".js"] as string);
      return void response.end(PROBED_WORKER);
    }
    if (path === "/favicon.ico") return void response.writeHead(204).end();
    try {
      const body = readFileSync(
        BUNDLES.includes(path) ? join(bundles, path) : join(dist, path.replace(/^\/dist\//, "/")),
      );
      response.setHeader("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  };
}
