// Packs of a given shape with random weights, to measure speed without a checkpoint: the layout, the unit sizes and the
// cuts of a real pack, activations of ordinary size, and nothing learnt.
//
// Channels lie in natural order, so that the pack is an ordinary model of its family. With c channels a unit:
//   QK unit u   of each head the dims u × c/2 … of its first half (a), then the same of its second half (b); pair i is
//               (i, i + headDim/2), turned by theta^(−2i / headDim) a position
//   VO unit u   dims u × c … of each head; values have no bias, so that the bias of o, where there is one, is zero
//   MLP unit u  channels u × c …; the MLP is rounded up to whole units
//   BC unit u   dims u × c … of the state of each group
//   XZ unit u   dims u × c … of each SSM head
// Inside a unit the heads, or groups, follow each other, as format.ts says.

import { SnugError } from "../runtime/index";
import { parseConfig } from "./checkpoint";
import type { ModelConfig, SublayerName } from "./config";
import { familyOf } from "./families/index";
import {
  DTYPE_Q4,
  DTYPE_Q8,
  KIND_BC,
  KIND_MLP,
  KIND_QK,
  KIND_VO,
  KIND_XZ,
  ROLE_A,
  ROLE_B,
  ROLE_B_BIAS,
  ROLE_B_CONV,
  ROLE_C,
  ROLE_C_BIAS,
  ROLE_C_CONV,
  ROLE_D,
  ROLE_DOWN,
  ROLE_DOWN_BIAS,
  ROLE_DT,
  ROLE_DT_BIAS,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_GATE,
  ROLE_GATE_BIAS,
  ROLE_GATED_NORM,
  ROLE_HEAD,
  ROLE_K,
  ROLE_K_BIAS,
  ROLE_MIXER_NORM,
  ROLE_MLP_NORM,
  ROLE_O,
  ROLE_O_BIAS,
  ROLE_OUT,
  ROLE_OUT_BIAS,
  ROLE_Q,
  ROLE_Q_BIAS,
  ROLE_ROPE,
  ROLE_UP,
  ROLE_UP_BIAS,
  ROLE_V,
  ROLE_X,
  ROLE_X_BIAS,
  ROLE_X_CONV,
  ROLE_Z,
  ROLE_Z_BIAS,
} from "./format";
import { Linalg } from "./linalg";
import { randomFrom, randomMatrix } from "./random";
import type { JsonObject } from "./safetensors";
import { groupSize, storeVector, type UnitSizes, unitSizes } from "./stacks";
import {
  type FixedTensor,
  layOutUnit,
  type OrderedUnit,
  type PackContent,
  type Stack,
  type StoredTensor,
  writePackFile,
} from "./write";

/** A model's shape: the content of its config.json. */
export type SyntheticShape = JsonObject;

export interface SyntheticOptions {
  /** Default "q4". */
  readonly weights?: "q4" | "q8";
  /** Most columns that share a scale: a multiple of 8. Default 32. */
  readonly group?: number;
  /** Default 1. The same seed gives the same pack. */
  readonly seed?: number;
  /** Default: what the shape says it is. */
  readonly name?: string;
}

const SMALLER = { vocab_size: 32000, max_position_embeddings: 4096, tie_word_embeddings: true };

/**
 * Models that people run, but for a context of 4,096 and, of the small ones, a vocabulary of 32,000 (real: 151,936;
 * 151,936; 128,256; 50,288).
 */
