// What the hosts found, as a table: a row a host.

import type { GpuReport } from "../../gpu-suite";

/** Those that decide which kernels run, and the heads of their columns. */
const FEATURES: Readonly<Record<string, string>> = {
  "shader-f16": "f16",
  subgroups: "subgroups",
  "timestamp-query": "timestamps",
  packed_4x8_integer_dot_product: "int8 dot",
};
const ADAPTER_CHARACTERS = 48;

export interface Outcome {
  readonly host: string;
  readonly seconds: number;
  /** What the suite found. */
  readonly report?: GpuReport;
  /** Why the host did not run. */
  readonly skipped?: string;
  /** Why it came to no report. */
  readonly error?: string;
}

/** Did the host run, and was all well? No case at all is not well. */
export function passed({ report }: Outcome): boolean {
  return report !== undefined && report.cases > 0 && report.failures.length === 0;
}

export function renderOutcomes(outcomes: readonly Outcome[]): string {
  const rows = outcomes.map((outcome) => {
    const { host, report, skipped, error, seconds } = outcome;
    const about = report?.adapter ?? skipped ?? error ?? "";
    return [
      skipped !== undefined ? "–" : passed(outcome) ? "✓" : "✗",
      host,
      about.replace(/\s+/g, " ").slice(0, ADAPTER_CHARACTERS),
      ...Object.keys(FEATURES).map((name) =>
        report === undefined ? "" : report.features.includes(name) ? "yes" : "no",
      ),
      String(report?.cases ?? (skipped === undefined ? "no report" : "skipped")),
      String(report?.failures.length ?? ""),
      `${seconds.toFixed(1)} s`,
    ];
  });
  const table = [["", "host", "adapter", ...Object.values(FEATURES), "cases", "failures", ""], ...rows];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? [];
  return table.map((row) => `  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join("  ")}`.trimEnd()).join("\n");
}
