// npm run bench:peers: snug against what one would take instead, on the same weights, in one run.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { SHAPES } from "../../packs/index";
import { compareLogits } from "./agreement";
import { Chromium } from "./chromium";
import { type Contestant, contest, median, TASK_SHARE, type Task, timed } from "./contest";
import { makeCopies, modelContestants, opContestants, serverFolders, startLlama, startSnug } from "./contestants";
import { TEXT_TOKENS } from "./gguf";
import { type ModelFiles, writeModels } from "./models";
import { GROUP_MATRICES } from "./onnx";
import { type Report, renderMarkdown, type Section } from "./report";
import type { Answer } from "./runner";

const USAGE = `npm run bench:peers -- [options]
  --shapes A,B      of packs/synthetic.ts             (default: qwen2.5-0.5b,llama-3.2-1b)
  --weights A,B     q4, q8                            (default: q4)
  --threads A,B     threads of each contestant        (default: 1,2)
  --rounds N        of which medians are taken        (default: 5)
  --prompt N        tokens of the prompt, pp          (default: 512)
  --generate N      tokens made, tg                   (default: 64)
  --parts A,B       agreement, models, ops            (default: all)
  --only REGEX      contestants whose names match     (default: all)
  --quick           one shape, 3 rounds, pp128, tg16
  --markdown FILE   --json FILE                       (default: printed only)
  --chromium FILE   the browser                       (default: the one that is installed)`;

const PARTS = ["agreement", "models", "ops"];
const PROMPT_BEFORE_GENERATING = 16;
const COMPARED_TOKENS = 32;
const OP_ROWS = [1, 64];
const SHORT_PASSES = 9; // of one row, which takes some milliseconds

