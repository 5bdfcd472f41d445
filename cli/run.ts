// snug run: a pack, cut to a budget, continues a prompt. The text goes to stdout as it comes, everything else to
// stderr.

import { existsSync, fstatSync } from "node:fs";
import { addAbortSignal } from "node:stream";
import type { GenerateResult, Generation, Model, Pack, Speed } from "../runtime/index";
import {
  BUDGET_OPTIONS,
  CONTEXT_OPTION,
  checkBudget,
  chooseBudget,
  DEMO,
  describeBudget,
  describeDevice,
  deviceWords,
  ENGINE_OPTIONS,
  gpuShare,
  loadModel,
  planFacts,
  withPack,
} from "./budget";
import { type Command, flag, given, text, tokenIds, usage, type Values } from "./options";
import { lookOf, megabytes, plain, printJson, say } from "./output";
import { SAMPLING_OPTIONS, samplingOf } from "./sampling";

const DEFAULT_PROMPT = "Once upon a time";
const STDIN_HINT_MS = 1000;
const ECHOED_CHARACTERS = 400;

const OPTIONS = {
  ...BUDGET_OPTIONS,
  context: CONTEXT_OPTION,
  ...SAMPLING_OPTIONS,
  "read-twice": flag(
    "read the prompt twice: for models with a state, which recall more of it then; takes twice the room",
  ),
  chat: flag("send PROMPT as a user's turn through the pack's chat template"),
  system: text("TEXT", "with --chat: what the system turn says"),
  tokens: tokenIds("token ids as the prompt, such as 1,2,3, instead of PROMPT"),
  ...ENGINE_OPTIONS,
  json: flag("print text, tokens, speeds and the plan as one JSON object"),
};
type RunValues = Values<typeof OPTIONS>;

export const runCommand: Command<typeof OPTIONS> = {
  name: "run",
  summary: "Continue a prompt with a pack, cut to the memory there is.",
  words: ["[FILE]", "[PROMPT]"],
  about: `
Without FILE, or with the word demo for it, the demo pack runs: it comes with
snug. PROMPT is continued as it stands. "-", or no PROMPT and something piped
in, reads it from stdin (the newline at its end is left out). Without --memory
and --pruning as much is kept as the machine can spare memory for; on a GPU,
whose memory nobody can ask for, everything.

  snug run demo "Once upon a time" --memory 17MB --context 512
  snug run tale.snug "The old lighthouse" --memory 25MB
  snug run chat.snug "Name three rivers." --chat --temperature 0
  snug run tale.snug --json < prompt.txt`,
  options: OPTIONS,
  async run(values, [file, prompt], signal) {
    checkOptions(values, prompt);
    if (file !== undefined && prompt === undefined && /\s/.test(file) && !existsSync(file))
      throw usage(`there is no file "${plain(file)}": if it is the prompt, a pack comes before it, such as demo`);
    const work = async (pack: Pack) => {
      if (values["read-twice"] && pack.shape.ssm === null)
        throw usage(`--read-twice is for models with a state; ${plain(pack.info.name)} sees its whole prompt`);
      const budget = await chooseBudget(pack, values, "spare", { signal });
      const words = values.tokens ? undefined : await readPrompt(prompt, signal);
      if (words === "" && values.chat) throw usage("the prompt is empty: give the text of a user's turn");
      if (values.turbo && !pack.build.turbo) say(`--turbo is left out: ${plain(pack.build.passedOver ?? "")}.`);
      if (!values.json) describeBudget(pack, budget);
      const model = await loadModel(pack, budget.plan, signal);
      if (!values.json) {
        describeDevice(model);
        say();
      }
      try {
        await generate(model, values, words, signal, pack.shape.hasTokenizer);
      } finally {
        model.dispose();
      }
    };
    if (file === undefined) say("No pack was given: this is the demo pack, which comes with snug.");
    await withPack(file ?? DEMO, work, values);
  },
};

function checkOptions(values: RunValues, prompt: string | undefined): void {
  checkBudget(values);
  if (values.tokens && prompt !== undefined) throw usage("--tokens is the prompt: leave PROMPT out");
  if (values.tokens && values.chat) throw usage("--chat wants a text as its PROMPT, not --tokens");
  if (values.system !== undefined && !values.chat) throw usage("--system is a turn of a chat: add --chat");
}

// The prompt

