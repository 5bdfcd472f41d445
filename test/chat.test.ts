// snug chat as people and scripts meet it: through pipes, on a small random pack whose every answer `snug run` gives too;
// and at a terminal, where keys count.

import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { readChat } from "../cli/chat/saved";
import { Wrap } from "../cli/chat/wrap";
import { withRandom } from "./random";
import { says, writeCheckpoint } from "./write-checkpoint";
import { packCheckpoint } from "./write-pack";

const CLI = resolve("dist/cli.js");
const POSITIONS = 100_000;
const MOST_MS = 30_000;
const TEMPLATE =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}" +
  "{% if add_generation_prompt %}assistant:{% endif %}";
const GREEDY = ["--temperature", "0", "--repeat-penalty", "1", "--threads", "1"];
const SHORT = [...GREEDY, "--max-tokens", "8", "--context", "256"];

let folder = "";
/** A pack with a tokenizer and a chat template; no token ends its texts. */
let words = "";
/** The same with a name of its own. */
let other = "";
/** With a tokenizer, but no template; and with neither. */
let plain = "";
let ids = "";

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "snug-chat-"));
  const files = { "tokenizer.json": readFileSync("test/fixtures/tokenizer.json", "utf8") };
  writeCheckpoint(join(folder, "words"), { vocab_size: 600, max_position_embeddings: POSITIONS }, 1, { files });
  writeCheckpoint(join(folder, "ids"));
  const info = { name: "Words\x1b[2J", licence: "MIT", provenance: "made by a test", chatTemplate: TEMPLATE };
  const write = async (name: string, checkpoint: string, more: object) => {
    const path = join(folder, `${name}.snug`);
    writeFileSync(path, await packCheckpoint(join(folder, checkpoint), { endTokens: [], ...more }));
    return path;
  };
  words = await write("words", "words", { info });
  other = await write("other", "words", { info: { ...info, name: "Other" } });
  plain = await write("plain", "words", { info: { ...info, chatTemplate: undefined } });
  ids = await write("ids", "ids", {});
});

after(() => rmSync(folder, { recursive: true, force: true }));

test("help has its place on the screen, and wrong options are refused before anything is loaded", async () => {
  const { code, stdout } = await run(["chat", "--help"]).ended;
  assert.equal(code, 0);
  for (const option of ["--memory", "--context", "--system", "--overflow", "--temperature", "--seed", "--threads"])
    assert.match(stdout, new RegExp(`^  ${option} `, "m"));
  for (const line of stdout.split("\n")) assert.ok(line.length <= 80, `wider than 80: ${line}`);
  const refused = await chat([], words, "--overflow", "wrap");
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /--overflow is one of error, drop, not "wrap"/);
});

// Turns

