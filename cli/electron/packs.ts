// The packs that the app comes with. The page knows their names, and only the main process knows where they are.

import { readdir } from "node:fs/promises";
import { join } from "node:path";

/** Names of the packs in the app's folder. */
export async function packsIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isFile() && entry.name.endsWith(".snug")).map(({ name }) => name);
}

/** The path of the pack that a page asks for: rejects what is not one of the folder's. */
export async function packNamed(folder: string, name: unknown): Promise<string> {
  const found = (await packsIn(folder)).find((one) => one === name);
  if (found === undefined) throw new Error(`this app comes with no pack called ${JSON.stringify(name)}`);
  return join(folder, found);
}
