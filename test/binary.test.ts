// Where the product's files come from. An executable is pretended here: a dist/cli.js that believes it is one, with its
// files behind node:sea. test/hosts/binary.test.ts makes the real one.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { assetInside, assetPath, demoPack, readAsset } from "../runtime/node-assets";

const CLI = resolve("dist/cli.js");
const DEMO = resolve("packs/demo/tale.snug");
const RUN = ["--temperature", "0", "--max-tokens", "12", "--threads", "1", "--json"];

let folder = "";
/** What makes a process believe that it is an executable; it notes which files were asked for. */
let pretend = "";

before(() => {
  folder = mkdtempSync(join(tmpdir(), "snug-binary-"));
  pretend = join(folder, "pretend.cjs");
  const inside = {
    ...Object.fromEntries(readdirSync("dist", { encoding: "utf8" }).map((name) => [name, resolve("dist", name)])),
    [basename(DEMO)]: DEMO,
    "package.json": resolve("package.json"),
    "broken.snug": CLI,
  };
  const script = `
    const inside = ${JSON.stringify(inside)};
    const { appendFileSync, readFileSync } = require("node:fs");
    const sea = {
      isSea: () => true,
      getRawAsset(key) {
        if (!Object.hasOwn(inside, key)) throw new Error("no such asset");
        appendFileSync(process.env.ASKED, key + "\\n");
        return new Uint8Array(readFileSync(inside[key])).buffer;
      },
    };
    const known = process.getBuiltinModule;
    process.getBuiltinModule = (id) => (id === "node:sea" ? sea : known?.call(process, id));`;
  writeFileSync(pretend, script);
});

after(() => rmSync(folder, { recursive: true, force: true }));

test("outside an executable, files are beside the bundle", async () => {
  const here = fileURLToPath(new URL(".", import.meta.url));
  assert.equal(assetPath("core.wasm"), join(here, "core.wasm"));
  assert.equal(demoPack(), resolve(here, "../packs/demo/tale.snug"));
  assert.equal(assetInside(assetPath("core.wasm")), undefined);
  assert.equal(assetInside(join(process.execPath, "core.wasm")), undefined);
  assert.deepEqual(Buffer.from(await readAsset("core.wasm")), readFileSync("dist/core.wasm"));
  await assert.rejects(readAsset("core.nowhere.wasm"), { code: "ENOENT" });
});

test("run without a pack runs the demo pack, beside the bundle and inside an executable", async () => {
  const [given, beside, inside] = await Promise.all([
    snug("run", DEMO, "Once upon a time", ...RUN),
    snug("run", ...RUN),
    pretended("run", ...RUN),
  ]);
  assert.equal(given.code, 0, given.stderr);
  for (const ended of [beside, inside]) {
    assert.equal(ended.code, 0, ended.stderr);
    assert.match(ended.stderr, /No pack was given: .*demo pack/);
    assert.deepEqual(tokensOf(ended), tokensOf(given));
  }
  assert.deepEqual(beside.asked, []);
  assert.ok(inside.asked.includes("tale.snug") && inside.asked.some((name) => /^core.*\.wasm$/.test(name)));
});

test("inside an executable, its files have its path, and files elsewhere are files", async () => {
  const at = (name: string) => join(process.execPath, name);
  const [version, within, elsewhere, broken, absent] = await Promise.all([
    pretended("--version"),
    pretended("inspect", at("tale.snug"), "--json"),
    pretended("inspect", DEMO, "--json"),
    pretended("inspect", at("broken.snug")),
    pretended("inspect", at("absent.snug")),
  ]);
  assert.equal(version.stdout, `${JSON.parse(readFileSync("package.json", "utf8")).version}\n`);
  assert.deepEqual(version.asked, ["package.json"]);
  assert.ok(within.asked.includes("tale.snug"));
  assert.ok(!elsewhere.asked.includes("tale.snug"));
  assert.equal(JSON.parse(within.stdout).units, JSON.parse(elsewhere.stdout).units);
  for (const refused of [broken, absent]) {
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^snug: /);
    assert.doesNotMatch(refused.stderr, /something went wrong/);
  }
});

test("what makes executables is no part of the program", () => {
  const bundles = readdirSync("dist", { encoding: "utf8" }).filter((name) => name.endsWith(".js"));
  assert.ok(bundles.length > 5);
  for (const name of bundles) assert.doesNotMatch(readFileSync(join("dist", name), "utf8"), /postject|NODE_SEA_FUSE/);
});

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Files that were asked for inside the executable. */
  readonly asked: readonly string[];
}

let runs = 0;

function snug(...args: readonly string[]): Promise<Ended> {
  return start([CLI, ...args]);
}

function pretended(...args: readonly string[]): Promise<Ended> {
  return start(["--require", pretend, CLI, ...args]);
}

function start(args: readonly string[]): Promise<Ended> {
  const asked = join(folder, `asked-${runs++}`);
  writeFileSync(asked, "");
  return new Promise((done) => {
    const child = execFile(process.execPath, args, { env: { ...process.env, ASKED: asked } }, (_, stdout, stderr) =>
      done({ code: child.exitCode ?? -1, stdout, stderr, asked: readFileSync(asked, "utf8").split("\n").slice(0, -1) }),
    );
    child.stdin?.end();
  });
}

function tokensOf({ stdout }: Ended): number[] {
  return JSON.parse(stdout).tokens;
}