test("each line is a turn: answers on stdout, words on stderr, and what was said before is known", async () => {
  const ended = await chat(["first words", "", "second words"], words, ...SHORT);
  const one = await continued("user: first words\nassistant:");
  const two = await continued(`user: first words\nassistant: ${one.text}\nuser: second words\nassistant:`);
  answered(ended, one, two);
  assert.notEqual(one.text, two.text);
  const { stderr } = ended;
  assert.equal(stderr.match(/^8 tokens, [\d.]+ tok\/s, first in [\d.]+ s, context \d+ of 256$/gm)?.length, 2, stderr);
  assert.match(stderr, /^pack +Words\?\[2J, 2 layers/m);
  assert.ok(!stderr.includes("\x1b") && !stderr.includes("> "), stderr);
});

test("a line without an end, CR LF, and a turn that begins with a slash", async () => {
  const ended = await chat("//exit now\r\nlast", words, ...SHORT);
  const one = await continued("user: /exit now\nassistant:");
  answered(ended, one, await continued(`user: /exit now\nassistant: ${one.text}\nuser: last\nassistant:`));
  assert.equal((await chat("", words, ...SHORT)).code, 0);
});

test("system turns: --system, /system, /clear, and none", async () => {
  const said = ["a", "/system Be long", "/clear", "a", "/system", "/clear", "a", "/exit", "never said"];
  const ended = await chat(said, words, ...SHORT, "--system", "Be brief");
  const { stderr } = ended;
  const answers = ["system: Be brief\n", "system: Be long\n", ""].map((turn) =>
    continued(`${turn}user: a\nassistant:`),
  );
  answered(ended, ...(await Promise.all(answers)));
  assert.match(stderr, /^All is forgotten but the system turn\.$/m);
  assert.match(stderr, /^There is no system turn now\.$/m);
});

test("/retry answers the last turn anew; with a seed the chat is the same each time, its answers are not", async () => {
  const greedy = await chat(["a", "/retry"], words, ...SHORT);
  const one = await continued("user: a\nassistant:");
  answered(greedy, one, one);
  const seeded = () => chat(["a", "/retry"], words, ...SHORT, "--temperature", "5", "--seed", "7");
  const [first, second] = await Promise.all([seeded(), seeded()]);
  assert.equal(first.stdout, second.stdout);
  const drawn = await continued("user: a\nassistant:", "--temperature", "5", "--seed", "7");
  assert.ok(first.stdout.startsWith(lines(drawn.text)));
  assert.notEqual(first.stdout, lines(drawn.text, drawn.text));
});

test("/plan and /help say what they should, on stderr", async () => {
  const { code, stdout, stderr } = await chat(["/plan", "/help"], words, ...SHORT, "--pruning", "0.4");
  assert.equal(code, 0, stderr);
  assert.equal(stdout, "");
  for (const part of ["weights", "KV cache", "scratch", "total", "budget"])
    assert.match(stderr, new RegExp(`^  ${part} +[0-9,]+ `, "m"));
  assert.match(stderr, /^ +layer +qk +vo +mlp$/m);
  for (const name of ["help", "save", "load", "plan", "system", "retry", "clear", "exit"])
    assert.match(stderr, new RegExp(`^  /${name} .{10,}$`, "m"));
});

test("where lines are piped in, the first that fails ends the chat", async () => {
  const cases: [line: string, code: number, ...said: string[]][] = [
    ["/frobnicate", 2, '"/frobnicate" is no command', "/help, /retry, /system", "/exit"],
    ["/retyr", 2, "did you mean /retry?"],
    ["/constructor", 2, '"/constructor" is no command'],
    ["/x\x1b[2J", 2, '"/x?[2J" is no command'],
    ["/", 2, '"/" is no command'],
    ["/retry", 2, "there is no turn to answer yet"],
    ["/save", 2, "FILE is missing: /save FILE"],
    ["/clear all", 2, '/clear takes nothing after it, not "all"'],
    [`/load ${join(folder, "nothing")}`, 1, "cannot read", "no such file"],
    [`/save ${join(folder, "no", "where")}`, 1, "cannot write", "make it first"],
  ];
  for (const [line, code, ...said] of cases) {
    const ended = await chat([line, "never said"], words, ...SHORT);
    assert.equal(ended.code, code, ended.stderr);
    assert.equal(ended.stdout, "");
    for (const word of said) assert.ok(ended.stderr.includes(word), `${ended.stderr} should say ${word}`);
    assert.doesNotMatch(ended.stderr, /^\s+at /m);
  }
});

// Packs and contexts

test("packs that cannot chat are refused with what they can do", async () => {
  for (const [pack, missing] of [
    [plain, "chat template"],
    [ids, "tokenizer"],
  ] as const) {
    const { code, stdout, stderr } = await chat(["a"], pack);
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.ok(stderr.includes(`has no ${missing}`) && stderr.includes("snug run"), stderr);
  }
});

const LONG = "many many words ".repeat(5).trim();
const NARROW = [...GREEDY, "--max-tokens", "4", "--context", "96"];

test("a full context: an error that says what to do", async () => {
  const { code, stderr } = await chat([LONG, LONG, LONG, LONG], words, ...NARROW);
  assert.equal(code, 1);
  assert.match(stderr, /the prompt is \d+ tokens long, the context has room for 96/);
  for (const hint of ["/clear", "--overflow drop", "--context"]) assert.ok(stderr.includes(hint), stderr);
});

test("--overflow drop: the oldest turns go, the system turn stays, and it is said", async () => {
  const drop = [...NARROW, "--overflow", "drop", "--system", "Be brief"];
  const ended = await chat([`${LONG} one`, `${LONG} two`], words, ...drop);
  const alone = (last: string) => continued(`system: Be brief\nuser: ${LONG} ${last}\nassistant:`, ...NARROW);
  answered(ended, await alone("one"), await alone("two"));
  assert.match(ended.stderr, /^\(the context is full: the 2 oldest turns were dropped\)$/m);
  const tooLong = await chat([LONG.repeat(4)], words, ...drop);
  assert.equal(tooLong.code, 1);
  assert.match(tooLong.stderr, /the last turn alone is too long/);
});

test("an answer that fills the context is kept, and it is said", async () => {
  const ended = await chat(["a"], words, ...GREEDY, "--context", "32");
  const { stderr } = ended;
  answered(ended, await continued("user: a\nassistant:", "--max-tokens", "1000", "--context", "32"));
  assert.match(stderr, /, context 32 of 32$/m);
  assert.match(stderr, /^The answer is cut, the context is full: /m);
});

// Files

test("/save and /load: the chat goes on where it was; another pack is a warning", async () => {
  const file = join(folder, "my chat.json");
  const system = ["--system", "Be \u{1f98a}"];
  const first = await chat(["one", `/save ${file}`, `/save ${file}`], words, ...SHORT, ...system);
  assert.equal(first.code, 0, first.stderr);
  const saved = JSON.parse(readFileSync(file, "utf8"));
  const one = first.stdout.replace(/\n$/, "");
  assert.equal(saved.pack.name, "Words\x1b[2J");
  assert.match(saved.pack.identity, /^[\da-f]{12,16}$/);
  assert.deepEqual(
    saved.messages.map(({ role }: { role: string }) => role),
    ["system", "user", "assistant"],
  );
  assert.equal(saved.messages[2].content.trimEnd(), one.trimEnd());
  const whole = await chat(["one", "two"], words, ...SHORT, ...system);
  const second = await chat([`/load ${file}`, "two"], words, ...SHORT, "--system", "another");
  assert.equal(first.stdout + second.stdout, whole.stdout);
  assert.doesNotMatch(second.stderr, /another pack/);
  const elsewhere = await chat([`/load ${file}`, "two"], other, ...SHORT);
  assert.equal(elsewhere.code, 0, elsewhere.stderr);
  assert.match(elsewhere.stderr, /^They were made with another pack, Words\?\[2J: /m);
  assert.equal(elsewhere.stdout, second.stdout);
  // Files of version 1 say less of their pack.
  const { name } = saved.pack;
  const pack = { name, provenance: "", family: "llama", weights: "q4", units: 1, bytes: 1 };
  writeFileSync(file, JSON.stringify({ ...saved, version: 1, pack }));
  assert.equal((await chat([`/load ${file}`, "two"], words, ...SHORT)).stdout, second.stdout);
  assert.match((await chat([`/load ${file}`], other, ...SHORT)).stderr, /^They were made with another pack, /m);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith(".partial")),
    [],
  );
});

