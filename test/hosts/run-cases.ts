// node|deno|bun run-cases.js DIST CASES THREADS: the built package as a user imports it, in a process of its own. Prints a
// HostRun as JSON.

import { readFileSync } from "node:fs";
import process from "node:process";
import { pathToFileURL } from "node:url";
import type * as Snug from "../../runtime/index";
import { type Case, type HostRun, runCases } from "./case";

const WAIT_MILLISECONDS = 10_000;

const [dist, file, threads] = process.argv.slice(2) as [string, string, string];
const { open } = (await import(pathToFileURL(`${dist}/index.js`).href)) as typeof Snug;
const cases = JSON.parse(readFileSync(file, "utf8")) as Case[];

/** A step with fewer threads than planned is no test of threads. */
async function allThere({ core, plan }: Snug.Model): Promise<void> {
  const there = () => core.exports.threads_ready();
  for (const started = Date.now(); there() < plan.threads; ) {
    if (Date.now() - started > WAIT_MILLISECONDS) throw new Error(`${there()} of ${plan.threads} threads came`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const { simd, results } = await runCases(open, cases, Number(threads), allThere);
const { bun, deno, node } = process.versions as Record<string, string | undefined>;
const run: HostRun = { about: `${bun ?? deno ?? node}, ${simd}`, results };
process.stdout.write(JSON.stringify(run));
