// Rows of tensors that families share. Only what stands before the last names differs from family to family: each
// function takes the prefixes that checkpoints use, the usual one first.

import type { ModelConfig, SublayerName } from "../config";
import type { Role, TensorRow } from "./family";

const queries = (c: ModelConfig) => c.heads * c.headDim;
const keys = (c: ModelConfig) => c.kvHeads * c.headDim;
const inner = (c: ModelConfig) => (c.ssm ? c.ssm.heads * c.ssm.headDim : 0);
const ssmHeads = (c: ModelConfig) => c.ssm?.heads ?? 0;
const convolved = (c: ModelConfig) => inner(c) + (c.ssm ? 2 * c.ssm.groups * c.ssm.state : 0);
const projected = (c: ModelConfig) => inner(c) + convolved(c) + ssmHeads(c);

const attentionBias = (c: ModelConfig) => c.attentionBias;
const oBias = (c: ModelConfig) => c.oBias;
const gated = (c: ModelConfig) => c.gatedMlp;
const mlpBias = (c: ModelConfig) => c.mlpBias;
const gateBias = (c: ModelConfig) => c.gatedMlp && c.mlpBias;
const convBias = (c: ModelConfig) => c.ssm?.convBias ?? false;
const projectionBias = (c: ModelConfig) => c.ssm?.projectionBias ?? false;

/** Embedding, head and final norm: all names in full. */
export function modelRows(embedding: readonly string[], finalNorm: readonly string[]): TensorRow[] {
  return [
    { role: "embedding", names: embedding, shape: (c) => [c.vocabulary, c.width] },
    { role: "head", names: ["lm_head.weight"], shape: (c) => [c.vocabulary, c.width], when: (c) => !c.tiedHead },
    { role: "finalNorm", names: finalNorm, shape: (c) => [c.width] },
  ];
}

export function normRow(
  role: "mixerNorm" | "mlpNorm",
  sublayers: readonly SublayerName[],
  ...names: string[]
): TensorRow {
  return { role, names, shape: (c) => [c.width], sublayers };
}

export function attentionRows(...prefixes: string[]): TensorRow[] {
  const row = rowsUnder(prefixes, "attention");
  return [
    row("q", "q_proj.weight", (c) => [queries(c), c.width]),
    row("k", "k_proj.weight", (c) => [keys(c), c.width]),
    row("v", "v_proj.weight", (c) => [keys(c), c.width]),
    row("o", "o_proj.weight", (c) => [c.width, queries(c)]),
    row("qBias", "q_proj.bias", (c) => [queries(c)], attentionBias),
    row("kBias", "k_proj.bias", (c) => [keys(c)], attentionBias),
    row("vBias", "v_proj.bias", (c) => [keys(c)], attentionBias),
    row("oBias", "o_proj.bias", (c) => [c.width], oBias),
  ];
}

export function mlpRows(...prefixes: string[]): TensorRow[] {
  const row = rowsUnder(prefixes, "mlp");
  return [
    row("gate", "gate_proj.weight", (c) => [c.mlpWidth, c.width], gated),
    row("up", "up_proj.weight", (c) => [c.mlpWidth, c.width]),
    row("down", "down_proj.weight", (c) => [c.width, c.mlpWidth]),
    row("gateBias", "gate_proj.bias", (c) => [c.mlpWidth], gateBias),
    row("upBias", "up_proj.bias", (c) => [c.mlpWidth], mlpBias),
    row("downBias", "down_proj.bias", (c) => [c.width], mlpBias),
  ];
}

/** A Mamba-2 mixer. */
export function mambaRows(...prefixes: string[]): TensorRow[] {
  const row = rowsUnder(prefixes, "mamba");
  return [
    row("inProj", "in_proj.weight", (c) => [projected(c), c.width]),
    row("conv", "conv1d.weight", (c) => [convolved(c), 1, c.ssm?.taps ?? 0]),
    row("dtBias", "dt_bias", (c) => [ssmHeads(c)]),
    row("aLog", "A_log", (c) => [ssmHeads(c)]),
    row("d", "D", (c) => [ssmHeads(c)]),
    row("gatedNorm", "norm.weight", (c) => [inner(c)]),
    row("outProj", "out_proj.weight", (c) => [c.width, inner(c)]),
    row("convBias", "conv1d.bias", (c) => [convolved(c)], convBias),
    row("inProjBias", "in_proj.bias", (c) => [projected(c)], projectionBias),
    row("outProjBias", "out_proj.bias", (c) => [c.width], projectionBias),
  ];
}

function rowsUnder(prefixes: readonly string[], sublayer: SublayerName) {
  return (role: Role, name: string, shape: TensorRow["shape"], when: TensorRow["when"] = () => true): TensorRow => {
    return { role, names: prefixes.map((prefix) => `${prefix}.${name}`), shape, sublayers: [sublayer], when };
  };
}