export const SHAPES: Readonly<Record<string, SyntheticShape>> = {
  "qwen2.5-0.5b": {
    model_type: "qwen2",
    hidden_size: 896,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    intermediate_size: 4864,
    rope_theta: 1000000,
    ...SMALLER,
  },
  "qwen2.5-1.5b": {
    model_type: "qwen2",
    hidden_size: 1536,
    num_hidden_layers: 28,
    num_attention_heads: 12,
    num_key_value_heads: 2,
    intermediate_size: 8960,
    rope_theta: 1000000,
    ...SMALLER,
  },
  "llama-3.2-1b": {
    model_type: "llama",
    hidden_size: 2048,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    intermediate_size: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    ...SMALLER,
  },
  "llama-3.1-8b": {
    model_type: "llama",
    hidden_size: 4096,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    intermediate_size: 14336,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    },
    ...SMALLER,
    vocab_size: 128256,
    tie_word_embeddings: false,
  },
  "mamba2-1.3b": {
    model_type: "mamba2",
    hidden_size: 2048,
    num_hidden_layers: 48,
    num_heads: 64,
    head_dim: 64,
    n_groups: 1,
    state_size: 128,
    conv_kernel: 4,
    expand: 2,
    ...SMALLER,
  },
};

const GROUP_COLS = 32;
const CUT_SHARE = 0.45; // of the units' bytes: no plan can cut more

/** Writes a pack to `path`; returns its bytes. Needs memory for the embedding and the head, not for the units. */
export async function writeSyntheticPack(
  path: string,
  shape: SyntheticShape,
  options: SyntheticOptions = {},
): Promise<number> {
  const content = syntheticContent(shape, options);
  const linalg = await Linalg.load();
  return writePackFile(path, content, (bytes) => linalg.xxh64(bytes));
}

/** What is in a synthetic pack. A unit is made anew each time it is asked for, the same each time. */
export function syntheticContent(shape: SyntheticShape, options: SyntheticOptions = {}): PackContent {
  const { weights = "q4", group = GROUP_COLS, seed = 1 } = options;
  const config = parseConfig(shape);
  const dtype = weights === "q4" ? DTYPE_Q4 : DTYPE_Q8;
  const sizes = unitSizes(config, dtype);

  const store = (part: Part, unit: number, random: () => number): StoredTensor => {
    const { role, rows, cols, value } = part;
    if (value)
      return storeVector(
        role,
        Float32Array.from({ length: rows * cols }, (_, i) => value(unit, i, random)),
        rows,
        cols,
      );
    const { inputs = cols, dtype: own = dtype } = part;
    const shared = groupSize(cols, own, group);
    return {
      role,
      dtype: own,
      rows,
      cols,
      group: shared,
      bytes: randomMatrix(own, rows, cols, shared, inputs, random),
    };
  };
  const layers = config.sublayers.map((names) => names.map((name) => SUBLAYERS[name](config, sizes)));
  const fixed: FixedTensor[] = [
    ...vocabularyParts(config).map((part, i) => ({ layer: null, ...store(part, 0, randomFrom(seed, i)) })),
    ...layers.flatMap((sublayers, layer) =>
      sublayers
        .flatMap((sublayer) => sublayer.fixed)
        .map((part) => ({ layer, ...store(part, 0, randomFrom(seed, layer, part.role)) })),
    ),
  ];
  const plans = layers.flatMap((sublayers, layer) =>
    sublayers
      .flatMap(({ stacks }) => stacks)
      .toSorted((a, b) => a.kind - b.kind)
      .map((stack) => ({ layer, ...stack })),
  );
  const layOut = (stack: number, index: number) => {
    const random = randomFrom(seed, stack, index);
    return layOutUnit((plans[stack] as StackParts).parts.map((part) => store(part, index, random)));
  };
  const stacks = plans.map(({ layer, kind, channels, units }, stack) => ({
    layer,
    kind,
    channels,
    units,
    layout: layOut(stack, 0).layout,
  }));
  return {
    ...config,
    family: familyOf(config).id,
    beginToken: null,
    endTokens: [],
    fixed,
    stacks,
    ...orderUnits(stacks, seed),
    curve: [],
    info: { name: options.name ?? `synthetic ${config.family}`, provenance: `random weights, seed ${seed}` },
    unit: (stack, index) => layOut(stack, index).bytes,
  };
}

// What there is

