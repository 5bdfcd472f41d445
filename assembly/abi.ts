// What a host and the core agree on: status codes and the layout of the structs that they pass. Constants only,
// because two compilers read this file.

// Status: a core function returns ≥ 0, or one of these with two numbers of detail in STATUS_A and STATUS_B
export const STATUS_OK: i32 = 0;
export const STATUS_NOT_A_PACK: i32 = -1;
export const STATUS_VERSION: i32 = -2; // a: found, b: supported
export const STATUS_TRUNCATED: i32 = -3; // a: bytes needed, b: bytes there
export const STATUS_CHECKSUM: i32 = -4; // a: byte offset, b: length
export const STATUS_CORRUPT: i32 = -5; // a: byte offset in the file of the field that breaks a rule, b: its value
export const STATUS_UNSUPPORTED: i32 = -6; // a: byte offset in the file of the field, b: its value
export const STATUS_BUDGET: i32 = -7; // a: budget, b: smallest possible
export const STATUS_MEMORY: i32 = -8; // a: bytes wanted: the engine would not grow
export const STATUS_CONTEXT: i32 = -9; // a: asked for, b: most possible
export const STATUS_TOKEN: i32 = -10; // a: token id, b: vocabulary
export const STATUS_STATE: i32 = -11; // called out of order: a bug of the host
export const STATUS_ARGUMENT: i32 = -12; // a: index of the argument, from 0, b: its value
export const STATUS_NUMBER: i32 = -13; // a weight or scale is not finite; a: byte offset of its unit or chunk
export const STATUS_TEXT: i32 = -14; // a: bytes, b: most that fit
export const STATUS_THREAD: i32 = -15; // a thread has trapped: a bug of ours

// Memory of a device, such as a GPU, which the core lays out and cannot address. The addresses of op records count there
// in units, so that 32 bits reach far enough; what is in bytes elsewhere, strides among them, is in bytes.
export const DEVICE_UNIT: u32 = 64; // bytes that one step of a device's address stands for
export const DEVICE_ALIGN: u32 = 256; // what is laid out in a device begins at a multiple of this, the first at this
export const DEVICE_SPLIT_ROWS: u32 = 8; // most rows of a step whose attention is split along the positions
export const DEVICE_SPLITS: u32 = 16; // most parts of it
export const LOAD_SLOTS: u32 = 8; // read `index` of a load goes into slot index % LOAD_SLOTS

// Plan: filled by plan_memory, plan_pruning; sizes in bytes, all f64
export const PLAN_MEMORY_BYTES: u32 = 0; // the budget, or the total where none was given
export const PLAN_TOTAL_BYTES: u32 = 8; // the sum of the parts: what the core's memory will grow to, in whole pages, and a device's
export const PLAN_CORE_BYTES: u32 = 16; // module, header, tokenizer, program, work tables
export const PLAN_WEIGHTS_BYTES: u32 = 24;
export const PLAN_KV_BYTES: u32 = 32;
export const PLAN_STATE_BYTES: u32 = 40;
export const PLAN_SCRATCH_BYTES: u32 = 48;
export const PLAN_READ_BYTES: u32 = 56; // prelude, header, fixed part and kept units: what loading reads of the file
export const PLAN_MINIMUM_BYTES: u32 = 64; // smallest and largest total at this context
export const PLAN_MAXIMUM_BYTES: u32 = 72;
export const PLAN_PRUNING_RATE: u32 = 80; // share of the units' bytes that is left out
export const PLAN_PERPLEXITY: u32 = 88; // expected, interpolated in the pack's quality curve; NaN without one
export const PLAN_KEPT_UNITS: u32 = 96;
export const PLAN_UNITS: u32 = 104;
export const PLAN_CONTEXT: u32 = 112; // positions of a sequence
export const PLAN_SEQUENCES: u32 = 120;
export const PLAN_ROWS: u32 = 128; // most rows of a step
export const PLAN_OUTPUTS: u32 = 136; // most rows of a step that want logits
export const PLAN_DEVICE_BYTES: u32 = 144; // of the total, what lies in a device's memory: 0 in a plan for the core's own
export const PLAN_CODED: u32 = 152; // 1: the KV cache holds codes of 8 bit, 0: f32
export const PLAN_SNAPSHOTS: u32 = 160; // states that are kept beside those of the sequences
export const PLAN_BYTES: u32 = 168;

