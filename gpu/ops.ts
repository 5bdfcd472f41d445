// The program as the core emitted it (assembly/program.ts), its records read into objects. Addresses are bytes in the
// device's memory; 0 is none.

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
  ATTENTION_SCALE,
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
  DEVICE_UNIT,
  EMBED_DTYPE,
  EMBED_GROUP,
  EMBED_OUT,
  EMBED_WEIGHT,
  EMBED_WIDTH,
  FLAG_ADD,
  FLAG_ALONGSIDE,
  FLAG_OUTPUTS,
  GATE_GATE,
  GATE_UP,
  GATE_WIDTH,
  GATED_NORM_CHANNELS,
  GATED_NORM_DATA,
  GATED_NORM_DIVISOR,
  GATED_NORM_EPS,
  GATED_NORM_GATE,
  GATED_NORM_GROUPS,
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
  MATMUL_WEIGHT,
  NORM_EPS,
  NORM_IN,
  NORM_OUT,
  NORM_WEIGHT,
  NORM_WIDTH,
  OP_ATTENTION,
  OP_BYTES,
  OP_CODE,
  OP_CONV,
  OP_EMBED,
  OP_FLAGS,
  OP_GATE,
  OP_GATED_NORM,
  OP_MATMUL,
  OP_NORM,
  OP_QUANTIZE,
  OP_ROLE,
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
  STEP_SIZE_LEAST,
  STEP_SIZE_MOST,
} from "../assembly/abi";

/** One matrix of a product, in panels; what its rows come to lies at `out`. */
export interface Matrix {
  readonly weight: number;
  /** Of a panel. */
  readonly rows: number;
  readonly panels: number;
  readonly panelBytes: number;
  /** 0: none. */
  readonly bias: number;
  readonly biasBytes: number;
  readonly out: number;
  readonly outStride: number;
}

export interface EmbedOp {
  readonly kind: "embed";
  readonly out: number;
  readonly weight: number;
  readonly dtype: number;
  readonly group: number;
  readonly width: number;
  /** The tokens that it does: from the first on; those of a part, where the table is too long for one binding. */
  readonly first: number;
  readonly tokens: number;
}

export interface NormOp {
  readonly kind: "norm";
  readonly outputs: boolean;
  readonly input: number;
  readonly out: number;
  readonly weight: number;
  readonly width: number;
  readonly eps: number;
}

export interface QuantizeOp {
  readonly kind: "quantize";
  readonly outputs: boolean;
  readonly input: number;
  readonly out: number;
  readonly cols: number;
  readonly group: number;
  /** What is rounded is the RMS norm of the input. */
  readonly norm: { readonly weight: number; readonly eps: number } | null;
}

export interface MatmulOp {
  readonly kind: "matmul";
  readonly outputs: boolean;
  readonly alongside: boolean;
  readonly add: boolean;
  readonly input: number;
  readonly inputStride: number;
  /** 0: the input stays f32. */
  readonly codes: number;
  readonly dtype: number;
  readonly group: number;
  /** Of a panel. */
  readonly cols: number;
  readonly axisRows: boolean;
  /** Where its input begins, and how wide the whole row is: more than its own columns, where it is a part. */
  readonly firstCol: number;
  readonly rowCols: number;
  readonly matrices: readonly Matrix[];
  /** What its codes are made of, where it makes them itself. */
  readonly quantize: QuantizeOp | null;
  /** silu(first) × second is what the first matrix's output gets. */
  readonly gated: boolean;
  readonly squaredRelu: boolean;
  /** ROLE_* of its matrices. */
  readonly roles: readonly number[];
}

export interface RopeOp {
  readonly kind: "rope";
  readonly q: number;
  readonly k: number;
  readonly units: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly channels: number;
  readonly angles: number;
  readonly unitBytes: number;
}

export interface AttentionOp {
  readonly kind: "attention";
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly out: number;
  readonly units: number;
  readonly channels: number;
  readonly valueUnits: number;
  readonly valueChannels: number;
  readonly kCache: number;
  readonly vCache: number;
  readonly context: number;
  readonly scale: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scratch: number;
  /** Queries and keys are turned first. */
  readonly rope: RopeOp | null;
}

export interface GateOp {
  readonly kind: "gate";
  readonly gate: number;
  readonly up: number;
  readonly width: number;
}

