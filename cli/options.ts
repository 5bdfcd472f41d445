// What a command line may say. Each command declares its options once; parsing, refusing and the help text all follow
// from the declaration.

import { parseSize, SnugError } from "../runtime/index";

const HELP_COLUMN = 26;
const HELP_WIDTH = 79;

export interface Option<T> {
  /** What stands for the value in the help; absent: a flag. */
  readonly value?: string;
  readonly short?: string;
  readonly help: string;
  /** Reads the text of a value; `before`: what an earlier use of the same option gave. */
  take(text: string, name: string, before: T | undefined): T;
}

export type Options = Readonly<Record<string, Option<unknown>>>;
export type Values<O extends Options> = { readonly [K in keyof O]?: O[K] extends Option<infer T> ? T : never };

export interface Command<O extends Options = Options> {
  readonly name: string;
  readonly summary: string;
  /** Names of what comes without dashes, in order; those in [brackets] may be left out. */
  readonly words: readonly string[];
  /** What follows the usage line in the help. */
  readonly about: string;
  readonly options: O;
  run(values: Values<O>, words: readonly string[], signal: AbortSignal): Promise<void>;
}

/** A value that the command line got wrong: exit code 2. */
export function usage(message: string): SnugError {
  return new SnugError("usage", message);
}

// Kinds of options

export function flag(help: string, short?: string): Option<boolean> {
  return { help, ...(short && { short }), take: () => true };
}

export function text(value: string, help: string, short?: string): Option<string> {
  return {
    value,
    help,
    ...(short && { short }),
    take(given, name) {
      if (given === "") throw usage(`${name} is empty: give ${value}`);
      return given;
    },
  };
}

/** May be given several times. */
export function texts(value: string, help: string): Option<readonly string[]> {
  const one = text(value, help);
  return { value, help, take: (given, name, before = []) => [...before, one.take(given, name, undefined)] };
}

export function choice<T extends string>(values: readonly T[], help: string): Option<T> {
  return {
    value: values.join("|"),
    help,
    take(given, name) {
      const found = values.find((value) => value === given);
      if (found === undefined) throw usage(`${name} is one of ${values.join(", ")}, not "${given}"`);
      return found;
    },
  };
}

export function number(value: string, least: number, most: number, help: string): Option<number> {
  return {
    value,
    help,
    take(given, name) {
      const got = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(given) ? Number(given) : Number.NaN;
      if (!(got >= least && got <= most)) throw usage(`${name} is a number from ${least} to ${most}, not "${given}"`);
      return got;
    },
  };
}

export function count(value: string, least: number, help: string, most = 1e9): Option<number> {
  return {
    value,
    help,
    take(given, name) {
      const got = /^\d+$/.test(given) ? Number(given) : Number.NaN;
      if (!(got >= least && got <= most))
        throw usage(`${name} is a whole number from ${least} to ${most}, not "${given}"`);
      return got;
    },
  };
}

/** Several values of one kind, separated by commas. */
export function list<T>(one: Option<T>): Option<readonly T[]> {
  return {
    value: `${one.value},…`,
    help: one.help,
    take: (given, name) => given.split(",").map((part) => one.take(part.trim(), name, undefined)),
  };
}

export function size(help: string): Option<number> {
  return {
    value: "SIZE",
    help,
    take(given, name) {
      try {
        return parseSize(given);
      } catch (error) {
        throw usage(`${name}: ${(error as Error).message}`);
      }
    },
  };
}

/** Token ids, separated by commas or spaces. */
export function tokenIds(help: string): Option<readonly number[]> {
  return {
    value: "IDS",
    help,
    take(given, name) {
      const parts = given.split(/[\s,]+/).filter((part) => part !== "");
      const wrong = parts.find((part) => !/^\d{1,10}$/.test(part));
      if (wrong !== undefined) throw usage(`${name} is a list of token ids such as 1,2,3: "${wrong}" is not one`);
      if (parts.length === 0) throw usage(`${name} is empty: give token ids such as 1,2,3`);
      return parts.map(Number);
    },
  };
}

// Parsing

export interface Parsed<O extends Options> {
  readonly values: Values<O>;
  readonly words: readonly string[];
}

