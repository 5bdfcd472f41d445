// snug.wasm: the same tokens, text and plan as the TypeScript runtime over the same build of the core. What can go wrong:
// wasi-hostile.test.ts.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import type { GenerateOptions } from "../runtime/generation";
import type { Host } from "../runtime/host";
import { nodeHost } from "../runtime/node";
import type { PlanOptions } from "../runtime/plan";
import { watchModels } from "./all-returned";
import { random } from "./random";
import { FAMILY_SHAPES, randomTokens, SHAPES } from "./small-models";
import { runWasi, smallPacks, type WasiImports, type WasiOptions } from "./wasi-command";
import { scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint, testHost } from "./write-pack";

watchModels();

const DEMO = resolve("packs/demo/tale.snug");
const GREEDY = { temperature: 0, repeatPenalty: 1 };

nodeHost.enable?.("relaxed");
const BUILDS = {
  simd128: {
    module: new WebAssembly.Module(readFileSync("dist/snug.wasm")),
    host: {
      ...testHost,
      loadModule: (file: string) =>
        file.includes("relaxed")
          ? Promise.reject(new WebAssembly.CompileError("not wanted"))
          : testHost.loadModule(file),
    } satisfies Host,
  },
  relaxed: { module: new WebAssembly.Module(readFileSync("dist/snug.relaxed.wasm")), host: testHost },
};
const { module } = BUILDS.simd128;
const snug = (args: readonly string[], options?: WasiOptions) => runWasi(module, args, options);

const packs = smallPacks();
const { folder, words, ids } = packs;
before(packs.write);
after(packs.remove);

/** What the runtime makes of a pack, on one thread. */
async function runtimeRun(
  bytes: Uint8Array,
  host: Host,
  prompt: string | readonly number[],
  plan: PlanOptions,
  options: GenerateOptions,
) {
  const pack = await openBytes(bytes, "test.snug", host);
  const planned = pack.plan({ ...plan, threads: 1 });
  const model = await pack.load(planned);
  const result = await model.generate(prompt, options).result();
  model.dispose();
  return { ...result, plan: planned, build: pack.build.simd };
}

const OPTION_NAMES = {
  maxTokens: "max-tokens",
  topK: "top-k",
  topP: "top-p",
  minP: "min-p",
  repeatPenalty: "repeat-penalty",
};

/** The command line of the same run. */
function argumentsOf(file: string, prompt: string | readonly number[], options: object): string[] {
  const named = Object.entries(options).flatMap(([name, value]) => [
    `--${(OPTION_NAMES as Record<string, string>)[name] ?? name}`,
    String(value),
  ]);
  const given = typeof prompt === "string" ? ["--prompt", prompt] : ["--tokens", prompt.join(",")];
  return ["--pack", file, ...given, ...named];
}

test("the import list is WASI's and nothing else, the memory is exported, and there is one way in", () => {
  for (const { module } of Object.values(BUILDS)) {
    const imports = WebAssembly.Module.imports(module);
    assert.deepEqual(new Set(imports.map(({ module }) => module)), new Set(["wasi_snapshot_preview1"]));
    assert.ok(imports.every(({ kind }) => kind === "function"));
    const exports = WebAssembly.Module.exports(module).map(({ name, kind }) => `${kind} ${name}`);
    assert.deepEqual(exports.toSorted(), ["function _start", "memory memory"]);
  }
});

