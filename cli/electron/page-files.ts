// The page's files, under a scheme of their own: unlike file://, it reaches nothing else on the disk, and it is an origin.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

export const SCHEME = "snug-app";
export const PAGE = `${SCHEME}://page/index.html`;

const TYPES: Readonly<Record<string, string>> = {
  "index.html": "text/html; charset=utf-8",
  "page.css": "text/css; charset=utf-8",
  "page.js": "text/javascript; charset=utf-8",
};
/** The page runs no WebAssembly, and reaches for nothing: all that it needs comes through the port. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Answers a request for one of the page's files, which are in `folder`. */
export async function pageFile(address: string, folder: string): Promise<Response> {
  const name = new URL(address).pathname.slice(1);
  const type = Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
  if (type === undefined) return new Response(null, { status: 404 });
  const headers = { "Content-Type": type, "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff" };
  return new Response(await readFile(join(folder, name)), { headers });
}
