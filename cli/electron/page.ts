// The page: choose a pack, see what a budget keeps of it, load that, and let it write. The model is at the other end of a
// port, in a process of its own; here are only words and buttons.

import { type Plan, type RemoteModel, type RemotePack, RemotePacks, SnugError } from "snug/browser";
import type { News } from "./bridge";

const CONTEXT = 512;
const MOST_TOKENS = 200;

/** The process that the page is connected to, and what was opened and loaded there. */
interface Connection {
  readonly packs: RemotePacks;
  readonly name: string;
  pack: RemotePack | undefined;
  model: RemoteModel | undefined;
  /** A load was asked for: if the process ends now, another one is started. */
  wasUsed: boolean;
}

let current: Connection | undefined;
/** The last plan that was asked for: answers to earlier ones are old. */
let latest: Promise<Plan> | undefined;
let writing: AbortController | undefined;

// Choosing

window.addEventListener("message", ({ data, source, ports: [port] }: MessageEvent<News>) => {
  if (source !== window) return;
  if (data.snug === "started" && port !== undefined) void connect(port, data.name);
  if (data.snug === "ended") lose(`The model's process ended (code ${data.code}).`);
});
find("choose").addEventListener("click", () => attempt(() => window.app.choose()));
void attempt(async () => {
  for (const name of await window.app.packs()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => attempt(() => window.app.open(name)));
    find("choose").before(button);
  }
});

async function connect(port: MessagePort, name: string): Promise<void> {
  current?.packs.fail(new SnugError("aborted", "another pack was opened"));
  const packs = new RemotePacks({
    post: (message) => port.postMessage(message),
    listen(hear) {
      port.onmessage = ({ data }) => hear(data);
    },
  });
  const connection: Connection = { packs, name, pack: undefined, model: undefined, wasUsed: false };
  current = connection;
  reset();
  await attempt(async () => {
    const pack = await packs.open(name);
    connection.pack = pack;
    const everything = await pack.plan({ context: CONTEXT });
    const { shape, size, spare, info } = pack;
    find("facts").textContent = `${info.name}: ${shape.layers} layers, ${words(size)}.`;
    find("spare").textContent = `This device can spare ${words(spare.bytes)}: ${spare.how}.`;
    const wish = find<HTMLInputElement>("memory");
    wish.value = words(Math.min(everything.maximumBytes, spare.bytes));
    show("fit", true);
    wish.focus();
    await showPlan();
  });
}

/** The process is gone. What it was asked is answered with the reason, and another one is started in its place. */
function lose(reason: string): void {
  const lost = current;
  if (lost === undefined) return;
  current = undefined;
  const said = lost.wasUsed ? `${reason} Another one takes its place.` : reason;
  lost.packs.fail(new SnugError("internal", said));
  reset();
  complain(said);
  if (lost.wasUsed) void attempt(() => window.app.restart());
}

function reset(): void {
  for (const section of ["fit", "write"]) show(section, false);
  for (const text of ["facts", "text", "speed"]) find(text).textContent = "";
  for (const button of find("packs").querySelectorAll("button:not(#choose)"))
    button.setAttribute("aria-pressed", String(button.textContent === current?.name));
}

// Memory

find("memory").addEventListener("input", () => attempt(showPlan));
find("fit").addEventListener("submit", (event) => {
  event.preventDefault();
  void attempt(load);
});

/** What the budget keeps. Nothing is loaded. */
async function plan(pack: RemotePack): Promise<Plan> {
  return pack.plan({ memory: find<HTMLInputElement>("memory").value, context: CONTEXT });
}

/** Shows that, or why nothing can be kept, for as long as it is what is asked for. */
async function showPlan(): Promise<void> {
  const pack = current?.pack;
  if (pack === undefined) return;
  const asked = plan(pack);
  latest = asked;
  const outcome = await asked.catch((error: SnugError) => error);
  if (latest !== asked || current?.pack !== pack) return;
  const kept = outcome instanceof SnugError ? 0 : 1 - outcome.pruningRate;
  find<HTMLMeterElement>("share").value = kept;
  find("kept").textContent = outcome instanceof SnugError ? outcome.message : wordsOf(outcome, kept);
}

function wordsOf({ totalBytes, expectedPerplexity }: Plan, kept: number): string {
  const quality = expectedPerplexity === null ? "" : `, expected perplexity ${expectedPerplexity.toFixed(1)}`;
  return `${words(totalBytes)} keep ${Math.floor(kept * 100)} % of the network${quality}.`;
}

async function load(): Promise<void> {
  const connection = current;
  if (connection?.pack === undefined) return;
  enable("load", false);
  try {
    const chosen = await plan(connection.pack); // what is loaded stays if this is refused
    connection.wasUsed = true;
    writing?.abort();
    show("write", false);
    show("progress", true);
    await connection.model?.dispose(); // two models at once would take twice the memory
    connection.model = undefined;
    connection.model = await connection.pack.load(chosen, {
      onProgress({ readBytes, totalBytes }) {
        find<HTMLProgressElement>("progress").value = readBytes / totalBytes;
      },
    });
    show("write", true);
    find("prompt").focus();
  } finally {
    show("progress", false);
    enable("load", true);
  }
}

// Text

find("write").addEventListener("submit", (event) => {
  event.preventDefault();
  void attempt(write);
});
find("stop").addEventListener("click", () => writing?.abort());

async function write(): Promise<void> {
  const model = current?.model;
  if (model === undefined) return;
  const prompt = find<HTMLTextAreaElement>("prompt").value;
  const text = find("text");
  text.textContent = prompt;
  find("speed").textContent = "";
  writing = new AbortController();
  enable("go", false);
  enable("stop", true);
  try {
    const generation = model.generate(prompt, { maxTokens: MOST_TOKENS, signal: writing.signal });
    for await (const piece of generation) text.append(piece);
    const { decode } = await generation.result();
    find("speed").textContent = `${decode.tokens} tokens, ${Math.round(decode.tokensPerSecond)} a second`;
  } finally {
    enable("go", true);
    enable("stop", false);
  }
}

// The page

/** Whatever is done next, the last error is over. */
for (const act of ["click", "input", "submit"])
  document.addEventListener(act, () => show("error", false), { capture: true });

/** Says what went wrong. What was stopped on purpose did not. */
async function attempt(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if ((error as { code?: unknown }).code !== "aborted") complain(error);
  }
}

function complain(error: unknown): void {
  find("error").textContent = error instanceof Error ? error.message : String(error);
  show("error", true);
}

function find<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function show(id: string, isShown: boolean): void {
  find(id).hidden = !isShown;
}

function enable(id: string, isEnabled: boolean): void {
  find<HTMLButtonElement>(id).disabled = !isEnabled;
}

/** Rounded up: a budget of these words holds as many bytes. */
function words(bytes: number): string {
  const [unit, name] = bytes < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  return `${(Math.ceil((100 * bytes) / unit) / 100).toFixed(2)} ${name}`;
}
