// The tokens that a pack is calibrated on: windows of the given text, spread over it, and no window used twice.

import { readFile } from "node:fs/promises";
import { open, SnugError } from "../runtime/index";
import type { Checkpoint } from "./checkpoint";
import type { ModelConfig } from "./config";
import { DTYPE_BYTES, FAMILY_NEMOTRON_H, ROLE_EMBEDDING, ROLE_FINAL_NORM, ROLE_TOKENIZER } from "./format";
import { storeStack } from "./layer-pack";
import { type StackWeights, storeMatrix, storeVector } from "./stacks";
import { Mlp } from "./sublayers/mlp";
import { cutWindows } from "./text";
import { type Hash, type StoredTensor, writePackBytes } from "./write";

const WINDOW_TOKENS = 512;
const WINDOW_TOKENS_LEAST = 32;
const WINDOWS_MOST = 8192; // of a text: more would only take time to encode

/** Windows for each purpose, disjoint as long as the text has enough of them. */
export interface CalibrationText {
  readonly windowTokens: number;
  /** For the statistics, the refit and the rounding of weights. */
  readonly layers: readonly Uint32Array[];
  /** For the order of the units. */
  readonly exam: readonly Uint32Array[];
  /** For the quality curve. */
  readonly curve: readonly Uint32Array[];
}

/** How many windows each purpose wants. */
export interface WindowCounts {
  readonly layers: number;
  readonly exam: number;
  readonly curve: number;
}

/** The bytes of a checkpoint's tokenizer, as compiled, or null where it has none. */
export type TokenizerBytes = Uint8Array | null;

/** Windows of a text file; of seeded random ids for a checkpoint without a tokenizer. */
export async function readCalibration(
  checkpoint: Checkpoint,
  tokenizer: TokenizerBytes,
  path: string | undefined,
  counts: WindowCounts,
  hash: Hash,
): Promise<CalibrationText> {
  const { config } = checkpoint;
  if (tokenizer === null) return share(randomWindows(config, counts), counts);
  if (path === undefined)
    throw new SnugError(
      "usage",
      "packing needs a text to calibrate on: give --calibration FILE with some prose, 1 MB or more",
    );
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new SnugError("source", `cannot read the calibration text ${path}: ${cause.message}`, { cause });
  });
  const encode = await loadTokenizer(config, tokenizer, hash);
  const endToken = config.endTokens[0] ?? 0;
  const wanted = counts.layers + counts.exam + counts.curve;
  for (let tokens = Math.min(WINDOW_TOKENS, config.context); tokens >= WINDOW_TOKENS_LEAST; tokens = tokens >> 1) {
    const windows = cutWindows(text, encode, tokens, WINDOWS_MOST, endToken);
    if (windows.length >= Math.min(wanted, 16)) return share(windows, counts);
  }
  throw new SnugError(
    "usage",
    `the calibration text ${path} is too short: at least ${16 * WINDOW_TOKENS_LEAST} tokens are needed, ` +
      `${wanted * WINDOW_TOKENS} are best`,
  );
}

function share(windows: readonly Uint32Array[], counts: WindowCounts): CalibrationText {
  const wanted = counts.layers + counts.exam + counts.curve;
  // Spread over the text; with too few windows, the purposes divide what there is.
  const used = Math.min(windows.length, wanted);
  const spread = Array.from(
    { length: used },
    (_, i) => windows[Math.floor((i * windows.length) / used)] as Uint32Array,
  );
  const every = (count: number) => Math.max(1, Math.round((count * used) / wanted));
  const curve = takeEvenly(spread, every(counts.curve));
  const exam = takeEvenly(spread, every(counts.exam));
  const windowTokens = (windows[0] as Uint32Array).length;
  return { windowTokens, layers: spread, exam, curve };
}

/** Removes `count` windows from the list, evenly, and returns them. */
function takeEvenly(windows: Uint32Array[], count: number): Uint32Array[] {
  const step = windows.length / count;
  const taken = new Set(Array.from({ length: count }, (_, i) => Math.floor((i + 0.5) * step)));
  const out = windows.filter((_, i) => taken.has(i));
  const rest = windows.filter((_, i) => !taken.has(i));
  windows.splice(0, windows.length, ...rest);
  return out;
}

/** xorshift32, seed 1: the same ids each time. */
function randomWindows(config: ModelConfig, counts: WindowCounts): Uint32Array[] {
  let state = 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % config.vocabulary;
  };
  const tokens = Math.min(WINDOW_TOKENS, config.context, 128);
  return Array.from({ length: counts.layers + counts.exam + counts.curve }, () =>
    Uint32Array.from({ length: tokens }, next),
  );
}

/** The core's own tokenizer, in a pack that holds little else: one layer with one MLP unit of zeros. */
async function loadTokenizer(
  model: ModelConfig,
  tokenizer: Uint8Array,
  hash: Hash,
): Promise<(text: string) => number[]> {
  const width = 8;
  const { vocabulary } = model;
  const zeros = (rows: number) => new Float32Array(rows * width);
  const config: ModelConfig = {
    ...model,
    width,
    layers: 1,
    heads: 0,
    kvHeads: 0,
    headDim: 0,
    mlpWidth: width,
    ssm: null,
  };
  const weights = { norm: zeros(1), gate: null, up: zeros(width), down: zeros(width) };
  const mlp = new Mlp(config, { mlpChannels: width }, { ...weights, gateBias: null, upBias: null, downBias: null });
  const [stack] = mlp.stacks(mlp.natural()) as [StackWeights];
  const stored = storeStack(
    stack,
    stack.matrices.map(({ values }) => values),
  );
  const bytes = await writePackBytes(
    {
      ...config,
      family: FAMILY_NEMOTRON_H, // the one whose layers may be nothing but an MLP
      context: 1,
      beginToken: null,
      endTokens: [],
      fixed: [
        { layer: null, ...storeMatrix(ROLE_EMBEDDING, zeros(vocabulary), vocabulary, width) },
        { layer: null, ...storeVector(ROLE_FINAL_NORM, zeros(1), 1, width) },
        { layer: null, ...storeTokenizer(tokenizer) },
        ...mlp.vectors.map((vector) => ({ layer: 0, ...vector })),
      ],
      stacks: [{ ...stored, layer: 0, units: 1 }],
      order: [{ stack: 0, index: 0, loss: 0 }],
      minimumUnits: 0,
      curve: [],
      info: { name: "a tokenizer" },
      unit: () => stored.units[0] as Uint8Array,
    },
    hash,
  );
  const pack = await open({
    name: "a tokenizer",
    size: bytes.length,
    async read(offset, target) {
      target.set(bytes.subarray(offset, offset + target.length));
    },
  });
  const loaded = await pack.load(pack.plan({ context: 1, rows: 1, threads: 1 }));
  return (text) => loaded.encode(text);
}

/** A compiled tokenizer as it stands in a pack. */
export function storeTokenizer(bytes: Uint8Array): StoredTensor {
  return { role: ROLE_TOKENIZER, dtype: DTYPE_BYTES, rows: 1, cols: bytes.length, group: 0, bytes };
}