export interface SelectOp {
  readonly kind: "select";
  readonly input: number;
  readonly out: number;
  readonly width: number;
}

export interface SquaredReluOp {
  readonly kind: "squaredRelu";
  readonly data: number;
  readonly width: number;
}

export interface ConvOp {
  readonly kind: "conv";
  readonly data: number;
  readonly units: number;
  readonly channels: number;
  readonly taps: number;
  readonly weight: number;
  readonly unitBytes: number;
  readonly state: number;
}

export interface StepSizeOp {
  readonly kind: "stepSize";
  readonly data: number;
  readonly heads: number;
  readonly bias: number;
  readonly least: number;
  readonly most: number;
}

export interface ScanOp {
  readonly kind: "scan";
  readonly x: number;
  readonly b: number;
  readonly c: number;
  readonly dt: number;
  readonly out: number;
  readonly a: number;
  readonly d: number;
  readonly state: number;
  readonly units: number;
  readonly channels: number;
  readonly stateUnits: number;
  readonly stateChannels: number;
  readonly heads: number;
  readonly groups: number;
}

export interface GatedNormOp {
  readonly kind: "gatedNorm";
  readonly data: number;
  readonly gate: number;
  readonly weight: number;
  readonly unitBytes: number;
  readonly units: number;
  readonly heads: number;
  readonly channels: number;
  readonly groups: number;
  readonly divisor: number;
  readonly eps: number;
}

export type Op =
  | EmbedOp
  | NormOp
  | QuantizeOp
  | MatmulOp
  | RopeOp
  | AttentionOp
  | GateOp
  | SelectOp
  | SquaredReluOp
  | ConvOp
  | StepSizeOp
  | ScanOp
  | GatedNormOp;

/** All records of a program, OP_BYTES each. vocabulary: how many rows the embedding has. */
export function readOps(records: Uint8Array, vocabulary: number): Op[] {
  return Array.from({ length: records.length / OP_BYTES }, (_, i) =>
    readOp(new DataView(records.buffer, records.byteOffset + i * OP_BYTES, OP_BYTES), vocabulary),
  );
}

