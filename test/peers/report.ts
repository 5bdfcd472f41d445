// The report: as data for --json, as tables for people.

import type { Agreement } from "./agreement";
import { type Entry, median, ratio, TASK_SHARE } from "./contest";

/** Of the processors that threads want: less than this, and they did not get them. */
const FREE_SHARE = 0.85;

export interface Report {
  readonly machine: {
    readonly processor: string;
    readonly cores: number;
    readonly memoryBytes: number;
    readonly node: string;
    readonly chromium: string | null;
    readonly date: string;
  };
  readonly settings: { readonly rounds: number; readonly prompt: number; readonly generate: number };
  readonly sections: Section[];
}

/** One model. */
export interface Section {
  readonly shape: string;
  readonly weights: string;
  readonly packBytes: number;
  /** Of snug's logits and llama.cpp's, or why they could not be compared; null if not asked for. */
  agreement: Agreement | string | null;
  readonly contests: Contest[];
}

export interface Contest {
  readonly threads: number;
  readonly unit: string;
  readonly measures: readonly string[];
  readonly entries: readonly Entry[];
}

export function renderMarkdown({ machine, settings, sections }: Report): string {
  const { processor, cores, memoryBytes, node, chromium, date } = machine;
  const browser = chromium === null ? "" : `, Chromium ${chromium}`;
  return [
    `${processor}, ${cores} processors, ${(memoryBytes / 2 ** 30).toFixed(0)} GiB; Node ${node}${browser}; ${date}. ` +
      `Medians of ${settings.rounds} rounds in which all take turns, and in brackets the least and the most. ` +
      "“Busy”: processors busy on average. Ratios: medians of each round's.",
    ...sections.flatMap(renderSection),
  ].join("\n\n");
}

function renderSection({ shape, weights, packBytes, agreement, contests }: Section): string[] {
  const title = `## ${shape}, ${weights} (${(packBytes / 1e6).toFixed(0)} MB)`;
  return [title, ...(agreement ? [renderAgreement(agreement)] : []), ...contests.flatMap(renderContest)];
}

function renderAgreement(agreement: Agreement | string): string {
  if (typeof agreement === "string") return `snug's logits and llama.cpp's could not be compared: ${agreement}`;
  const { positions, topOne, largest, rms, divergence } = agreement;
  return (
    `The same model: after ${positions} tokens, snug and llama.cpp agree on the likeliest next token at ` +
    `${Math.round(topOne * positions)}; their logits differ by ${percent(rms)} of their deviation (root mean square; ` +
    `at most ${percent(largest)}), the distributions by ${divergence.toPrecision(2)} nats.`
  );
}

function renderContest({ threads, unit, measures, entries }: Contest): string[] {
  const rates = entries.map((entry) => {
    if (entry.error !== null) return [entry.name, ...measures.map(() => "–"), "–", `failed: ${entry.error}`];
    const about = `${entry.about}${entry.isSlow ? `; tasks ${TASK_SHARE} as long` : ""}`;
    return [entry.name, ...measures.map((measure) => spread(entry.rates[measure])), busy(entry), about];
  });
  const snugs = entries.filter(({ isSnug }) => isSnug);
  const ratios = entries
    .filter(({ isSnug }) => !isSnug)
    .flatMap((peer) =>
      measures.map((measure) => [
        `${peer.name}, ${measure}`,
        ...snugs.map((snug) => ratio(snug, peer, measure)?.toFixed(2) ?? "–"),
      ]),
    );
  return [
    `### ${threads} ${threads === 1 ? "thread" : "threads"}, ${unit}`,
    table(["", ...measures, "busy", "what runs"], rates),
    ...disturbance(threads, entries),
    "Times as fast as:",
    table(["", ...snugs.map(({ name }) => name)], ratios),
  ];
}

/** A warning where something else had the processors that the contestants' threads wanted. */
function disturbance(threads: number, entries: readonly Entry[]): string[] {
  const cores = entries.flatMap((entry) => Object.values(entry.cores).flat());
  if (cores.length === 0 || median(cores) > FREE_SHARE * threads) return [];
  const had = `${median(cores).toFixed(1)} processors busy where ${threads} were wanted`;
  return [`**The machine was not free** (${had}): do not trust these figures.`];
}

function spread(rates: readonly number[] = []): string {
  const digits = (rate: number) => rate.toFixed(rate < 10 ? 2 : rate < 100 ? 1 : 0);
  return `${digits(median(rates))} (${digits(Math.min(...rates))}–${digits(Math.max(...rates))})`;
}

function busy({ cores }: Entry): string {
  const medians = Object.values(cores).map((values) => median(values));
  return `${Math.min(...medians).toFixed(1)}–${Math.max(...medians).toFixed(1)}`;
}

function percent(share: number): string {
  return `${(share * 100).toPrecision(2)} %`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
