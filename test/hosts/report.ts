// What the suite found, as a table: a row a host.

import type { Case } from "./case";

const ABOUT_CHARACTERS = 56;

export interface Outcome {
  readonly host: string;
  readonly threads: number;
  /** Engine, version and build; or why it could not run. */
  readonly about: string;
  readonly passed: number;
  /** By the case's name; empty for a host that was skipped, and for one where all is well. */
  readonly faults: readonly string[];
  readonly skipped: boolean;
  readonly seconds: number;
}

export function renderOutcomes(outcomes: readonly Outcome[], cases: readonly Case[]): string {
  const rows = outcomes.map(({ host, threads, about, passed, faults, skipped, seconds }) => [
    skipped ? "–" : faults.length === 0 ? "✓" : "✗",
    host,
    about.replace(/\s+/g, " ").slice(0, ABOUT_CHARACTERS),
    String(threads),
    skipped ? "skipped" : `${passed} of ${cases.length}`,
    `${seconds.toFixed(1)} s`,
  ]);
  const table = [["", "host", "engine and build", "threads", "cases", ""], ...rows];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = table.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return lines.map((line) => `  ${line}`).join("\n");
}
