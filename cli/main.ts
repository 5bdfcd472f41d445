#!/usr/bin/env node
// The command line: finds the command, turns errors into words and exit codes (0, 1 failed, 2 wrong usage, 130 Ctrl-C).

import { SnugError } from "../runtime/index";
import { readAsset } from "../runtime/node-assets";
import { type Command, commandHelp, helpRow, nearest, parse, usage } from "./options";
import { lookOf, say, writeNow } from "./output";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_SIGNAL = { SIGINT: 130, SIGTERM: 143 } as const;

/** Loaded when they are asked for: running a pack does not wait for the packer. */
const COMMANDS: Readonly<Record<string, { summary: string; load: () => Promise<Command> }>> = {
  run: { summary: "continue a prompt", load: async () => (await import("./run")).runCommand },
  plan: { summary: "show what a memory budget comes to", load: async () => (await import("./plan")).planCommand },
  pack: { summary: "turn a checkpoint into a pack", load: async () => (await import("./pack")).packCommand },
  eval: { summary: "measure perplexity, or write logits", load: async () => (await import("./eval")).evalCommand },
  bench: { summary: "measure speed, on any pack or shape", load: async () => (await import("./bench")).benchCommand },
  inspect: { summary: "tell what a pack is", load: async () => (await import("./inspect")).inspectCommand },
  chat: { summary: "talk with a pack", load: async () => (await import("./chat")).chatCommand },
  serve: { summary: "answer programs, over HTTP", load: async () => (await import("./serve")).serveCommand },
};

void main(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});

async function main(args: readonly string[]): Promise<number> {
  quietPipes();
  const stop = new AbortController();
  const caught = listen(stop);
  const [name = "--help", ...rest] = args;
  try {
    if (name === "--version" || name === "-v") process.stdout.write(`${await version()}\n`);
    else if (name === "help" && rest[0] !== undefined) await showHelp(rest[0]);
    else if (["--help", "-h", "help"].includes(name)) process.stdout.write(`${help()}\n`);
    else if (wantsHelp(rest)) await showHelp(name);
    else await runCommand(name, rest, stop.signal);
    return 0;
  } catch (error) {
    if (stop.signal.aborted) {
      say("snug: stopped");
      debug(error);
      return caught();
    }
    return fail(error, Object.hasOwn(COMMANDS, name) ? name : "");
  }
}

async function runCommand(name: string, args: readonly string[], signal: AbortSignal): Promise<void> {
  const command = await find(name);
  const { values, words } = parse(command, args);
  await command.run(values, words, signal);
}

async function find(name: string): Promise<Command> {
  const found = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (found) return found.load();
  if (name.startsWith("-")) throw usage(`unknown option ${name}: a command comes first, such as snug run FILE`);
  const near = nearest(name, Object.keys(COMMANDS));
  const hint = near ? `did you mean snug ${near}?` : `the commands are ${Object.keys(COMMANDS).join(", ")}`;
  throw usage(`"${name}" is no command: ${/\.snug$/.test(name) ? `did you mean snug run ${name}?` : hint}`);
}

// Help

function wantsHelp(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? undefined : end).some((arg) => arg === "--help" || arg === "-h");
}

async function showHelp(name: string): Promise<void> {
  process.stdout.write(`${commandHelp(await find(name))}\n`);
}

function help(): string {
  const commands = Object.entries(COMMANDS).map(([name, { summary }]) => helpRow(name, summary));
  return `snug: run a language model that fits. One pack, cut to the memory there is.

  snug run demo "Once upon a time" --memory 17MB --context 512

demo is the pack that comes with snug; others are files.

Commands:
${commands.join("\n")}

Options:
${helpRow("-h, --help", "this text; after a command, its own")}
${helpRow("-v, --version", "the version of snug")}

Results go to stdout, words to stderr. Exit codes: 0 done, 1 failed, 2 wrong
usage. SNUG_DEBUG=1 shows where an error came from, NO_COLOR=1 leaves out
colours.`;
}

async function version(): Promise<string> {
  const manifest = JSON.parse(new TextDecoder().decode(await readAsset("../package.json")));
  return String(manifest.version);
}

// Ends

function fail(error: unknown, command: string): number {
  const wrongUsage = error instanceof SnugError && error.code === "usage";
  const { bold } = lookOf(process.stderr);
  const words = error instanceof SnugError ? error.message : `something went wrong that should not: ${String(error)}`;
  say(`${bold("snug:")} ${words}`);
  if (wrongUsage) say(`See snug ${command ? `${command} ` : ""}--help.`);
  if (!(error instanceof SnugError) && !process.env.SNUG_DEBUG) say("SNUG_DEBUG=1 shows where; please report it.");
  debug(error);
  return wrongUsage ? EXIT_USAGE : EXIT_FAILED;
}

function debug(error: unknown): void {
  for (let cause = error; process.env.SNUG_DEBUG && cause instanceof Error; cause = cause.cause) say(cause.stack);
}

/** The first Ctrl-C stops the work, which may tidy up; the second ends the process. Returns the exit code. */
function listen(stop: AbortController): () => number {
  let code: number = EXIT_SIGNAL.SIGINT;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) process.exit(code);
      code = EXIT_SIGNAL[signal];
      stop.abort();
    });
  }
  return () => code;
}

/** A reader that has seen enough (`| head`) ends the program quietly. */
function quietPipes(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    writeNow(2, `snug: cannot write the result: ${error.message}\n`);
    process.exit(EXIT_FAILED);
  });
  process.stderr.on("error", () => {});
}
