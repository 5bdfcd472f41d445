// snug eval: how well a cut predicts a text, or its logits for given tokens.

import { closeSync, openSync, writeSync } from "node:fs";
import { readFile, rename, rm } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { cutWindows } from "../packs/index";
import { type Model, type Pack, type Plan, SnugError } from "../runtime/index";
import {
  BUDGET_OPTIONS,
  type BudgetValues,
  checkBudget,
  chooseBudget,
  deviceWords,
  ENGINE_OPTIONS,
  gpuShare,
  loadModel,
  planFacts,
  withPack,
} from "./budget";
import { checkOutput, fileReason } from "./files";
import { type Command, count, flag, text, tokenIds, usage, type Values } from "./options";
import { digits, duration, grouped, lookOf, megabytes, percent, plain, printJson, say } from "./output";
import { Progress } from "./progress";

const WINDOW_TOKENS = 512;
const WINDOWS = 240;
const ROWS = 64;

const OPTIONS = {
  text: text("FILE", "the text to predict; documents in it are separated by <|endoftext|>"),
  window: count("N", 2, "tokens of a window (512)"),
  windows: count("N", 1, "most windows, from the start of the text (240)"),
  ...BUDGET_OPTIONS,
  tokens: tokenIds("with --logits: the tokens to run, such as 1,2,3"),
  logits: text("OUT", "write the logits of every token to OUT: f32, little-endian, row by row"),
  ...ENGINE_OPTIONS,
  json: flag("print the result as one JSON object"),
};
type EvalValues = Values<typeof OPTIONS>;

export const evalCommand: Command<typeof OPTIONS> = {
  name: "eval",
  summary: "Measure how well a cut of a pack predicts a text, or write its logits.",
  words: ["FILE"],
  about: `
The text is cut into consecutive windows; inside each, every token is predicted
from those before it. Without --memory and --pruning everything is kept, so
that the result does not depend on the machine.

  snug eval tale.snug --text valid.txt --windows 48 --memory 25MB
  snug eval tale.snug --tokens 1,2,3 --logits logits.f32 --pruning 0.25`,
  options: OPTIONS,
  async run(values, [file = ""], signal) {
    checkOptions(values);
    const { logits, tokens } = values;
    if (logits !== undefined && tokens !== undefined) {
      await checkOutput(logits, "--logits");
      await withPack(file, (pack) => writeLogits(pack, values, tokens, logits, signal), values);
      return;
    }
    const words = await readText(values.text as string);
    await withPack(file, (pack) => measure(pack, values, words, signal), values);
  },
};

function checkOptions(values: EvalValues): void {
  checkBudget(values);
  if (values.logits !== undefined && values.text !== undefined)
    throw usage("--logits are of --tokens, not of --text: leave one of them out");
  if (values.logits !== undefined && !values.tokens) throw usage("--logits needs --tokens, such as --tokens 1,2,3");
  if (values.tokens && values.logits === undefined) throw usage("--tokens needs --logits: the file to write");
  if (values.tokens && (values.window ?? values.windows) !== undefined)
    throw usage("--window and --windows are of --text, not of --tokens");
  if (values.text === undefined && !values.tokens)
    throw usage("nothing to evaluate: give --text FILE, or --tokens IDS with --logits OUT");
}

async function readText(path: string): Promise<string> {
  const bytes = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw new SnugError("source", `cannot read the text ${path}: ${fileReason(cause)}`, { cause });
  });
  return new TextDecoder().decode(bytes);
}

// Perplexity

async function measure(pack: Pack, values: EvalValues, words: string, signal: AbortSignal): Promise<void> {
  const windowTokens = values.window ?? WINDOW_TOKENS;
  const plan = await planFor(pack, values, windowTokens, signal);
  const model = await loadModel(pack, plan, signal);
  try {
    const windows = cutText(model, words, windowTokens, values);
    const started = performance.now();
    const { loss, topOne, tokens } = await scoreWindows(model, windows, signal);
    const seconds = (performance.now() - started) / 1000;
    const device = deviceWords(model);
    const result = { perplexity: Math.exp(loss / tokens), topOne: topOne / tokens, tokens, seconds, device };
    if (values.json) printJson({ ...result, plan: planFacts(model.plan) });
    else describe(result, windows.length, model.plan);
  } finally {
    model.dispose();
  }
}

