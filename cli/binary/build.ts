// npm run binary: one executable of the command line, with the core's builds and the demo pack inside. It is a copy of
// the Node that runs this script, with a "single executable application" put into it.
//
//   node build/binary/build.cjs [OUT]     from the repository's root; OUT: build/snug

import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** Where the bundles are, and everything that is made on the way. */
const FOLDER = "build/binary";
const MAIN = join(FOLDER, "main.cjs");
const BLOB = join(FOLDER, "snug.blob");
const CONFIG = join(FOLDER, "sea.json");
const EXE = process.platform === "win32" ? ".exe" : "";
const ENGINE = join(FOLDER, `node${EXE}`);
const MADE = join(FOLDER, `snug${EXE}`);
const POSTJECT = join(FOLDER, "node_modules/postject/dist/cli.js");

/** What is inside, by the names that runtime/node-assets.ts asks for. */
const ASSETS = {
  "core.wasm": "dist/core.wasm",
  "core.relaxed.wasm": "dist/core.relaxed.wasm",
  "core.threads.wasm": "dist/core.threads.wasm",
  "core.relaxed.threads.wasm": "dist/core.relaxed.threads.wasm",
  "linalg.wasm": "dist/linalg.wasm",
  "thread.js": join(FOLDER, "thread.cjs"),
  "packs-worker.js": join(FOLDER, "packs-worker.cjs"),
  "tale.snug": "packs/demo/tale.snug",
  "package.json": "package.json",
};

/** In Node's executable, where it looks whether something was put into it. */
const FUSE = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";

/** Something that the person at the keyboard can set right. */
class Refusal extends Error {}

try {
  const out = resolve(process.argv[2] ?? `build/snug${EXE}`);
  checkInputs();
  copyEngine();
  writeConfig();
  if (nodeIsAtLeast(25, 5)) build();
  else inject();
  sign();
  check();
  deliver(out);
  say(`${out}: ${megabytes(out)}, Node ${process.versions.node}, the demo pack inside`);
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  say(error.message);
  process.exitCode = 1;
}

function checkInputs(): void {
  const missing = [MAIN, ...Object.values(ASSETS)].find((file) => !existsSync(file));
  if (missing !== undefined) throw new Refusal(`there is no ${missing} here: npm run binary builds what is needed`);
  if (!nodeIsAtLeast(20, 16))
    throw new Refusal(`Node ${process.versions.node} cannot carry files inside: use Node 20.16 or newer`);
  if (!readFileSync(process.execPath).includes(FUSE))
    throw new Refusal(
      `${process.execPath} is not a whole Node, as its engine is in a library beside it, or it was built without ` +
        "support for this: use a Node from nodejs.org (or npm: npx --package=node@22 npm run binary)",
    );
}

/** A copy without what only debuggers read. Stripped before anything is put in: afterwards it would be cut off. */
function copyEngine(): void {
  say(`copying Node ${process.versions.node}, ${megabytes(process.execPath)}`);
  copyFileSync(process.execPath, ENGINE);
  chmodSync(ENGINE, 0o755);
  if (process.platform !== "linux") return;
  const { error, status } = spawnSync("strip", [ENGINE], { stdio: "inherit" });
  if (error) say("strip is not there: the executable stays larger than it need be (it is part of binutils)");
  else if (status !== 0) throw new Refusal(`strip could not shorten ${ENGINE}`);
}

function writeConfig(): void {
  const config = {
    main: MAIN,
    disableExperimentalSEAWarning: true,
    useCodeCache: true,
    assets: ASSETS,
    ...(nodeIsAtLeast(25, 5) ? { executable: ENGINE, output: MADE } : { output: BLOB }),
  };
  writeFileSync(CONFIG, JSON.stringify(config, null, 2));
}

/** Node from 25.5 on makes the executable itself. */
function build(): void {
  say("putting snug inside");
  run(process.execPath, ["--build-sea", CONFIG], "Node could not make the executable");
}

function inject(): void {
  if (!existsSync(POSTJECT)) {
    say("installing postject, which Node older than 25.5 needs for this");
    for (const name of ["package.json", "package-lock.json"])
      copyFileSync(join("cli/binary", name), join(FOLDER, name));
    const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    const { error, status } = spawnSync("npm", ["ci", "--prefix", FOLDER, ...flags], {
      stdio: ["ignore", "ignore", "inherit"],
      shell: process.platform === "win32",
    });
    if (status !== 0) {
      const reason = error ? ` (${error.message})` : "";
      throw new Refusal(`npm could not install postject${reason}: try again online, or with Node 25.5 or newer`);
    }
  }
  say("putting snug inside");
  run(process.execPath, ["--experimental-sea-config", CONFIG], "Node could not gather what goes inside");
  if (process.platform === "darwin") run("codesign", ["--remove-signature", ENGINE], "codesign failed");
  const mac = process.platform === "darwin" ? ["--macho-segment-name", "NODE_SEA"] : [];
  const args = [POSTJECT, ENGINE, "NODE_SEA_BLOB", BLOB, "--sentinel-fuse", FUSE, ...mac];
  run(process.execPath, args, "postject could not put snug into Node");
  renameSync(ENGINE, MADE);
}

/** macOS starts nothing on Apple's processors that is not signed, be it by nobody. */
function sign(): void {
  if (process.platform === "darwin") run("codesign", ["--sign", "-", "--force", MADE], "codesign failed");
}

/** Does it start, and find what is inside? */
function check(): void {
  const { status, error } = spawnSync(resolve(MADE), ["inspect", join(resolve(MADE), "tale.snug")], {
    stdio: "ignore",
  });
  if (status !== 0) throw new Refusal(`${MADE} was made but does not start (${error?.message ?? `exit ${status}`})`);
}

/** Under its name only when it is whole: an executable that is running now keeps its old file. */
function deliver(out: string): void {
  const partial = `${out}.partial`;
  try {
    copyFileSync(MADE, partial);
    renameSync(partial, out);
  } catch (cause) {
    rmSync(partial, { force: true });
    throw new Refusal(`cannot write ${out}: ${(cause as Error).message}`);
  }
  for (const file of [MADE, ENGINE, BLOB]) rmSync(file, { force: true });
}

function run(command: string, args: readonly string[], failed: string): void {
  const { error, status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status === 0) return;
  throw new Refusal(`${failed}: ${error?.message ?? `${stdout}${stderr}`.trim()}`);
}

function nodeIsAtLeast(major: number, minor: number): boolean {
  const [ownMajor = 0, ownMinor = 0] = process.versions.node.split(".").map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}

function megabytes(file: string): string {
  return `${(readFileSync(file).length / 1e6).toFixed(1)} MB`;
}

function say(words: string): void {
  process.stderr.write(`binary: ${words}\n`);
}