async function readPrompt(prompt: string | undefined, signal: AbortSignal): Promise<string> {
  if (prompt !== undefined && prompt !== "-") return prompt;
  if (prompt === "-" || isPiped()) {
    const piped = await readStdin(signal);
    if (prompt === "-" || piped !== "") return piped;
  }
  say(`No prompt was given: continuing "${DEFAULT_PROMPT}".`);
  return DEFAULT_PROMPT;
}

/** Is there a file or a program at the other end of stdin, rather than a terminal or nothing? */
function isPiped(): boolean {
  try {
    const stat = fstatSync(0);
    return stat.isFile() || stat.isFIFO() || stat.isSocket();
  } catch {
    return false; // closed
  }
}

async function readStdin(signal: AbortSignal): Promise<string> {
  const hint = setTimeout(() => say("Reading the prompt from stdin; Ctrl-D ends it."), STDIN_HINT_MS);
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of addAbortSignal(signal, process.stdin)) chunks.push(chunk as Buffer);
    return new TextDecoder().decode(Buffer.concat(chunks)).replace(/\r?\n$/, "");
  } finally {
    clearTimeout(hint);
  }
}

// The text

async function generate(
  model: Model,
  values: RunValues,
  prompt: string | undefined,
  signal: AbortSignal,
  hasTokenizer: boolean,
) {
  const generation = start(model, values, prompt, signal);
  const look = lookOf(process.stderr);
  const people = process.stdout.isTTY === true && process.stderr.isTTY === true && !values.json;
  if (people && prompt && !values.chat && prompt.length <= ECHOED_CHARACTERS) process.stderr.write(look.dim(prompt));

  let text = "";
  let result: GenerateResult | undefined;
  try {
    for await (const piece of generation) {
      text += piece;
      if (!values.json) process.stdout.write(piece);
    }
    result = await generation.result();
  } catch (error) {
    // Stopped by Ctrl-C: what there is remains.
    if (values.json && signal.aborted) printJson(unfinished(model, text));
    throw error;
  } finally {
    if (text !== "" && !text.endsWith("\n") && !values.json && (result || people)) process.stdout.write("\n");
  }
  if (values.json) {
    printJson({ ...result, device: deviceWords(model), plan: planFacts(model.plan) });
    return;
  }
  if (!hasTokenizer) process.stdout.write(`${result.tokens.join(",")}\n`);
  describeSpeed(result);
  describeMemory(model);
}

function start(model: Model, values: RunValues, prompt: string | undefined, signal: AbortSignal): Generation {
  const options = {
    ...samplingOf(values),
    ...given({ readTwice: values["read-twice"] }),
    signal,
  };
  if (values.tokens) return model.generate(values.tokens, options);
  if (!values.chat) return model.generate(prompt as string, options);
  const system = values.system === undefined ? [] : [{ role: "system", content: values.system }];
  return model.chat([...system, { role: "user", content: prompt as string }], options);
}

/** The result's shape for a generation that was stopped: what only its end would have told is null. */
function unfinished(model: Model, text: string) {
  const unknown = { tokens: null, seed: null, prompt: null, decode: null };
  return { text, ...unknown, finishReason: "aborted", device: deviceWords(model), plan: planFacts(model.plan) };
}

/** What the model was planned to take, and what the whole process took at most: Node itself is some 55 MB of that. */
function describeMemory(model: Model): void {
  const peak = process.resourceUsage().maxRSS * 1024;
  const { dim } = lookOf(process.stderr);
  const planned = `${megabytes(model.memoryBytes)} planned${gpuShare(model.plan)}`;
  say(`${dim("memory ")} ${planned}; the process with Node took ${megabytes(peak)} at most`);
}

function describeSpeed({ finishReason, prompt, decode, seed }: GenerateResult): void {
  const { dim } = lookOf(process.stderr);
  const width = String(Math.max(prompt.tokens, decode.tokens)).length;
  const speed = ({ tokens, tokensPerSecond }: Speed) =>
    `${String(tokens).padStart(width)} tokens, ${tokensPerSecond.toFixed(tokensPerSecond < 100 ? 1 : 0)} tok/s`;
  const end = finishReason === "length" ? "as long as it may be" : "came to its end";
  say();
  say(`${dim("prompt ")} ${speed(prompt)}`);
  say(`${dim("answer ")} ${speed(decode)}, ${end} (seed ${seed})`);
}
