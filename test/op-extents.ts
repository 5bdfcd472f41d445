// What the addresses of an op record reach: which fields they are, and how many bytes lie there. For tests that follow a
// program through memory.

import {
  ATTENTION_CONTEXT,
  ATTENTION_HEADS,
  ATTENTION_K,
  ATTENTION_K_CACHE,
  ATTENTION_KV_HEADS,
  ATTENTION_OUT,
  ATTENTION_Q,
  ATTENTION_QK_CHANNELS,
  ATTENTION_QK_UNITS,
  ATTENTION_SCRATCH,
  ATTENTION_V,
  ATTENTION_V_CACHE,
  ATTENTION_VO_CHANNELS,
  ATTENTION_VO_UNITS,
  AXIS_ROWS,
  CONV_CHANNELS,
  CONV_DATA,
  CONV_STATE,
  CONV_TAPS,
  CONV_UNIT_BYTES,
  CONV_UNITS,
  CONV_WEIGHT,
  DEVICE_SPLIT_ROWS,
  DEVICE_SPLITS,
  EMBED_DTYPE,
  EMBED_GROUP,
  EMBED_OUT,
  EMBED_WEIGHT,
  EMBED_WIDTH,
  FLAG_OUTPUTS,
  GATE_GATE,
  GATE_UP,
  GATE_WIDTH,
  GATED_NORM_CHANNELS,
  GATED_NORM_DATA,
  GATED_NORM_GATE,
  GATED_NORM_HEADS,
  GATED_NORM_UNIT_BYTES,
  GATED_NORM_UNITS,
  GATED_NORM_WEIGHT,
  MATMUL_AXIS,
  MATMUL_BIAS,
  MATMUL_BIAS_BYTES,
  MATMUL_CODES,
  MATMUL_COLS,
  MATMUL_DTYPE,
  MATMUL_GROUP,
  MATMUL_IN,
  MATMUL_IN_STRIDE,
  MATMUL_OUT,
  MATMUL_OUT_STRIDE,
  MATMUL_PANEL_BYTES,
  MATMUL_PANELS,
  MATMUL_ROWS,
  MATMUL_SCRATCH,
  MATMUL_WEIGHT,
  NORM_IN,
  NORM_OUT,
  NORM_WEIGHT,
  NORM_WIDTH,
  OP_ATTENTION,
  OP_CODE,
  OP_CONV,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_GATED_NORM,
  OP_MATMUL,
  OP_NORM,
  OP_QUANTIZE,
  OP_ROPE,
  OP_SCAN,
  OP_SELECT,
  OP_SQUARED_RELU,
  OP_STEP_SIZE,
  QUANTIZE_COLS,
  QUANTIZE_GROUP,
  QUANTIZE_IN,
  QUANTIZE_OUT,
  ROPE_ANGLES,
  ROPE_CHANNELS,
  ROPE_HEADS,
  ROPE_K,
  ROPE_KV_HEADS,
  ROPE_Q,
  ROPE_UNIT_BYTES,
  ROPE_UNITS,
  SCAN_A,
  SCAN_B,
  SCAN_BC_CHANNELS,
  SCAN_BC_UNITS,
  SCAN_C,
  SCAN_D,
  SCAN_DT,
  SCAN_GROUPS,
  SCAN_HEADS,
  SCAN_OUT,
  SCAN_SCRATCH,
  SCAN_STATE,
  SCAN_X,
  SCAN_XZ_CHANNELS,
  SCAN_XZ_UNITS,
  SELECT_IN,
  SELECT_OUT,
  SELECT_WIDTH,
  SQUARED_RELU_DATA,
  SQUARED_RELU_WIDTH,
  STEP_SIZE_BIAS,
  STEP_SIZE_DATA,
  STEP_SIZE_HEADS,
} from "../assembly/abi";
import { matrixBytes } from "../packs/encode";

/** kept: what lasts from step to step, caches and states. */
export type ExtentKind = "weight" | "scratch" | "kept";

export interface Extent {
  readonly kind: ExtentKind;
  /** Of the op record, where the address stands. */
  readonly field: number;
  /** 0: nothing lies there, and the address means nothing. */
  readonly bytes: number;
}

/** What a program was made for; one sequence. */
export interface ProgramShape {
  readonly rows: number;
  readonly outputs: number;
  readonly vocabulary: number;
}

const FLOAT = 4;
const CACHE_BLOCK = 32;
const CODES_START = 16; // of a group's codes

