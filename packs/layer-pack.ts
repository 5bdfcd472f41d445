// A layer packed alone, in memory, so that the core itself runs it over the calibration text: there is no second
// forward pass, and only one layer's weights are held.

import type { ModelConfig } from "./config";
import { familyOf } from "./families/index";
import { ROLE_EMBEDDING, ROLE_FINAL_NORM, ROW_TILE } from "./format";
import { type Encoded, type StackWeights, storeMatrix, storeVector, unitTensors } from "./stacks";
import { type Hash, layOutUnit, type Stack, type StoredTensor, type UnitLayout, writePackBytes } from "./write";

/** The units of one kind, ready to be stored. */
export interface StoredStack {
  readonly kind: number;
  readonly channels: number;
  readonly layout: UnitLayout;
  readonly units: readonly Uint8Array[];
}

/** What a layer puts into the fixed part, and its stacks, by kind. */
export interface PackedLayer {
  readonly fixed: readonly StoredTensor[];
  readonly stacks: readonly StoredStack[];
}

/** The units of a stack; `encoded` are its matrices, in their order. */
export function storeStack(stack: StackWeights, encoded: readonly Encoded[]): StoredStack {
  const laid = unitTensors(stack, encoded).map(layOutUnit);
  const { kind, channels } = stack;
  return { kind, channels, layout: (laid[0] as { layout: UnitLayout }).layout, units: laid.map(({ bytes }) => bytes) };
}

/**
 * A pack of one layer for windows of `context` tokens. Its embedding is empty: activations are set from outside. Its
 * final norm is the model's, so that the input of the head can be seen behind the last layer.
 */
export async function packLayerAlone(
  config: ModelConfig,
  context: number,
  { fixed, stacks: stored }: PackedLayer,
  finalNorm: Float32Array,
  hash: Hash,
): Promise<Uint8Array> {
  const { width } = config;
  const vocabulary = ROW_TILE;
  const stacks: Stack[] = stored.map(({ kind, channels, layout, units }) => ({
    layer: 0,
    kind,
    channels,
    units: units.length,
    layout,
  }));
  return writePackBytes(
    {
      ...config,
      family: familyOf(config).id,
      layers: 1,
      vocabulary,
      context,
      beginToken: null,
      endTokens: [],
      fixed: [
        { layer: null, ...storeMatrix(ROLE_EMBEDDING, new Float32Array(vocabulary * width), vocabulary, width) },
        { layer: null, ...storeVector(ROLE_FINAL_NORM, finalNorm, 1, width) },
        ...fixed.map((tensor) => ({ ...tensor, layer: 0 })),
      ],
      stacks,
      order: stacks.flatMap(({ units }, stack) =>
        Array.from({ length: units }, (_, index) => ({ stack, index, loss: 0 })),
      ),
      minimumUnits: 0,
      curve: [],
      info: { name: "a layer" },
      unit: (stack, index) => stored[stack]?.units[index] as Uint8Array,
    },
    hash,
  );
}
