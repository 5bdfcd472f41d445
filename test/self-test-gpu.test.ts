// The numbers that a GPU's self-test knows beforehand, worked out by the reference.

import assert from "node:assert/strict";
import { test } from "node:test";
import { KNOWN_F32, KNOWN_INT8 } from "../gpu/known-numbers";
import type { ConvOp, MatmulOp, Op, RopeOp, ScanOp } from "../gpu/ops";
import { SELF_TEST_STEPS, selfTestModel, selfTestToken } from "../gpu/self-test";
import { decodeMatrix } from "../packs/encode";
import { forward, type ReferenceModel } from "./reference";

const { ops, weights, vocabulary } = selfTestModel(false);

function all<Kind extends Op["kind"]>(kind: Kind): Extract<Op, { kind: Kind }>[] {
  return ops.filter((op): op is Extract<Op, { kind: Kind }> => op.kind === kind);
}

function floats(address: number, count: number): Float64Array {
  return Float64Array.from(new Float32Array(weights.buffer, address, count));
}

/** A product's matrix [rows, cols]; panels lie side by side along the input. */
function matrix({ matrices: [own], dtype, cols, group }: MatmulOp): Float64Array {
  assert.ok(own);
  const panels = Array.from({ length: own.panels }, (_, p) =>
    decodeMatrix(weights.subarray(own.weight + p * own.panelBytes), dtype, own.rows, cols, group),
  );
  const width = cols * panels.length;
  return Float64Array.from({ length: own.rows * width }, (_, i) => {
    const [row, col] = [Math.floor(i / width), i % width];
    return (panels[Math.floor(col / cols)] as Float32Array)[row * cols + (col % cols)] as number;
  });
}

/** Of a convolution: [channels][taps], and [channels]. */
function conv({ weight, channels, taps }: ConvOp): [Float64Array, Float64Array] {
  const stored = floats(weight, (taps + 1) * channels);
  const ordered = stored.map((_, i) => stored[(i % taps) * channels + Math.floor(i / taps)] as number);
  return [ordered.subarray(0, taps * channels), stored.subarray(taps * channels)];
}

function model(): ReferenceModel {
  const [embed] = all("embed");
  const norms = all("norm").map(({ weight, width }) => floats(weight, width));
  const [q, k, v, o, gate, up, down, z, x, dt, b, c, out, upSquared, downSquared, head] = all("matmul") as MatmulOp[];
  const [rope] = all("rope") as [RopeOp];
  const [attention] = all("attention");
  const convs = all("conv").map(conv);
  const [stepSize] = all("stepSize");
  const [scan] = all("scan") as [ScanOp];
  const [gatedNorm] = all("gatedNorm");
  assert.ok(embed && attention && stepSize && gatedNorm && q && o);
  const { width } = embed;
  const { heads, kvHeads, channels: dims } = rope;
  const of = (op: MatmulOp | undefined) => matrix(op as MatmulOp);
  const mlp = (gateOp: MatmulOp | undefined, upOp: MatmulOp | undefined, downOp: MatmulOp | undefined) => ({
    ...{ kind: "mlp" as const, channels: upOp?.matrices[0]?.rows as number, gate: gateOp ? of(gateOp) : null },
    ...{ up: of(upOp), down: of(downOp), gateBias: null, upBias: null, downBias: null },
  });
  const [[xConv, xConvBias], [bConv, bConvBias], [cConv, cConvBias]] = convs as [Float64Array, Float64Array][] as [
    [Float64Array, Float64Array],
    [Float64Array, Float64Array],
    [Float64Array, Float64Array],
  ];
  const blocks = [
    {
      ...{ kind: "attention" as const, heads, kvHeads, headDim: dims, dims, vDims: attention.valueChannels },
      ...{ q: of(q), k: of(k), v: of(v), o: of(o), kBias: null, vBias: null },
      qBias: floats(q.matrices[0]?.bias as number, heads * dims),
      oBias: floats(o.matrices[0]?.bias as number, width),
      ropeAngles: floats(rope.angles, (kvHeads * dims) / 2),
    },
    mlp(gate, up, down),
    {
      ...{ kind: "mamba" as const, heads: scan.heads, dims: scan.channels, groups: 1, state: scan.stateChannels },
      ...{ taps: all("conv")[0]?.taps as number, stepLeast: stepSize.least, stepMost: stepSize.most, normGroups: 1 },
      ...{ normDivisor: gatedNorm.divisor, z: of(z), x: of(x), b: of(b), c: of(c), dt: of(dt), xConv, bConv, cConv },
      ...{ zBias: null, xBias: null, bBias: null, cBias: null, xConvBias, bConvBias, cConvBias },
      dtBias: floats(stepSize.bias, stepSize.heads),
      a: floats(scan.a, scan.heads),
      d: floats(scan.d, scan.heads),
      gatedNorm: floats(gatedNorm.weight, gatedNorm.heads * gatedNorm.channels),
      out: of(out),
      outBias: null,
    },
    mlp(undefined, upSquared, downSquared),
  ];
  return {
    ...{ width, vocabulary, normEps: 1e-5, head: of(head), finalNorm: norms[4] as Float64Array },
    embedding: Float64Array.from(
      decodeMatrix(weights.subarray(embed.weight), embed.dtype, vocabulary, width, embed.group),
    ),
    layers: [blocks.map((block, i) => ({ norm: norms[i] as Float64Array, block }))],
  };
}

test("the self-test of a GPU knows the right numbers", () => {
  const positions = SELF_TEST_STEPS.reduce((sum, rows) => sum + rows, 0);
  const tokens = Array.from({ length: positions }, (_, position) => selfTestToken(position));
  const reference = model();
  const want: number[] = [];
  const { logits } = forward(reference, tokens);
  let end = 0;
  for (const rows of SELF_TEST_STEPS) {
    end += rows;
    want.push(...logits.subarray((end - 1) * vocabulary, end * vocabulary));
  }
  assert.equal(KNOWN_F32.length, want.length);
  assert.equal(KNOWN_INT8.length, want.length);
  const largest = Math.max(...want.map(Math.abs));
  for (const [i, value] of want.entries()) {
    assert.ok(Math.abs((KNOWN_F32[i] as number) - value) <= 1e-4 * largest, `${i}: ${KNOWN_F32[i]}, not ${value}`);
    // What rounding activations to 8 bit does to so small a model.
    assert.ok(
      Math.abs((KNOWN_INT8[i] as number) - value) <= 0.05 * largest,
      `in 8 bit, ${i}: ${KNOWN_INT8[i]}, not ${value}`,
    );
  }
});