/** A number of a vector; `at` counts through its rows and columns. */
type Value = (unit: number, at: number, random: () => number) => number;

/** A tensor of the fixed part or of a unit. */
interface Part {
  readonly role: number;
  readonly rows: number;
  readonly cols: number;
  /** Of a vector; without it, it is a matrix. */
  readonly value?: Value;
  /** Of a matrix: how many inputs its products are over, in all units together. Default: the columns. */
  readonly inputs?: number;
  /** Of a matrix, where it is not the pack's. */
  readonly dtype?: number;
}

interface StackParts {
  readonly kind: number;
  readonly channels: number;
  readonly units: number;
  readonly parts: readonly Part[];
}

interface SublayerParts {
  readonly fixed: readonly Part[];
  readonly stacks: readonly StackParts[];
}

const SUBLAYERS: Readonly<Record<SublayerName, (config: ModelConfig, sizes: UnitSizes) => SublayerParts>> = {
  attention: attentionParts,
  mlp: mlpParts,
  mamba: mambaParts,
};

const vector = (role: number, cols: number, value: Value, rows = 1): Part => ({ role, rows, cols, value });
const when = (there: boolean, ...parts: Part[]) => (there ? parts : []);
const zero = () => 0;
const aroundZero: Value = (_unit, _at, random) => 0.2 * (random() - 0.5);
const aroundOne: Value = (_unit, _at, random) => 0.9 + 0.2 * random();

function vocabularyParts({ vocabulary, width, tiedHead }: ModelConfig): Part[] {
  return [
    { role: ROLE_EMBEDDING, rows: vocabulary, cols: width },
    ...when(!tiedHead, { role: ROLE_HEAD, rows: vocabulary, cols: width }),
    vector(ROLE_FINAL_NORM, width, aroundOne),
  ];
}

function attentionParts(config: ModelConfig, { qkChannels, voChannels }: UnitSizes): SublayerParts {
  const { width, heads, kvHeads, headDim, ropeInverseFrequencies, attentionBias, oBias } = config;
  const half = qkChannels / 2;
  const angle = (unit: number, at: number) => ropeInverseFrequencies[unit * half + (at % half)] ?? 0;
  return {
    fixed: [
      vector(ROLE_MIXER_NORM, width, aroundOne),
      ...when(attentionBias || oBias, vector(ROLE_O_BIAS, width, zero)),
    ],
    stacks: [
      {
        kind: KIND_QK,
        channels: qkChannels,
        units: headDim / qkChannels,
        parts: [
          { role: ROLE_Q, rows: heads * qkChannels, cols: width },
          { role: ROLE_K, rows: kvHeads * qkChannels, cols: width },
          ...when(ropeInverseFrequencies.length > 0, vector(ROLE_ROPE, half, angle, kvHeads)),
          ...when(
            attentionBias,
            vector(ROLE_Q_BIAS, heads * qkChannels, aroundZero),
            vector(ROLE_K_BIAS, kvHeads * qkChannels, aroundZero),
          ),
        ],
      },
      {
        kind: KIND_VO,
        channels: voChannels,
        units: headDim / voChannels,
        parts: [
          { role: ROLE_V, rows: kvHeads * voChannels, cols: width },
          { role: ROLE_O, rows: width, cols: heads * voChannels, inputs: heads * headDim },
        ],
      },
    ],
  };
}

function mlpParts({ width, mlpWidth, mlpBias, gatedMlp }: ModelConfig, { mlpChannels }: UnitSizes): SublayerParts {
  return {
    fixed: [vector(ROLE_MLP_NORM, width, aroundOne), ...when(mlpBias, vector(ROLE_DOWN_BIAS, width, aroundZero))],
    stacks: [
      {
        kind: KIND_MLP,
        channels: mlpChannels,
        units: Math.ceil(mlpWidth / mlpChannels),
        parts: [
          ...when(gatedMlp, { role: ROLE_GATE, rows: mlpChannels, cols: width }),
          { role: ROLE_UP, rows: mlpChannels, cols: width },
          { role: ROLE_DOWN, rows: width, cols: mlpChannels, inputs: mlpWidth },
          ...when(mlpBias && gatedMlp, vector(ROLE_GATE_BIAS, mlpChannels, aroundZero)),
          ...when(mlpBias, vector(ROLE_UP_BIAS, mlpChannels, aroundZero)),
        ],
      },
    ],
  };
}