test("/save overwrites chats only", async () => {
  const file = join(folder, "notes.txt");
  writeFileSync(file, "dear to somebody");
  const { code, stderr } = await chat(["one", `/save ${file}`], words, ...SHORT);
  assert.equal(code, 1);
  assert.match(stderr, /is there already, and is no saved chat: give another name/);
  assert.equal(readFileSync(file, "utf8"), "dear to somebody");
});

test("/load refuses what is no chat, whatever it is", async () => {
  const pack = { name: "x", identity: "12ab" };
  const good = { format: "snug chat", version: 2, pack, messages: [{ role: "user", content: "a" }] };
  const message = (role: unknown, content: unknown) => ({ role, content });
  const cases: [content: unknown, said: string][] = [
    ["not JSON {", "it is not JSON"],
    ["", "it is not JSON"],
    [`${"[".repeat(200_000)}`, "it is not JSON"],
    [Buffer.from([0x7b, 0xff, 0x7d]), "it is not UTF-8"],
    [null, "snug chat"],
    [[good], "snug chat"],
    [{ ...good, format: "another" }, "snug chat"],
    [{ ...good, version: 3 }, "its version is 3"],
    [{ ...good, version: "\x1b[2J" }, "its version is"],
    [{ ...good, pack: null }, "which pack"],
    [{ ...good, pack: { ...pack, name: 5 } }, `its pack's "name" is 5`],
    [{ ...good, pack: { ...pack, identity: -1 } }, `its pack's "identity" is -1`],
    [{ ...good, pack: { name: "x" } }, `its pack's "identity" is nothing`],
    [{ ...good, version: 1, pack: { identity: "12ab" } }, `its pack's "name" is nothing`],
    [{ ...good, messages: {} }, "no list of messages"],
    [{ ...good, messages: [message("assistant", "a")] }, 'message 0 should be of "user"'],
    [{ ...good, messages: [message("tool", "a")] }, 'of "tool"'],
    [{ ...good, messages: [message("__proto__", "a")] }, "__proto__"],
    [{ ...good, messages: [message("user", "a"), message("user", "b")] }, 'message 1 should be of "assistant"'],
    [{ ...good, messages: [message("user", "a"), message("system", "b")] }, 'message 1 should be of "assistant"'],
    [{ ...good, messages: [message("user", { toString: "a" })] }, "instead of a text"],
    [{ ...good, messages: [message("user", undefined)] }, "instead of a text"],
    [{ ...good, messages: ["user"] }, "its message 0"],
    [{ ...good, messages: [null] }, "its message 0"],
  ];
  const file = join(folder, "hostile.json");
  for (const [content, said] of cases) {
    const isText = typeof content === "string" || Buffer.isBuffer(content);
    writeFileSync(file, isText ? content : JSON.stringify(content));
    await assert.rejects(readChat(file), says("source", `${file} is no saved chat`, said));
  }
  writeFileSync(file, JSON.stringify({ ...good, version: "\x1b[2J" }));
  const { code, stdout, stderr } = await chat([`/load ${file}`, "never said"], words, ...SHORT);
  assert.equal(code, 1, stderr);
  assert.equal(stdout, "");
  assert.ok(stderr.includes(`${file} is no saved chat`), stderr);
  assert.ok(!stderr.includes("\x1b") && !/^\s+at /m.test(stderr), stderr);
  truncateSync(file, 1e9);
  const device = join(folder, "device");
  symlinkSync("/dev/zero", device);
  await assert.rejects(readChat(file), says("source", "has 1000000000 bytes"));
  for (const path of [device, folder]) await assert.rejects(readChat(path), says("source", "not a plain file"));
});