for (const [simd, { module, host }] of Object.entries(BUILDS)) {
  for (const [index, { name, config, sizes }] of [...SHAPES.slice(0, 2), ...FAMILY_SHAPES].entries()) {
    test(`${simd}: the tokens of the runtime, ${name}`, async (context) => {
      const seed = 900 + index;
      const scratch = scratchFolder(context);
      const { folder } = writeCheckpoint(scratch, config, seed);
      for (const weights of ["f32", "q4"] as const) {
        const bytes = await packCheckpoint(folder, { weights, seed, sizes, endTokens: [] });
        const file = join(scratch, `${weights}.snug`);
        writeFileSync(file, bytes);
        for (const plan of [{ pruning: 0 }, { pruning: 0.3, activations: "f32" as const, context: 100 }]) {
          const prompt = randomTokens(70, 64, seed);
          const options = { ...GREEDY, maxTokens: 20 };
          const want = await runtimeRun(bytes, host, prompt, plan, options);
          assert.equal(want.build, simd);
          const got = runWasi(module, [...argumentsOf(file, prompt, { ...plan, ...options }), "--ids"]);
          assert.equal(got.code, 0, got.err);
          assert.equal(got.out, `${want.tokens.join(",")}\n`, `${weights}, ${JSON.stringify(plan)}`);
        }
      }
    });
  }

  test(`${simd}: the tokens and the text of the runtime, the demo pack`, async () => {
    const bytes = readFileSync(DEMO);
    const cases: [string | number[], PlanOptions, GenerateOptions][] = [
      ["The old lighthouse", { memory: "12MB", context: 128 }, GREEDY],
      [[1, 450, 30, 22, 7], { memory: "12MB", context: 128, activations: "f32" }, GREEDY],
      ["The fox said: “Why?” — and then é", { pruning: 0, context: 512 }, GREEDY],
      ["Once upon a time", { pruning: 0.25, context: 512 }, { seed: 7 }],
      [
        "A king",
        { context: 256 },
        { seed: 2 ** 40 + 5, temperature: 1.5, topK: 0, topP: 1, minP: 0, repeatPenalty: 1.3 },
      ],
    ];
    for (const [prompt, plan, options] of cases) {
      const given = { maxTokens: 64, ...options };
      const want = await runtimeRun(bytes, host, prompt, plan, given);
      assert.equal(want.build, simd);
      const args = argumentsOf(DEMO, prompt, { ...plan, ...given });
      const got = runWasi(module, [...args, "--ids"]);
      assert.equal(got.code, 0, got.err);
      assert.equal(got.out, `${want.tokens.join(",")}\n`, args.join(" "));
      assert.match(got.err, new RegExp(`kept {4}${want.plan.keptUnits} of ${want.plan.units} units`));
      const text = runWasi(module, args);
      assert.equal(text.out, want.text.endsWith("\n") ? want.text : `${want.text}\n`);
      assert.match(text.err, /prompt {2}\d+ tokens, [\d.]+ tok\/s, first token after [\d.]+ s\nanswer {2}\d+ tokens/);
    }
  });
}

test("--plan is the runtime's plan, but for the module's own bytes; the memory grows to its total", async () => {
  const pack = await openBytes(new Uint8Array(readFileSync(DEMO)), "demo");
  for (const [memory, context] of [
    ["12MB", 128],
    ["14.7MB", 512],
    ["20MB", 512],
    ["64MiB", 2048],
  ] as const) {
    const want = pack.plan({ memory, context, threads: 1 });
    const args = ["--pack", DEMO, "--memory", memory, "--context", String(context)];
    const { code, out } = snug([...args, "--plan"]);
    assert.equal(code, 0);
    const facts = Object.fromEntries(
      out
        .trim()
        .split("\n")
        .map((line) => line.split(/ {2,}/)),
    ) as Record<string, string>;
    assert.equal(Number(facts["kept units"]), want.keptUnits);
    assert.equal(Number(facts.weights), want.weightsBytes);
    assert.equal(Number(facts["KV cache"]), want.kvBytes);
    assert.equal(Number(facts.read), want.readBytes);
    assert.ok(Math.abs(Number(facts["pruning rate"]) - want.pruningRate) < 1e-6);
    assert.ok(Math.abs(Number(facts["expected perplexity"]) - (want.expectedPerplexity as number)) < 1e-5);
    const own = Number(facts.core) - want.coreBytes;
    assert.ok(own > 0 && own < 32768, `${own} bytes of its own`);
    const parts = ["core", "weights", "KV cache", "state", "scratch"].map((name) => Number(facts[name]));
    assert.equal(
      parts.reduce((sum, part) => sum + part),
      Number(facts.total),
    );
    const ran = snug([...args, "--prompt", "x", "--max-tokens", "2"]);
    assert.equal(ran.memoryBytes, Number(facts.total));
  }
});

test("only the planned bytes are read, in pieces of at most 1 MiB", () => {
  let most = 0;
  let total = 0;
  const counted = (host: WasiImports, memory: () => DataView): WasiImports => ({
    ...host,
    fd_pread: (fd: number, vectors: number, count: number, offset: bigint, done: number) => {
      const errno = (host.fd_pread as (...args: unknown[]) => number)(fd, vectors, count, offset, done);
      most = Math.max(most, memory().getUint32(done, true));
      total += memory().getUint32(done, true);
      return errno;
    },
  });
  const args = ["--pack", DEMO, "--memory", "12MB", "--context", "128"];
  const { code } = snug([...args, "--prompt", "x", "--max-tokens", "1"], { imports: counted });
  assert.equal(code, 0);
  const read = Number(/read +(\d+)/.exec(snug([...args, "--plan"]).out)?.[1]);
  assert.equal(total, read);
  assert.ok(most > 0 && most <= 1 << 20, `${most} bytes at once`);
});

