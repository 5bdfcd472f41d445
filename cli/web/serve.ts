// npm run web: makes the page in dist/web, serves it on this machine with the packs of this repository beside it, and
// opens it.

import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { buildPage } from "./build";
import { serveFolders } from "./server";

const USAGE = `npm run web -- [options]
  --port N        (default: 8642, or a free one if that is taken)
  --open no       do not open a browser
  --build only    build into dist/web, print the sizes, and end`;
const FOLDER = "dist/web";
const PORT = 8642;

async function main(): Promise<void> {
  const values = readOptions();
  if (values.help) return void process.stdout.write(`${USAGE}\n`);
  const port = values.port === undefined ? PORT : Number(values.port);
  const files = await buildPage(FOLDER);
  if (values.build === "only") return printSizes(files);
  const folders = [
    { path: "/packs/", folder: "packs" },
    { path: "/", folder: FOLDER },
  ];
  const server = await serveFolders(folders, { port }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EADDRINUSE") throw error;
    if (values.port !== undefined) throw new Error(`port ${port} is taken: give another, or none for a free one`);
    return serveFolders(folders, { port: 0 });
  });
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  process.stdout.write(`${address}\n`);
  process.stderr.write("Ctrl-C ends it.\n");
  if (values.open !== "no" && process.stdout.isTTY) openInBrowser(address);
}

/** The command line's options; a wrong one ends the program with exit code 2. */
function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: "string" },
        open: { type: "string" },
        build: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
    const port = Number(values.port ?? PORT);
    if (!Number.isInteger(port) || port < 0 || port > 65535)
      throw new Error(`--port wants 0 to 65535, not ${values.port}`);
    if (!["yes", "no", undefined].includes(values.open)) throw new Error(`--open wants yes or no, not ${values.open}`);
    if (!["only", undefined].includes(values.build)) throw new Error(`--build wants only, not ${values.build}`);
    return values;
  } catch (error) {
    process.stderr.write(`snug: ${(error as Error).message}\n${USAGE}\n`);
    process.exit(2);
  }
}

async function printSizes(files: readonly string[]): Promise<void> {
  for (const file of files) {
    const bytes = await readFile(`${FOLDER}/${file}`);
    const columns = [bytes.length, gzipSync(bytes, { level: 9 }).length].map((size) => String(size).padStart(9));
    process.stdout.write(`${columns.join("")} gz  ${file}\n`);
  }
}

function openInBrowser(address: string): void {
  const [command, ...words] =
    process.platform === "darwin" ? ["open"] : process.platform === "win32" ? ["cmd", "/c", "start", ""] : ["xdg-open"];
  // Where there is none, the address on the screen will do.
  spawn(command as string, [...words, address], { stdio: "ignore", detached: true })
    .on("error", () => {})
    .unref();
}

main().catch((error: Error) => {
  process.stderr.write(`snug: ${error.message}\n`);
  process.exitCode = 1;
});
