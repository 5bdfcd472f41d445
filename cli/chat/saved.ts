// A chat as a file: JSON with the turns and what tells its pack from others. What is read may come from anywhere, and is
// taken only if it is what was written.

import { constants } from "node:fs";
import { open, rename, rm, writeFile } from "node:fs/promises";
import { type Message, type Pack, SnugError } from "../../runtime/index";
import { checkOutput, fileReason } from "../files";
import { plain } from "../output";

const FORMAT = "snug chat";
const VERSION = 2;
const BYTES_MOST = 16 * 2 ** 20;

/** The pack that a chat was made with. */
export interface ChatPack {
  readonly name: string;
  /** As in Pack; null: the file is of version 1, which had only the name and sizes. */
  readonly identity: string | null;
}

export interface SavedChat {
  readonly pack: ChatPack;
  readonly messages: readonly Message[];
}

/** Was it this pack, as far as is known? */
export function isOf(saved: ChatPack, { identity, info }: Pick<Pack, "identity" | "info">): boolean {
  return saved.identity === null ? saved.name === info.name : saved.identity === identity;
}

/** Writes a chat. A file that is there already has to be a chat, too: nothing else is overwritten. */
export async function saveChat(path: string, { pack, messages }: SavedChat): Promise<void> {
  await checkOutput(path, "/save FILE");
  await readChat(path).catch((error: SnugError) => {
    if ((error.cause as NodeJS.ErrnoException)?.code === "ENOENT") return;
    throw new SnugError("source", `${path} is there already, and is no saved chat: give another name`, {
      cause: error,
    });
  });
  const partial = `${path}.partial`;
  try {
    await writeFile(partial, `${JSON.stringify({ format: FORMAT, version: VERSION, pack, messages }, null, 2)}\n`);
    await rename(partial, path);
  } catch (cause) {
    await rm(partial, { force: true });
    throw new SnugError("source", `cannot write ${path}: ${fileReason(cause as NodeJS.ErrnoException)}`, { cause });
  }
}

/** Reads a chat; refuses whatever saveChat() would not have written. */
export async function readChat(path: string): Promise<SavedChat> {
  const refuse = (reason: string, cause?: unknown) =>
    new SnugError("source", `${path} is no saved chat: ${reason}`, { cause });
  const text = await readText(path, refuse);
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch (cause) {
    throw refuse("it is not JSON; /save makes such files", cause);
  }
  if (!isRecord(found) || found.format !== FORMAT)
    throw refuse(`it has no "format": "${FORMAT}"; /save makes such files`);
  const { version } = found;
  if (version !== 1 && version !== VERSION)
    throw refuse(`its version is ${shown(version)}, and this snug reads version ${VERSION}`);
  return { pack: checkPack(found.pack, version, refuse), messages: checkMessages(found.messages, refuse) };
}

async function readText(path: string, refuse: (reason: string, cause?: unknown) => SnugError): Promise<string> {
  const unreadable = (cause: unknown) =>
    new SnugError("source", `cannot read ${path}: ${fileReason(cause as NodeJS.ErrnoException)}`, { cause });
  // O_NONBLOCK: not to wait for the other end of a pipe.
  const file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)).catch((cause: unknown) => {
    throw unreadable(cause);
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw refuse("it is not a plain file");
    if (stat.size > BYTES_MOST) throw refuse(`it has ${stat.size} bytes, and a chat has at most ${BYTES_MOST}`);
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.readFile());
  } catch (error) {
    if (error instanceof SnugError) throw error;
    throw error instanceof TypeError ? refuse("it is not UTF-8", error) : unreadable(error);
  } finally {
    await file.close();
  }
}

function checkPack(pack: unknown, version: number, refuse: (reason: string) => SnugError): ChatPack {
  if (!isRecord(pack)) throw refuse("it does not say which pack it was made with");
  const text = (key: keyof ChatPack) => {
    const value = pack[key];
    if (typeof value !== "string") throw refuse(`its pack's "${key}" is ${shown(value)}, not a text`);
    return value;
  };
  return { name: text("name"), identity: version === 1 ? null : text("identity") };
}

/** A system turn or none, then user and assistant in turn. */
function checkMessages(messages: unknown, refuse: (reason: string) => SnugError): Message[] {
  if (!Array.isArray(messages)) throw refuse("it has no list of messages");
  const offset = isRecord(messages[0]) && messages[0].role === "system" ? 1 : 0;
  return messages.map((message: unknown, index) => {
    if (!isRecord(message)) throw refuse(`its message ${index} is ${shown(message)}`);
    const { role, content } = message;
    const wanted = index < offset ? "system" : (index - offset) % 2 === 0 ? "user" : "assistant";
    if (role !== wanted) throw refuse(`its message ${index} should be of "${wanted}", and is of ${shown(role)}`);
    if (typeof content !== "string") throw refuse(`its message ${index} has ${shown(content)} instead of a text`);
    return { role: wanted, content };
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A stranger's value in a sentence. */
function shown(value: unknown): string {
  const json = JSON.stringify(value) ?? "nothing";
  return plain(json.length > 40 ? `${json.slice(0, 40)}…` : json);
}
