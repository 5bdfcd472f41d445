// node run-wasmer.js MODULE CASES: a WASI command in Wasmer's sandbox, whose files are all in memory. Prints a HostRun.

import { readFileSync } from "node:fs";
import process from "node:process";
import { Wasmer } from "@wasmer/sdk/node";
import type { Case, HostRun, Result } from "./case";
import { argumentsOf, resultOf } from "./command";

const [module, file] = process.argv.slice(2) as [string, string];
const cases = JSON.parse(readFileSync(file, "utf8")) as Case[];
const packs = [...new Set(cases.map(({ pack }) => pack))];
const place = (pack: string) => `/packs/${packs.indexOf(pack)}.snug`;
const wasmer = await Wasmer.create({});
const bundle = await wasmer.packages.create({
  modules: { snug: new Uint8Array(readFileSync(module)) },
  commands: { snug: { module: "snug" } },
  files: Object.fromEntries(packs.map((pack) => [place(pack), new Uint8Array(readFileSync(pack))])),
});
const sandbox = await wasmer.sandboxes.create({ packages: [bundle] });
const results: Result[] = [];
for (const one of cases) {
  const { stdout, stderr } = await sandbox.command("snug", argumentsOf(one, place(one.pack))).run();
  const result = resultOf(one, stdout.text());
  results.push(result.tokens === undefined ? { ...result, error: `${result.error}: ${stderr.text()}` } : result);
}
const run: HostRun = { about: "snug.wasm", results };
process.stdout.write(JSON.stringify(run), () => process.exit(0));
