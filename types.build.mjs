// Completes the declarations in dist/types: relative imports get the ending that Node's resolution asks for.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const FOLDER = "dist/types";
const IMPORT = /((?:from|import)\s*\(?\s*")(\.{1,2}\/[^"]+?)(?:\.js)?(")/g;

for (const name of readdirSync(FOLDER, { recursive: true, encoding: "utf8" })) {
  if (!name.endsWith(".d.ts")) continue;
  const file = join(FOLDER, name);
  writeFileSync(file, readFileSync(file, "utf8").replace(IMPORT, "$1$2.js$3"));
}