// Piece of a read, or of what is moved to a device: filled by load_read(), load_move(); f64 each
export const READ_OFFSET: u32 = 0; // in the file
export const READ_LENGTH: u32 = 8;
export const READ_ADDRESS: u32 = 16; // in the core's memory
export const READ_PIECES: u32 = 24; // of the whole read
export const READ_DEVICE: u32 = 32; // of a move: where it goes in the device's memory, in bytes
export const READ_BYTES: u32 = 40;

// Row of a step: u32 each
export const ROW_TOKEN: u32 = 0;
export const ROW_POSITION: u32 = 4;
export const ROW_SEQUENCE: u32 = 8;
export const ROW_OUTPUT: u32 = 12; // 1: logits wanted
export const ROW_BYTES: u32 = 16;

// What the KV cache holds
export const KV_DEFAULT: u32 = 0;
export const KV_F32: u32 = 1;
export const KV_CODES: u32 = 2; // of 8 bit

// What is kept between steps
export const CACHE_BLOCK: u32 = 32; // positions of a block of the KV cache, in which it is shared and handed out
export const SAMPLER_BYTES: u32 = 40; // settings and seed of a sampler: copied out and in again, it goes on as it was

// Program: records of u32, f32 bits where marked
export const OP_BYTES: u32 = 96;
export const OP_CODE: u32 = 0;
export const OP_FLAGS: u32 = 4;
export const OP_LAYER: u32 = 88; // or NONE, for those who observe
export const OP_ROLE: u32 = 92; // of the weight, or 0
export const FLAG_OUTPUTS: u32 = 1; // works on the selected rows, not on all
export const FLAG_ADD: u32 = 2; // adds to what the output holds
export const FLAG_ALONGSIDE: u32 = 4; // needs nothing that the op before it writes

export const OP_EMBED: u32 = 1;
export const EMBED_OUT: u32 = 8; // [rows, width]
export const EMBED_WEIGHT: u32 = 12;
export const EMBED_DTYPE: u32 = 16;
export const EMBED_GROUP: u32 = 20;
export const EMBED_WIDTH: u32 = 24;

export const OP_NORM: u32 = 2; // out = in / √(mean(in²) + eps) × weight
export const NORM_IN: u32 = 8; // [rows, width]
export const NORM_OUT: u32 = 12;
export const NORM_WEIGHT: u32 = 16;
export const NORM_WIDTH: u32 = 20;
export const NORM_EPS: u32 = 24; // f32

export const OP_MATMUL: u32 = 3; // out = weight · in (+ bias) (+ out)
export const MATMUL_IN: u32 = 8; // [rows, panels × cols] where panels are columns, else [rows, cols]
export const MATMUL_IN_STRIDE: u32 = 12; // floats
export const MATMUL_OUT: u32 = 16; // [rows, panels × panel rows] where panels are rows, else [rows, panel rows]
export const MATMUL_OUT_STRIDE: u32 = 20;
export const MATMUL_WEIGHT: u32 = 24; // of the first panel
export const MATMUL_DTYPE: u32 = 28;
export const MATMUL_GROUP: u32 = 32;
export const MATMUL_ROWS: u32 = 36; // of one panel
export const MATMUL_COLS: u32 = 40;
export const MATMUL_PANELS: u32 = 44;
export const MATMUL_PANEL_BYTES: u32 = 48; // from panel to panel
export const MATMUL_AXIS: u32 = 52;
export const MATMUL_BIAS: u32 = 56; // of the first panel, or 0
export const MATMUL_CODES: u32 = 60; // what OP_QUANTIZE made of the input, or 0: activations stay f32
export const MATMUL_BIAS_BYTES: u32 = 68; // from panel to panel, where panels are rows
export const MATMUL_SCRATCH: u32 = 64; // [threads, MATMUL_SCRATCH_BYTES of kernels/matmul.ts]; none in a device
export const MATMUL_PARTS: u32 = 72; // where panels are columns: that their tiles lie in (cut.ts); one in a device
export const MATMUL_ROOM: u32 = 76; // panels that each part has room for
export const MATMUL_WIDE: u32 = 80; // 1: the engine fuses vectors to 256 bits, 0: it does not
export const AXIS_ROWS: u32 = 0; // panels are stacked along the output
export const AXIS_COLS: u32 = 1; // panels are stacked along the input, and their products are added

