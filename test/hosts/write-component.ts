// npm run component: the component as a file, and as the ES module that jco makes of it.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildComponent, transpileComponent } from "./build-component";

const COMPONENT = "dist/snug.component.wasm";
const FOLDER = "dist/component";

const component = await buildComponent(readFileSync("build/component.core.wasm"), "assembly/component.wit");
writeFileSync(COMPONENT, component);
for (const [name, bytes] of await transpileComponent(component, "snug")) {
  mkdirSync(dirname(join(FOLDER, name)), { recursive: true });
  writeFileSync(join(FOLDER, name), bytes);
}
console.log(`${COMPONENT}: ${component.length} bytes; ${FOLDER}/snug.js imports @bytecodealliance/preview2-shim`);
