// The small ops between the matrices: embedding, norm, gate, squared ReLU, selection of rows.

import { DTYPE_F32, DTYPE_Q4, ROW_TILE } from "../../packs/format";
import {
  EMBED_DTYPE,
  EMBED_GROUP,
  EMBED_OUT,
  EMBED_WEIGHT,
  EMBED_WIDTH,
  GATE_GATE,
  GATE_UP,
  GATE_WIDTH,
  NORM_EPS,
  NORM_IN,
  NORM_OUT,
  NORM_WEIGHT,
  NORM_WIDTH,
  ROW_BYTES,
  ROW_OUTPUT,
  ROW_TOKEN,
  SELECT_IN,
  SELECT_OUT,
  SELECT_WIDTH,
  SQUARED_RELU_DATA,
  SQUARED_RELU_WIDTH,
} from "../abi";
import { load_half, silu1, silu4, sum4 } from "../math";
import { group_bytes, tile_bytes } from "../pack";
import { share_end, share_start } from "../threads";

/** Floats that one thread works on at least, where an op treats each for itself: a cache line. */
const LINE: u32 = 16;

/** OP_EMBED: out[t] = row ROW_TOKEN of the embedding, unpacked. */
export function embed(op: usize, steps: usize, count: u32): void {
  const width = load<u32>(op, EMBED_WIDTH);
  const dtype = load<u32>(op, EMBED_DTYPE);
  const group = load<u32>(op, EMBED_GROUP);
  const weight: usize = load<u32>(op, EMBED_WEIGHT);
  const tileBytes = tile_bytes(dtype, width, group);
  const end = share_end(count);
  for (let t = share_start(count); t < end; t++) {
    const token = load<u32>(steps + t * ROW_BYTES, ROW_TOKEN);
    const tile = weight + (token / ROW_TILE) * tileBytes;
    const row = token % ROW_TILE;
    const out: usize = load<u32>(op, EMBED_OUT) + t * width * 4;
    if (dtype == DTYPE_F32) {
      for (let c: u32 = 0; c < width; c++) store<f32>(out + c * 4, load<f32>(tile + (c * ROW_TILE + row) * 4));
    } else {
      unpack_row(tile, dtype, group, row, width, out);
    }
  }
}

/** out[c] = the weights of one row of a Q4 or Q8 tile. */
function unpack_row(tile: usize, dtype: u32, group: u32, row: u32, cols: u32, out: usize): void {
  const bytes = group_bytes(dtype, group);
  const low = i32x4.splat(15);
  const eight = i32x4.splat(8);
  for (const end = tile + (cols / group) * bytes; tile < end; tile += bytes) {
    const scale = f32x4.splat(load_half(tile + row * 2));
    const groupEnd = tile + bytes;
    // The row's four bytes of a block: a row is a 32-bit lane.
    for (let codes = tile + ROW_TILE * 2 + row * 4; codes < groupEnd; codes += ROW_TILE * 4) {
      const four = v128.load32_zero(codes);
      if (dtype == DTYPE_Q4) {
        const bytes4 = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(four));
        const first = i32x4.sub(v128.and(bytes4, low), eight);
        const second = i32x4.sub(i32x4.shr_u(bytes4, 4), eight);
        v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(first), scale));
        v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(second), scale), 16);
        out += 32;
      } else {
        const bytes4 = i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(four));
        v128.store(out, f32x4.mul(f32x4.convert_i32x4_s(bytes4), scale));
        out += 16;
      }
    }
  }
}

/** OP_NORM over `count` rows; in and out may be the same. */
export function norm(op: usize, count: u32): void {
  const width = load<u32>(op, NORM_WIDTH);
  const weight: usize = load<u32>(op, NORM_WEIGHT);
  const eps = load<f32>(op, NORM_EPS);
  const bytes = width * 4;
  const wide = (width & ~3) * 4;
  const end = share_end(count);
  for (let t = share_start(count); t < end; t++) {
    const input: usize = load<u32>(op, NORM_IN) + t * bytes;
    const out: usize = load<u32>(op, NORM_OUT) + t * bytes;
    let squares = f32x4.splat(0);
    let c: u32 = 0;
    for (; c < wide; c += 16) {
      const v = v128.load(input + c);
      squares = f32x4.add(squares, f32x4.mul(v, v));
    }
    let sum = sum4(squares);
    for (; c < bytes; c += 4) sum += load<f32>(input + c) * load<f32>(input + c);
    const scale: f32 = 1 / sqrt<f32>(sum / (width as f32) + eps);
    const scales = f32x4.splat(scale);
    for (c = 0; c < wide; c += 16)
      v128.store(out + c, f32x4.mul(f32x4.mul(v128.load(input + c), scales), v128.load(weight + c)));
    for (; c < bytes; c += 4) store<f32>(out + c, load<f32>(input + c) * scale * load<f32>(weight + c));
  }
}

/** OP_GATE over `count` rows: gate ← gate / (1 + e^−gate) × up. */
export function gate(op: usize, count: u32): void {
  const floats = count * load<u32>(op, GATE_WIDTH);
  const end = line_end(floats) * 4;
  const g: usize = load<u32>(op, GATE_GATE);
  const up: usize = load<u32>(op, GATE_UP);
  let i = line_start(floats) * 4;
  for (; i + 16 <= end; i += 16) v128.store(g + i, f32x4.mul(silu4(v128.load(g + i)), v128.load(up + i)));
  for (; i < end; i += 4) store<f32>(g + i, silu1(load<f32>(g + i)) * load<f32>(up + i));
}

/** OP_SQUARED_RELU over `count` rows: data ← max(data, 0)². */
export function squared_relu(op: usize, count: u32): void {
  const floats = count * load<u32>(op, SQUARED_RELU_WIDTH);
  const end = line_end(floats) * 4;
  const data: usize = load<u32>(op, SQUARED_RELU_DATA);
  const zero = f32x4.splat(0);
  let i = line_start(floats) * 4;
  for (; i + 16 <= end; i += 16) {
    const v = f32x4.max(v128.load(data + i), zero);
    v128.store(data + i, f32x4.mul(v, v));
  }
  for (; i < end; i += 4) {
    const v = max<f32>(load<f32>(data + i), 0);
    store<f32>(data + i, v * v);
  }
}

/** OP_SELECT: gathers the rows with ROW_OUTPUT set. */
export function select_rows(op: usize, steps: usize, count: u32): void {
  const width = load<u32>(op, SELECT_WIDTH);
  const start = line_start(width) * 4;
  const bytes = line_end(width) * 4 - start;
  let input: usize = load<u32>(op, SELECT_IN) + start;
  let out: usize = load<u32>(op, SELECT_OUT) + start;
  for (let t: u32 = 0; t < count; t++) {
    if (load<u32>(steps + t * ROW_BYTES, ROW_OUTPUT) != 0) {
      memory.copy(out, input, bytes);
      out += width * 4;
    }
    input += width * 4;
  }
}

/** First of `floats` numbers that this thread does, in whole lines. */
function line_start(floats: u32): u32 {
  return min(share_start((floats + (LINE - 1)) / LINE) * LINE, floats);
}

function line_end(floats: u32): u32 {
  return min(share_end((floats + (LINE - 1)) / LINE) * LINE, floats);
}