export const OP_ROPE: u32 = 4; // turns the pairs of q and k, in place, by f32(position × angle); see ROLE_ROPE
export const ROPE_Q: u32 = 8; // [rows, units, heads, channels]
export const ROPE_K: u32 = 12; // [rows, units, kvHeads, channels]
export const ROPE_UNITS: u32 = 16;
export const ROPE_HEADS: u32 = 20;
export const ROPE_KV_HEADS: u32 = 24;
export const ROPE_CHANNELS: u32 = 28;
export const ROPE_ANGLES: u32 = 32; // of the first unit: [kvHeads, channels / 2]
export const ROPE_UNIT_BYTES: u32 = 36; // from unit to unit of the angles

export const OP_ATTENTION: u32 = 5; // stores k and v in the cache, then out = softmax(scale × q·k) · v over positions ≤ own
export const ATTENTION_Q: u32 = 8; // [rows, qk units, heads, qk channels]
export const ATTENTION_K: u32 = 12; // [rows, qk units, kvHeads, qk channels]
export const ATTENTION_V: u32 = 16; // [rows, vo units, kvHeads, vo channels]
export const ATTENTION_OUT: u32 = 20; // [rows, vo units, heads, vo channels]
export const ATTENTION_QK_UNITS: u32 = 24;
export const ATTENTION_QK_CHANNELS: u32 = 28;
export const ATTENTION_VO_UNITS: u32 = 32;
export const ATTENTION_VO_CHANNELS: u32 = 36;
export const ATTENTION_K_CACHE: u32 = 40; // layout of both: kv-cache.ts
export const ATTENTION_V_CACHE: u32 = 44;
export const ATTENTION_CONTEXT: u32 = 48; // positions of a sequence
export const ATTENTION_SCALE: u32 = 52; // f32
export const ATTENTION_HEADS: u32 = 56;
export const ATTENTION_KV_HEADS: u32 = 60;
// of kernels: [threads, attention_scratch_floats() of kernels/attention.ts]; of a device: [DEVICE_SPLIT_ROWS, heads,
// DEVICE_SPLITS, vo dims + 2]
export const ATTENTION_TABLE: u32 = 68; // u32 [sequences, blocks]: kv-cache.ts; 0 in a device, whose executor is told
export const ATTENTION_CODED: u32 = 72; // 1: the caches hold codes of 8 bit (kv-cache.ts), 0: f32
export const ATTENTION_SCRATCH: u32 = 64;

export const OP_GATE: u32 = 6; // gate = silu(gate) × up
export const GATE_GATE: u32 = 8; // [rows, width]
export const GATE_UP: u32 = 12;
export const GATE_WIDTH: u32 = 16;

export const OP_SELECT: u32 = 7; // gathers the rows that want logits
export const SELECT_IN: u32 = 8; // [rows, width]
export const SELECT_OUT: u32 = 12; // [outputs, width]
export const SELECT_WIDTH: u32 = 16;

export const OP_SQUARED_RELU: u32 = 8; // data = max(data, 0)²
export const SQUARED_RELU_DATA: u32 = 8; // [rows, width]
export const SQUARED_RELU_WIDTH: u32 = 12;

