// How things are written: results to stdout, words for people to stderr. Colours only where a person looks at a
// terminal that has them, box drawing only where the locale says UTF-8.

import { writeSync } from "node:fs";

export interface Glyphs {
  /** Blocks of one to eight eighths, from the bottom; in ASCII three steps. */
  readonly rising: readonly string[];
  readonly kept: string;
  readonly dropped: string;
  readonly vertical: string;
  readonly horizontal: string;
  readonly corner: string;
  readonly tick: string;
  readonly mark: string;
  readonly ellipsis: string;
  readonly dot: string;
  readonly to: string;
}

const UNICODE: Glyphs = {
  rising: [..."▁▂▃▄▅▆▇█"],
  kept: "▇",
  dropped: "·",
  vertical: "│",
  horizontal: "─",
  corner: "└",
  tick: "┤",
  mark: "▲",
  ellipsis: "…",
  dot: "·",
  to: "–",
};

const ASCII: Glyphs = {
  rising: [...".:#"],
  kept: "#",
  dropped: ".",
  vertical: "|",
  horizontal: "-",
  corner: "+",
  tick: "+",
  mark: "^",
  ellipsis: "...",
  dot: "-",
  to: "-",
};

export interface Look {
  readonly columns: number;
  readonly glyphs: Glyphs;
  dim(text: string): string;
  bold(text: string): string;
  accent(text: string): string;
}

/** How to draw on a stream. */
export function lookOf(stream: NodeJS.WriteStream): Look {
  const { env } = process;
  const colours = stream.isTTY === true && !env.NO_COLOR && env.TERM !== "dumb";
  const paint = (code: number) => (text: string) => (colours && text !== "" ? `\x1b[${code}m${text}\x1b[0m` : text);
  return {
    columns: Math.max(40, Math.min(stream.columns || 80, 100)),
    glyphs: isUnicode() ? UNICODE : ASCII,
    dim: paint(2),
    bold: paint(1),
    accent: paint(36),
  };
}

function isUnicode(): boolean {
  const { env, platform } = process;
  if (platform === "win32") return env.WT_SESSION !== undefined || env.TERM_PROGRAM !== undefined;
  return /utf-?8/i.test(env.LC_ALL || env.LC_CTYPE || env.LANG || "");
}

/** A line for people. */
export function say(line = ""): void {
  process.stderr.write(`${line}\n`);
}

/** The result for scripts: one JSON object, all there is on stdout. */
export function printJson(result: object): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

/** Columns side by side: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[], indent = "  "): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows.map((row) => {
    const cells = row.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column] as number) : cell.padStart(widths[column] as number),
    );
    return (indent + cells.join("  ")).trimEnd();
  });
}

/** 13.60 MB: decimal, as budgets are given. */
export function megabytes(bytes: number): string {
  return bytes < 999.5e6 ? `${(bytes / 1e6).toFixed(2)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** 13,598,208 */
export function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** 15.2 %; only none is 0 %, only all is 100 %. */
export function percent(share: number): string {
  if (share > 0 && share < 0.001) return "<0.1 %";
  if (share < 1 && share >= 0.9995) return ">99.9 %";
  return share === 0 || share === 1 ? `${share * 100} %` : `${(share * 100).toFixed(1)} %`;
}

/** Three or four digits of a perplexity or a speed. */
export function digits(value: number): string {
  if (value >= 1e6) return value.toExponential(1);
  return value.toFixed(value < 100 ? 2 : value < 1000 ? 1 : 0);
}

/** 0.8 s, 42 s, 3 min 5 s, 2 h 10 min. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A pack's own words, without what could steer a terminal. */
export function plain(words: string): string {
  return words.replace(/(?!\n)\p{Cc}/gu, "?");
}

/** Writes past the stream's buffer: for what must be seen even if the process ends next. */
export function writeNow(fd: number, text: string): void {
  try {
    writeSync(fd, text);
  } catch {
    // nobody reads it any more
  }
}
