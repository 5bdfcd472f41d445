// Where things lie, whatever folder a command is called from. Absolute paths.

import { join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

/** Where the bundles of the GPU suite are: build/hosts/gpu. */
export const BUNDLES = fileURLToPath(new URL(".", import.meta.url));
/** Where the suite of hosts is built, and what it needs is installed: build/hosts. */
export const BUILD = join(BUNDLES, "..");
const ROOT = join(BUILD, "../..");

/** The file of a fixture: of the demo pack, the product, the models that lie beside the project, or the suite's own. */
export function fixturePath(name: string): string {
  if (normalize(name).startsWith("..")) throw new Error(`${name} is no fixture`);
  if (name === "demo.snug") return join(ROOT, "packs/demo/tale.snug");
  if (name.startsWith("dist/")) return join(ROOT, name);
  if (name.startsWith("shared/")) return join(ROOT, "../shared/models", name.slice("shared/".length));
  return join(BUILD, "gpu-fixtures", name);
}
