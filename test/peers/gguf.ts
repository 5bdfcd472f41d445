// A pack as GGUF, version 3, for llama.cpp: Q4_0 or Q8_0 with the pack's own codes and scales, norms and biases in f32.
// The tokenizer is a placeholder: byte-level BPE without merges, so that token id i < 256 is one byte of a text.

import { closeSync, openSync, writeSync } from "node:fs";
import { type Codes, GROUP, type PackWeights, type PairOrder } from "./pack-weights";

const ALIGN = 32;
const TYPE_F32 = 0;
const TYPE_Q4_0 = 2;
const TYPE_Q8_0 = 8;
const VALUE_U32 = 4;
const VALUE_I32 = 5;
const VALUE_F32 = 6;
const VALUE_BOOL = 7;
const VALUE_STRING = 8;
const VALUE_ARRAY = 9;
const TOKEN_NORMAL = 1;
const TOKEN_CONTROL = 3;
const TOKEN_UNUSED = 5;

/** Token ids below this are the printable characters from "!" on, one each. */
export const TEXT_TOKENS = 94;

export interface GgufModel {
  readonly architecture: "llama" | "qwen2";
  readonly ropeTheta: number;
}

interface Tensor {
  readonly name: string;
  /** Innermost first. */
  readonly dims: readonly number[];
  readonly type: number;
  readonly bytes: number;
  readonly data: () => Uint8Array;
}

/** Writes `weights` to `path`. */
export function writeGguf(path: string, weights: PackWeights, model: GgufModel): void {
  const tensors = modelTensors(weights, model);
  let offset = 0;
  const infos = tensors.map(({ name, dims, type, bytes }) => {
    const info = [text(name), u32(dims.length), ...dims.map(u64), u32(type), u64(offset)];
    offset += padded(bytes);
    return Buffer.concat(info);
  });
  const values = metadata(weights, model);
  const counts = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(values.length)];
  const file = openSync(path, "w");
  try {
    writePadded(file, Buffer.concat([...counts, ...values, ...infos]));
    for (const { data } of tensors) writePadded(file, data());
  } finally {
    closeSync(file);
  }
}

function modelTensors(weights: PackWeights, { architecture }: GgufModel): Tensor[] {
  const { layers, width, vocabulary, heads, kvHeads, headDim, mlpWidth, bits } = weights;
  const type = bits === 4 ? TYPE_Q4_0 : TYPE_Q8_0;
  const blockBytes = 2 + (GROUP * bits) / 8;
  // llama.cpp turns Llama's pairs next to each other, Qwen2's half a head apart.
  const pairs: PairOrder = architecture === "llama" ? "neighbours" : "halves";
  const matrix = (name: string, cols: number, rows: number, read: () => Codes): Tensor => {
    const bytes = ((rows * cols) / GROUP) * blockBytes;
    return { name: `${name}.weight`, dims: [cols, rows], type, bytes, data: () => blocks(read(), bits) };
  };
  const vector = (name: string, cols: number, read: () => Float32Array | null): Tensor => {
    const data = () => new Uint8Array((read() ?? new Float32Array(cols)).buffer);
    return { name, dims: [cols], type: TYPE_F32, bytes: cols * 4, data };
  };
  return [
    matrix("token_embd", width, vocabulary, () => weights.embedding()),
    vector("output_norm.weight", width, () => weights.finalNorm()),
    ...Array.from({ length: layers }, (_, layer) => {
      const at = (name: string) => `blk.${layer}.${name}`;
      const biases = [
        vector(at("attn_q.bias"), heads * headDim, () => weights.vector(layer, "qBias", pairs)),
        vector(at("attn_k.bias"), kvHeads * headDim, () => weights.vector(layer, "kBias", pairs)),
        vector(at("attn_v.bias"), kvHeads * headDim, () => null),
      ];
      return [
        vector(at("attn_norm.weight"), width, () => weights.vector(layer, "mixerNorm")),
        matrix(at("attn_q"), width, heads * headDim, () => weights.matrix(layer, "q", pairs)),
        matrix(at("attn_k"), width, kvHeads * headDim, () => weights.matrix(layer, "k", pairs)),
        matrix(at("attn_v"), width, kvHeads * headDim, () => weights.matrix(layer, "v")),
        ...(architecture === "qwen2" ? biases : []),
        matrix(at("attn_output"), heads * headDim, width, () => weights.matrix(layer, "o")),
        vector(at("ffn_norm.weight"), width, () => weights.vector(layer, "mlpNorm")),
        matrix(at("ffn_gate"), width, mlpWidth, () => weights.matrix(layer, "gate")),
        matrix(at("ffn_up"), width, mlpWidth, () => weights.matrix(layer, "up")),
        matrix(at("ffn_down"), mlpWidth, width, () => weights.matrix(layer, "down")),
      ];
    }).flat(),
  ];
}

