// The bytes of a pack: the only source of these numbers. Constants only, because two compilers read this file.
//
//   0                64                64 + headerBytes (64-aligned)      + fixedBytes
//   | prelude (64 B) | header           | fixed part                      | unit | unit | unit | …  end of file
//
// Everything is little-endian; every section, fixed tensor and unit starts at a multiple of ALIGN and is padded with
// zeros. The prelude and the header say all that a plan needs. Units lie in the order in which they are kept: any
// prefix of them is a model. One group of channels of one layer is a *stack* of units; all units of a stack have the
// same layout and length: one panel of each of the stack's matrices, one behind the other. Loading puts the panels of
// one matrix behind each other (assembly/cut.ts).

export const ALIGN: u32 = 64;
export const PACK_VERSION: u32 = 2;
export const PACK_VERSION_OLDEST: u32 = 1; // that a reader still knows; version 1 has no SSMs
export const NONE: u32 = 0xffffffff;

// Prelude: 64 bytes at 0
export const PACK_MAGIC_LOW: u32 = 0x47554e53; // "SNUG"
export const PACK_MAGIC_HIGH: u32 = 0x4b434150; // "PACK"
export const PRELUDE_BYTES: u32 = 64;
export const PRELUDE_MAGIC: u32 = 0; // u32 low, u32 high
export const PRELUDE_VERSION: u32 = 8; // u32
export const PRELUDE_HEADER_BYTES: u32 = 12; // u32, a multiple of ALIGN
export const PRELUDE_HEADER_HASH: u32 = 16; // u64, XXH64 (seed 0) of the header
export const PRELUDE_FIXED_BYTES: u32 = 24; // u64, a multiple of ALIGN
export const PRELUDE_FILE_BYTES: u32 = 32; // u64
export const PRELUDE_HASH: u32 = 56; // u64, XXH64 (seed 0) of bytes 0…55

// Header: u32 or f32 fields, then tables at the offsets they name
export const HEADER_FAMILY: u32 = 0; // u32, FAMILY_*
export const HEADER_LAYERS: u32 = 4;
export const HEADER_WIDTH: u32 = 8; // of the residual stream
export const HEADER_VOCABULARY: u32 = 12; // token ids are below this
export const HEADER_CONTEXT: u32 = 16; // most positions the model was made for
// Of the attention; 0 in a model without one:
export const HEADER_HEADS: u32 = 20; // query heads
export const HEADER_KV_HEADS: u32 = 24;
export const HEADER_HEAD_DIM: u32 = 28; // of the uncut head: the softmax scale is 1/√headDim at every cut
export const HEADER_NORM_EPS: u32 = 32; // f32
export const HEADER_BEGIN_TOKEN: u32 = 36; // put before a prompt, or NONE
export const HEADER_END_TOKENS: u32 = 40; // u32 count, then END_TOKENS_MAX ids
export const HEADER_MINIMUM_UNITS: u32 = 76; // the shortest prefix that a plan may choose
// Tables: u32 count, then u32 offset from the header's start.
export const HEADER_TENSORS: u32 = 80; // tensor records: first the fixed part's, then those of the stacks' units
export const HEADER_STACKS: u32 = 88;
export const HEADER_UNITS: u32 = 96; // in file order
export const HEADER_CHUNKS: u32 = 104; // u64 XXH64 of each FIXED_CHUNK_BYTES of the fixed part
export const HEADER_CURVE: u32 = 112;
export const HEADER_INFO: u32 = 120; // count = bytes; UTF-8 JSON for hosts, see runtime/info.ts
export const HEADER_FIXED_TENSORS: u32 = 128; // u32: how many of the tensor records are the fixed part's
// Of the SSM (Mamba-2); 0 in a model without one:
export const HEADER_SSM_HEADS: u32 = 132;
export const HEADER_SSM_HEAD_DIM: u32 = 136; // of the uncut head
export const HEADER_SSM_GROUPS: u32 = 140; // heads / groups neighbouring heads share B and C
export const HEADER_SSM_STATE: u32 = 144; // dimensions of the uncut state
export const HEADER_SSM_TAPS: u32 = 148; // of the causal convolution
export const HEADER_SSM_NORM_GROUPS: u32 = 152; // the gated norm is over heads / normGroups heads each
export const HEADER_SSM_STEP_LEAST: u32 = 156; // f32: what dt is clamped to
export const HEADER_SSM_STEP_MOST: u32 = 160; // f32, may be infinite
export const HEADER_FIELDS_BYTES: u32 = 192;
export const END_TOKENS_MAX: u32 = 8;

