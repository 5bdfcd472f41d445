// The component: built and transpiled with jco, then run in Node as the ES module that comes out.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildComponent, transpileComponent } from "./build-component";
import type { HostRun } from "./case";
import { NODE, runScript } from "./engines";
import type { Host } from "./host";

export const COMPONENT: Host = {
  name: "component, by jco",
  threads: 1,
  async run(cases, { build }) {
    const component = await buildComponent(readFileSync("build/component.core.wasm"), "assembly/component.wit");
    const folder = join(build, "component");
    rmSync(folder, { recursive: true, force: true });
    for (const [name, bytes] of await transpileComponent(component, "snug")) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), bytes);
    }
    const file = join(build, "cases.json");
    writeFileSync(file, JSON.stringify(cases));
    const run = JSON.parse(
      await runScript(NODE, build, "run-component.js", [join(folder, "snug.js"), file]),
    ) as HostRun;
    const { version } = JSON.parse(
      readFileSync(join(build, "node_modules/@bytecodealliance/jco/package.json"), "utf8"),
    ) as { version: string };
    return { ...run, about: `jco ${version}, ${run.about}` };
  },
};