/** Reads a command's arguments; throws a usage error that names what is wrong. */
export function parse<O extends Options>(command: Command<O>, args: readonly string[]): Parsed<O> {
  const values: Record<string, unknown> = {};
  const words: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] as string;
    if (arg === "--") {
      words.push(...args.slice(at + 1));
      break;
    }
    if (!arg.startsWith("-") || arg === "-") {
      words.push(arg);
      continue;
    }
    const equals = arg.startsWith("--") ? arg.indexOf("=") : -1;
    const written = equals < 0 ? arg : arg.slice(0, equals);
    const name = findOption(command, written);
    const option = command.options[name] as Option<unknown>;
    if (option.value === undefined) {
      if (equals >= 0) throw usage(`${written} takes no value`);
      values[name] = option.take("", written, values[name]);
      continue;
    }
    const given = equals >= 0 ? arg.slice(equals + 1) : args[++at];
    if (given === undefined || (equals < 0 && isOption(command, given)))
      throw usage(`${written} needs a value: ${written} ${option.value}`);
    values[name] = option.take(given, written, values[name]);
  }
  checkWords(command, words);
  return { values: values as Values<O>, words };
}

/** Is this argument one of the command's options, so that it cannot be another's value? */
function isOption(command: Command, arg: string): boolean {
  const name = /^--([^=]+)/.exec(arg)?.[1];
  return name !== undefined && Object.hasOwn(command.options, name);
}

function findOption(command: Command, written: string): string {
  const names = Object.keys(command.options);
  const found = written.startsWith("--")
    ? names.find((name) => `--${name}` === written)
    : names.find((name) => `-${command.options[name]?.short}` === written);
  if (found !== undefined) return found;
  const near = nearest(written.replace(/^-+/, ""), names);
  const takesText = command.words.includes("[PROMPT]");
  throw usage(
    `unknown option ${written}${near ? `: did you mean --${near}?` : ""}` +
      (takesText && !near ? " (a prompt that begins with a dash goes after --)" : ""),
  );
}

function checkWords(command: Command, words: readonly string[]): void {
  const missing = command.words[words.length];
  if (missing !== undefined && !missing.startsWith("["))
    throw usage(`${missing} is missing: snug ${command.name} ${command.words.join(" ")}`);
  if (words.length <= command.words.length) return;
  const hint = command.words.includes("[PROMPT]") ? ": put a prompt of several words in quotes" : "";
  throw usage(`"${words[command.words.length]}" is one argument too many${hint}`);
}

/** The name that was probably meant, if any is close. */
export function nearest(written: string, names: readonly string[]): string | undefined {
  if (written.length >= 3) {
    const longer = names.filter((name) => name.startsWith(written));
    if (longer.length === 1) return longer[0];
  }
  const distances = names.map((name) => ({ name, distance: editDistance(written, name) }));
  const [best] = distances.sort((a, b) => a.distance - b.distance);
  return best && best.distance <= Math.max(1, Math.floor(best.name.length / 3)) ? best.name : undefined;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  const at = (i: number, j: number) => rows[i]?.[j] as number;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const replace = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, replace);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j] as number, at(i - 2, j - 2) + 1);
    }
  }
  return at(a.length, b.length);
}

/** Leaves out what was not given, for callees that tell "absent" from "undefined". */
export function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

// Help

/** What `snug COMMAND --help` prints. */
export function commandHelp(command: Command): string {
  const options = Object.entries(command.options).map(([name, option]) => {
    const short = option.short ? `-${option.short}, ` : "";
    return helpRow(`${short}--${name}${option.value ? ` ${option.value}` : ""}`, option.help);
  });
  const usageLine = `snug ${[command.name, ...command.words].join(" ")} [options]`;
  return [command.summary, "", `  ${usageLine}`, "", command.about.trim(), "", "Options:", ...options].join("\n");
}

/** One row of a help list: a term, and its words folded into the column beside it. */
export function helpRow(term: string, words: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of words.split(" ")) {
    if (line !== "" && HELP_COLUMN + line.length + 1 + word.length > HELP_WIDTH) {
      lines.push(line);
      line = "";
    }
    line += line === "" ? word : ` ${word}`;
  }
  lines.push(line);
  const indent = " ".repeat(HELP_COLUMN);
  const first = `  ${term}`;
  const head = first.length < HELP_COLUMN - 1 ? first.padEnd(HELP_COLUMN) + lines.shift() : first;
  return [head, ...lines.map((rest) => indent + rest)].join("\n");
}
