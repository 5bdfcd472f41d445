// What a family of models is to the packer: how its config.json is read, and what its checkpoints call each tensor.

import type { FamilyConfig, ModelConfig, SublayerName } from "../config";
import type { JsonObject } from "../safetensors";

export type Role =
  | ("embedding" | "head" | "finalNorm")
  /** The norm before an attention or a Mamba-2; before an MLP. */
  | ("mixerNorm" | "mlpNorm")
  | ("q" | "k" | "v" | "o" | "qBias" | "kBias" | "vBias" | "oBias")
  | ("gate" | "up" | "down" | "gateBias" | "upBias" | "downBias")
  /** inProj has rows z | x | B | C | dt, conv x | B | C. */
  | ("inProj" | "conv" | "convBias" | "dtBias" | "aLog" | "d" | "gatedNorm" | "outProj" | "inProjBias" | "outProjBias");

export interface TensorRow {
  readonly role: Role;
  /** In checkpoints; "{layer}" stands for the layer's number. The first that a checkpoint has counts. */
  readonly names: readonly string[];
  readonly shape: (config: ModelConfig) => number[];
  /** Only layers with one of these have it; every layer, where absent. */
  readonly sublayers?: readonly SublayerName[];
  /** Whether a model of this config has it; always, where absent. */
  readonly when?: (config: ModelConfig) => boolean;
}

export interface Family<Name extends string = string> {
  readonly name: Name;
  /** FAMILY_* of packs/format.ts. */
  readonly id: number;
  /** "model_type" and "architectures" of config.json. */
  readonly modelType: string;
  readonly architecture: string;
  /** The content of config.json; refuses what cannot be run. */
  readonly read: (raw: JsonObject) => FamilyConfig;
  /** Tensors of the model as a whole, then those of its layers. */
  readonly model: readonly TensorRow[];
  readonly layer: readonly TensorRow[];
}
