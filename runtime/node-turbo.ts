// Vectors wider than 128 bits in Node: does this engine compute rightly with them?

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { assetInside, assetPath } from "./node-assets";

/** The argument with which the program calls itself for testTurbo(). */
export const TURBO_TEST = "--test-turbo";

const WIDER_VECTORS = "--experimental-wasm-revectorize";
// Every function is compiled at once, and by the compiler that will have compiled it in the end. That one wants to know
// what calls what, which nobody has counted then, unless it inlines nothing.
const ALL_AT_ONCE = ["--no-liftoff", "--no-wasm-lazy-compilation", "--no-wasm-inlining"];
const NODE_MAJOR = Number(process.versions.node.split(".")[0]);

/** Asks the engine for wider vectors in what it compiles next; false: it has none, or they do not work. */
export function enableTurbo(): boolean {
  // Electron's own program would start a second app.
  const isNode = !("electron" in process.versions);
  if (NODE_MAJOR < 24 || process.arch !== "x64" || !isNode || !turboWorks()) return false;
  setFlagsFromString(WIDER_VECTORS);
  return true;
}

/**
 * An engine that computes wrongly with wider vectors may take the whole process with it, or keep wrong code for all
 * later compilations, so another process tries first.
 */
function turboWorks(): boolean {
  const script = assetPath("thread.js");
  const args = assetInside(script) ? [TURBO_TEST] : [script, TURBO_TEST];
  return spawnSync(process.execPath, args, { stdio: "ignore" }).status === 0;
}

/** The other process's work: its exit code is 0 if all sums are right. */
export function testTurbo(): never {
  for (const flag of [WIDER_VECTORS, ...ALL_AT_ONCE]) setFlagsFromString(flag);
  const path = assetPath("core.relaxed.wasm");
  const module = new WebAssembly.Module((assetInside(path) ?? readFileSync(path)) as BufferSource);
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 65536 });
  const exports = new WebAssembly.Instance(module, { env: { memory } }).exports as {
    _initialize?(): void;
    self_test(rounds: number): number;
  };
  exports._initialize?.();
  process.exit(exports.self_test(1));
}
