// What a person can ask of the chat itself: lines that begin with a slash.

import type { Model, Pack } from "../../runtime/index";
import { type Budget, describeBudget, describeDevice } from "../budget";
import { nearest, usage } from "../options";
import { lookOf, plain, say } from "../output";
import { drawLayers, drawParts } from "../picture";
import type { Conversation } from "./conversation";
import { isOf, readChat, saveChat } from "./saved";

const NAME_COLUMNS = 16;

/** What a command works on. */
export interface Chat {
  readonly pack: Pack;
  readonly budget: Budget;
  readonly model: Model;
  readonly conversation: Conversation;
}

/** What is to happen next; nothing: the next line. */
export type Next = "answer" | "end" | undefined;

interface ChatCommand {
  /** What comes after the name. */
  readonly value?: string;
  readonly help: string;
  run(chat: Chat, value: string): Next | Promise<Next>;
}

const COMMANDS: Readonly<Record<string, ChatCommand>> = {
  help: { help: "this list", run: showHelp },
  retry: { help: "answer the last turn anew", run: retry },
  system: { value: "[TEXT]", help: "set the system turn; no TEXT: remove it", run: setSystem },
  clear: { help: "forget all turns but the system's", run: clear },
  save: { value: "FILE", help: "write the chat to a file", run: save },
  load: { value: "FILE", help: "go on with a chat that was saved", run: load },
  plan: { help: "what is kept of the model, and its bytes", run: showPlan },
  exit: { help: "end the chat, as Ctrl-D does", run: () => "end" },
};

/** Is a line a command? One that begins with two slashes is a turn that begins with one. */
export function isCommand(line: string): boolean {
  return line.startsWith("/") && !line.startsWith("//");
}

/** Does what a line says that begins with a slash. */
export async function runCommand(chat: Chat, line: string): Promise<Next> {
  const [, name = "", value = ""] = /^\/(\S*)\s*(.*?)\s*$/su.exec(line) ?? [];
  const names = Object.keys(COMMANDS);
  const command = names.includes(name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const near = nearest(name, names);
    const hint = near ? `did you mean /${near}?` : `there are ${names.map((one) => `/${one}`).join(", ")}`;
    throw usage(`"/${plain(name)}" is no command: ${hint} (two slashes begin a turn with one)`);
  }
  if (command.value === undefined && value !== "")
    throw usage(`/${name} takes nothing after it, not "${plain(value)}"`);
  if (command.value?.startsWith("[") === false && value === "")
    throw usage(`${command.value} is missing: /${name} ${command.value}`);
  return command.run(chat, value);
}

function showHelp(): undefined {
  for (const [name, { value, help }] of Object.entries(COMMANDS))
    say(`  ${`/${name} ${value ?? ""}`.padEnd(NAME_COLUMNS)}${help}`);
  say("Ctrl-C stops an answer. Two slashes begin a turn with one.");
}

function retry({ conversation }: Chat): "answer" {
  if (!conversation.reopen()) throw usage("there is no turn to answer yet");
  return "answer";
}

function setSystem({ conversation }: Chat, text: string): undefined {
  conversation.system = text === "" ? undefined : text;
  say(text === "" ? "There is no system turn now." : "The system turn is set.");
}

function clear({ conversation }: Chat): undefined {
  conversation.clear();
  say(conversation.system === undefined ? "All is forgotten." : "All is forgotten but the system turn.");
}

async function save({ pack, conversation: { messages } }: Chat, path: string): Promise<undefined> {
  const { identity, info } = pack;
  await saveChat(path, { pack: { name: info.name, identity }, messages });
  say(`Saved ${messages.length} messages to ${path}.`);
}

async function load({ pack, conversation }: Chat, path: string): Promise<undefined> {
  const saved = await readChat(path);
  conversation.restore(saved.messages);
  say(`Loaded ${saved.messages.length} messages from ${path}.`);
  if (isOf(saved.pack, pack)) return;
  const { name } = saved.pack;
  const other = name === pack.info.name ? `another pack of the name ${plain(name)}` : `another pack, ${plain(name)}`;
  say(`They were made with ${other}: answers may go on in another way.`);
}

function showPlan({ pack, budget, model }: Chat): undefined {
  const look = lookOf(process.stderr);
  describeBudget(pack, { ...budget, plan: model.plan });
  describeDevice(model);
  for (const line of ["", ...drawParts(model.plan, look), "", ...drawLayers(model.plan.layers, look)]) say(line);
}