// What a terminal shows

test("text is wrapped between words, however it comes, and cannot steer the terminal", () => {
  const shown = (columns: number, ...pieces: string[]) => {
    const wrap = new Wrap(() => columns);
    return pieces.map((piece) => wrap.push(piece)).join("") + wrap.end();
  };
  assert.equal(shown(10, "one two three four"), "one two\nthree four");
  assert.equal(shown(10, "one tw", "o thr", "ee four"), "one two\nthree four");
  assert.equal(shown(10, "0123456789 0123456789"), "0123456789\n0123456789");
  assert.equal(shown(10, "a 0123456789abcdef b"), "a\n0123456789abcdef b");
  assert.equal(shown(10, "one\n\n  two  \nthree"), "one\n\n  two\nthree");
  assert.equal(shown(10, "\u6f22\u5b57 ".repeat(3)), "\u6f22\u5b57 \u6f22\u5b57\n\u6f22\u5b57");
  assert.equal(shown(10, "e\u0301".repeat(8), " no"), `${"e\u0301".repeat(8)}\nno`);
  assert.equal(shown(10, "\x1b[2Ja\x07\x9b\r\tb"), "?[2Ja???\nb");

  withRandom(1, ({ int, pick }) => {
    for (let round = 0; round < 300; round++) {
      const columns = 4 + int(20);
      const text = Array.from({ length: int(200) }, () => pick("abcdefghij    \n")).join("");
      const pieces: string[] = [];
      for (let at = 0; at < text.length; at += (pieces.at(-1) as string).length)
        pieces.push(text.slice(at, at + 1 + int(9)));
      const wrapped = shown(columns, ...pieces);
      assert.equal(wrapped, shown(columns, text));
      assert.equal(wrapped.replace(/\s/g, ""), text.replace(/\s/g, ""));
      const row = (column: number) => Math.floor(column / columns);
      for (const line of wrapped.split("\n"))
        for (const { 0: word, index } of line.trimStart().matchAll(/\S+/g)) {
          const from = line.length - line.trimStart().length + index;
          const last = from + word.length - 1;
          assert.ok(
            index === 0 || word.length >= columns || row(from) === row(last),
            `${columns}: ${JSON.stringify(line)}`,
          );
        }
    }
  });
});

// Signals and keys

test("SIGTERM ends a chat, in an answer and between them", async () => {
  for (const input of ["a\n", ""]) {
    const child = start([words, ...GREEDY, "--context", String(POSITIONS)]);
    child.process.stdin?.write(input);
    await (input === "" ? child.until("device", "stderr") : child.until(/\S/, "stdout"));
    child.process.kill("SIGTERM");
    const { code, stderr } = await child.ended;
    assert.equal(code, 143, stderr);
    assert.match(stderr, /snug: stopped\n$/);
  }
});

/** `script` from util-linux runs a command at a terminal of its own. */
const terminal = spawnSync("script", ["--version"], { encoding: "utf8" }).stdout?.includes("util-linux");
/** More than a prompt or a warning: an answer is on its way. */
const SOME_OUTPUT = /[\s\S]{300}/;
const atTerminal = { skip: terminal ? false : "there is no script from util-linux to make a terminal" };

