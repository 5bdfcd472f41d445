// The import arrows: who may import whom, and what may not appear where. Also what core.wasm asks of a host.

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";

const FOLDERS = ["assembly", "cli", "gpu", "packs", "runtime", "test"];

interface Rule {
  /** Files that the rule is for. */
  files: RegExp;
  /** What they may import, as a path from the root without its ending, or a package's name. */
  allowed: (target: string, file: string) => boolean;
}

const inside = (folder: string) => (target: string) => target.startsWith(`${folder}/`);
const oneOf =
  (...names: string[]) =>
  (target: string) =>
    names.includes(target);
const builtin = (target: string) => target.startsWith("node:");
const either =
  (...checks: Rule["allowed"][]): Rule["allowed"] =>
  (target, file) =>
    checks.some((check) => check(target, file));

const RULES: Rule[] = [
  { files: /^packs\/format\.ts$/, allowed: () => false },
  { files: /^assembly\/abi\.ts$/, allowed: () => false },
  { files: /^assembly\//, allowed: either(inside("assembly"), oneOf("packs/format")) },
  { files: /^packs\//, allowed: either(inside("packs"), oneOf("runtime/index", "runtime/node-assets"), builtin) },
  { files: /^runtime\/node-gpu\.ts$/, allowed: either(inside("runtime"), oneOf("webgpu"), builtin) },
  {
    files: /^runtime\/node[\w-]*\.ts$/,
    allowed: either(inside("runtime"), oneOf("assembly/abi", "packs/format"), builtin),
  },
  {
    files: /^runtime\/chat\.ts$/,
    allowed: either(inside("runtime"), oneOf("assembly/abi", "packs/format", "@huggingface/jinja")),
  },
  {
    files: /^runtime\/(?:browser-)?gpu\.ts$/,
    allowed: either(inside("runtime"), oneOf("assembly/abi", "packs/format", "gpu/index")),
  },
  { files: /^runtime\//, allowed: either(inside("runtime"), oneOf("assembly/abi", "packs/format")) },
  {
    files: /^cli\/web\/(?:build|serve|server)\.ts$/,
    allowed: either(inside("cli/web"), oneOf("esbuild"), builtin),
  },
  { files: /^cli\/web\//, allowed: either(inside("cli/web"), oneOf("runtime/browser")) },
  {
    files: /^cli\/electron\//,
    allowed: either(inside("cli/electron"), oneOf("electron", "snug", "snug/browser"), builtin),
  },
  { files: /^cli\/binary\//, allowed: either(oneOf("cli/main", "runtime/node-turbo"), builtin) },
  {
    files: /^cli\//,
    allowed: either(inside("cli"), oneOf("runtime/index", "runtime/node-assets", "packs/index"), builtin),
  },
  { files: /^gpu\//, allowed: either(inside("gpu"), oneOf("assembly/abi", "packs/format")) },
  { files: /^test\//, allowed: () => true },
];

/** Where WebAssembly may be named. */
const WEBASSEMBLY = [
  ...["browser-host", "build", "core", "host", "node", "node-threads", "node-turbo", "thread"].map(
    (name) => `runtime/${name}.ts`,
  ),
  "packs/linalg.ts",
];
/** Browsers have these, and the core, the host and the packer may not count on them. */
const DOM =
  /\b(?:navigator|localStorage|sessionStorage|XMLHttpRequest|HTMLElement)\b|\b(?:window|document)\.(?:document|location|body|cookie|create|query|get|add)\w*/;
/** The parts of the page that touch it. The others are tested without a browser. */
const PAGE =
  /^cli\/electron\/(?:page|preload)\.ts$|^cli\/web\/(?:chat|elements|fit|gpu|loading|notice|packs|page|picture|service-worker)\.ts$/;
const VAGUE = /(?:^|[-./])(?:utils?|helpers?|common|managers?|misc)(?:[-./]|$)/i;

const files = FOLDERS.filter((folder) => existsSync(folder))
  .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => join(folder, name)))
  .filter((file) => file.endsWith(".ts") && !file.includes("node_modules"));

/** A file's text without comments. */
function codeOf(file: string): string {
  return readFileSync(file, "utf8").replace(/\/\*[\s\S]*?\*\/|(?<=^|[\s;{}(,])\/\/.*$/gm, "");
}

/** What a file imports: paths from the root without an ending, or names of packages. */
function importsOf(file: string): string[] {
  const found = codeOf(file).matchAll(
    /(?:^|[;\s])(?:import|export)\s[^;"'`]*?\bfrom\s*["']([^"']+)["']|(?:^|[;\s])import\s*["']([^"']+)["']|\bimport\s*\(\s*["']([^"']+)["']/g,
  );
  return [...found].map(([, from, bare, dynamic]) => {
    const target = from ?? bare ?? dynamic;
    return target.startsWith(".") ? normalize(join(dirname(file), target)).replace(/\.ts$/, "") : target;
  });
}

test("imports follow the arrows", () => {
  assert.ok(files.length > 50, `only ${files.length} files were found: run this from the repository's root`);
  let seen = 0;
  for (const file of files) {
    const rule = RULES.find((one) => one.files.test(file));
    assert.ok(rule, `${file}: no rule says what it may import`);
    for (const target of importsOf(file)) {
      seen++;
      assert.ok(rule.allowed(target, file), `${file} may not import ${target}`);
      assert.ok(!builtinModules.includes(target), `${file}: write node:${target}`);
    }
  }
  assert.ok(seen > 100, `only ${seen} imports were found`);
});

test("whoever loads a model sees that it gets everything back", () => {
  let seen = 0;
  for (const file of files.filter((name) => /^test\/[^/]*\.test\.ts$/.test(name))) {
    const loads = /(?<!Linalg|shards)\.load\(|\.rehearse\(|\bloadCut\(/.test(codeOf(file));
    if (loads) assert.match(codeOf(file), /^ *watchModels\(\);$/m, `${file} loads models and does not watch them`);
    if (loads) seen++;
  }
  assert.ok(seen > 15, `only ${seen} files load models`);
});

test("every line that imports is understood", () => {
  for (const file of files) {
    const lines = codeOf(file)
      .split("\n")
      .filter((line) => /^(?:import|export)\b.*\bfrom\s*["']|^\} from\s*["']|^import\s*["']/.test(line.trim()));
    assert.ok(importsOf(file).length >= lines.length, `${file}: ${lines.length} lines import, ${importsOf(file)}`);
  }
});

test("what a GPU needs comes when one is asked for", () => {
  let dynamic = 0;
  for (const file of files.filter((name) => name.startsWith("runtime/"))) {
    const code = codeOf(file);
    for (const [statement] of code.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s*"(?:\.\.\/gpu\/[^"]*|webgpu)"/gm))
      assert.match(statement, /^import type\b/, `${file}: ${statement}`);
    dynamic += [...code.matchAll(/\bawait import\("\.\.\/gpu\/index"\)/g)].length;
  }
  assert.ok(dynamic > 0, "nobody asks for it");
});

test("WebAssembly is named where a module is compiled or held, and nowhere else", () => {
  for (const file of files) {
    if (file.startsWith("test/") || WEBASSEMBLY.includes(file)) continue;
    assert.ok(!/\bWebAssembly\b/.test(codeOf(file)), `${file} names WebAssembly`);
  }
});

test("names of browsers appear in no file that runs elsewhere too", () => {
  for (const file of files) {
    if (/^(?:gpu|test)\/|^runtime\/browser/.test(file) || PAGE.test(file)) continue;
    const found = DOM.exec(codeOf(file));
    assert.equal(found, null, `${file}: ${found?.[0]}`);
  }
});

test("files say what they hold", () => {
  for (const file of files) assert.ok(!VAGUE.test(file), `${file}: a name that could hold anything`);
});

test("files that two compilers read hold constants only", () => {
  for (const file of ["packs/format.ts", "assembly/abi.ts"]) {
    for (const line of codeOf(file).split("\n")) {
      const constant = /^export const [A-Z][A-Z0-9_]*: [iu]32 = (?:-?\d+|0x[0-9a-f]+);\s*$/;
      assert.ok(line.trim() === "" || constant.test(line), `${file}: ${line}`);
    }
  }
});

test("the core asks nothing of a host but memory", () => {
  const module = new WebAssembly.Module(readFileSync("dist/core.wasm"));
  assert.deepEqual(WebAssembly.Module.imports(module), [{ module: "env", name: "memory", kind: "memory" }]);
  const exported = WebAssembly.Module.exports(module);
  for (const { name, kind } of exported) assert.ok(kind === "function" || name === "memory", `${kind} ${name}`);
  if (exported.some(({ name }) => name === "_initialize"))
    assert.match(codeOf("runtime/core.ts"), /\._initialize\b/, "the core has a start function, and nobody calls it");

  // What core.ts says it calls is there.
  const declared = /interface CoreExports \{([\s\S]*?)\n\}/.exec(codeOf("runtime/core.ts"))?.[1] ?? "";
  const names = [...declared.matchAll(/^ {2}(\w+)\(/gm)].map(([, name]) => name);
  assert.ok(names.length > 20);
  const there = new Set(exported.map(({ name }) => name));
  for (const name of names)
    assert.ok(there.has(name), `runtime/core.ts calls ${name}, which core.wasm does not export`);
});
