// A whole checkpoint, uncut, as a reference model.

import type { Checkpoint } from "../packs/checkpoint";
import type { ModelConfig, SublayerName } from "../packs/config";
import { type Role, readOptionalTensor, readTensor } from "../packs/families";
import {
  add,
  type ReferenceAttention,
  type ReferenceMamba,
  type ReferenceMlp,
  type ReferenceModel,
  type ReferenceSublayer,
} from "./reference";

/** All weights of a checkpoint as a reference model. */
export async function readReference(checkpoint: Checkpoint): Promise<ReferenceModel> {
  const { config } = checkpoint;
  const { weights, optional } = readerOf(checkpoint, 0);
  const layers: ReferenceSublayer[][] = [];
  for (const [layer, names] of config.sublayers.entries()) {
    const sublayers: ReferenceSublayer[] = [];
    for (const name of names) sublayers.push(await readSublayer(name, config, readerOf(checkpoint, layer)));
    layers.push(sublayers);
  }
  return {
    width: config.width,
    vocabulary: config.vocabulary,
    normEps: config.normEps,
    embedding: await weights("embedding"),
    head: await optional("head"),
    finalNorm: await weights("finalNorm"),
    layers,
  };
}

type LayerReader = ReturnType<typeof readerOf>;

/** The tensors of a layer. */
function readerOf(checkpoint: Checkpoint, layer: number) {
  return {
    weights: async (role: Role) => Float64Array.from(await readTensor(checkpoint, role, layer)),
    optional: async (role: Role) => {
      const values = await readOptionalTensor(checkpoint, role, layer);
      return values && Float64Array.from(values);
    },
  };
}

async function readSublayer(name: SublayerName, config: ModelConfig, reader: LayerReader): Promise<ReferenceSublayer> {
  if (name === "mlp") return { norm: await reader.weights("mlpNorm"), block: await readMlp(config, reader) };
  const block = await (name === "attention" ? readAttention(config, reader) : readMamba(config, reader));
  return { norm: await reader.weights("mixerNorm"), block };
}

async function readAttention(config: ModelConfig, { weights, optional }: LayerReader): Promise<ReferenceAttention> {
  const { heads, kvHeads, headDim, width, ropeInverseFrequencies: frequencies } = config;
  // A checkpoint's pairs are (i, i + rotary) for i < rotary, and what comes after them is plain; here all pairs are
  // (i, i + headDim / 2), and the plain dims are pairs of angle 0.
  const rotary = frequencies.length;
  const firsts = Array.from({ length: headDim / 2 }, (_, i) => (i < rotary ? i : rotary + i));
  const seconds = firsts.map((dim, i) => (i < rotary ? dim + rotary : dim + headDim / 2 - rotary));
  const dims = [...firsts, ...seconds];
  const reorder = (x: Float64Array, cols: number) =>
    x.map((_, at) => {
      const row = Math.floor(at / cols);
      const head = Math.floor(row / headDim);
      return x[(head * headDim + dims[row % headDim]) * cols + (at % cols)];
    });
  const [qBias, kBias] = [await optional("qBias"), await optional("kBias")];
  return {
    ...{ kind: "attention", heads, kvHeads, headDim, dims: headDim, vDims: headDim },
    q: reorder(await weights("q"), width),
    k: reorder(await weights("k"), width),
    v: await weights("v"),
    o: await weights("o"),
    qBias: qBias && reorder(qBias, 1),
    kBias: kBias && reorder(kBias, 1),
    vBias: await optional("vBias"),
    oBias: await optional("oBias"),
    ropeAngles: Float64Array.from({ length: kvHeads * firsts.length }, (_, i) => frequencies[i % firsts.length] ?? 0),
  };
}

async function readMlp(config: ModelConfig, { weights, optional }: LayerReader): Promise<ReferenceMlp> {
  return {
    kind: "mlp",
    channels: config.mlpWidth,
    gate: config.gatedMlp ? await weights("gate") : null,
    up: await weights("up"),
    down: await weights("down"),
    gateBias: config.gatedMlp ? await optional("gateBias") : null,
    upBias: await optional("upBias"),
    downBias: await optional("downBias"),
  };
}

async function readMamba({ width, ssm }: ModelConfig, { weights, optional }: LayerReader): Promise<ReferenceMamba> {
  if (!ssm) throw new Error("a mamba sublayer in a model without an SSM");
  const { heads, headDim, groups, state, taps, normGroups, stepLeast, stepMost } = ssm;
  const inner = heads * headDim;
  const shared = groups * state;
  const rows = [inner, inner, shared, shared, heads];
  const [z, x, b, c, dt] = split(await weights("inProj"), rows, width);
  const [zBias, xBias, bBias, cBias, dtRowBias] = split(await optional("inProjBias"), rows, 1);
  const channels = [inner, shared, shared];
  const [xConv, bConv, cConv] = split(await weights("conv"), channels, taps);
  const [xConvBias, bConvBias, cConvBias] = split(await optional("convBias"), channels, 1);
  const dtBias = await weights("dtBias");
  return {
    ...{ kind: "mamba", heads, dims: headDim, groups, state, taps, stepLeast, stepMost },
    ...{ normGroups, normDivisor: inner / normGroups, z, x, b, c, dt, zBias, xBias, bBias, cBias },
    ...{ xConv, bConv, cConv, xConvBias, bConvBias, cConvBias },
    dtBias: dtRowBias ? add(dtBias, dtRowBias) : dtBias,
    a: (await weights("aLog")).map((value) => -Math.exp(value)),
    d: await weights("d"),
    gatedNorm: await weights("gatedNorm"),
    out: await weights("outProj"),
    outBias: await optional("outProjBias"),
  };
}

/** The first rows[0] rows of a matrix [rows][cols], the rows[1] rows after them, and so on; nulls, where it is null. */
function split<T extends Float64Array | null>(matrix: T, rows: number[], cols: number): T[] {
  let at = 0;
  return rows.map((count) => {
    at += count * cols;
    return (matrix?.slice(at - count * cols, at) ?? null) as T;
  });
}
