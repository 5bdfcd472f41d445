// Planned bytes are real bytes: what a plan promises of memory and of reads is what a load takes, and more of a budget
// never buys less. Run with SNUG_TEST_LOAD this file is the process that the last test measures.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  FAMILY_LLAMA,
  FIXED_CHUNK_BYTES,
  KIND_MLP,
  KIND_QK,
  KIND_VO,
  PRELUDE_BYTES,
  ROLE_DOWN,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_GATE,
  ROLE_K,
  ROLE_MIXER_NORM,
  ROLE_MLP_NORM,
  ROLE_O,
  ROLE_Q,
  ROLE_ROPE,
  ROLE_UP,
  ROLE_V,
} from "../packs/format";
import { storeMatrix, storeVector } from "../packs/stacks";
import { layOutUnit, type PackContent, writePackBytes, writePackFile } from "../packs/write";
import { SnugError } from "../runtime/errors";
import { open } from "../runtime/index";
import { Pack } from "../runtime/pack";
import { type Plan, parseSize } from "../runtime/plan";
import { watchModels } from "./all-returned";
import { keptOf, type PackLayout, readLayout } from "./read-pack";
import { says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { memorySource, openBytes, packCheckpoint, testHash, testHost } from "./write-pack";

const BUDGETS = 20;
const PAGE = 65536;
const MEASURE = process.env.SNUG_TEST_LOAD;

// The process that is measured

/** Loads a pack as a user would, and prints what the process took at most. "idle": opens it, and loads nothing. */
async function loadAndReport(path: string, pruning: string): Promise<void> {
  const pack = await open(path);
  let planned = 0;
  let grown = 0;
  if (pruning !== "idle") {
    const model = await pack.load(pack.plan({ pruning: Number(pruning), context: 64 }));
    planned = model.plan.totalBytes;
    grown = model.memoryBytes;
    await model.generate([1, 2, 3], { maxTokens: 2 }).result();
  }
  await pack.close();
  process.stdout.write(JSON.stringify({ planned, grown, peak: process.resourceUsage().maxRSS * 1024 }));
}

if (MEASURE !== undefined) {
  const [path, pruning] = MEASURE.split("|");
  await loadAndReport(path, pruning);
} else {
  definePlanTests();
}

function definePlanTests(): void {
  watchModels();
  let bytes: Uint8Array;
  let layout: PackLayout;
  let pack: Pack;

  before(async () => {
    const folder = scratchFolder({ after });
    // The fixed part has more than one chunk.
    writeCheckpoint(folder, { vocab_size: 3001, hidden_size: 64, intermediate_size: 300, num_hidden_layers: 3 }, 1);
    const curve = [10, 20, 40, 70].map((units) => ({ units, perplexity: 100 - units, topOne: 0.2 }));
    const sizes = { qkChannels: 4, voChannels: 4, mlpChannels: 16 };
    bytes = await packCheckpoint(folder, { seed: 1, sizes, curve, minimumUnits: 4 });
    layout = readLayout(bytes);
    pack = await openBytes(bytes);
    assert.ok(layout.unitsOffset - layout.fixedOffset > FIXED_CHUNK_BYTES);
  });

  const budgets = (count = BUDGETS) => {
    const { minimumBytes, maximumBytes } = pack.plan();
    const step = (maximumBytes - minimumBytes) / (count - 1);
    return Array.from({ length: count }, (_, i) => Math.floor(minimumBytes + i * step));
  };

  test("memory grows to what was planned, and reads what was planned, each byte once", async () => {
    for (const memory of budgets()) {
      const source = memorySource(bytes);
      const counted = await Pack.open(source, testHost);
      const plan = counted.plan({ memory });
      assert.ok(plan.totalBytes <= memory, `${plan.totalBytes} planned of ${memory}`);
      assert.equal(plan.totalBytes % PAGE, 0);
      const parts = [plan.coreBytes, plan.weightsBytes, plan.kvBytes, plan.stateBytes, plan.scratchBytes];
      assert.equal(
        parts.reduce((sum, part) => sum + part, 0),
        plan.totalBytes,
      );
      for (const part of parts) assert.ok(part >= 0);

      const model = await counted.load(plan);
      assert.equal(model.memoryBytes, plan.totalBytes, `budget ${memory}`);
      await model.generate([5, 6, 7], { maxTokens: 5 }).result();
      assert.equal(model.memoryBytes, plan.totalBytes, "memory grew during the generation");

      const units = layout.units.slice(0, plan.keptUnits).reduce((sum, { length }) => sum + length, 0);
      assert.equal(plan.readBytes, layout.unitsOffset + units);
      checkReads(source.reads, layout.unitsOffset + units);
      assert.deepEqual(
        plan.layers.flatMap(({ stacks }) => stacks.map(({ keptUnits }) => keptUnits)),
        keptOf(layout, plan.keptUnits),
      );
    }
  });

  /** The reads cover the file's first `end` bytes, and nothing twice. */
  function checkReads(reads: readonly (readonly [number, number])[], end: number): void {
    let next = 0;
    for (const [offset, length] of reads.toSorted(([a], [b]) => a - b)) {
      assert.equal(offset, next, "a gap, or a byte that was read twice");
      next += length;
      assert.ok(offset === PRELUDE_BYTES || length <= FIXED_CHUNK_BYTES);
    }
    assert.equal(next, end);
  }

  test("progress reaches what was planned", async () => {
    const seen: number[] = [];
    const plan = pack.plan({ pruning: 0.5 });
    await pack.load(plan, {
      onProgress: ({ readBytes, totalBytes }) => {
        assert.equal(totalBytes, plan.readBytes);
        seen.push(readBytes);
      },
    });
    assert.deepEqual(
      seen.toSorted((a, b) => a - b),
      seen,
    );
    assert.equal(seen.at(-1), plan.readBytes);
  });

  test("less than the minimum is refused before anything is read or allocated", async () => {
    const source = memorySource(bytes);
    const counted = await Pack.open(source, testHost);
    const reads = source.reads.length;
    const { minimumBytes } = counted.plan();
    for (const memory of [minimumBytes - 1, minimumBytes - PAGE, 1, 0])
      assert.throws(() => counted.plan({ memory }), says("budget", String(memory), String(minimumBytes)));
    assert.equal(source.reads.length, reads);
    const exact = counted.plan({ memory: minimumBytes });
    assert.ok(exact.keptUnits >= 4, "less than the pack's shortest prefix"); // more, where they fit the last page
    assert.equal(counted.plan({ pruning: 1 }).keptUnits, 4);
    assert.equal(counted.plan({ pruning: 1 }).totalBytes, minimumBytes);
    assert.equal(exact.totalBytes, minimumBytes);
    assert.equal((await counted.load(exact)).memoryBytes, minimumBytes);
  });

  test("a larger budget never keeps less, a longer context never leaves more", () => {
    const ascending = (plans: Plan[], what: string) => {
      for (const [i, plan] of plans.entries()) {
        if (i === 0) continue;
        assert.ok(plan.keptUnits >= plans[i - 1].keptUnits, `${what}: kept units at ${i}`);
        assert.ok(plan.totalBytes >= plans[i - 1].totalBytes, `${what}: total at ${i}`);
      }
    };
    ascending(
      budgets(200).map((memory) => pack.plan({ memory })),
      "budgets",
    );
    for (const memory of budgets(7)) {
      let before: Plan | undefined;
      for (const context of [1, 2, 16, 17, 63, 64, 100, 128]) {
        // As from the longest to the shortest: kept units rise, and the total never does.
        let plan: Plan;
        try {
          plan = pack.plan({ memory, context });
        } catch (error) {
          assert.ok(error instanceof SnugError && error.code === "budget");
          continue;
        }
        if (before) {
          assert.ok(plan.keptUnits <= before.keptUnits, `${memory} bytes, context ${context}: kept units`);
          assert.ok(plan.totalBytes >= before.totalBytes, `${memory} bytes, context ${context}: total`);
        }
        before = plan;
      }
    }
    const rates = Array.from({ length: 101 }, (_, i) => pack.plan({ pruning: 1 - i / 100 }));
    ascending(rates, "pruning rates");
    rates.forEach((plan, i) => {
      const floor = plan.keptUnits === 4;
      assert.ok(floor || plan.pruningRate <= 1 - i / 100 + 1e-12, "more was cut than was allowed");
    });
    assert.equal(rates[100].keptUnits, layout.units.length);
  });

  test("expected perplexity follows the pack's curve", () => {
    const perplexities = budgets().map((memory) => pack.plan({ memory }).expectedPerplexity ?? Number.NaN);
    for (const [i, perplexity] of perplexities.entries()) {
      assert.ok(perplexity >= 30 && perplexity <= 90, String(perplexity));
      assert.ok(i === 0 || perplexity <= perplexities[i - 1] + 1e-9);
    }
  });

  test("more than 32 bits can address is planned down to what they can", async () => {
    const header = await hugeHeader();
    const source = { ...memorySource(header), size: 2 ** 40 };
    const huge = await Pack.open(source, testHost);
    const { minimumBytes, maximumBytes } = huge.plan();
    assert.ok(maximumBytes > 8e9 && minimumBytes < 2 ** 32);
    for (const memory of [2 ** 32, 2 ** 33, 1e15]) {
      const plan = huge.plan({ memory });
      assert.ok(plan.totalBytes <= 2 ** 32 && plan.totalBytes > 3.9e9, String(plan.totalBytes));
    }
    await assert.rejects(huge.load(huge.plan()), says("memory"));
  });

  test("sizes are read as they are written", () => {
    const sizes: [number | string, number][] = [
      [0, 0],
      [600000000, 6e8],
      [1.5, 1.5],
      ["600000000", 6e8],
      ["600MB", 6e8],
      ["600mb", 6e8],
      ["0.6GB", 6e8],
      [".6 GB", 6e8],
      [" 1 KB ", 1000],
      ["1KiB", 1024],
      ["512MiB", 512 * 2 ** 20],
      ["2GiB", 2 ** 31],
      ["7B", 7],
      ["1.5KiB", 1536],
      ["0.1MB", 100000],
    ];
    for (const [size, want] of sizes) assert.equal(parseSize(size), want, String(size));
    const wrong = ["", "MB", "1 XB", "1e3", "-1", "-1MB", "1.MB", "1,5GB", "0x10", "NaN", "Infinity", "1 MB 2", "1MBs"];
    for (const size of [...wrong, Number.NaN, -1, Number.POSITIVE_INFINITY])
      assert.throws(() => parseSize(size), says("usage", String(size)), `"${size}"`);
  });

  test("options that make no sense are refused by name", () => {
    assert.throws(() => pack.plan({ memory: 1e9, pruning: 0.5 }), says("usage", "not both"));
    for (const pruning of [-0.1, 1.1, Number.NaN]) assert.throws(() => pack.plan({ pruning }), says("usage", "rate"));
    for (const name of ["context", "rows", "outputs"] as const)
      for (const value of [0, -1, 1.5, Number.NaN, 2 ** 32])
        assert.throws(() => pack.plan({ [name]: value }), says("usage", name), `${name} ${value}`);
    assert.throws(() => pack.plan({ context: 129 }), says("usage", "129", "128"));
  });

  test("a plan serves twice, and only its own pack", async (context) => {
    const plan = pack.plan({ pruning: 0.4, outputs: 3, rows: 3 });
    const logits = await Promise.all(
      [plan, plan].map(async (one) => {
        const model = await pack.load(one);
        const rows: Float32Array[] = [];
        await model.logits([1, 2, 3], (row) => rows.push(row.slice()));
        return rows;
      }),
    );
    assert.deepEqual(logits[0], logits[1]);
    const { folder } = writeCheckpoint(scratchFolder(context), {}, 2);
    const other = await openBytes(await packCheckpoint(folder));
    await assert.rejects(other.load(plan), says("usage", "another pack"));
  });

  test("without a plan, what the host can spare is used", async () => {
    assert.equal((await pack.load()).plan.keptUnits, layout.units.length);
  });

  test("a process takes what was planned, and a constant that does not grow with it", async (context) => {
    const folder = scratchFolder(context);
    const path = join(folder, "large.snug");
    await writePackFile(path, await largeContent(), await testHash());
    const measure = async (pruning: string) => {
      const env = { ...process.env, SNUG_TEST_LOAD: `${path}|${pruning}`, NODE_TEST_CONTEXT: undefined };
      const run = await promisify(execFile)(process.execPath, [fileURLToPath(import.meta.url)], { env });
      return JSON.parse(run.stdout) as { planned: number; grown: number; peak: number };
    };
    const idle = await measure("idle");
    const loads = [];
    for (const pruning of ["0.9", "0.5", "0"]) loads.push(await measure(pruning));
    const megabytes = (value: number) => `${(value / 1e6).toFixed(1)} MB`;
    for (const { planned, peak } of loads)
      context.diagnostic(`planned ${megabytes(planned)}, peak ${megabytes(peak)}: ${megabytes(peak - planned)} more`);
    context.diagnostic(`a process that only opens the pack: ${megabytes(idle.peak)}`);
    for (const { planned, grown, peak } of loads) {
      assert.equal(grown, planned);
      assert.ok(peak - planned < 120e6, `${megabytes(peak - planned)} more than planned`);
      assert.ok(
        peak - planned - idle.peak < 20e6,
        `${megabytes(peak - planned - idle.peak)} more than the plan and Node`,
      );
    }
    const excess = loads.map(({ planned, peak }) => peak - planned);
    assert.ok(loads[2].planned - loads[0].planned > 50e6);
    assert.ok(Math.max(...excess) - Math.min(...excess) < 15e6, `the excess differs: ${excess.map(megabytes)}`);
  });
}

// Packs that no checkpoint is needed for

/** About 100 MB of f32, all units of a kind alike. */
async function largeContent(layers = 8): Promise<PackContent> {
  const [width, heads, headDim, channels, vocabulary] = [512, 8, 64, 64, 4096];
  const wave = (count: number) => Float32Array.from({ length: count }, (_, i) => 0.05 * Math.sin(i * 0.7));
  const matrix = (role: number, rows: number, cols: number) => storeMatrix(role, wave(rows * cols), rows, cols);
  const kinds = [
    {
      kind: KIND_QK,
      channels: 16,
      units: headDim / 16,
      tensors: [
        ...[matrix(ROLE_Q, heads * 16, width), matrix(ROLE_K, heads * 16, width)],
        storeVector(ROLE_ROPE, wave(heads * 8).map(Math.abs), heads, 8),
      ],
    },
    {
      kind: KIND_VO,
      channels: 16,
      units: headDim / 16,
      tensors: [matrix(ROLE_V, heads * 16, width), matrix(ROLE_O, width, heads * 16)],
    },
    {
      kind: KIND_MLP,
      channels,
      units: 20,
      tensors: [
        matrix(ROLE_GATE, channels, width),
        matrix(ROLE_UP, channels, width),
        matrix(ROLE_DOWN, width, channels),
      ],
    },
  ].map((one) => ({ ...one, laid: layOutUnit(one.tensors) }));
  const stacks = Array.from({ length: layers }, (_, layer) =>
    kinds.map(({ kind, channels, units, laid }) => ({ layer, kind, channels, units, layout: laid.layout })),
  ).flat();
  const norm = (role: number, layer: number | null) => ({
    layer,
    ...storeVector(role, new Float32Array(width).fill(1), 1, width),
  });
  return {
    ...{ family: FAMILY_LLAMA, layers, width, vocabulary, context: 64, heads, kvHeads: heads, headDim, normEps: 1e-5 },
    ...{ ssm: null },
    ...{ beginToken: null, endTokens: [], minimumUnits: 0, curve: [], info: { name: "large" } },
    fixed: [
      { layer: null, ...matrix(ROLE_EMBEDDING, vocabulary, width) },
      norm(ROLE_FINAL_NORM, null),
      ...Array.from({ length: layers }, (_, i) => [norm(ROLE_MIXER_NORM, i), norm(ROLE_MLP_NORM, i)]).flat(),
    ],
    stacks,
    order: stacks.flatMap(({ units }, stack) =>
      Array.from({ length: units }, (_, index) => ({ stack, index, loss: 0 })),
    ),
    unit: (stack) => kinds[stack % kinds.length].laid.bytes,
  };
}

/** A pack like the large one with 800 layers, about 9 GB, without its units. */
async function hugeHeader(): Promise<Uint8Array> {
  return writePackBytes({ ...(await largeContent(800)), unit: () => new Uint8Array() }, await testHash());
}
