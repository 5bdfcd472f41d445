// What a page downloads of the product itself, bounded by a number in package.json.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

test("a page downloads little", () => {
  const { sizeLimits } = JSON.parse(readFileSync("package.json", "utf8")) as {
    sizeLimits: { browserGzipBytes: number };
  };
  const files = ["browser.js", "browser-worker.js", "browser-thread.js", "core.relaxed.threads.wasm"];
  const sizes = files.map((file) => gzipSync(readFileSync(`dist/${file}`), { level: 9 }).length);
  const sum = sizes.reduce((total, size) => total + size, 0);
  console.log(`${files.map((file, i) => `${file} ${sizes[i]}`).join(", ")}: ${sum} bytes in gzip`);
  assert.ok(sum <= sizeLimits.browserGzipBytes, `${sum} bytes, package.json allows ${sizeLimits.browserGzipBytes}`);
});