/** Blocks of GROUP columns: an f16 scale, then 4-bit codes (column i low, GROUP/2 + i high, weight = code − 8) or i8. */
function blocks({ codes, scales }: Codes, bits: 4 | 8): Uint8Array {
  const blockBytes = 2 + (GROUP * bits) / 8;
  const out = new Uint8Array(scales.length * blockBytes);
  const half = GROUP / 2;
  for (let block = 0; block < scales.length; block++) {
    const at = block * blockBytes;
    const from = block * GROUP;
    const scale = scales[block] as number;
    out[at] = scale;
    out[at + 1] = scale >> 8;
    if (bits === 8) {
      for (let i = 0; i < GROUP; i++) out[at + 2 + i] = codes[from + i] as number;
    } else {
      for (let i = 0; i < half; i++)
        out[at + 2 + i] = ((codes[from + i] as number) + 8) | (((codes[from + half + i] as number) + 8) << 4);
    }
  }
  return out;
}

function metadata(weights: PackWeights, { architecture, ropeTheta }: GgufModel): Buffer[] {
  const { vocabulary, bits } = weights;
  const own = (name: string) => `${architecture}.${name}`;
  const tokens = tokenTexts(vocabulary);
  const tokenType = (_: string, id: number) =>
    id >= vocabulary - 2 ? TOKEN_CONTROL : id >= 256 ? TOKEN_UNUSED : TOKEN_NORMAL;
  return [
    value("general.architecture", VALUE_STRING, text(architecture)),
    value("general.name", VALUE_STRING, text("synthetic")),
    value("general.file_type", VALUE_U32, u32(bits === 4 ? 2 : 7)),
    value("general.quantization_version", VALUE_U32, u32(2)),
    value(own("context_length"), VALUE_U32, u32(weights.context)),
    value(own("embedding_length"), VALUE_U32, u32(weights.width)),
    value(own("block_count"), VALUE_U32, u32(weights.layers)),
    value(own("feed_forward_length"), VALUE_U32, u32(weights.mlpWidth)),
    value(own("attention.head_count"), VALUE_U32, u32(weights.heads)),
    value(own("attention.head_count_kv"), VALUE_U32, u32(weights.kvHeads)),
    value(own("attention.layer_norm_rms_epsilon"), VALUE_F32, f32(weights.normEps)),
    value(own("rope.freq_base"), VALUE_F32, f32(ropeTheta)),
    value(own("rope.dimension_count"), VALUE_U32, u32(weights.headDim)),
    value(own("vocab_size"), VALUE_U32, u32(vocabulary)),
    value("tokenizer.ggml.model", VALUE_STRING, text("gpt2")),
    value("tokenizer.ggml.pre", VALUE_STRING, text("qwen2")),
    value("tokenizer.ggml.tokens", VALUE_ARRAY, array(VALUE_STRING, tokens.map(text))),
    value("tokenizer.ggml.token_type", VALUE_ARRAY, array(VALUE_I32, tokens.map(tokenType).map(u32))),
    value("tokenizer.ggml.merges", VALUE_ARRAY, array(VALUE_STRING, [])),
    value("tokenizer.ggml.eos_token_id", VALUE_U32, u32(vocabulary - 1)),
    value("tokenizer.ggml.padding_token_id", VALUE_U32, u32(vocabulary - 2)),
    value("tokenizer.ggml.add_bos_token", VALUE_BOOL, Buffer.from([0])),
  ];
}

/** First the 256 bytes as byte-level BPE writes them, those that print first; then names. */
function tokenTexts(count: number): string[] {
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const prints = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const printed = bytes.filter(prints);
  const others = bytes.filter((byte) => !prints(byte)).map((_, i) => 256 + i);
  const named = Array.from({ length: count - 256 }, (_, i) => `<|${256 + i}|>`);
  return [...[...printed, ...others].map((code) => String.fromCodePoint(code)), ...named];
}

function writePadded(file: number, bytes: Uint8Array): void {
  writeSync(file, bytes);
  writeSync(file, new Uint8Array(padded(bytes.length) - bytes.length));
}

function padded(bytes: number): number {
  return Math.ceil(bytes / ALIGN) * ALIGN;
}

function value(key: string, type: number, bytes: Buffer): Buffer {
  return Buffer.concat([text(key), u32(type), bytes]);
}

function array(type: number, items: readonly Buffer[]): Buffer {
  return Buffer.concat([u32(type), u64(items.length), ...items]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64(bytes.length), bytes]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}