async function planFor(pack: Pack, values: BudgetValues, context: number, signal: AbortSignal): Promise<Plan> {
  const rows = Math.min(ROWS, context);
  const shape = { rows, outputs: rows };
  return (await chooseBudget(pack, { ...values, context }, "everything", { shape, signal })).plan;
}

function cutText(model: Model, words: string, windowTokens: number, values: EvalValues): Uint32Array[] {
  const wanted = values.windows ?? WINDOWS;
  const [endToken = 0] = model.endTokens;
  const windows = cutWindows(words, (slice) => model.encode(slice), windowTokens, wanted, endToken);
  if (windows.length === 0)
    throw new SnugError(
      "source",
      `the text is shorter than one window of ${windowTokens} tokens: give a longer text or a smaller --window`,
    );
  if (windows.length < wanted && (values.windows !== undefined || !values.json))
    say(`The text has ${windows.length} windows of ${windowTokens} tokens; ${wanted} were asked for.`);
  return windows;
}

async function scoreWindows(model: Model, windows: readonly Uint32Array[], signal: AbortSignal) {
  const progress = new Progress();
  const sum = { loss: 0, topOne: 0, tokens: 0 };
  try {
    for (const [index, window] of windows.entries()) {
      progress.update(`window ${index + 1} of ${windows.length}`, index / windows.length);
      await setImmediate(); // lets Ctrl-C through
      signal.throwIfAborted();
      const score = await model.score(window);
      sum.loss += score.loss;
      sum.topOne += score.topOne;
      sum.tokens += score.tokens;
    }
  } finally {
    progress.end();
  }
  return sum;
}

interface Result {
  readonly perplexity: number;
  readonly topOne: number;
  readonly tokens: number;
  readonly seconds: number;
  readonly device: string;
}

function describe(result: Result, windows: number, plan: Plan): void {
  const { bold, dim } = lookOf(process.stdout);
  const { perplexity, topOne, tokens, seconds, device } = result;
  const lines = [
    `${dim("perplexity ")} ${bold(digits(perplexity))}`,
    `${dim("top one    ")} ${percent(topOne)} of the tokens were the likeliest`,
    `${dim("text       ")} ${grouped(tokens)} tokens predicted in ${windows} windows, ${duration(seconds)}`,
    `${dim("plan       ")} ${megabytes(plan.totalBytes)}${gpuShare(plan)}, ${grouped(plan.keptUnits)} of ${grouped(plan.units)} units, ` +
      `pruning rate ${percent(plan.pruningRate)}`,
    `${dim("device     ")} ${plain(device)}`,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

// Logits

async function writeLogits(
  pack: Pack,
  values: EvalValues,
  tokens: readonly number[],
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const plan = await planFor(pack, values, tokens.length, signal);
  const model = await loadModel(pack, plan, signal);
  const started = performance.now();
  const partial = `${path}.partial`;
  try {
    const file = openSync(partial, "w");
    try {
      // The view is of the core's memory, little-endian on every machine, and changes with the next step.
      await model.logits(tokens, (logits) =>
        writeAll(file, new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength)),
      );
    } finally {
      closeSync(file);
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    if (error instanceof SnugError) throw error;
    throw new SnugError("source", `cannot write ${path}: ${fileReason(error as NodeJS.ErrnoException)}`, {
      cause: error,
    });
  } finally {
    model.dispose();
  }
  const seconds = (performance.now() - started) / 1000;
  const bytes = tokens.length * pack.shape.vocabulary * 4;
  if (values.json)
    printJson({
      logits: path,
      tokens: tokens.length,
      vocabulary: pack.shape.vocabulary,
      bytes,
      seconds,
      plan: planFacts(plan),
    });
  else say(`Wrote ${path}: ${tokens.length} rows of ${pack.shape.vocabulary} logits, f32, ${grouped(bytes)} bytes.`);
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
}