export const FAMILY_LLAMA: u32 = 1;
export const FAMILY_QWEN2: u32 = 2;
export const FAMILY_MAMBA2: u32 = 3;
export const FAMILY_BAMBA: u32 = 4;
export const FAMILY_NEMOTRON_H: u32 = 5;

// Tensor record. `offset` counts from the start of the fixed part, or of the unit. Those of the fixed part ascend by
// layer (NONE first), then role, each once.
export const TENSOR_BYTES: u32 = 40;
export const TENSOR_ROLE: u32 = 0; // u32, ROLE_*
export const TENSOR_LAYER: u32 = 4; // u32, or NONE
export const TENSOR_DTYPE: u32 = 8; // u32, DTYPE_*
export const TENSOR_ROWS: u32 = 12; // u32; stored rows are padded to ROW_TILE in matrices
export const TENSOR_COLS: u32 = 16; // u32; a multiple of `group` in quantized matrices; a vector has 1 row
export const TENSOR_GROUP: u32 = 20; // u32: columns that share a scale; 0 where there is none
export const TENSOR_OFFSET: u32 = 24; // u64
export const TENSOR_LENGTH: u32 = 32; // u64, bytes

// Stack record: the units of one kind in one layer. They ascend by layer, then kind, each once.
export const STACK_BYTES: u32 = 32;
export const STACK_LAYER: u32 = 0;
export const STACK_KIND: u32 = 4; // KIND_*
export const STACK_UNITS: u32 = 8; // how many units there are
export const STACK_CHANNELS: u32 = 12; // of one unit: MLP channels, or dimensions of each head or group
export const STACK_UNIT_BYTES: u32 = 16; // a multiple of ALIGN
export const STACK_TENSOR: u32 = 20; // first of its tensor records
export const STACK_TENSORS: u32 = 24; // how many

// Unit record. The byte offset in the file follows from the order: units lie back to back.
export const UNIT_BYTES: u32 = 24;
export const UNIT_STACK: u32 = 0; // u32
export const UNIT_INDEX: u32 = 4; // u32: 0, 1, 2 … within its stack, ascending through the file
export const UNIT_HASH: u32 = 8; // u64, XXH64 of its bytes
export const UNIT_LOSS: u32 = 16; // f32: measured rise of the loss (nats a token) when the pack is cut before it

// Point of the quality curve, in ascending order of units.
export const CURVE_BYTES: u32 = 16;
export const CURVE_UNITS: u32 = 0; // u32: kept
export const CURVE_PERPLEXITY: u32 = 4; // f32, on calibration text
export const CURVE_TOP_ONE: u32 = 8; // f32, share of next tokens guessed right

export const FIXED_CHUNK_BYTES: u32 = 1048576;

// Kinds of units
// QK: `channels` dimensions of every head: rows of q [unit][head][dim] and k [unit][kvHead][dim]. The first half of
//     a unit's dims are the a's, the second half the b's of its RoPE pairs (a_i, b_i).
// VO: `channels` dimensions of every head: rows of v [unit][kvHead][dim], columns of o [unit][head][dim].
// MLP: `channels` rows of gate (if it has one) and up, columns of down.
// BC: `channels` dimensions of the SSM's state: rows of B and C [unit][group][dim] with their convolutions.
// XZ: `channels` dimensions of every SSM head: rows of z and x [unit][head][dim] with x's convolution, the gated norm's
//     weight, columns of out [unit][head][dim].
export const KIND_QK: u32 = 1;
export const KIND_VO: u32 = 2;
export const KIND_MLP: u32 = 3;
export const KIND_BC: u32 = 4;
export const KIND_XZ: u32 = 5;
export const KIND_MAX: u32 = 5;

