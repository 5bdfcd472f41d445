// The executable that npm run binary makes: made by the Node that runs this, then run in an empty folder with an empty
// environment, beside dist/cli.js. From the repository's root, after npm run build.

import assert from "node:assert/strict";
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { writeCheckpoint } from "../write-checkpoint";

const CLI = resolve("dist/cli.js");
const DEMO = resolve("packs/demo/tale.snug");
const GREEDY = ["--temperature", "0", "--max-tokens", "64", "--json"];
const MOST_BYTES = 180e6;
const SIGNAL_CODE = 130;

let scratch = "";
/** Where the executable is run: it stays empty. */
let empty = "";
let binary = "";

before(() => {
  scratch = mkdtempSync(join(tmpdir(), "snug-binary-"));
  empty = join(scratch, "empty");
  mkdirSync(empty);
  binary = join(scratch, `snug${process.platform === "win32" ? ".exe" : ""}`);
  execFileSync("npm", ["run", "--silent", "build:binary"], { stdio: ["ignore", "ignore", "inherit"] });
  const made = spawnSync(process.execPath, ["build/binary/build.cjs", binary], { encoding: "utf8" });
  assert.equal(made.status, 0, made.stderr);
  assert.match(made.stderr, /^binary: .*the demo pack inside$/m);
});

after(() => {
  assert.deepEqual(readdirSync(empty), []);
  rmSync(scratch, { recursive: true, force: true });
});

test("it is one file, larger than what is inside and not absurdly large", () => {
  const { size } = statSync(binary);
  assert.ok(size > statSync(DEMO).size && size < MOST_BYTES, `${size} bytes`);
});

test("version, help and wrong usage are those of the bundle", async () => {
  for (const args of [["--version"], ["--help"], ["run", "--help"], ["rnu"], ["plan", DEMO, "--memory", "12XB"]]) {
    const [own, bundle] = await Promise.all([snug(...args), bundled(...args)]);
    assert.deepEqual(own, bundle, args.join(" "));
  }
  assert.equal((await snug("rnu")).code, 2);
});

for (const threads of ["1", "2"]) {
  for (const memory of [[], ["--memory", "17MB", "--context", "512"]]) {
    test(`the same 64 tokens as the bundle: ${threads} threads, ${memory.join(" ") || "everything"}`, async () => {
      const args = [...memory, ...GREEDY, "--threads", threads, "--activations", "f32"];
      const [own, bundle] = [await snug("run", ...args), await bundled("run", DEMO, "Once upon a time", ...args)];
      assert.equal(own.code, 0, own.stderr);
      assert.match(own.stderr, /No pack was given/);
      const [ownFacts, facts] = [JSON.parse(own.stdout), JSON.parse(bundle.stdout)];
      assert.equal(facts.tokens.length, 64);
      assert.deepEqual(ownFacts.tokens, facts.tokens);
      assert.equal(ownFacts.text, facts.text);
      assert.equal(ownFacts.plan.threads, Number(threads));
      assert.equal(ownFacts.plan.keptUnits, facts.plan.keptUnits);
    });
  }
}

test("wider vectors where the bundle has them, and a sentence where it has not", async () => {
  const [own, bundle] = [await snug("inspect", DEMO, "--json"), await bundled("inspect", DEMO, "--json")];
  assert.deepEqual(JSON.parse(own.stdout), JSON.parse(bundle.stdout));
  const args = ["--turbo", ...GREEDY, "--threads", "1"];
  const [ownRun, bundleRun] = [await snug("run", ...args), await bundled("run", ...args)];
  assert.equal(ownRun.code, 0, ownRun.stderr);
  const leftOut = /--turbo is left out: .+/.exec(bundleRun.stderr)?.[0];
  assert.equal(/--turbo is left out: .+/.exec(ownRun.stderr)?.[0], leftOut);
  assert.deepEqual(JSON.parse(ownRun.stdout).tokens, JSON.parse(bundleRun.stdout).tokens);
});

