// The small ops between the matrices: embedding, norm, RoPE, gate, squared ReLU, selection of rows.

import { BLOCK_COLS, DTYPE_F32, DTYPE_Q4, ROW_TILE } from "../../packs/format";
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
  ROPE_ANGLES,
  ROPE_CHANNELS,
  ROPE_DATA,
  ROPE_HEADS,
  ROPE_SHARE,
  ROPE_UNIT_BYTES,
  ROPE_UNITS,
  ROW_BYTES,
  ROW_OUTPUT,
  ROW_POSITION,
  ROW_TOKEN,
  SELECT_IN,
  SELECT_OUT,
  SELECT_WIDTH,
  SQUARED_RELU_DATA,
  SQUARED_RELU_WIDTH,
} from "../abi";
import { load_half, silu1, silu4, sum4 } from "../math";
import { group_bytes, tile_bytes } from "../pack";

/** OP_EMBED: out[t] = row ROW_TOKEN of the embedding, unpacked. */
export function embed(op: usize, steps: usize, count: u32): void {
  const width = load<u32>(op, EMBED_WIDTH);
  const dtype = load<u32>(op, EMBED_DTYPE);
  const group = load<u32>(op, EMBED_GROUP);
  const weight: usize = load<u32>(op, EMBED_WEIGHT);
  const tileBytes = tile_bytes(dtype, width, group);
  let out: usize = load<u32>(op, EMBED_OUT);
  for (let t: u32 = 0; t < count; t++) {
    const token = load<u32>(steps + t * ROW_BYTES, ROW_TOKEN);
    const tile = weight + (token / ROW_TILE) * tileBytes;
    const row = token % ROW_TILE;
    if (dtype == DTYPE_F32) {
      for (let c: u32 = 0; c < width; c++) store<f32>(out + c * 4, load<f32>(tile + (c * ROW_TILE + row) * 4));
    } else {
      unpack_row(tile, dtype, group, row, width, out);
    }
    out += width * 4;
  }
}

/** out[c] = the weights of one row of a Q4 or Q8 tile. */
function unpack_row(tile: usize, dtype: u32, group: u32, row: u32, cols: u32, out: usize): void {
  const bytes = group_bytes(dtype, group);
  const inBlock = (row / 4) * 16 + (row % 4) * 4;
  for (let col: u32 = 0; col < cols; col += group) {
    const scale = load_half(tile + row * 2);
    const codes = tile + ROW_TILE * 2 + inBlock;
    for (let c: u32 = 0; c < group; c++) {
      let value: f32 = 0;
      if (dtype == DTYPE_Q4) {
        const byte = load<u8>(codes + (c / BLOCK_COLS) * 64 + (c % 4)) as i32;
        value = ((((c % BLOCK_COLS < 4 ? byte : byte >> 4) & 15) - 8) as f32) * scale;
      } else {
        value = (load<i8>(codes + (c / (BLOCK_COLS / 2)) * 64 + (c % 4)) as f32) * scale;
      }
      store<f32>(out, value);
      out += 4;
    }
    tile += bytes;
  }
}

/** OP_NORM over `count` rows; in and out may be the same. */
export function norm(op: usize, count: u32): void {
  const width = load<u32>(op, NORM_WIDTH);
  const weight: usize = load<u32>(op, NORM_WEIGHT);
  const eps = load<f32>(op, NORM_EPS);
  const bytes = width * 4;
  const wide = (width & ~3) * 4;
  let input: usize = load<u32>(op, NORM_IN);
  let out: usize = load<u32>(op, NORM_OUT);
  for (let t: u32 = 0; t < count; t++) {
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
    input += bytes;
    out += bytes;
  }
}

/** OP_ROPE: (a, b) ← (a·cos − b·sin, b·cos + a·sin), the angle being position × the pair's angle, rounded to f32. */
export function rope(op: usize, steps: usize, count: u32): void {
  const units = load<u32>(op, ROPE_UNITS);
  const heads = load<u32>(op, ROPE_HEADS);
  const channels = load<u32>(op, ROPE_CHANNELS);
  const share = load<u32>(op, ROPE_SHARE);
  const angles: usize = load<u32>(op, ROPE_ANGLES);
  const unitBytes = load<u32>(op, ROPE_UNIT_BYTES);
  const pairs = channels / 2;
  const headBytes = channels * 4;
  const far = pairs * 4;
  let unit: usize = load<u32>(op, ROPE_DATA);
  for (let t: u32 = 0; t < count; t++) {
    const position = load<u32>(steps + t * ROW_BYTES, ROW_POSITION) as f32;
    for (let u: u32 = 0; u < units; u++) {
      for (let h: u32 = 0; h < heads; h += share) {
        const angle = angles + u * unitBytes + (h / share) * far;
        for (let i: u32 = 0; i < pairs; i++) {
          const radians = (position * load<f32>(angle + i * 4)) as f64;
          const cosine = Math.cos(radians) as f32;
          const sine = Math.sin(radians) as f32;
          let pair = unit + h * headBytes + i * 4;
          for (let s: u32 = 0; s < share; s++) {
            const a = load<f32>(pair);
            const b = load<f32>(pair + far);
            store<f32>(pair, a * cosine - b * sine);
            store<f32>(pair + far, b * cosine + a * sine);
            pair += headBytes;
          }
        }
      }
      unit += heads * headBytes;
    }
  }
}

/** OP_GATE over `count` rows: gate ← gate / (1 + e^−gate) × up. */
export function gate(op: usize, count: u32): void {
  const floats = count * load<u32>(op, GATE_WIDTH);
  const wide = (floats & ~3) * 4;
  const g: usize = load<u32>(op, GATE_GATE);
  const up: usize = load<u32>(op, GATE_UP);
  let i: u32 = 0;
  for (; i < wide; i += 16) v128.store(g + i, f32x4.mul(silu4(v128.load(g + i)), v128.load(up + i)));
  for (; i < floats * 4; i += 4) store<f32>(g + i, silu1(load<f32>(g + i)) * load<f32>(up + i));
}

/** OP_SQUARED_RELU over `count` rows: data ← max(data, 0)². */
export function squared_relu(op: usize, count: u32): void {
  const floats = count * load<u32>(op, SQUARED_RELU_WIDTH);
  const wide = (floats & ~3) * 4;
  const data: usize = load<u32>(op, SQUARED_RELU_DATA);
  const zero = f32x4.splat(0);
  let i: u32 = 0;
  for (; i < wide; i += 16) {
    const v = f32x4.max(v128.load(data + i), zero);
    v128.store(data + i, f32x4.mul(v, v));
  }
  for (; i < floats * 4; i += 4) {
    const v = max<f32>(load<f32>(data + i), 0);
    store<f32>(data + i, v * v);
  }
}

/** OP_SELECT: gathers the rows with ROW_OUTPUT set. */
export function select_rows(op: usize, steps: usize, count: u32): void {
  const bytes = load<u32>(op, SELECT_WIDTH) * 4;
  let input: usize = load<u32>(op, SELECT_IN);
  let out: usize = load<u32>(op, SELECT_OUT);
  for (let t: u32 = 0; t < count; t++) {
    if (load<u32>(steps + t * ROW_BYTES, ROW_OUTPUT) != 0) {
      memory.copy(out, input, bytes);
      out += bytes;
    }
    input += bytes;
  }
}