// Roles of tensors
export const ROLE_EMBEDDING: u32 = 1; // [vocabulary, width]; also the head where there is no ROLE_HEAD
export const ROLE_HEAD: u32 = 2; // [vocabulary, width]
export const ROLE_FINAL_NORM: u32 = 3; // [1, width]
export const ROLE_TOKENIZER: u32 = 4; // bytes, see below
export const ROLE_MIXER_NORM: u32 = 5; // before an attention or an SSM
export const ROLE_MLP_NORM: u32 = 6;
export const ROLE_O_BIAS: u32 = 7; // [1, width]; holds the value bias too, for softmax rows sum to 1
export const ROLE_DOWN_BIAS: u32 = 8;
export const ROLE_OUT_BIAS: u32 = 9;
export const ROLE_DT: u32 = 10; // [ssmHeads, width]
export const ROLE_DT_BIAS: u32 = 11; // [1, ssmHeads]
export const ROLE_A: u32 = 12; // [1, ssmHeads]: how fast a head forgets: the state shrinks by e^(dt × A), A < 0
export const ROLE_D: u32 = 13; // [1, ssmHeads]: the head's input that goes past the state
export const ROLE_Q: u32 = 16; // units: [heads × channels, width]
export const ROLE_K: u32 = 17; // [kvHeads × channels, width]
export const ROLE_Q_BIAS: u32 = 18; // [1, heads × channels]
export const ROLE_K_BIAS: u32 = 19;
export const ROLE_ROPE: u32 = 20; // [kvHeads, channels / 2]: angle per position of each pair, radians; 0 = not rotated;
//                                    absent where no pair is
export const ROLE_V: u32 = 21; // [kvHeads × channels, width]
export const ROLE_O: u32 = 22; // [width, heads × channels]
export const ROLE_GATE: u32 = 23; // [channels, width]
export const ROLE_UP: u32 = 24;
export const ROLE_DOWN: u32 = 25; // [width, channels]
export const ROLE_GATE_BIAS: u32 = 26;
export const ROLE_UP_BIAS: u32 = 27;
export const ROLE_B: u32 = 28; // [groups × channels, width]
export const ROLE_C: u32 = 29;
export const ROLE_B_CONV: u32 = 30; // [taps + 1, groups × channels]: the taps, that of the oldest row first, then the bias
export const ROLE_C_CONV: u32 = 31;
export const ROLE_Z: u32 = 32; // [ssmHeads × channels, width]
export const ROLE_X: u32 = 33;
export const ROLE_X_CONV: u32 = 34; // [taps + 1, ssmHeads × channels]
export const ROLE_GATED_NORM: u32 = 35; // [1, ssmHeads × channels]
export const ROLE_OUT: u32 = 36; // [width, ssmHeads × channels]
export const ROLE_B_BIAS: u32 = 37; // of the projections, before the convolutions
export const ROLE_C_BIAS: u32 = 38;
export const ROLE_Z_BIAS: u32 = 39;
export const ROLE_X_BIAS: u32 = 40;

// Tensor data
// A matrix lies in tiles of ROW_TILE rows; tiles follow each other down the rows; rows are padded with zeros.
// F32: a tile is [column][row of the tile].
// Q4 and Q8: a tile is a run of groups; a group is ROW_TILE f16 scales, then blocks of BLOCK_COLS columns (Q4) or
//     BLOCK_COLS / 2 (Q8), 64 bytes each, as four vectors of 16 bytes, vector v for rows 4v … 4v+3, so that a 32-bit
//     lane is a row:
//       Q4: byte 4r+i of vector v = code of row 4v+r, column i (low four bits) and column 4+i (high four bits);
//           the weight is (code − 8) × scale.
//       Q8: byte 4r+i of vector v = code of row 4v+r, column i, signed; the weight is code × scale.
// A vector (norms, biases) is F32, plainly in a row, padded to ALIGN.
export const DTYPE_F32: u32 = 0;
export const DTYPE_Q8: u32 = 1;
export const DTYPE_Q4: u32 = 2;
export const DTYPE_BYTES: u32 = 3; // opaque; rows = 1, cols = length
export const DTYPE_VECTOR: u32 = 4; // f32, row-major, not tiled
export const ROW_TILE: u32 = 16;
export const BLOCK_COLS: u32 = 8;
export const GROUP_MIN: u32 = 8;
export const GROUP_MAX: u32 = 256;

