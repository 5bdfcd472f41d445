// snug.wasm in WASI runtimes that no JavaScript engine brings along: Wasmer, from npm, and Wasmtime, where Python has it.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import type { HostRun } from "./case";
import { installed, output } from "./child";
import { argumentsOf, resultOf } from "./command";
import { NODE, runScript } from "./engines";
import { CannotRun, type Host } from "./host";

const WASMER: Host = {
  name: "WASI: Wasmer",
  threads: 1,
  async run(cases, { dist, build }) {
    const file = join(build, "cases.json");
    writeFileSync(file, JSON.stringify(cases));
    const { version } = JSON.parse(readFileSync(join(build, "node_modules/@wasmer/sdk/package.json"), "utf8"));
    const run = JSON.parse(await runScript(NODE, build, "run-wasmer.js", [join(dist, "snug.wasm"), file])) as HostRun;
    return { ...run, about: `SDK ${version}, ${run.about}` };
  },
};

const WASMTIME: Host = {
  name: "WASI: Wasmtime",
  threads: 1,
  optional: true,
  async run(cases, { dist, build }) {
    const python = installed("python3");
    const env = { ...process.env, PYTHONPATH: join(build, "python") };
    const version = await output([python, "-c", "import importlib.metadata as m; print(m.version('wasmtime'))"], {
      env,
    }).catch(() => {
      throw new CannotRun("Python has no wasmtime: pip install --target build/hosts/python wasmtime");
    });
    const file = join(build, "runs.json");
    writeFileSync(file, JSON.stringify(cases.map((one) => [argumentsOf(one, one.pack), dirname(one.pack)])));
    const script = join(build, "run-wasmtime.py");
    const outputs = JSON.parse(await output([python, script, join(dist, "snug.wasm"), file], { env })) as (
      | string
      | { error: string }
    )[];
    const results = cases.map((one, i) => {
      const text = outputs[i] ?? { error: "was not run" };
      return typeof text === "string" ? resultOf(one, text) : { name: one.name, ...text };
    });
    return { about: `${version.trim()}, snug.wasm`, results };
  },
};

export const RUNTIME_HOSTS: readonly Host[] = [WASMER, WASMTIME];
