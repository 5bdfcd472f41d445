// npm run test:hosts: one suite, every host. The same packs, plans and prompts; the same ids must come out of all of them.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Case, faultOf } from "./case";
import { makeCases } from "./cases";
import { CHROMIUM_HOSTS } from "./chromium";
import { COMPONENT } from "./component";
import { FIREFOX_HOSTS } from "./firefox";
import { CannotRun, type Host, type Places } from "./host";
import { type Outcome, renderOutcomes } from "./report";
import { RUNTIME_HOSTS } from "./runtimes";
import { SCRIPT_HOSTS } from "./scripts";
import { WASI_HOSTS } from "./wasi";
import { WEBKIT_HOSTS } from "./webkit";

const USAGE = `npm run test:hosts -- [options]
  --only REGEX      hosts whose names match     (default: all)
  --cases REGEX     cases whose names match     (default: all)
  --require-all     a host that is not installed is a failure, not a skip (or SNUG_REQUIRE_ALL=1)
  --dist FOLDER     the product's bundles       (default: dist)`;

const HOSTS: readonly Host[] = [
  ...SCRIPT_HOSTS,
  ...CHROMIUM_HOSTS,
  ...FIREFOX_HOSTS,
  ...WEBKIT_HOSTS,
  ...WASI_HOSTS,
  ...RUNTIME_HOSTS,
  COMPONENT,
];

const SHOWN_FAULTS = 5;
const LINE_CHARACTERS = 400;

const { values: options } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    cases: { type: "string", default: "" },
    "require-all": { type: "boolean", default: Boolean(process.env.SNUG_REQUIRE_ALL) },
    dist: { type: "string", default: "dist" },
    help: { type: "boolean", default: false },
  },
});

async function main(): Promise<boolean> {
  const places: Places = { dist: resolve(options.dist), build: dirname(fileURLToPath(import.meta.url)) };
  const hosts = HOSTS.filter(({ name }) => new RegExp(options.only, "i").test(name));
  if (hosts.length === 0)
    throw new Error(`no host is called ${options.only}: ${HOSTS.map(({ name }) => name).join("; ")}`);
  const folder = mkdtempSync(join(tmpdir(), "snug-hosts-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
  const all = await makeCases(folder, places.dist);
  const cases = all.filter(({ name }) => new RegExp(options.cases, "i").test(name));
  if (cases.length === 0) throw new Error(`no case is called ${options.cases}`);
  console.log(`${cases.length} cases, ${hosts.length} hosts`);
  const outcomes: Outcome[] = [];
  for (const host of hosts) {
    const outcome = await tryHost(host, cases, places);
    outcomes.push(outcome);
    const { faults, skipped, about, passed, seconds } = outcome;
    const count = skipped ? `skipped: ${oneLine(about)}` : `${passed} of ${cases.length}, ${seconds.toFixed(1)} s`;
    console.log(`${host.name}, ${host.threads === 1 ? "1 thread" : `${host.threads} threads`}: ${count}`);
    for (const fault of faults.slice(0, SHOWN_FAULTS)) console.log(`    ${oneLine(fault)}`);
    if (faults.length > SHOWN_FAULTS) console.log(`    and ${faults.length - SHOWN_FAULTS} more`);
  }
  console.log(`\n${renderOutcomes(outcomes, cases)}\n`);
  const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
  const skips = outcomes.filter(({ skipped }) => skipped).length;
  console.log(
    `${passed} of ${(hosts.length - skips) * cases.length} passed, ${skips} of ${hosts.length} hosts skipped`,
  );
  const missing = hosts.filter((host, i) => outcomes[i]?.skipped && options["require-all"] && !host.optional);
  if (missing.length > 0) console.log(`not here, and required: ${missing.map(({ name }) => name).join("; ")}`);
  const ran = outcomes.some(({ skipped }) => !skipped);
  return ran && missing.length === 0 && outcomes.every(({ faults }) => faults.length === 0);
}

async function tryHost(host: Host, cases: readonly Case[], places: Places): Promise<Outcome> {
  const { name, threads } = host;
  const started = performance.now();
  const outcome = (rest: Pick<Outcome, "about" | "passed" | "faults" | "skipped">): Outcome => ({
    ...{ host: name, threads, ...rest },
    seconds: (performance.now() - started) / 1000,
  });
  try {
    const { about, results } = await host.run(cases, places);
    const faults = cases.flatMap((one) => {
      const fault = faultOf(
        one,
        results.find((result) => result.name === one.name),
        threads,
      );
      return fault === undefined ? [] : [`${one.name}: ${fault}`];
    });
    return outcome({ about, passed: cases.length - faults.length, faults, skipped: false });
  } catch (error) {
    const { message } = error as Error;
    const skipped = error instanceof CannotRun;
    return outcome({ about: message, passed: 0, faults: skipped ? [] : [message], skipped });
  }
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ");
  return line.length > LINE_CHARACTERS ? `${line.slice(0, LINE_CHARACTERS)}…` : line;
}

if (options.help) console.log(USAGE);
else process.exit((await main()) ? 0 : 1);