// Tokenizer: the bytes of the ROLE_TOKENIZER tensor
// Byte-level BPE, ready to use where it lies. The fields give the counts; the sections follow each other without gaps:
//
//   | fields | bytes | tokens | specials | lefts | merges | whole | index | index | added | added | text |
//
//   bytes     u32 [256]: the token of each byte; NONE for those that are left out of the text
//   tokens    u32 [tokens + 1]: token t is text[tokens[t] … tokens[t + 1]); empty where no token has the id
//   specials  bits [tokens], lowest bit first, padded to u32
//   lefts     u32 [tokens + 1]: the merges that begin with token t are merges[lefts[t] … lefts[t + 1])
//   merges    {right, rank, merged} u32, by (left, right), each pair once; the lowest rank merges first
//   whole     u32 ids, by their bytes: a pre-token that is one of them is that token (`ignore_merges`), else empty
//   index     u32 [257], twice: the added tokens that begin with byte b are added[index[b] … index[b + 1])
//   added     {id, ADDED_* flags} u32, by their bytes: first those matched in the raw text, then those matched in the
//             normalized text between them
//   text      UTF-8 bytes of all tokens
export const TOKENIZER_TOKENS: u32 = 0; // u32: the largest id plus one
export const TOKENIZER_MERGES: u32 = 4;
export const TOKENIZER_WHOLE: u32 = 8;
export const TOKENIZER_ADDED_RAW: u32 = 12;
export const TOKENIZER_ADDED_NORMAL: u32 = 16;
export const TOKENIZER_TEXT_BYTES: u32 = 20;
export const TOKENIZER_PATTERN: u32 = 24; // PATTERN_*
export const TOKENIZER_FLAGS: u32 = 28; // TOKENIZER_* flags
export const TOKENIZER_FIELDS_BYTES: u32 = 32;
export const TOKENIZER_NFC: u32 = 1; // the text is normalized
export const TOKENIZER_PREFIX_SPACE: u32 = 2; // text, and text after an added token, begins with a space, or is given one
export const TOKENIZER_DIGITS: u32 = 4; // each number character is a pre-token before the pattern sees the rest
export const TOKENIZER_DIGIT_RUNS: u32 = 8; // the same with each run of number characters

export const MERGE_BYTES: u32 = 12;
export const MERGE_RIGHT: u32 = 0;
export const MERGE_RANK: u32 = 4;
export const MERGE_MERGED: u32 = 8;

export const ADDED_BYTES: u32 = 8;
export const ADDED_ID: u32 = 0;
export const ADDED_FLAGS: u32 = 4;
export const ADDED_STRIP_LEFT: u32 = 1; // takes the white space before it, or after it, with it
export const ADDED_STRIP_RIGHT: u32 = 2;
export const ADDED_TEXT_MAX: u32 = 256; // bytes of an added token

// How text splits into pre-tokens; the regular expressions stand in packs/tokenizer.ts.
export const PATTERN_GPT2: u32 = 1;
export const PATTERN_LLAMA3: u32 = 2;
export const PATTERN_QWEN2: u32 = 3; // as LLAMA3, numbers one by one
export const PATTERN_QWEN35: u32 = 4; // as QWEN2, marks belong to words
export const PATTERN_TEKKEN: u32 = 5; // words end where lower case turns to upper; numbers one by one
export const PATTERN_O200K: u32 = 6; // as TEKKEN, with contractions and numbers by three
export const PATTERN_MAX: u32 = 6;