/** All addresses of a record of a program for a device. */
export function extentsOf(op: DataView, shape: ProgramShape): Extent[] {
  const at = (field: number) => op.getUint32(field, true);
  const rows = at(OP_FLAGS) & FLAG_OUTPUTS ? shape.outputs : shape.rows;
  const scratch = (field: number, width: number, count = rows): Extent => ({
    kind: "scratch",
    field,
    bytes: count * width * FLOAT,
  });
  const weight = (field: number, bytes: number): Extent => ({ kind: "weight", field, bytes });
  const kept = (field: number, floats: number): Extent => ({ kind: "kept", field, bytes: floats * FLOAT });
  /** Of panels, or units, that lie one behind the other. */
  const stacked = (count: number, apart: number, bytes: number) => (count === 0 ? 0 : (count - 1) * apart + bytes);
  switch (at(OP_CODE)) {
    case OP_EMBED: {
      const width = at(EMBED_WIDTH);
      const bytes = matrixBytes(at(EMBED_DTYPE), shape.vocabulary, width, at(EMBED_GROUP));
      return [scratch(EMBED_OUT, width), weight(EMBED_WEIGHT, bytes)];
    }
    case OP_NORM: {
      const width = at(NORM_WIDTH);
      return [scratch(NORM_IN, width), scratch(NORM_OUT, width), weight(NORM_WEIGHT, width * FLOAT)];
    }
    case OP_QUANTIZE: {
      const [cols, group] = [at(QUANTIZE_COLS), at(QUANTIZE_GROUP)];
      const codes = (cols / group) * (CODES_START + 2 * group);
      return [scratch(QUANTIZE_IN, cols), { kind: "scratch", field: QUANTIZE_OUT, bytes: rows * codes }];
    }
    case OP_MATMUL: {
      const [panels, panelRows, group] = [at(MATMUL_PANELS), at(MATMUL_ROWS), at(MATMUL_GROUP)];
      const bytes = matrixBytes(at(MATMUL_DTYPE), panelRows, at(MATMUL_COLS), group);
      const biases = at(MATMUL_AXIS) === AXIS_ROWS ? panels : 1;
      const bias = stacked(biases, at(MATMUL_BIAS_BYTES), panelRows * FLOAT);
      const codes = group === 0 ? 0 : (at(MATMUL_IN_STRIDE) / group) * (CODES_START + 2 * group);
      return [
        scratch(MATMUL_IN, at(MATMUL_IN_STRIDE)),
        scratch(MATMUL_OUT, at(MATMUL_OUT_STRIDE)),
        weight(MATMUL_WEIGHT, stacked(panels, at(MATMUL_PANEL_BYTES), bytes)),
        weight(MATMUL_BIAS, at(MATMUL_BIAS) === 0 ? 0 : bias),
        { kind: "scratch", field: MATMUL_CODES, bytes: at(MATMUL_CODES) === 0 ? 0 : rows * codes },
        scratch(MATMUL_SCRATCH, 0),
      ];
    }
    case OP_ROPE: {
      const [units, channels, kvHeads] = [at(ROPE_UNITS), at(ROPE_CHANNELS), at(ROPE_KV_HEADS)];
      return [
        scratch(ROPE_Q, units * channels * at(ROPE_HEADS)),
        scratch(ROPE_K, units * channels * kvHeads),
        weight(ROPE_ANGLES, stacked(units, at(ROPE_UNIT_BYTES), ((kvHeads * channels) / 2) * FLOAT)),
      ];
    }
    case OP_ATTENTION: {
      const [heads, kvHeads] = [at(ATTENTION_HEADS), at(ATTENTION_KV_HEADS)];
      const qkDims = at(ATTENTION_QK_UNITS) * at(ATTENTION_QK_CHANNELS);
      const voDims = at(ATTENTION_VO_UNITS) * at(ATTENTION_VO_CHANNELS);
      const cached = kvHeads * Math.ceil(at(ATTENTION_CONTEXT) / CACHE_BLOCK) * CACHE_BLOCK;
      return [
        scratch(ATTENTION_Q, heads * qkDims),
        scratch(ATTENTION_K, kvHeads * qkDims),
        scratch(ATTENTION_V, kvHeads * voDims),
        scratch(ATTENTION_OUT, heads * voDims),
        scratch(ATTENTION_SCRATCH, heads * DEVICE_SPLITS * (voDims + 2), DEVICE_SPLIT_ROWS),
        kept(ATTENTION_K_CACHE, cached * qkDims),
        kept(ATTENTION_V_CACHE, cached * Math.ceil(voDims / 8) * 8),
      ];
    }
    case OP_GATE:
      return [scratch(GATE_GATE, at(GATE_WIDTH)), scratch(GATE_UP, at(GATE_WIDTH))];
    case OP_SELECT:
      return [scratch(SELECT_IN, at(SELECT_WIDTH)), scratch(SELECT_OUT, at(SELECT_WIDTH), shape.outputs)];
    case OP_SQUARED_RELU:
      return [scratch(SQUARED_RELU_DATA, at(SQUARED_RELU_WIDTH))];
    case OP_CONV: {
      const [units, channels, taps] = [at(CONV_UNITS), at(CONV_CHANNELS), at(CONV_TAPS)];
      return [
        scratch(CONV_DATA, units * channels),
        weight(CONV_WEIGHT, stacked(units, at(CONV_UNIT_BYTES), (taps + 1) * channels * FLOAT)),
        kept(CONV_STATE, (taps - 1) * units * channels),
      ];
    }
    case OP_STEP_SIZE: {
      const heads = at(STEP_SIZE_HEADS);
      return [scratch(STEP_SIZE_DATA, heads), weight(STEP_SIZE_BIAS, heads * FLOAT)];
    }
    case OP_SCAN: {
      const heads = at(SCAN_HEADS);
      const inner = heads * at(SCAN_XZ_UNITS) * at(SCAN_XZ_CHANNELS);
      const state = at(SCAN_BC_UNITS) * at(SCAN_BC_CHANNELS);
      return [
        ...[scratch(SCAN_X, inner), scratch(SCAN_OUT, inner), scratch(SCAN_DT, heads), scratch(SCAN_SCRATCH, 0)],
        ...[SCAN_B, SCAN_C].map((field) => scratch(field, at(SCAN_GROUPS) * state)),
        ...[SCAN_A, SCAN_D].map((field) => weight(field, heads * FLOAT)),
        kept(SCAN_STATE, inner * state),
      ];
    }
    case OP_GATED_NORM: {
      const [units, width] = [at(GATED_NORM_UNITS), at(GATED_NORM_HEADS) * at(GATED_NORM_CHANNELS)];
      return [
        scratch(GATED_NORM_DATA, units * width),
        scratch(GATED_NORM_GATE, units * width),
        weight(GATED_NORM_WEIGHT, stacked(units, at(GATED_NORM_UNIT_BYTES), width * FLOAT)),
      ];
    }
    default:
      throw new Error(`no op has code ${at(OP_CODE)}`);
  }
}
