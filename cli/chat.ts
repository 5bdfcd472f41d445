// snug chat: a conversation with a pack in a terminal, or through pipes. Answers go to stdout, everything else to stderr.

import { type Pack, SnugError } from "../runtime/index";
import {
  BUDGET_OPTIONS,
  CONTEXT_OPTION,
  checkBudget,
  chooseBudget,
  DEMO,
  describeBudget,
  describeDevice,
  ENGINE_OPTIONS,
  loadModel,
  withPack,
} from "./budget";
import { answer } from "./chat/answer";
import { type Chat, isCommand, type Next, runCommand } from "./chat/commands";
import { Conversation } from "./chat/conversation";
import { Lines } from "./chat/lines";
import { type Command, choice, text, type Values } from "./options";
import { lookOf, plain, say } from "./output";
import { SAMPLING_OPTIONS, samplingOf } from "./sampling";

const OPTIONS = {
  ...BUDGET_OPTIONS,
  context: CONTEXT_OPTION,
  system: text("TEXT", "what the system turn says"),
  overflow: choice(
    ["error", "drop"] as const,
    "when the context is full: say so, or drop the oldest turns, never the system's (error)",
  ),
  ...SAMPLING_OPTIONS,
  ...ENGINE_OPTIONS,
};
type ChatValues = Values<typeof OPTIONS>;

export const chatCommand: Command<typeof OPTIONS> = {
  name: "chat",
  summary: "Talk with a pack, cut to the memory there is.",
  words: ["[FILE]"],
  about: `
Each line is a turn. The arrow keys bring earlier lines back, Ctrl-C stops an
answer, Ctrl-D ends the chat, and /help lists what else there is: /retry, /save,
/load, /plan and more. Without FILE, or with the word demo for it, the demo pack
runs. Lines may be piped in, too: the first that fails ends the chat then.

  snug chat chat.snug --memory 600MB --system "Answer in one sentence."
  snug chat chat.snug --overflow drop --context 4096
  snug chat chat.snug --temperature 0 < questions.txt > answers.txt`,
  options: OPTIONS,
  async run(values, [file], signal) {
    checkBudget(values);
    const work = async (pack: Pack) => {
      checkPack(pack);
      const budget = await chooseBudget(pack, values, "spare", { signal });
      if (values.turbo && !pack.build.turbo) say(`--turbo is left out: ${plain(pack.build.passedOver ?? "")}.`);
      describeBudget(pack, budget);
      const model = await loadModel(pack, budget.plan, signal);
      describeDevice(model);
      try {
        await converse({ pack, budget, model, conversation: new Conversation(values.system) }, values, signal);
      } finally {
        model.dispose();
      }
    };
    if (file === undefined) say("No pack was given: this is the demo pack, which comes with snug.");
    await withPack(file ?? DEMO, work, values);
  },
};

function checkPack({ info, shape }: Pack): void {
  const missing = !shape.hasTokenizer ? "tokenizer" : info.chatTemplate === null ? "chat template" : undefined;
  if (missing === undefined) return;
  const name = plain(info.name);
  throw new SnugError(
    "unsupported",
    `${name} has no ${missing}, so it cannot chat: snug run continues a prompt with it`,
  );
}

async function converse(chat: Chat, values: ChatValues, signal: AbortSignal): Promise<void> {
  const lines = new Lines();
  const answered = answers(chat, values);
  try {
    if (lines.isInteractive)
      say(`\n${lookOf(process.stderr).dim("Say something; /help lists commands, Ctrl-D ends.")}`);
    for (;;) {
      const line = await lines.next(signal);
      if (signal.aborted) throw new SnugError("aborted", "stopped by the caller");
      if (line === undefined) return;
      try {
        const next = await take(chat, line);
        if (next === "end") return;
        if (next === "answer") await answered(lines, signal);
      } catch (error) {
        // A person reads what went wrong and goes on; nobody does where lines are piped in.
        if (!lines.isInteractive || signal.aborted || !(error instanceof SnugError)) throw error;
        say(error.message);
      }
    }
  } finally {
    lines.close();
  }
}

/** Takes a line in: a turn, or a command. */
async function take(chat: Chat, line: string): Promise<Next> {
  if (line.trim() === "") return undefined;
  if (isCommand(line)) return runCommand(chat, line);
  chat.conversation.ask(line.replace(/^\/\//, "/"));
  return "answer";
}

/** Answers last questions, one after the other; a seed is the first one's, and each has one of its own. */
function answers({ model, conversation }: Chat, values: ChatValues) {
  const { seed, ...sampling } = samplingOf(values);
  const overflow = values.overflow ?? "error";
  let count = 0;
  return async (lines: Lines, signal: AbortSignal): Promise<void> => {
    const stop = new AbortController();
    const onAbort = () => stop.abort();
    lines.onInterrupt = onAbort;
    signal.addEventListener("abort", onAbort, { once: true });
    const seeded = seed === undefined ? sampling : { ...sampling, seed: (seed + count++) % Number.MAX_SAFE_INTEGER };
    try {
      await answer(model, conversation, { sampling: seeded, overflow, signal: stop.signal });
    } catch (error) {
      if (signal.aborted || !stop.signal.aborted) throw error;
      say(lookOf(process.stderr).dim("(stopped)"));
    } finally {
      lines.onInterrupt = () => {};
      signal.removeEventListener("abort", onAbort);
    }
  };
}