test(
  "at a terminal: Ctrl-C stops an answer, not the chat; arrow keys bring lines back; Ctrl-D ends it",
  atTerminal,
  async () => {
    const endless = [...GREEDY, "--context", String(POSITIONS)];
    const child = start([words, ...endless], { TERM: "xterm" }, true);
    const press = (keys: string) => child.process.stdin?.write(keys);
    await child.until("> ");
    press("some words\r");
    await child.until("some words");
    await child.until(SOME_OUTPUT);
    press("typed ahead\x03");
    await child.until("(stopped)");
    await child.until("> ");
    await child.until("typed ahead");
    press("\x15\x1b[A\r"); // Ctrl-U, up, Enter
    await child.until("some words");
    await child.until(SOME_OUTPUT);
    press("\x03");
    await child.until("(stopped)");
    press("/nonsense\r");
    await child.until('"/nonsense" is no command');
    press("\x04");
    const { code, stdout } = await child.ended;
    assert.equal(code, 0, stdout);
    assert.doesNotMatch(stdout, /snug: stopped/);
  },
);

test("at a terminal: Ctrl-C at the prompt ends the chat", atTerminal, async () => {
  const child = start([words, ...SHORT], { TERM: "xterm" }, true);
  await child.until("> ");
  child.process.stdin?.write("half a line\x03");
  const { code, stdout } = await child.ended;
  assert.equal(code, 0, stdout);
});

// Running the program

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Continued {
  readonly text: string;
  /** Tokens read and made. */
  readonly positions: number;
}

/** What stdout has after these answers. */
function lines(...answers: readonly string[]): string {
  return answers.map((answer) => (answer.endsWith("\n") ? answer : `${answer}\n`)).join("");
}

/** What `snug run` says after a prompt that was written out; the same prompt is asked for once. */
async function continued(prompt: string, ...more: string[]): Promise<Continued> {
  const ended = await run(["run", words, prompt, ...SHORT, ...more, "--json"]).ended;
  assert.equal(ended.code, 0, ended.stderr);
  const { text, prompt: read, decode } = JSON.parse(ended.stdout);
  return { text, positions: read.tokens + decode.tokens };
}

/** These were the answers, and as much was read for each: a random model may say the same after another prompt. */
function answered({ code, stdout, stderr }: Ended, ...wanted: readonly Continued[]): void {
  assert.equal(code, 0, stderr);
  assert.equal(stdout, lines(...wanted.map(({ text }) => text)));
  const positions = [...stderr.matchAll(/, context (\d+) of \d+$/gm)].map(([, count]) => Number(count));
  assert.deepEqual(
    positions,
    wanted.map((one) => one.positions),
  );
}

function chat(said: readonly string[] | string, pack: string, ...args: string[]): Promise<Ended> {
  const child = start([pack, ...args]);
  child.process.stdin?.on("error", () => {}); // it may end without reading
  child.process.stdin?.end(typeof said === "string" ? said : said.map((line) => `${line}\n`).join(""));
  return child.ended;
}

const start = (args: readonly string[], env: Record<string, string> = {}, terminal = false) =>
  run(["chat", ...args], env, terminal);

/** Starts the program; until() waits for what it says next. */
function run(args: readonly string[], env: Record<string, string> = {}, terminal = false) {
  const command = [process.execPath, CLI, ...args];
  const quoted = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  const [program, ...rest] = terminal ? ["script", "-qefc", quoted, "/dev/null"] : command;
  const child: ChildProcess = spawn(program as string, rest, {
    env: { ...process.env, LC_ALL: "", LC_CTYPE: "", LANG: "C.UTF-8", SNUG_DEBUG: "", ...env },
  });
  const texts = { stdout: "", stderr: "", any: "" };
  const seen = { stdout: 0, stderr: 0, any: 0 };
  let wake = () => {};
  for (const name of ["stdout", "stderr"] as const)
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      texts[name] += text;
      texts.any += text;
      wake();
    });
  const timer = setTimeout(() => child.kill("SIGKILL"), MOST_MS);
  let over = false;
  const ended = new Promise<Ended>((done) => {
    child.on("close", (code) => {
      clearTimeout(timer);
      over = true;
      wake();
      done({ code, stdout: texts.stdout, stderr: texts.stderr });
    });
  });
  const until = async (wanted: string | RegExp, where: keyof typeof texts = "any"): Promise<void> => {
    for (;;) {
      const text = texts[where].slice(seen[where]);
      const found = typeof wanted === "string" ? text.indexOf(wanted) : text.search(wanted);
      if (found >= 0) {
        seen[where] += found + (typeof wanted === "string" ? wanted.length : 1);
        return;
      }
      assert.ok(!over, `it ended, and never said ${wanted}: ${text.slice(-400)}`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { process: child, ended, until };
}