function mambaParts({ width, ssm }: ModelConfig, { bcChannels, xzChannels }: UnitSizes): SublayerParts {
  if (ssm === null) throw new SnugError("internal", "a Mamba-2 sublayer without a Mamba-2");
  const { heads, headDim, groups, state, taps, projectionBias } = ssm;
  const bc = groups * bcChannels;
  const xz = heads * xzChannels;
  const convolution = (role: number, cols: number) =>
    vector(role, cols, (_unit, at, random) => (at < taps * cols ? 2 * (random() - 0.5) : 0), taps + 1);
  return {
    fixed: [
      vector(ROLE_MIXER_NORM, width, aroundOne),
      ...when(projectionBias, vector(ROLE_OUT_BIAS, width, aroundZero)),
      // What all units share is small, and much depends on it: the packer never takes less than 8 bits.
      { role: ROLE_DT, rows: heads, cols: width, dtype: DTYPE_Q8 },
      vector(ROLE_DT_BIAS, heads, (_unit, _at, random) => -7 + 5 * random()),
      vector(ROLE_A, heads, (_unit, _at, random) => -1 - 15 * random()),
      vector(ROLE_D, heads, aroundOne),
    ],
    stacks: [
      {
        kind: KIND_BC,
        channels: bcChannels,
        units: state / bcChannels,
        parts: [
          { role: ROLE_B, rows: bc, cols: width },
          { role: ROLE_C, rows: bc, cols: width },
          convolution(ROLE_B_CONV, bc),
          convolution(ROLE_C_CONV, bc),
          ...when(projectionBias, vector(ROLE_B_BIAS, bc, aroundZero), vector(ROLE_C_BIAS, bc, aroundZero)),
        ],
      },
      {
        kind: KIND_XZ,
        channels: xzChannels,
        units: headDim / xzChannels,
        parts: [
          { role: ROLE_Z, rows: xz, cols: width },
          { role: ROLE_X, rows: xz, cols: width },
          { role: ROLE_OUT, rows: width, cols: xz, inputs: heads * headDim },
          convolution(ROLE_X_CONV, xz),
          vector(ROLE_GATED_NORM, xz, aroundOne),
          ...when(projectionBias, vector(ROLE_Z_BIAS, xz, aroundZero), vector(ROLE_X_BIAS, xz, aroundZero)),
        ],
      },
    ],
  };
}

// What is cut first

/** The last units of all stacks go first, from some stacks sooner than from others; the first units stay. */
function orderUnits(stacks: readonly Stack[], seed: number): { order: OrderedUnit[]; minimumUnits: number } {
  const bytes = (stack: number) => (stacks[stack] as Stack).layout.bytes;
  const ranked = stacks
    .flatMap(({ units }, stack) => {
      const weight = 0.7 + 0.6 * randomFrom(seed, stack)();
      return Array.from({ length: units }, (_, index) => {
        return { stack, index, worth: index === 0 ? Number.POSITIVE_INFINITY : weight * (1 - index / units) };
      });
    })
    .toSorted((a, b) => b.worth - a.worth);
  const total = ranked.reduce((sum, { stack }) => sum + bytes(stack), 0);
  let left = total;
  let minimumUnits = 0;
  const order = ranked.map(({ stack, index }) => {
    const cut = left / total;
    left -= bytes(stack);
    if (cut > CUT_SHARE || index === 0) minimumUnits++;
    return { stack, index, loss: 0.5 * cut ** 2 };
  });
  return { order, minimumUnits };
}
