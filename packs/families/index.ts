// The families that can be packed, and the tensors of their checkpoints: by role, whatever a family calls them. A new
// family is one more file here and one more name in the list.

import { SnugError } from "../../runtime/index";
import type { ModelConfig } from "../config";
import type { Tensors } from "../safetensors";
import { BAMBA } from "./bamba";
import type { Family, Role, TensorRow } from "./family";
import { LLAMA } from "./llama";
import { MAMBA2 } from "./mamba2";
import { NEMOTRON_H } from "./nemotron-h";
import { QWEN2 } from "./qwen2";

export type { Family, Role, TensorRow } from "./family";

const LIST = [LLAMA, QWEN2, MAMBA2, BAMBA, NEMOTRON_H] as const;

export type FamilyName = (typeof LIST)[number]["name"];

export const FAMILIES: readonly Family<FamilyName>[] = LIST;

/** What tensors are read from: a Checkpoint. */
export interface Weights {
  readonly config: ModelConfig;
  readonly tensors: Tensors;
}

/** One tensor of a config's checkpoints. `layer` is 0 for those of the model as a whole. */
export interface ExpectedTensor {
  readonly role: Role;
  readonly layer: number;
  /** The usual one first. */
  readonly names: readonly string[];
  readonly shape: readonly number[];
}

/** The family that a config was read as. */
export function familyOf(config: ModelConfig): Family<FamilyName> {
  const family = FAMILIES.find((one) => one.name === config.family);
  if (!family) throw new SnugError("internal", `No family ${config.family}; packs/families/index.ts lists them.`);
  return family;
}

/** Every tensor that a checkpoint of this config must hold, layer by layer. */
export function* expectedTensors(config: ModelConfig): Generator<ExpectedTensor> {
  const family = familyOf(config);
  for (const row of family.model) if (hasRow(config, row, 0)) yield expected(row, config, 0);
  for (let layer = 0; layer < config.layers; layer++) {
    for (const row of family.layer) if (hasRow(config, row, layer)) yield expected(row, config, layer);
  }
}

/** Every tensor of a layer that the family knows and a model of this config does not have. */
export function* excludedTensors(config: ModelConfig): Generator<ExpectedTensor> {
  for (let layer = 0; layer < config.layers; layer++) {
    for (const row of familyOf(config).layer) if (!hasRow(config, row, layer)) yield expected(row, config, layer);
  }
}

/** Names and shape of a tensor, or null where a model of this config has none. */
export function findTensor(config: ModelConfig, role: Role, layer = 0): ExpectedTensor | null {
  const family = familyOf(config);
  const row = [...family.model, ...family.layer].find((one) => one.role === role);
  return row && hasRow(config, row, layer) ? expected(row, config, layer) : null;
}

/** What these weights call the tensor: the first of its names that they have, or else the usual one. */
export function storedName(tensors: Tensors, { names }: ExpectedTensor): string {
  return names.find((name) => tensors.entries.has(name)) ?? names[0];
}

/** A tensor's weights, row-major, in f32. Asking for one that the config excludes is a bug of the caller. */
export async function readTensor(checkpoint: Weights, role: Role, layer = 0): Promise<Float32Array> {
  const found = present(checkpoint, role, layer);
  return checkpoint.tensors.read(storedName(checkpoint.tensors, found), found.shape);
}

/** As readTensor, or null where the config says that there is none: biases, the head of a tied model. */
export async function readOptionalTensor(checkpoint: Weights, role: Role, layer = 0): Promise<Float32Array | null> {
  return findTensor(checkpoint.config, role, layer) ? readTensor(checkpoint, role, layer) : null;
}

/** Rows first … first + count − 1 of a tensor: for the embedding and the head, which may not fit in memory. */
export async function readTensorRows(
  checkpoint: Weights,
  role: Role,
  layer: number,
  first: number,
  count: number,
): Promise<Float32Array> {
  const found = present(checkpoint, role, layer);
  return checkpoint.tensors.readRows(storedName(checkpoint.tensors, found), first, count, found.shape);
}

function present(checkpoint: Weights, role: Role, layer: number): ExpectedTensor {
  const found = findTensor(checkpoint.config, role, layer);
  if (!found) throw new SnugError("internal", `A model of this config has no tensor ${role} (layer ${layer}).`);
  return found;
}

function hasRow(config: ModelConfig, row: TensorRow, layer: number): boolean {
  const { sublayers } = row;
  const inLayer = !sublayers || (config.sublayers[layer]?.some((sublayer) => sublayers.includes(sublayer)) ?? false);
  return inLayer && (row.when?.(config) ?? true);
}

function expected(row: TensorRow, config: ModelConfig, layer: number): ExpectedTensor {
  const names = row.names.map((name) => name.replace("{layer}", String(layer)));
  return { role: row.role, layer, names, shape: row.shape(config) };
}
