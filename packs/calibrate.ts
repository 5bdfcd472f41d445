// Runs one layer at a time over the calibration text, in the core itself: the layer is packed alone, in memory, and
// its program observed. So the packer holds one layer's weights and the text's activations, never the whole model.

import { open, Probe } from "../runtime/index";
import type { ModelConfig } from "./checkpoint";
import { familyOf } from "./families";
import {
  ROLE_DOWN,
  ROLE_EMBEDDING,
  ROLE_FINAL_NORM,
  ROLE_GATE,
  ROLE_O,
  ROLE_Q,
  ROW_TILE,
} from "./format";
import type { Linalg, Matrix } from "./linalg";
import { type Input, type StackWeights, storeMatrix, storeVector, unitTensors } from "./stacks";
import { type FixedTensor, layOutUnit, type Stack, type StoredTensor, writePackBytes } from "./write";

const STEP_ROWS = 128;

/** The residual stream of the calibration text: f32 [windows × windowTokens, width]. */
export interface Activations {
  readonly values: Float32Array;
  readonly windowTokens: number;
}

/** A layer as it is packed alone. */
export interface LonelyLayer {
  readonly fixed: readonly FixedTensor[];
  readonly stacks: readonly { weights: StackWeights; units: readonly (readonly StoredTensor[])[] }[];
}

const OBSERVED: ReadonlyMap<number, Input> = new Map([
  [ROLE_Q, "attention"],
  [ROLE_O, "values"],
  [ROLE_GATE, "mlp"],
  [ROLE_DOWN, "hidden"],
  [ROLE_EMBEDDING, "head"],
]);

/** Visits the input of each of a layer's matrices, step by step: f32 [rows, cols]. */
export type Observe = (input: Input, values: Float32Array, cols: number) => void;

/**
 * Runs a layer over the text: `activations` become what goes into the next layer. With `finalNorm`, the input of the
 * head is visited too.
 */
export async function runLayer(
  config: ModelConfig,
  layer: LonelyLayer,
  activations: Activations,
  linalg: Linalg,
  finalNorm: Float32Array | null,
  observe?: Observe,
): Promise<void> {
  const { values, windowTokens } = activations;
  const { width } = config;
  const probe = await loadAlone(config, layer, linalg, finalNorm, windowTokens);
  const see = observe && ((role: number, input: Float32Array, cols: number) => {
    const name = OBSERVED.get(role);
    if (name !== undefined) observe(name, input, cols);
  });
  const tokens = values.length / width;
  for (let window = 0; window < tokens; window += windowTokens) {
    for (let at = 0; at < windowTokens; at += STEP_ROWS) {
      const rows = Math.min(STEP_ROWS, windowTokens - at);
      const part = values.subarray((window + at) * width, (window + at + rows) * width);
      probe.begin(new Uint32Array(rows), at, finalNorm !== null);
      probe.stream().set(part);
      probe.layers(0, 1, see);
      part.set(probe.stream());
      if (finalNorm !== null) probe.end(see);
    }
  }
}

async function loadAlone(
  config: ModelConfig,
  layer: LonelyLayer,
  linalg: Linalg,
  finalNorm: Float32Array | null,
  windowTokens: number,
): Promise<Probe> {
  const { width } = config;
  const stacks: Stack[] = [];
  const units: Uint8Array[][] = [];
  for (const { weights, units: tensors } of layer.stacks) {
    const laid = tensors.map(layOutUnit);
    const [first] = laid;
    if (first === undefined) continue;
    const { kind, channels } = weights;
    stacks.push({ layer: 0, kind, channels, units: laid.length, layout: first.layout });
    units.push(laid.map(({ bytes }) => bytes));
  }
  const vocabulary = ROW_TILE;
  const bytes = await writePackBytes(
    {
      ...config,
      family: familyOf(config).id,
      layers: 1,
      vocabulary,
      context: windowTokens,
      beginToken: null,
      endTokens: [],
      fixed: [
        { layer: null, ...storeMatrix(ROLE_EMBEDDING, new Float32Array(vocabulary * width), vocabulary, width) },
        { layer: null, ...storeVector(ROLE_FINAL_NORM, finalNorm ?? new Float32Array(width).fill(1), 1, width) },
        ...layer.fixed.map((tensor) => ({ ...tensor, layer: 0 })),
      ],
      stacks,
      order: stacks.flatMap((stack, i) => Array.from({ length: stack.units }, (_, index) => ({ stack: i, index, loss: 0 }))),
      minimumUnits: 0,
      curve: [],
      info: { name: "a layer" },
      unit: (stack, index) => units[stack]?.[index] as Uint8Array,
    },
    (part) => linalg.xxh64(part),
  );
  const pack = await open({
    name: "a layer",
    size: bytes.length,
    async read(offset, target) {
      target.set(bytes.subarray(offset, offset + target.length));
    },
  });
  const rows = Math.min(STEP_ROWS, windowTokens);
  return new Probe(await pack.load(pack.plan({ context: windowTokens, rows, outputs: rows })));
}

/** Second moments of what goes into a layer's matrices: XᵀX / rows for each kind of input. */
export class Moments {
  readonly #linalg: Linalg;
  readonly #sums = new Map<Input, { matrix: Matrix; rows: number }>();

  /** The matrices lie in the linalg stack: release them by a mark made before. */
  constructor(linalg: Linalg, sizes: Readonly<Partial<Record<Input, number>>>) {
    this.#linalg = linalg;
    for (const [input, size] of Object.entries(sizes) as [Input, number][])
      this.#sums.set(input, { matrix: linalg.zeros(size, size), rows: 0 });
  }

  readonly add: Observe = (input, values, cols) => {
    const sum = this.#sums.get(input);
    if (sum === undefined) return;
    this.#linalg.scope(() => {
      this.#linalg.gramAdd(sum.matrix, this.#linalg.put(values, values.length / cols, cols));
    });
    sum.rows += values.length / cols;
  };

  /** Call once after the last add(). */
  finish(): void {
    for (const { matrix, rows } of this.#sums.values()) {
      this.#linalg.mirror(matrix);
      const view = this.#linalg.view(matrix);
      for (let i = 0; i < view.length; i++) view[i] = (view[i] as number) / Math.max(rows, 1);
    }
  }

  get(input: Input): Matrix {
    return this.#sums.get(input)?.matrix as Matrix;
  }
}
