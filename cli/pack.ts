// snug pack: a checkpoint becomes a pack.

import { packCheckpoint } from "../packs/index";
import { checkOutput } from "./files";
import { type Command, choice, count, flag, given, text, usage } from "./options";
import { digits, duration, grouped, lookOf, megabytes, percent, printJson, table } from "./output";
import { Progress } from "./progress";

const OPTIONS = {
  output: text("FILE", "the pack to write", "o"),
  calibration: text("TEXT", "a text file of the kind that the model is meant for: what matters is measured on it"),
  weights: choice(["q4", "q8", "f32"] as const, "how weights are stored (q4)"),
  licence: text("WORDS", "the licence of the weights, if the checkpoint does not say"),
  threads: count("N", 1, "worker threads (what the machine runs at once, four at most)", 256),
  json: flag("print the facts about the pack as one JSON object"),
};

export const packCommand: Command<typeof OPTIONS> = {
  name: "pack",
  summary: "Turn a checkpoint into a pack that can be cut to any memory.",
  words: ["CHECKPOINT"],
  about: `
CHECKPOINT is a folder as a model hub stores it: config.json, *.safetensors,
tokenizer.json. This takes a while; the pack has its name only when it is whole.

  snug pack ./tale-llama -o tale.snug --calibration stories.txt`,
  options: OPTIONS,
  async run(values, [checkpoint = ""], signal) {
    const { output, json, ...rest } = values;
    if (output === undefined) throw usage("--output is missing: -o FILE names the pack to write");
    await checkOutput(output, "--output");
    const progress = new Progress();
    const result = await packCheckpoint({
      checkpoint,
      output,
      signal,
      ...given(rest),
      onProgress: ({ stage, done }) => progress.update(stage, done),
    }).finally(() => progress.end());
    const peakBytes = process.resourceUsage().maxRSS * 1024;
    if (json) printJson({ ...result, peakBytes });
    else describe(output, result, peakBytes);
  },
};

function describe(output: string, result: Awaited<ReturnType<typeof packCheckpoint>>, peakBytes: number): void {
  const { bold, dim } = lookOf(process.stdout);
  const { bytes, seconds, units, qualityCurve } = result;
  const rows = qualityCurve.map((point) => [
    percent(point.pruningRate),
    grouped(point.units),
    megabytes(point.weightsBytes),
    digits(point.perplexity),
    percent(point.topOne),
  ]);
  const [head = "", ...lines] = table([["pruning rate", "units", "weights", "perplexity", "top one"], ...rows]);
  const facts = `${megabytes(bytes)}, ${grouped(units)} units, ${duration(seconds)}, ${megabytes(peakBytes)} of memory at most`;
  process.stdout.write(`${[`${bold(output)}: ${facts}`, "", dim(head), ...lines].join("\n")}\n`);
}