test("a host that reads and writes a few bytes at a time changes nothing", () => {
  const { int } = random(5);
  const slow = (host: WasiImports, memory: () => DataView): WasiImports => {
    const shorten = (vectors: number) => {
      const length = memory().getUint32(vectors + 4, true);
      memory().setUint32(vectors + 4, Math.min(length, 1 + int(length < 64 ? 9 : 60_000)), true);
    };
    const call = (name: string) => host[name] as (...args: unknown[]) => number;
    return {
      ...host,
      fd_pread: (fd: number, vectors: number, _count: number, offset: bigint, done: number) => {
        // What a host does with the vectors is its own affair: the program has to describe the rest anew.
        const length = memory().getUint32(vectors + 4, true);
        shorten(vectors);
        const errno = call("fd_pread")(fd, vectors, 1, offset, done);
        memory().setUint32(vectors + 4, length, true);
        return errno;
      },
      fd_write: (fd: number, vectors: number, count: number, done: number) => {
        shorten(vectors);
        return call("fd_write")(fd, vectors, count, done);
      },
    };
  };
  const args = ["--pack", DEMO, "--memory", "12MB", "--context", "128", "--prompt", "The old man", "--seed", "4"];
  const want = snug(args);
  const got = snug(args, { imports: slow });
  assert.equal(want.code, 0);
  assert.ok(want.out.length > 100);
  assert.equal(got.out, want.out);
});

test("the prompt: stdin, a dash, nothing, more than a piece of text holds", async () => {
  const pack = await openBytes(new Uint8Array(readFileSync(words)));
  const model = await pack.load(pack.plan({ threads: 1 }));
  const run = (args: string[], stdin?: string | Uint8Array) =>
    snug(["--pack", words, "--temperature", "0", "--max-tokens", "5", "--context", "60000", ...args], {
      ...(stdin !== undefined && { stdin }),
    });
  const want = run(["--prompt", "hello there"]);
  assert.equal(want.code, 0);
  assert.equal(run([], "hello there\n").out, want.out);
  assert.equal(run(["--prompt", "-"], "hello there\r\n").out, want.out);
  assert.notEqual(run([], "hello there\n\n").out, "");
  for (const nothing of [run([]), run([], "")]) {
    assert.equal(nothing.code, 0);
    assert.match(nothing.err, /^No prompt was given: continuing "Once upon a time"\.\n/);
    assert.equal(nothing.out, run(["--prompt", "Once upon a time"]).out);
  }
  const long = "hello there é ".repeat(30_000);
  const sentence = new RegExp(`the prompt is ${model.prompt(long).length} tokens long, the context has room for 60000`);
  for (const refused of [run([], long), run(["--prompt", long])]) {
    assert.equal(refused.code, 1);
    assert.match(refused.err, sentence);
  }
});

test("a pack without a tokenizer takes ids and prints ids", () => {
  const { code, out } = snug(["--pack", ids, "--tokens", " 1, 2 3,", "--max-tokens", "4"]);
  assert.equal(code, 0);
  assert.match(out, /^\d+,\d+,\d+,\d+\n$/);
  const text = snug(["--pack", ids, "--prompt", "x"]);
  assert.equal(text.code, 1);
  assert.match(text.err, /has no tokenizer: give token ids instead of text/);
});

test("--help names every option, --version is the package's", () => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8"));
  assert.deepEqual(
    ["--version", "-v"].map((option) => snug([option]).out),
    [`${version}\n`, `${version}\n`],
  );
  const help = snug(["--pack", "x", "--help"]);
  assert.equal(help.code, 0);
  assert.equal(help.err, "");
  const source = readFileSync("assembly/wasi/options.ts", "utf8");
  const names = [...source.matchAll(/bytes_are\(ptr, bytes, "(--[\w-]+)"\)/g)].map(([, name]) => name as string);
  assert.ok(names.length > 15);
  for (const name of names) assert.ok(help.out.includes(`${name} `), name);
  for (const line of help.out.split("\n")) assert.ok(line.length < 80, line);
});

test("paths are found below the folders that the host has opened", () => {
  const run = (file: string, preopens: Record<string, string>) =>
    snug(["--pack", file, "--plan"], { preopens }).code === 0;
  const name = "words.snug";
  assert.ok(run(name, { ".": folder }));
  assert.ok(run(`./${name}`, { ".": folder }));
  assert.ok(run(name, { "/": folder }));
  assert.ok(run(`/packs/${name}`, { "/packs": folder }));
  assert.ok(run(`packs/${name}`, { "/packs/": folder }));
  assert.ok(run(`/a/b/${name}`, { "/": "/", "/a": "/", "/a/b": folder }));
  assert.ok(run(name, { "/": "/", ".": folder }), "a relative path, from the folder that is called so");
  assert.ok(!run(`/packs2/${name}`, { "/packs": folder }));
  assert.ok(!run("/packs", { "/packs": folder }));
  assert.ok(!run(name, {}));
  assert.ok(!run(`/packs/../${name}`, { "/packs": join(folder, "words") }));
});