// Sequences with a state: a row at position 0 begins with a state of zeros, any other goes on from the row before it.
export const OP_CONV: u32 = 9; // in place, causal, of each channel alone: silu(bias + Σ tap[i] × row[t − taps + 1 + i])
export const CONV_DATA: u32 = 8; // [rows, units, channels]
export const CONV_UNITS: u32 = 12;
export const CONV_CHANNELS: u32 = 16; // of a unit, all heads or groups together
export const CONV_TAPS: u32 = 20;
export const CONV_WEIGHT: u32 = 24; // of the first unit: [taps + 1, channels], the bias last
export const CONV_UNIT_BYTES: u32 = 28; // from unit to unit of the weights
export const CONV_STATE: u32 = 32; // [sequences, taps − 1, units × channels]: the rows before, oldest first

export const OP_STEP_SIZE: u32 = 10; // dt = clamp(ln(1 + e^(dt + bias)), least, most)
export const STEP_SIZE_DATA: u32 = 8; // [rows, heads]
export const STEP_SIZE_HEADS: u32 = 12;
export const STEP_SIZE_BIAS: u32 = 16; // [heads]
export const STEP_SIZE_LEAST: u32 = 20; // f32
export const STEP_SIZE_MOST: u32 = 24; // f32

export const OP_SCAN: u32 = 11; // h = e^(dt × A) × h + dt × x ⊗ B; out = h · C + D × x, of each head, row after row
export const SCAN_X: u32 = 8; // [rows, xz units, heads, xz channels]
export const SCAN_B: u32 = 12; // [rows, bc units, groups, bc channels]
export const SCAN_C: u32 = 16;
export const SCAN_DT: u32 = 20; // [rows, heads]
export const SCAN_OUT: u32 = 24; // as x
export const SCAN_A: u32 = 28; // [heads]
export const SCAN_D: u32 = 32; // [heads]
export const SCAN_STATE: u32 = 36; // h: [sequences, xz units, heads, xz channels, bc units, bc channels]
export const SCAN_XZ_UNITS: u32 = 40;
export const SCAN_XZ_CHANNELS: u32 = 44;
export const SCAN_BC_UNITS: u32 = 48;
export const SCAN_BC_CHANNELS: u32 = 52;
export const SCAN_HEADS: u32 = 56;
export const SCAN_GROUPS: u32 = 60;
export const SCAN_SCRATCH: u32 = 64; // [threads, scan_scratch_floats() of kernels/scan.ts]; none in a device

export const OP_GATED_NORM: u32 = 12; // v = data × silu(gate); data = v / √(Σ v² over a group / divisor + eps) × weight
export const GATED_NORM_DATA: u32 = 8; // [rows, units, heads, channels]
export const GATED_NORM_GATE: u32 = 12; // as data
export const GATED_NORM_WEIGHT: u32 = 16; // of the first unit: [heads, channels]
export const GATED_NORM_UNIT_BYTES: u32 = 20; // from unit to unit of the weights
export const GATED_NORM_UNITS: u32 = 24;
export const GATED_NORM_HEADS: u32 = 28;
export const GATED_NORM_CHANNELS: u32 = 32;
export const GATED_NORM_GROUPS: u32 = 36; // of heads / groups neighbouring heads each
export const GATED_NORM_DIVISOR: u32 = 40; // f32: channels of a group in the uncut model
export const GATED_NORM_EPS: u32 = 44; // f32

export const OP_QUANTIZE: u32 = 13; // codes = input in 8 bit, for the matrices that follow; layout: kernels/quantize.ts
export const QUANTIZE_IN: u32 = 8; // [rows, cols]
export const QUANTIZE_OUT: u32 = 12;
export const QUANTIZE_COLS: u32 = 16;
export const QUANTIZE_GROUP: u32 = 20; // columns that share a scale: the matrix's
export const QUANTIZE_DTYPE: u32 = 24; // of the matrix

// Of no model, but of those who measure; see kernels/ceilings.ts
export const OP_CEILING_READ: u32 = 30;
export const OP_CEILING_PRODUCTS: u32 = 31;
export const CEILING_FROM: u32 = 8;
export const CEILING_ITEMS: u32 = 12;
export const CEILING_SUM: u32 = 16;
