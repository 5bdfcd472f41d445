// node run-component.js MODULE CASES: the component as the ES module that jco makes of it. Prints a HostRun.

import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { _setPreopens } from "@bytecodealliance/preview2-shim/filesystem";
import { readLayout } from "../read-pack";
import { rateOf } from "../write-pack";
import type { Case, HostRun, Result } from "./case";

/** What is used of component.wit. */
interface Model {
  open(path: string): void;
  load(options: { pruning: number; context?: number; activations: string }): { keptUnits: number };
  begin(prompt: { tag: "tokens"; val: Uint32Array }, options: object): void;
  next(): { token: number } | undefined;
}

const [module, file] = process.argv.slice(2) as [string, string];
const cases = JSON.parse(readFileSync(file, "utf8")) as Case[];

async function run(one: Case, index: number): Promise<Result> {
  const { name, pack, plan, prompt, maxTokens, keptUnits } = one;
  _setPreopens({ "/packs": dirname(pack) });
  // Each address is an instance of its own.
  const { model } = (await import(`${pathToFileURL(module)}?case=${index}`)) as { model: Model };
  model.open(`/packs/${basename(pack)}`);
  // As many units as the case keeps: a budget would have to hold the adapter too.
  const lengths = readLayout(readFileSync(pack)).units.map(({ length }) => length);
  const { context, activations = "int8" } = plan;
  const loaded = model.load({ pruning: rateOf(lengths, keptUnits), ...(context && { context }), activations });
  model.begin({ tag: "tokens", val: Uint32Array.from(prompt) }, { maxTokens, temperature: 0, repeatPenalty: 1 });
  const tokens: number[] = [];
  for (let piece = model.next(); piece !== undefined; piece = model.next()) tokens.push(piece.token);
  return { name, tokens, keptUnits: loaded.keptUnits };
}

const results: Result[] = [];
for (const [index, one] of cases.entries())
  results.push(await run(one, index).catch((error: Error) => ({ name: one.name, error: `${error}` })));
const all: HostRun = { about: `Node ${process.versions.node}`, results };
process.stdout.write(JSON.stringify(all));
