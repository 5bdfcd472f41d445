// npm run test:gpu: one suite of GPU tests, every WebGPU that runs here.

import process from "node:process";
import { parseArgs } from "node:util";
import { CannotRun } from "../host";
import { BROWSER_HOSTS } from "./browsers";
import { writeFixtures } from "./fixtures";
import type { GpuHost } from "./host";
import { type Outcome, passed, renderOutcomes } from "./report";
import { SCRIPT_HOSTS } from "./scripts";

const HOSTS: readonly GpuHost[] = [...SCRIPT_HOSTS, ...BROWSER_HOSTS];
const NAMES = HOSTS.map(({ name }) => name).join(", ");

const USAGE = `npm run test:gpu -- [options] [FILTER]
  FILTER            cases whose names match     (default: all)
  --host NAME       a host, and its log as it comes; may be repeated: ${NAMES} (default: all)
  --thorough        all cases on every host, which may take an hour (default: on lavapipe and the null backend)
  --require-all     a host that is not installed is a failure, not a skip (or SNUG_REQUIRE_ALL=1)
  --seconds N       time for a host             (default: 600)`;

const SHOWN_LINES = 60;
const SHOWN_FAILURES = 20;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    host: { type: "string", multiple: true, default: [] },
    "require-all": { type: "boolean", default: Boolean(process.env.SNUG_REQUIRE_ALL) },
    thorough: { type: "boolean", default: false },
    seconds: { type: "string", default: "600" },
    help: { type: "boolean", default: false },
  },
});
const [filter = ""] = positionals;

async function main(): Promise<boolean> {
  const unknown = options.host.find((name) => !HOSTS.some((host) => host.name === name));
  if (unknown !== undefined) throw new Error(`no host is called ${unknown}: ${NAMES}`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
  const hosts = HOSTS.filter(({ name }) => options.host.length === 0 || options.host.includes(name));
  await writeFixtures();
  const outcomes: Outcome[] = [];
  for (const host of hosts) {
    const outcome = await tryHost(host);
    outcomes.push(outcome);
    show(outcome);
  }
  console.log(`\n${renderOutcomes(outcomes)}\n`);
  const skipped = outcomes.filter((outcome) => outcome.skipped !== undefined);
  const cases = outcomes.reduce((sum, { report }) => sum + (report?.cases ?? 0), 0);
  console.log(`${cases} cases ran, ${skipped.length} of ${hosts.length} hosts skipped`);
  if (cases === 0) return false;
  if (options["require-all"] && skipped.length > 0) return false;
  return outcomes.every((outcome) => outcome.skipped !== undefined || passed(outcome));
}

async function tryHost(host: GpuHost): Promise<Outcome> {
  const live = options.host.length > 0;
  const written: string[] = [];
  const log = (line: string) => (live ? console.log(`    ${line}`) : written.push(line));
  const started = performance.now();
  const outcome = (found: Omit<Outcome, "host" | "seconds">): Outcome => ({
    ...{ host: host.name, seconds: (performance.now() - started) / 1000 },
    ...found,
  });
  const timer = new AbortController();
  const late = () => timer.abort(new Error(`no report after ${options.seconds} s`));
  const timeout = setTimeout(late, Number(options.seconds) * 1000);
  try {
    const report = await host.run({ filter, thorough: options.thorough, log, signal: timer.signal });
    if (filter !== "" && report.cases + report.failures.length === 0)
      return outcome({ skipped: `no case for ${filter}` });
    const ran = outcome({ report });
    if (!passed(ran)) showWritten(written);
    return ran;
  } catch (error) {
    const { message } = (timer.signal.aborted ? timer.signal.reason : error) as Error;
    if (error instanceof CannotRun) return outcome({ skipped: message });
    showWritten(written);
    return outcome({ error: message });
  } finally {
    clearTimeout(timeout);
  }
}

function showWritten(lines: readonly string[]): void {
  if (lines.length > SHOWN_LINES) console.log(`    … ${lines.length - SHOWN_LINES} lines before`);
  for (const line of lines.slice(-SHOWN_LINES)) console.log(`    ${line}`);
}

function show({ host, report, skipped, error, seconds }: Outcome): void {
  if (report === undefined) {
    console.log(skipped === undefined ? `${host}: ${error}` : `${host}: skipped: ${skipped}`);
    return;
  }
  const { adapter, cases, failures, notes } = report;
  console.log(`${host}: ${adapter}: ${cases} cases, ${failures.length} failures, ${seconds.toFixed(1)} s`);
  for (const note of notes) console.log(`    ${note}`);
  for (const { name, message } of failures.slice(0, SHOWN_FAILURES)) console.log(`    ✗ ${name}: ${message}`);
  if (failures.length > SHOWN_FAILURES) console.log(`    and ${failures.length - SHOWN_FAILURES} more`);
}

if (options.help) console.log(USAGE);
else process.exit((await main()) ? 0 : 1);