test("a pack outside: plan, inspect, and what is wrong with one", async () => {
  const options = [DEMO, "--memory", "17MB", "--context", "512", "--json"];
  const [plan, same] = [await snug("plan", ...options), await bundled("plan", ...options)];
  assert.equal(plan.code, 0, plan.stderr);
  const facts = ({ stdout }: Ended) => ({ ...JSON.parse(stdout), expectedTokensPerSecond: null });
  assert.deepEqual(facts(plan), facts(same));

  const broken = join(scratch, "broken.snug");
  copyFileSync(CLI, broken);
  for (const [file, said] of [
    [broken, "broken.snug"],
    [join(scratch, "absent.snug"), "there is no such file"],
    [join(binary, "absent.snug"), "cannot read"],
  ] as const) {
    const { code, stdout, stderr } = await snug("run", file, "x");
    assert.equal(code, 1, stderr);
    assert.equal(stdout, "");
    assert.ok(stderr.includes(said), stderr);
    assert.doesNotMatch(stderr, /something went wrong|^\s+at /m);
  }
});

test("the demo pack inside has a path", async () => {
  const [inside, outside] = [await snug("inspect", join(binary, "tale.snug")), await snug("inspect", DEMO)];
  assert.equal(inside.code, 0, inside.stderr);
  assert.equal(inside.stdout.replaceAll(join(binary, "tale.snug"), DEMO), outside.stdout);
});

test("pack makes the same pack as the bundle", async () => {
  const checkpoint = join(scratch, "checkpoint");
  writeCheckpoint(checkpoint);
  const made: Buffer[] = [];
  for (const run of [snug, bundled]) {
    const output = join(scratch, `packed-${made.length}.snug`);
    const { code, stderr } = await run("pack", checkpoint, "-o", output, "--threads", "2");
    assert.equal(code, 0, stderr);
    made.push(readFileSync(output));
  }
  assert.ok(made[0]?.equals(made[1] as Buffer));
});

test("bench makes a model, measures it and leaves nothing", async () => {
  const shape = "qwen2.5-0.5b:num_hidden_layers=1";
  const sizes = ["--vocabulary", "256", "--pp", "8", "--tg", "2", "--repetitions", "1", "--json"];
  const { code, stdout, stderr } = await snug("bench", "--shape", shape, ...sizes);
  assert.equal(code, 0, stderr);
  assert.ok(JSON.parse(stdout));
});

test("Ctrl-C ends it with 130", { skip: process.platform === "win32" }, async () => {
  const child = execFile(binary, ["run", "--memory", "1GB", "--max-tokens", "2000"], { cwd: empty, env: {} });
  child.stdin?.end();
  child.stdout?.once("data", () => child.kill("SIGINT"));
  const code = await new Promise((done) => child.once("exit", done));
  assert.equal(code, SIGNAL_CODE);
});

test("a build that cannot be made says why", () => {
  const elsewhere = join(scratch, "elsewhere");
  mkdirSync(elsewhere);
  const { status, stderr } = spawnSync(process.execPath, [resolve("build/binary/build.cjs")], {
    cwd: elsewhere,
    encoding: "utf8",
  });
  assert.equal(status, 1);
  assert.match(stderr, /^binary: there is no .*npm run binary builds/);
  assert.doesNotMatch(stderr, /^\s+at /m);
});

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The executable, where there is nothing else: no PATH, no home, no files. */
function snug(...args: readonly string[]): Promise<Ended> {
  return start(binary, args, {});
}

function bundled(...args: readonly string[]): Promise<Ended> {
  return start(process.execPath, [CLI, ...args], {});
}

function start(program: string, args: readonly string[], env: Record<string, string>): Promise<Ended> {
  return new Promise((done) => {
    const child = execFile(program, args, { cwd: empty, env }, (_, stdout, stderr) =>
      done({ code: child.exitCode, stdout, stderr }),
    );
    child.stdin?.end();
  });
}
