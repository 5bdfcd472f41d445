// Which of the core's builds runs: the fastest that the engine compiles and that gets its sums right.

import { Core } from "./core";
import { SnugError } from "./errors";
import type { Host } from "./host";

/** simd128: what every engine with SIMD has; relaxed: with relaxed SIMD's dot products and fused multiply-adds. */
export type Simd = "relaxed" | "simd128";

export interface Build {
  readonly simd: Simd;
  /** Were wider vectors asked for, and did the engine say that it has them? */
  readonly turbo: boolean;
  readonly shared: boolean;
  /** Why a faster build was passed over, or null. */
  readonly passedOver: string | null;
  readonly module: WebAssembly.Module;
}

/** How often each product is tried: enough for an engine's last compiler to have taken over, in a few milliseconds. */
const SELF_TEST_ROUNDS = 400;

const builds = new WeakMap<Host, Map<string, Promise<Build>>>();

/**
 * The best build for this host. `shared`: over memory that threads can share; `turbo`: with vectors wider than 128 bits,
 * where the engine has them on request. Compiled and tested once in a host's life.
 */
export function chooseBuild(host: Host, options: { shared: boolean; turbo: boolean }): Promise<Build> {
  const known = builds.get(host) ?? new Map<string, Promise<Build>>();
  builds.set(host, known);
  const key = `${options.shared} ${options.turbo}`;
  const build = known.get(key) ?? choose(host, options.shared, options.turbo);
  known.set(key, build);
  build.catch(() => known.delete(key));
  return build;
}

async function choose(host: Host, shared: boolean, turboWanted: boolean): Promise<Build> {
  const turbo = turboWanted && (host.enable?.("turbo") ?? false);
  host.enable?.("relaxed");
  const passedOver = turboWanted && !turbo ? ["the engine has no wider vectors that compute rightly"] : [];
  for (const simd of ["relaxed", "simd128"] as const) {
    let module: WebAssembly.Module;
    try {
      module = await host.loadModule(`core${simd === "relaxed" ? ".relaxed" : ""}${shared ? ".threads" : ""}.wasm`);
    } catch (error) {
      if (simd === "simd128" || !(error instanceof WebAssembly.CompileError)) throw error;
      passedOver.push(`the engine has no ${simd} SIMD`);
      continue;
    }
    const failed = selfTest(module, shared);
    if (failed === 0) return { simd, turbo, shared, passedOver: passedOver.join("; ") || null, module };
    passedOver.push(`${simd}${turbo ? " with turbo" : ""}: wrong result in self-test ${failed}`);
  }
  throw new SnugError("internal", `this engine computes wrongly (${passedOver.join("; ")}): please report this`);
}

function selfTest(module: WebAssembly.Module, shared: boolean): number {
  try {
    return new Core(module, "self-test", shared).exports.self_test(SELF_TEST_ROUNDS);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) return -1;
    throw error;
  }
}
