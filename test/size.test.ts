// What a page downloads of the product itself, bounded by numbers in package.json.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const { sizeLimits } = JSON.parse(readFileSync("package.json", "utf8")) as {
  sizeLimits: { browserGzipBytes: number; browserGpuGzipBytes: number };
};

function assertSmall(files: readonly string[], limit: number): void {
  const sizes = files.map((file) => gzipSync(readFileSync(`dist/${file}`), { level: 9 }).length);
  const sum = sizes.reduce((total, size) => total + size, 0);
  console.log(`${files.map((file, i) => `${file} ${sizes[i]}`).join(", ")}: ${sum} bytes in gzip`);
  assert.ok(sum <= limit, `${sum} bytes, package.json allows ${limit}`);
}

test("a page downloads little", () => {
  const files = ["browser.js", "browser-worker.js", "browser-thread.js", "core.relaxed.threads.wasm"];
  assertSmall(files, sizeLimits.browserGzipBytes);
});

test("a page that asks for a GPU downloads one file more", () => {
  assertSmall(["browser-gpu.js"], sizeLimits.browserGpuGzipBytes);
  // It stands alone, and nothing of it is a part of the rest.
  assert.doesNotMatch(readFileSync("dist/browser-gpu.js", "utf8"), /\bfrom\s*"|\bimport\(/);
  assert.match(readFileSync("dist/browser-gpu.js", "utf8"), /@workgroup_size/);
  assert.doesNotMatch(readFileSync("dist/browser-worker.js", "utf8"), /@workgroup_size/);
});