const { values: options } = parseArgs({
  options: {
    shapes: { type: "string" },
    weights: { type: "string", default: "q4" },
    threads: { type: "string", default: "1,2" },
    rounds: { type: "string" },
    prompt: { type: "string" },
    generate: { type: "string" },
    parts: { type: "string", default: PARTS.join() },
    only: { type: "string", default: "" },
    quick: { type: "boolean", default: false },
    markdown: { type: "string" },
    json: { type: "string" },
    chromium: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

async function main(): Promise<void> {
  const { quick } = options;
  const settings = {
    shapes: list(options.shapes ?? (quick ? "qwen2.5-0.5b" : "qwen2.5-0.5b,llama-3.2-1b")),
    weights: list(options.weights) as ("q4" | "q8")[],
    threads: list(options.threads).map(Number),
    rounds: Number(options.rounds ?? (quick ? 3 : 5)),
    prompt: Number(options.prompt ?? (quick ? 128 : 512)),
    generate: Number(options.generate ?? (quick ? 16 : 64)),
  };
  const parts = list(options.parts);
  refuse("shape", settings.shapes, Object.keys(SHAPES));
  refuse("weights", settings.weights, ["q4", "q8"]);
  refuse("part", parts, PARTS);
  for (const count of [...settings.threads, settings.rounds, settings.prompt, settings.generate])
    if (!Number.isInteger(count) || count < 1) throw new Error(`${count} is not a number of threads, rounds or tokens`);
  const folder = mkdtempSync(join(tmpdir(), "snug-peers-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  process.once("SIGINT", () => process.exit(130));
  const chromium = Chromium.launch(serverFolders(folder), options.chromium);
  chromium.catch(() => {}); // those who run in it will say so
  try {
    const copies = makeCopies(folder);
    const report: Report = { machine: await machine(chromium), settings, sections: [] };
    for (const shape of settings.shapes)
      for (const weights of settings.weights) {
        say(`writing ${shape} in ${weights} …`);
        const files = await writeModels(folder, shape, weights);
        const section: Section = { shape, weights, packBytes: files.packBytes, agreement: null, contests: [] };
        report.sections.push(section);
        if (parts.includes("agreement"))
          section.agreement = await agreement(files).catch((error: Error) => error.message);
        for (const threads of settings.threads) {
          say(`${shape}, ${weights}, threads: ${threads}`);
          if (parts.includes("models")) {
            const contestants = modelContestants(files, threads, chromium, copies).filter(takesPart);
            const tasks = [promptTask(settings.prompt), generateTask(settings.generate)];
            const entries = await contest(contestants, tasks, WARM_UP, settings.rounds, say);
            section.contests.push({ threads, unit: "tok/s", measures: tasks.map(({ name }) => name), entries });
          }
          if (parts.includes("ops")) {
            const contestants = opContestants(files, threads, copies).filter(takesPart);
            const tasks = OP_ROWS.map(opTask);
            const entries = await contest(contestants, tasks, opTask(1), settings.rounds, say);
            const measures = OP_ROWS.flatMap((rows) => files.ops.map(({ group }) => opName(group, rows)));
            section.contests.push({ threads, unit: "GMAC/s", measures, entries });
          }
        }
      }
    const markdown = renderMarkdown(report);
    console.log(markdown);
    if (options.markdown !== undefined) writeFileSync(options.markdown, markdown);
    if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
  } finally {
    await chromium.then((browser) => browser.close()).catch(() => {});
  }
}

function takesPart({ name }: Contestant): boolean {
  return new RegExp(options.only).test(name);
}

// What they do

const WARM_UP: Task = {
  name: "warm-up",
  async run(remote, { isSlow }) {
    await remote.call("prompt", tokens(isSlow ? 32 : 128));
    await remote.call("generate", tokens(PROMPT_BEFORE_GENERATING), isSlow ? 4 : 16);
    return [];
  },
};

function promptTask(count: number): Task {
  const name = `pp${count}`;
  return {
    name,
    async run(remote, { isSlow }) {
      const own = isSlow ? Math.ceil(count * TASK_SHARE) : count;
      return [timed(name, await remote.call("prompt", tokens(own)), own)];
    },
  };
}

function generateTask(count: number): Task {
  const name = `tg${count}`;
  return {
    name,
    async run(remote, { isSlow }) {
      const own = isSlow ? Math.ceil(count * TASK_SHARE) : count;
      return [timed(name, await remote.call("generate", tokens(PROMPT_BEFORE_GENERATING), own), own)];
    },
  };
}

function opTask(rows: number): Task {
  return {
    name: `${rows} rows`,
    async run(remote) {
      const passes: Answer[] = [];
      for (let pass = 0; pass < (rows === 1 ? SHORT_PASSES : 1); pass++)
        passes.push(await remote.call("products", rows));
      return Object.keys(GROUP_MATRICES).map((group) => ({
        name: opName(group, rows),
        rate: median(passes.map(({ value }) => (value as Record<string, number>)[group] as number)) / 1e9,
        cores: median(passes.map(({ cores }) => cores)),
      }));
    },
  };
}

function opName(group: string, rows: number): string {
  return `${group} × ${rows}`;
}

async function agreement({ pack, gguf }: ModelFiles) {
  const snug = await startSnug(pack, 1);
  const llama = await startLlama(gguf, 1);
  try {
    return await compareLogits(snug, llama, tokens(COMPARED_TOKENS));
  } finally {
    await snug.close();
    await llama.close();
  }
}

/** Ids that are also characters, so that those who take only text read the same. */
function tokens(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * 37 + 11) % TEXT_TOKENS);
}

// Odds and ends of the report

async function machine(chromium: Promise<Chromium>): Promise<Report["machine"]> {
  return {
    processor: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryBytes: totalmem(),
    node: process.versions.node,
    chromium: await chromium.then(({ version }) => version).catch(() => null),
    date: new Date().toISOString().slice(0, 10),
  };
}

function refuse(what: string, names: readonly string[], known: readonly string[]): void {
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`no ${what} is called "${unknown}": there are ${known.join(", ")}`);
}

function list(text: string): string[] {
  return text.split(",").filter((item) => item !== "");
}

function say(text: string): void {
  console.error(text);
}

if (options.help) {
  console.log(USAGE);
} else {
  await main();
}
