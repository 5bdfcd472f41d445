// snug serve: a pack behind OpenAI's HTTP API. The address goes to stdout, words to stderr.

import { lookup } from "node:dns/promises";
import { BlockList, isIPv6 } from "node:net";
import type { Model, Pack, PlanOptions } from "../runtime/index";
import { SnugError } from "../runtime/index";
import {
  BUDGET_OPTIONS,
  checkBudget,
  chooseBudget,
  DEMO,
  describeBudget,
  describeDevice,
  ENGINE_OPTIONS,
  loadModel,
  withPack,
} from "./budget";
import { type Command, count, flag, number, type Option, size, text, texts, usage, type Values } from "./options";
import { lookOf, plain, say } from "./output";
import { loopbackHosts } from "./server/guard";
import { type Access, Server } from "./server/server";

const HOST = "127.0.0.1";
const PORT = 8080;
const PARALLEL = 4;
const WAITING = 32;
const TIMEOUT_SECONDS = 300;
const GRACE_SECONDS = 5;
const BODY_BYTES = 1_000_000;
const PATH_CHARACTERS = 200;
const LONGEST_SECONDS = 1e6; // what timers can hold

const OPTIONS = {
  ...BUDGET_OPTIONS,
  context: count("N", 1, "positions of each answer, its prompt included (2048, or the model's most if that is less)"),
  parallel: count("N", 1, `answers to make at a time, each with a context of its own (${PARALLEL})`, 64),
  waiting: count("N", 0, `answers that may wait for their turn; more are refused (${WAITING})`, 64),
  port: count("N", 0, `port to listen at; 0: any that is free (${PORT})`, 65_535),
  host: text("HOST", `address to listen at; others than this machine's own want a key (${HOST})`),
  "api-key": text("KEY", "what requests must know; SNUG_API_KEY in the environment does the same, unseen"),
  "allow-origin": origins(),
  name: text("NAME", "what requests call the model (as the pack does)"),
  timeout: number("SECONDS", 0.001, LONGEST_SECONDS, `how long a request may take (${TIMEOUT_SECONDS})`),
  grace: number("SECONDS", 0, LONGEST_SECONDS, `how long answers may go on after Ctrl-C (${GRACE_SECONDS})`),
  "body-limit": size("most bytes of a request (1MB)"),
  quiet: flag("no line for each request"),
  ...ENGINE_OPTIONS,
};
type ServeValues = Values<typeof OPTIONS>;

export const serveCommand: Command<typeof OPTIONS> = {
  name: "serve",
  summary: "Serve a pack through OpenAI's HTTP API, for programs on this machine.",
  words: ["[FILE]"],
  about: `
Without FILE, or with the word demo for it, the demo pack is served. Programs
that speak to OpenAI are given the address that is printed:

  snug serve demo --context 512 --memory 40MB
  curl http://127.0.0.1:8080/v1/completions \\
    -H "Content-Type: application/json" \\
    -d '{"prompt": "Once upon a time", "max_tokens": 40}'

There are /v1/models, /v1/completions, /v1/chat/completions, /health and
/metrics. What a request leaves out is as in snug run, except max_tokens of
completions (16, as in OpenAI's). top_k, min_p, repeat_penalty and priority
("interactive", "background") may be given too; fields that would change the
answer and are not supported are refused. With a seed, answer i of n has the
seed plus i. When --timeout is over, an answer ends with what there is of it and
the finish_reason "length"; one that has not begun is refused.

A chat that the context has no room for is refused, too, unless it says
"truncation": "auto": its oldest turns are left out then, never the system's,
and the header X-Snug-Dropped-Turns of the answer says how many.

Web pages may not use the server, unless --allow-origin names their origin.
Ctrl-C lets answers come to their end for a while; a second one does not.`,
  options: OPTIONS,
  async run(values, [file = DEMO], signal) {
    checkBudget(values);
    const key = readKey(values);
    const address = await addressOf(values.host ?? HOST);
    if (!isLoopback(address) && key === undefined)
      throw usage(
        `--host ${values.host} lets other machines in, which wants a key: set SNUG_API_KEY, or give --api-key KEY`,
      );
    const work = async (pack: Pack) => {
      if (!pack.shape.hasTokenizer)
        throw new SnugError("unsupported", `${plain(pack.info.name)} has no tokenizer, which serving texts wants`);
      const shape: PlanOptions = { sequences: values.parallel ?? PARALLEL };
      const budget = await chooseBudget(pack, values, "spare", { shape, signal });
      if (values.turbo && !pack.build.turbo) say(`--turbo is left out: ${plain(pack.build.passedOver ?? "")}.`);
      describeBudget(pack, budget);
      const model = await loadModel(pack, budget.plan, signal);
      try {
        describeDevice(model);
        await serve(model, values, { address, key, signal });
      } finally {
        model.dispose();
      }
    };
    await withPack(file, work, values);
  },
};

