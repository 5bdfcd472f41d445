// Serves folders of static files on this machine: with ranges, for packs are fetched in parts, and with the headers
// that a page needs for threads and that keep foreign code out.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { extname, resolve, sep } from "node:path";
import { pipeline } from "node:stream/promises";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/** What a page of this project should be sent with, wherever it lies. A worker needs them as much as the page does. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy": [
    "default-src 'self'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "connect-src 'self' https: http:", // packs may lie anywhere
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'self'",
  ].join("; "),
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

export interface Folder {
  /** Begins and ends with a slash. The first folder whose path an address begins with has it. */
  readonly path: string;
  readonly folder: string;
}

export interface ServeOptions {
  /** 0: any that is free. */
  readonly port: number;
  /** Default: PAGE_HEADERS. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Starts a server on 127.0.0.1 alone. */
export function serveFolders(folders: readonly Folder[], options: ServeOptions): Promise<Server> {
  const headers = options.headers ?? PAGE_HEADERS;
  const server = createServer((request, response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    answer(folders, request, response).catch((error: NodeJS.ErrnoException) => {
      // Who has left wants no answer.
      if (response.headersSent) response.destroy();
      else refuse(response, error.code === "ENOENT" || error.code === "ENOTDIR" ? 404 : 500);
    });
  });
  return new Promise((listening, failed) => {
    server.once("error", failed);
    server.listen(options.port, "127.0.0.1", () => listening(server));
  });
}

async function answer(folders: readonly Folder[], request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("Allow", "GET, HEAD");
    return refuse(response, 405);
  }
  const file = fileOf(folders, request.url ?? "/");
  if (file === null) return refuse(response, 404);
  const stats = await stat(file);
  if (!stats.isFile()) return refuse(response, 404);

  const { size, mtimeMs } = stats;
  const etag = `"${size.toString(36)}-${Math.floor(mtimeMs).toString(36)}"`;
  response.setHeader("ETag", etag);
  response.setHeader("Cache-Control", "no-cache");
  response.setHeader("Accept-Ranges", "bytes");
  response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
  const { range, "if-range": ifRange, "if-none-match": known } = request.headers;
  if (known === etag) return refuse(response, 304);
  const wanted = range === undefined || (ifRange !== undefined && ifRange !== etag) ? "all" : rangeOf(range, size);
  if (wanted === "none") {
    response.setHeader("Content-Range", `bytes */${size}`);
    return refuse(response, 416);
  }
  const { start, end } = wanted === "all" ? { start: 0, end: size - 1 } : wanted;
  if (wanted !== "all") response.setHeader("Content-Range", `bytes ${start}-${end}/${size}`);
  response.setHeader("Content-Length", end - start + 1);
  response.writeHead(wanted === "all" ? 200 : 206);
  if (request.method === "HEAD" || size === 0) response.end();
  else await pipeline(createReadStream(file, { start, end }), response);
}

/** The file that an address means; null: none may be meant by it. */
function fileOf(folders: readonly Folder[], url: string): string | null {
  const [address = ""] = url.split(/[?#]/);
  let path: string;
  try {
    path = decodeURIComponent(address);
  } catch {
    return null;
  }
  if (!path.startsWith("/") || /[\0\\]|\/\./.test(path)) return null;
  const found = folders.find((folder) => path.startsWith(folder.path));
  if (found === undefined) return null;
  const root = resolve(found.folder);
  const file = resolve(root, path.slice(found.path.length) || "index.html");
  return file.startsWith(root + sep) ? file : null;
}

/** "all": several ranges, or something else that is no single one; "none": a range outside the file. */
export function rangeOf(range: string, size: number): { start: number; end: number } | "all" | "none" {
  const match = /^bytes=(\d*)-(\d*)$/.exec(range.trim());
  const [, first = "", last = ""] = match ?? [];
  if (match === null || (first === "" && last === "")) return "all";
  if (first === "") {
    const length = Math.min(Number(last), size);
    return length === 0 ? "none" : { start: size - length, end: size - 1 };
  }
  const start = Number(first);
  const end = last === "" ? size - 1 : Math.min(Number(last), size - 1);
  if (last !== "" && Number(last) < start) return "all";
  return start >= size ? "none" : { start, end };
}

function refuse(response: ServerResponse, status: number): void {
  if (status !== 304) response.setHeader("Content-Type", "text/plain; charset=utf-8");
  response.writeHead(status);
  response.end(status === 304 ? undefined : `${status}\n`);
}
