// snug.wasm and what can be wrong: a sentence and an exit code for everything, and never a trap.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { random } from "./random";
import { runWasi, smallPacks, type WasiImports, type WasiOptions } from "./wasi-command";

const FUZZ_MS = 3000;
const ERRNO_IO = 29;
const ERRNO_NOSPC = 51;

const module = new WebAssembly.Module(readFileSync("dist/snug.wasm"));
const snug = (args: readonly string[], options?: WasiOptions) => runWasi(module, args, options);
const packs = smallPacks();
const { folder, words } = packs;
before(packs.write);
after(packs.remove);

test("whatever is wrong has a sentence and an exit code", () => {
  mkdirSync(join(folder, "damaged"), { recursive: true });
  const file = (name: string, bytes: Uint8Array) => {
    writeFileSync(join(folder, "damaged", name), bytes);
    return join(folder, "damaged", name);
  };
  const good = new Uint8Array(readFileSync(words));
  const flipped = good.slice();
  flipped[good.length - 100] ^= 255;
  const tale = ["--pack", words, "--prompt", "x"];
  const cases: [string[], number, RegExp][] = [
    [[], 2, /--pack is missing: snug\.wasm --pack FILE/],
    [["--pack"], 2, /--pack needs a value/],
    [["--pack="], 2, /--pack is empty/],
    [["--pack", "--plan"], 2, /--pack needs a value/],
    [["--pack", join(folder, "none.snug")], 1, /cannot read .*none\.snug: there is no such file/],
    [["--pack", folder], 1, /cannot read .*: it is a folder/],
    [["--pack", `${words}/x`], 1, /cannot read .*: a part of its path is not a folder/],
    [["--pack", file("text", new TextEncoder().encode("hello"))], 1, /is not a snug pack/],
    [["--pack", file("empty", new Uint8Array())], 1, /is not a snug pack/],
    [["--pack", file("head", good.slice(0, 30))], 1, /ends early: 64 bytes expected, 30 there/],
    [["--pack", file("half", good.slice(0, good.length / 2))], 1, /ends early: \d+ bytes expected, \d+ there/],
    [["--pack", file("flipped", flipped)], 1, /is damaged: checksum mismatch in \d+ bytes at \d+/],
    [[...tale, "--nothing"], 2, /unknown option --nothing: --help/],
    [[...tale, "-x"], 2, /unknown option -x/],
    [[...tale, "--threads", "2"], 2, /unknown option --threads/],
    [[...tale, "hello"], 2, /"hello" is one argument too many/],
    [[...tale, "-"], 2, /"-" is one argument too many/],
    [[...tale, "--ids=1"], 2, /--ids takes no value/],
    [[...tale, "--memory", "lots"], 2, /--memory is a size: bytes, or a number with .*, not "lots"/],
    [[...tale, "--memory", "5TB"], 2, /--memory is a size/],
    [[...tale, "--memory", "5MiBs"], 2, /--memory is a size/],
    [[...tale, "--memory", "-5"], 2, /--memory is a size/],
    [[...tale, "--memory", "5."], 2, /--memory is a size/],
    [[...tale, "--memory", "1e9"], 2, /--memory is a size/],
    [[...tale, "--memory", "10KB"], 1, /does not fit: the budget is 0\.01 MB \(10000 bytes\), the smallest cut needs/],
    [[...tale, "--memory", "1GB", "--pruning", "0.2"], 2, /exclude each other/],
    [[...tale, "--pruning", "1.5"], 2, /--pruning is a number from 0 to 1, not "1\.5"/],
    [[...tale, "--pruning", "0x1"], 2, /--pruning is a number from 0 to 1/],
    [[...tale, "--context", "0"], 2, /--context is a whole number from 1 to 1000000000, not "0"/],
    [[...tale, "--context", "999999"], 2, /this model has at most 100000 positions, not 999999/],
    [[...tale, "--max-tokens", "1.5"], 2, /--max-tokens is a whole number from 1/],
    [[...tale, "--temperature", "hot"], 2, /--temperature is a number from 0 to 100, not "hot"/],
    [[...tale, "--temperature", ""], 2, /--temperature is a number from 0 to 100, not ""/],
    [[...tale, "--top-p", "0"], 2, /--top-p is a number from 0\.000001 to 1, not "0"/],
    [[...tale, "--top-k", "-1"], 2, /--top-k is a whole number from 0/],
    [[...tale, "--min-p", "2"], 2, /--min-p is a number from 0 to 1/],
    [[...tale, "--repeat-penalty", "0"], 2, /--repeat-penalty is a number from 0\.01 to 100/],
    [[...tale, "--seed", "9007199254740993"], 2, /--seed is a whole number from 0 to 9007199254740991/],
    [[...tale, "--activations", "f16"], 2, /--activations is int8 or f32, not "f16"/],
    [[...tale, "--tokens", "1"], 2, /--tokens is the prompt: leave --prompt out/],
    [["--pack", words, "--tokens", "1;2"], 2, /--tokens is a list of token ids such as 1,2,3: "1;2" is not one/],
    [["--pack", words, "--tokens", " ,"], 2, /--tokens is empty/],
    [["--pack", words, "--tokens", "600"], 2, /token id 600 is not below the vocabulary's 600/],
    [["--pack", words, "--tokens", "9999999999"], 2, /token id 9999999999 is not below/],
    [
      ["--pack", words, "--tokens", "1,2,3,4", "--context", "3"],
      1,
      /the prompt is 4 tokens long, the context has room for 3/,
    ],
    [["--pack", "a\x1b[31m\x07"], 1, /cannot read a\?\[31m\?: there is no such file/],
  ];
  for (const [args, code, sentence] of cases) {
    const got = snug(args);
    assert.equal(got.code, code, `${args.join(" ")}: ${got.err}`);
    assert.equal(got.out, "", args.join(" "));
    assert.match(got.err, sentence);
    assert.match(got.err, /(?:^|\n)snug: [^\n]*\n(?:See snug\.wasm --help\.\n)?$/, "one line, and nothing after it");
    assert.equal(/See snug\.wasm --help/.test(got.err), code === 2);
  }
});

test("a host that refuses gets a sentence", () => {
  const tale = ["--pack", words, "--prompt", "x", "--max-tokens", "3"];
  const refusing = (name: string, errno: number) => ({
    imports: (host: WasiImports): WasiImports => ({ ...host, [name]: () => errno }),
  });
  const cases: [string, number, number, RegExp][] = [
    ["args_sizes_get", 52, 2, /the host gives no arguments/],
    ["args_get", 52, 2, /the host gives no arguments/],
    ["fd_prestat_get", 8, 1, /outside the folders that the host has opened/],
    ["path_open", 2, 1, /the host does not permit it/],
    ["path_open", 76, 1, /outside the folders/],
    ["fd_filestat_get", ERRNO_IO, 1, /WASI errno 29/],
    ["fd_pread", 70, 1, /only a file that can be read at any place/],
    ["fd_pread", ERRNO_IO, 1, /cannot read .*: the host answered with WASI errno 29/],
    ["fd_pread", 0, 1, /it ended while it was read|not a snug pack/],
  ];
  for (const [name, errno, code, sentence] of cases) {
    const got = snug(tale, refusing(name, errno));
    assert.equal(got.code, code, `${name}: ${got.err}`);
    assert.match(got.err, sentence);
  }
  // Without a clock or a source of random numbers it runs all the same.
  for (const name of ["clock_time_get", "random_get"]) assert.equal(snug(tale, refusing(name, 52)).code, 0, name);
  const stdin = snug(["--pack", words], { stdin: "x", ...refusing("fd_read", ERRNO_IO) });
  assert.equal(stdin.code, 1);
  assert.match(stdin.err, /cannot read the prompt from stdin/);
});

test("a stdout that is full is an error, one that nobody reads a quiet end", () => {
  const failing = (errno: number) => ({
    imports: (host: WasiImports): WasiImports => ({
      ...host,
      fd_write: (fd: number, ...rest: number[]) =>
        fd === 1 ? errno : (host.fd_write as (...args: number[]) => number)(fd, ...rest),
    }),
  });
  for (const args of [["--pack", words, "--prompt", "x"], ["--pack", words, "--plan"], ["--help"]]) {
    const full = snug(args, failing(ERRNO_NOSPC));
    assert.equal(full.code, 1);
    assert.match(full.err, /snug: cannot write the result: there is no space left\n$/);
    const closed = snug(args, failing(64));
    assert.equal(closed.code, 0);
    assert.doesNotMatch(closed.err, /snug:|answer/);
  }
});

/** A host that passes these bytes as the arguments. */
function rawArguments(args: readonly Uint8Array[]): WasiOptions {
  const all = [new TextEncoder().encode("snug.wasm"), ...args];
  return {
    imports: (host, memory) => ({
      ...host,
      args_sizes_get: (count: number, bytes: number) => {
        memory().setUint32(count, all.length, true);
        memory().setUint32(
          bytes,
          all.reduce((sum, { length }) => sum + length + 1, 0),
          true,
        );
        return 0;
      },
      args_get: (pointers: number, bytes: number) => {
        for (const arg of all) {
          memory().setUint32(pointers, bytes, true);
          pointers += 4;
          for (const byte of [...arg, 0]) memory().setUint8(bytes++, byte);
        }
        return 0;
      },
    }),
  };
}

test("arguments and a stdin that are not UTF-8 are refused, and told without breaking the terminal", () => {
  const bytes = (text: string, ...more: number[]) => Uint8Array.of(...new TextEncoder().encode(text), ...more);
  for (const wrong of [[0xff], [0xc3], [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80]]) {
    const got = snug([], rawArguments([bytes("--pack"), bytes(words), bytes("--prompt"), bytes("é", ...wrong)]));
    assert.equal(got.code, 2);
    assert.match(got.err, /--prompt is not UTF-8/);
    const piped = snug(["--pack", words], { stdin: bytes("é", ...wrong) });
    assert.equal(piped.code, 2);
    assert.match(piped.err, /the prompt on stdin is not UTF-8/);
  }
  const named = snug([], rawArguments([bytes("--pack"), bytes("/nowhere", 0xff, 0x07)]));
  assert.equal(named.code, 1);
  assert.match(named.err, /cannot read \/nowhere\ufffd\?:/);
});

test("no arguments make it trap", (context) => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  context.diagnostic(`SEED=${seed}`);
  const { int } = random(seed);
  const pick = <T>(from: readonly T[]): T => from[int(from.length)] as T;
  const names = [
    "--memory",
    "--pruning",
    "--context",
    "--max-tokens",
    "--temperature",
    "--top-k",
    "--top-p",
    "--min-p",
  ];
  const all = [
    ...names,
    "--repeat-penalty",
    "--seed",
    "--activations",
    "--tokens",
    "--prompt",
    "--pack",
    "--ids",
    "--plan",
  ];
  const values = [
    "0",
    "1",
    "0.5",
    "-1",
    "1e3",
    "1e-400",
    "1e400",
    "NaN",
    "7MB",
    "300KB",
    "512MiB",
    ".5gib",
    "4294967296",
  ];
  const more = [
    "99999999999999999999",
    "int8",
    "f32",
    "1,2,3",
    ",",
    "é\u{1f600}",
    "a".repeat(5000),
    "",
    "--",
    words,
    "-",
  ];
  const encoder = new TextEncoder();
  const end = performance.now() + FUZZ_MS;
  const codes = new Map<number, number>();
  let runs = 0;
  for (; performance.now() < end; runs++) {
    const args = ["--pack", words, "--max-tokens", "3", "--context", "300"].slice(0, pick([6, 6, 6, 4, 2, 0]));
    for (let n = int(6); n > 0; n--) {
      const value = pick([...values, ...more]);
      args.push(...pick([[pick(all), value], [`${pick(all)}=${value}`], [pick(all)], [value], []]));
    }
    const raw = args.map((arg) => encoder.encode(arg));
    for (const arg of raw) if (arg.length > 0 && int(20) === 0) arg[int(arg.length)] = 1 + int(255);
    const shown = () => `SEED=${seed}, run ${runs}: ${JSON.stringify(raw.map((arg) => new TextDecoder().decode(arg)))}`;
    try {
      const { code, err } = snug([], { stdin: "hello", ...rawArguments(raw) });
      codes.set(code, (codes.get(code) ?? 0) + 1);
      assert.ok(code === 0 || /snug: \S/.test(err), `code ${code}, and no sentence: ${err}`);
      assert.ok([0, 1, 2].includes(code), `code ${code}`);
      assert.doesNotMatch(err, /please report/);
    } catch (error) {
      throw new Error(shown(), { cause: error });
    }
  }
  context.diagnostic(`${runs} runs, exit codes ${JSON.stringify([...codes])}`);
  assert.ok((codes.get(0) ?? 0) > 0 && (codes.get(2) ?? 0) > 0, `${runs} runs saw one side only`);
});

test("no damage to a pack makes it trap", (context) => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  context.diagnostic(`SEED=${seed}`);
  const { int } = random(seed);
  const good = new Uint8Array(readFileSync(words));
  const file = join(folder, "broken.snug");
  for (let run = 0; run < 60; run++) {
    const bytes = good.slice(0, int(4) === 0 ? int(good.length) : good.length);
    for (let n = 1 + int(3); n > 0 && bytes.length > 0; n--)
      bytes[int(int(2) ? Math.min(8192, bytes.length) : bytes.length)] ^= 1 << int(8);
    writeFileSync(file, bytes);
    const { code, err } = snug(["--pack", file, "--prompt", "x", "--max-tokens", "2"]);
    assert.equal(code, 1, `SEED=${seed}, run ${run}: ${err}`);
  }
});