interface Listening {
  readonly address: string;
  readonly key: string | undefined;
  readonly signal: AbortSignal;
}

/** Serves until the signal, then comes to an end. */
async function serve(model: Model, values: ServeValues, { address, key, signal }: Listening): Promise<void> {
  const server = new Server(model, {
    name: values.name ?? (plain(model.info.name) || "snug"),
    parallel: values.parallel ?? PARALLEL,
    waiting: values.waiting ?? WAITING,
    bodyBytes: values["body-limit"] ?? BODY_BYTES,
    timeoutSeconds: values.timeout ?? TIMEOUT_SECONDS,
    hosts: isLoopback(address) ? loopbackHosts(values.host ?? HOST) : null,
    origins: values["allow-origin"] ?? [],
    key,
    ...(!values.quiet && { onEnd: sayAccess }),
    onFault: sayFault,
  });
  const ended = new Promise((done) => signal.addEventListener("abort", done, { once: true }));
  if (signal.aborted) return;
  const { port } = await listen(server, address, values.port ?? PORT);
  say(`${lookOf(process.stderr).dim("serves ")} until Ctrl-C, at\n`);
  process.stdout.write(`http://${isIPv6(address) ? `[${address}]` : address}:${port}/v1\n`);
  await ended;
  say("snug: ending; Ctrl-C again ends it at once");
  await server.close(values.grace ?? GRACE_SECONDS);
}

async function listen(server: Server, address: string, port: number) {
  try {
    return await server.listen(address, port);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const words: Record<string, string> = {
      EADDRINUSE: `port ${port} is taken: give another with --port, or 0 for any that is free`,
      EACCES: `port ${port} is not for everyone to listen at: give another with --port`,
      EADDRNOTAVAIL: `${address} is no address of this machine: give one with --host`,
    };
    throw new SnugError("source", words[code ?? ""] ?? `cannot listen at ${address}, port ${port}: ${message}`, {
      cause: error,
    });
  }
}

// Who may ask

/** The key that requests must know, if any. */
function readKey(values: ServeValues): string | undefined {
  const key = values["api-key"] ?? (process.env.SNUG_API_KEY || undefined);
  if (key !== undefined && !/^[\x21-\x7e]+$/.test(key))
    throw usage("the API key goes into a header: give it letters, digits and signs of ASCII, without spaces");
  return key;
}

/** The address that a host's name stands for. */
async function addressOf(host: string): Promise<string> {
  try {
    return (await lookup(host)).address;
  } catch {
    throw usage(`--host ${host} cannot be found: give an address of this machine, such as ${HOST}`);
  }
}

function isLoopback(address: string): boolean {
  const loopback = new BlockList();
  loopback.addSubnet("127.0.0.0", 8);
  loopback.addAddress("::1", "ipv6");
  return loopback.check(address, isIPv6(address) ? "ipv6" : "ipv4");
}

/** Origins as browsers write them: a scheme, a host, and a port if it is not the scheme's own. */
function origins(): Option<readonly string[]> {
  const { value, help, take } = texts("ORIGIN", "lets web pages of this origin in; may be given several times");
  return {
    value: value as string,
    help,
    take(given, name, before) {
      if (!/^[a-z][a-z\d+.-]*:\/\/[^/\s?#*]+$/.test(given))
        throw usage(`${name} is an origin such as https://page.example, without a path, not "${given}"`);
      return take(given, name, before);
    },
  };
}

// Words

function sayAccess({ method, path, status, usage: tokens, milliseconds }: Access): void {
  const { dim } = lookOf(process.stderr);
  const shown = path.length > PATH_CHARACTERS ? `${path.slice(0, PATH_CHARACTERS)}…` : path;
  const counts = tokens === null ? "" : ` ${tokens.prompt_tokens} + ${tokens.completion_tokens} tokens`;
  say(`${plain(`${method} ${shown}`)} ${status}${counts} ${dim(`${milliseconds.toFixed(0)} ms`)}`);
}

function sayFault(error: unknown): void {
  say(`snug: ${plain(String(error))}`);
  for (let cause = error; process.env.SNUG_DEBUG && cause instanceof Error; cause = cause.cause) say(cause.stack);
}
