// The package as people get it: packed, installed into an empty project, and the README's own examples run there, with
// types in both kinds of resolution.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

const MOST_MS = 300_000;
const root = resolve(".");
const run = (command: string, args: string[], options: { cwd: string }) =>
  promisify(execFile)(command, args, { ...options, timeout: MOST_MS });
const npm = (...args: string[]) =>
  run("npm", [...args, "--no-audit", "--no-fund", "--loglevel=error"], { cwd: project });

let project: string;
let tarball: string;
before(async () => {
  project = mkdtempSync(join(tmpdir(), "snug-install-"));
  const { stdout } = await run("npm", ["pack", "--json", "--loglevel=error", "--pack-destination", project], {
    cwd: root,
  });
  const [{ filename }] = JSON.parse(stdout.slice(stdout.indexOf("["))) as [{ filename: string }];
  tarball = join(project, filename);
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "an-app", private: true, type: "module" }));
  await npm("install", "--offline", tarball);
});
after(() => rmSync(project, { recursive: true, force: true }));

/** The README's examples in this language, in order. */
function examples(language: string): string[] {
  const readme = readFileSync("README.md", "utf8");
  return [...readme.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, "g"))].map(
    ([, code]) => code as string,
  );
}

test("the package is small, and asks nothing of the network", () => {
  const { sizeLimits } = JSON.parse(readFileSync("package.json", "utf8")) as { sizeLimits: { packageBytes: number } };
  const { size } = statSync(tarball);
  console.log(`npm package: ${size} bytes`);
  assert.ok(size <= sizeLimits.packageBytes, `${size} bytes, package.json allows ${sizeLimits.packageBytes}`);
});

test("the command line runs", async () => {
  const { stdout } = await run(
    "npx",
    ["snug", "run", "demo", "Once upon a time", "--max-tokens", "20", "--context", "256", "--seed", "1"],
    {
      cwd: project,
    },
  );
  assert.ok(stdout.length > 30, stdout);
});

test("the README's example runs", async () => {
  const example = examples("ts").find((code) => code.includes('from "snug"'));
  assert.ok(example !== undefined);
  cpSync("packs/demo/tale.snug", join(project, "my.snug"));
  writeFileSync(join(project, "example.js"), example);
  const { stdout } = await run(process.execPath, ["example.js"], { cwd: project });
  assert.ok(stdout.split("\n").length > 1 && stdout.length > 50, stdout);
});

test("the README's examples have types", async () => {
  const code = examples("ts");
  assert.ok(code.length >= 2 && code.some((example) => example.includes("snug/browser")));
  for (const [i, example] of code.entries()) writeFileSync(join(project, `example-${i}.ts`), example);
  writeFileSync(join(project, "wrong.ts"), 'import { open } from "snug"; (await open("a")).plan({ memory: true });');
  cpSync(join(root, "node_modules/@types"), join(project, "node_modules/@types"), { recursive: true });
  cpSync(join(root, "node_modules/undici-types"), join(project, "node_modules/undici-types"), { recursive: true });
  const files = code.map((_, i) => `example-${i}.ts`);
  const tsc = (module: string, resolution: string, names: string[]) =>
    run(
      join(root, "node_modules/.bin/tsc"),
      ["--noEmit", "--strict", "--target", "es2022", "--module", module, "--moduleResolution", resolution].concat(
        ["--types", "node"],
        names,
      ),
      { cwd: project },
    );
  for (const [module, resolution] of [
    ["nodenext", "nodenext"],
    ["esnext", "bundler"],
  ] as const) {
    await tsc(module, resolution, files).catch((error: { stdout: string }) => assert.fail(error.stdout));
    await assert.rejects(tsc(module, resolution, ["wrong.ts"]));
  }
});