function readOp(record: DataView, vocabulary: number): Op {
  const word = (at: number) => record.getUint32(at, true);
  const float = (at: number) => record.getFloat32(at, true);
  const address = (at: number) => word(at) * DEVICE_UNIT;
  const code = word(OP_CODE);
  const flags = word(OP_FLAGS);
  const outputs = (flags & FLAG_OUTPUTS) !== 0;
  switch (code) {
    case OP_EMBED:
      return {
        kind: "embed",
        out: address(EMBED_OUT),
        weight: address(EMBED_WEIGHT),
        dtype: word(EMBED_DTYPE),
        group: word(EMBED_GROUP),
        width: word(EMBED_WIDTH),
        first: 0,
        tokens: vocabulary,
      };
    case OP_NORM:
      return {
        kind: "norm",
        outputs,
        input: address(NORM_IN),
        out: address(NORM_OUT),
        weight: address(NORM_WEIGHT),
        width: word(NORM_WIDTH),
        eps: float(NORM_EPS),
      };
    case OP_QUANTIZE:
      return {
        kind: "quantize",
        outputs,
        input: address(QUANTIZE_IN),
        out: address(QUANTIZE_OUT),
        cols: word(QUANTIZE_COLS),
        group: word(QUANTIZE_GROUP),
        norm: null,
      };
    case OP_MATMUL: {
      const axisRows = word(MATMUL_AXIS) === AXIS_ROWS;
      const cols = word(MATMUL_COLS);
      const panels = word(MATMUL_PANELS);
      return {
        kind: "matmul",
        outputs,
        alongside: (flags & FLAG_ALONGSIDE) !== 0,
        add: (flags & FLAG_ADD) !== 0,
        input: address(MATMUL_IN),
        inputStride: word(MATMUL_IN_STRIDE),
        codes: address(MATMUL_CODES),
        dtype: word(MATMUL_DTYPE),
        group: word(MATMUL_GROUP),
        cols,
        axisRows,
        firstCol: 0,
        rowCols: axisRows ? cols : cols * panels,
        matrices: [
          {
            weight: address(MATMUL_WEIGHT),
            rows: word(MATMUL_ROWS),
            panels,
            panelBytes: word(MATMUL_PANEL_BYTES),
            bias: address(MATMUL_BIAS),
            biasBytes: word(MATMUL_BIAS_BYTES),
            out: address(MATMUL_OUT),
            outStride: word(MATMUL_OUT_STRIDE),
          },
        ],
        quantize: null,
        gated: false,
        squaredRelu: false,
        roles: [word(OP_ROLE)],
      };
    }
    case OP_ROPE:
      return {
        kind: "rope",
        q: address(ROPE_Q),
        k: address(ROPE_K),
        units: word(ROPE_UNITS),
        heads: word(ROPE_HEADS),
        kvHeads: word(ROPE_KV_HEADS),
        channels: word(ROPE_CHANNELS),
        angles: address(ROPE_ANGLES),
        unitBytes: word(ROPE_UNIT_BYTES),
      };
    case OP_ATTENTION:
      return {
        kind: "attention",
        q: address(ATTENTION_Q),
        k: address(ATTENTION_K),
        v: address(ATTENTION_V),
        out: address(ATTENTION_OUT),
        units: word(ATTENTION_QK_UNITS),
        channels: word(ATTENTION_QK_CHANNELS),
        valueUnits: word(ATTENTION_VO_UNITS),
        valueChannels: word(ATTENTION_VO_CHANNELS),
        kCache: address(ATTENTION_K_CACHE),
        vCache: address(ATTENTION_V_CACHE),
        context: word(ATTENTION_CONTEXT),
        scale: float(ATTENTION_SCALE),
        heads: word(ATTENTION_HEADS),
        kvHeads: word(ATTENTION_KV_HEADS),
        scratch: address(ATTENTION_SCRATCH),
        rope: null,
      };
    case OP_GATE:
      return { kind: "gate", gate: address(GATE_GATE), up: address(GATE_UP), width: word(GATE_WIDTH) };
    case OP_SELECT:
      return { kind: "select", input: address(SELECT_IN), out: address(SELECT_OUT), width: word(SELECT_WIDTH) };
    case OP_SQUARED_RELU:
      return { kind: "squaredRelu", data: address(SQUARED_RELU_DATA), width: word(SQUARED_RELU_WIDTH) };
    case OP_CONV:
      return {
        kind: "conv",
        data: address(CONV_DATA),
        units: word(CONV_UNITS),
        channels: word(CONV_CHANNELS),
        taps: word(CONV_TAPS),
        weight: address(CONV_WEIGHT),
        unitBytes: word(CONV_UNIT_BYTES),
        state: address(CONV_STATE),
      };
    case OP_STEP_SIZE:
      return {
        kind: "stepSize",
        data: address(STEP_SIZE_DATA),
        heads: word(STEP_SIZE_HEADS),
        bias: address(STEP_SIZE_BIAS),
        least: float(STEP_SIZE_LEAST),
        most: float(STEP_SIZE_MOST),
      };
    case OP_SCAN:
      return {
        kind: "scan",
        x: address(SCAN_X),
        b: address(SCAN_B),
        c: address(SCAN_C),
        dt: address(SCAN_DT),
        out: address(SCAN_OUT),
        a: address(SCAN_A),
        d: address(SCAN_D),
        state: address(SCAN_STATE),
        units: word(SCAN_XZ_UNITS),
        channels: word(SCAN_XZ_CHANNELS),
        stateUnits: word(SCAN_BC_UNITS),
        stateChannels: word(SCAN_BC_CHANNELS),
        heads: word(SCAN_HEADS),
        groups: word(SCAN_GROUPS),
      };
    case OP_GATED_NORM:
      return {
        kind: "gatedNorm",
        data: address(GATED_NORM_DATA),
        gate: address(GATED_NORM_GATE),
        weight: address(GATED_NORM_WEIGHT),
        unitBytes: word(GATED_NORM_UNIT_BYTES),
        units: word(GATED_NORM_UNITS),
        heads: word(GATED_NORM_HEADS),
        channels: word(GATED_NORM_CHANNELS),
        groups: word(GATED_NORM_GROUPS),
        divisor: float(GATED_NORM_DIVISOR),
        eps: float(GATED_NORM_EPS),
      };
    default:
      throw new Error(`there is no kernel for op ${code}`);
  }
}
