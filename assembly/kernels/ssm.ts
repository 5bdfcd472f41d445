// The ops round an SSM's scan: causal convolution, step sizes, gated norm.

import {
  CONV_CHANNELS,
  CONV_DATA,
  CONV_STATE,
  CONV_TAPS,
  CONV_UNIT_BYTES,
  CONV_UNITS,
  CONV_WEIGHT,
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
  ROW_BYTES,
  ROW_POSITION,
  ROW_SEQUENCE,
  STEP_SIZE_BIAS,
  STEP_SIZE_DATA,
  STEP_SIZE_HEADS,
  STEP_SIZE_LEAST,
  STEP_SIZE_MOST,
} from "../abi";
import { silu1, silu4, sum4 } from "../math";
import { state_ptr } from "../state";

/** OP_CONV over `count` rows, one after the other: the rows before lie in the state, and move up by one. */
export function conv(op: usize, steps: usize, count: u32): void {
  const units = load<u32>(op, CONV_UNITS);
  const channels = load<u32>(op, CONV_CHANNELS);
  const before = load<u32>(op, CONV_TAPS) - 1;
  const weight: usize = load<u32>(op, CONV_WEIGHT);
  const unitBytes = load<u32>(op, CONV_UNIT_BYTES);
  const state: usize = load<u32>(op, CONV_STATE);
  const floats = units * channels;
  const bytes = floats * 4;
  const wide = (channels & ~3) * 4;
  let data: usize = load<u32>(op, CONV_DATA);
  for (let t: u32 = 0; t < count; t++) {
    const row = steps + t * ROW_BYTES;
    let past = state_ptr(state, load<u32>(row, ROW_SEQUENCE), before * floats); // [before][floats], oldest first
    if (load<u32>(row, ROW_POSITION) == 0) memory.fill(past, 0, before * bytes);
    for (let u: u32 = 0; u < units; u++) {
      const taps = weight + u * unitBytes; // [before + 1 and the bias][channels]
      const bias = taps + (before + 1) * channels * 4;
      let c: u32 = 0;
      for (; c < wide; c += 16) {
        let sum = v128.load(bias + c);
        let tap = taps + c;
        let from = past + c;
        for (let i: u32 = 0; i < before; i++) {
          const value = v128.load(from);
          sum = f32x4.add(sum, f32x4.mul(v128.load(tap), value));
          if (i > 0) v128.store(from - bytes, value);
          tap += channels * 4;
          from += bytes;
        }
        const value = v128.load(data + c);
        if (before > 0) v128.store(from - bytes, value);
        v128.store(data + c, silu4(f32x4.add(sum, f32x4.mul(v128.load(tap), value))));
      }
      for (; c < channels * 4; c += 4) {
        let sum = load<f32>(bias + c);
        let tap = taps + c;
        let from = past + c;
        for (let i: u32 = 0; i < before; i++) {
          const value = load<f32>(from);
          sum += load<f32>(tap) * value;
          if (i > 0) store<f32>(from - bytes, value);
          tap += channels * 4;
          from += bytes;
        }
        const value = load<f32>(data + c);
        if (before > 0) store<f32>(from - bytes, value);
        store<f32>(data + c, silu1(sum + load<f32>(tap) * value));
      }
      data += channels * 4;
      past += channels * 4;
    }
  }
}

/** OP_STEP_SIZE over `count` rows. */
export function step_size(op: usize, count: u32): void {
  const heads = load<u32>(op, STEP_SIZE_HEADS);
  const bias: usize = load<u32>(op, STEP_SIZE_BIAS);
  const least = load<f32>(op, STEP_SIZE_LEAST);
  const most = load<f32>(op, STEP_SIZE_MOST);
  let data: usize = load<u32>(op, STEP_SIZE_DATA);
  for (let t: u32 = 0; t < count; t++) {
    for (let h: u32 = 0; h < heads; h++) {
      const v = (load<f32>(data) + load<f32>(bias + h * 4)) as f64;
      // ln(1 + e^v) = max(v, 0) + ln(1 + e^−|v|)
      const softplus = (max<f64>(v, 0) + Math.log1p(Math.exp(-Math.abs(v)))) as f32;
      store<f32>(data, min<f32>(max<f32>(softplus, least), most));
      data += 4;
    }
  }
}

/** OP_GATED_NORM over `count` rows. */
export function gated_norm(op: usize, count: u32): void {
  const units = load<u32>(op, GATED_NORM_UNITS);
  const heads = load<u32>(op, GATED_NORM_HEADS);
  const channels = load<u32>(op, GATED_NORM_CHANNELS);
  const groups = load<u32>(op, GATED_NORM_GROUPS);
  const weight: usize = load<u32>(op, GATED_NORM_WEIGHT);
  const unitBytes = load<u32>(op, GATED_NORM_UNIT_BYTES);
  const divisor = load<f32>(op, GATED_NORM_DIVISOR);
  const eps = load<f32>(op, GATED_NORM_EPS);
  const groupBytes = (heads / groups) * channels * 4; // of one unit
  const rowBytes = units * heads * channels * 4;
  let data: usize = load<u32>(op, GATED_NORM_DATA);
  let gate: usize = load<u32>(op, GATED_NORM_GATE);
  for (let t: u32 = 0; t < count; t++) {
    for (let g: u32 = 0; g < groups; g++) {
      let sum: f32 = 0;
      for (let u: u32 = 0; u < units; u++) {
        const at = (u * groups + g) * groupBytes;
        sum += gated_squares(data + at, gate + at, groupBytes);
      }
      const scale: f32 = 1 / sqrt<f32>(sum / divisor + eps);
      for (let u: u32 = 0; u < units; u++)
        scale_by(data + (u * groups + g) * groupBytes, weight + u * unitBytes + g * groupBytes, groupBytes, scale);
    }
    data += rowBytes;
    gate += rowBytes;
  }
}

/** data ← data × silu(gate); returns Σ data². */
function gated_squares(data: usize, gate: usize, bytes: u32): f32 {
  const wide = bytes & ~15;
  let squares = f32x4.splat(0);
  let c: u32 = 0;
  for (; c < wide; c += 16) {
    const v = f32x4.mul(v128.load(data + c), silu4(v128.load(gate + c)));
    v128.store(data + c, v);
    squares = f32x4.add(squares, f32x4.mul(v, v));
  }
  let sum = sum4(squares);
  for (; c < bytes; c += 4) {
    const v = load<f32>(data + c) * silu1(load<f32>(gate + c));
    store<f32>(data + c, v);
    sum += v * v;
  }
  return sum;
}

/** data ← data × scale × weight. */
function scale_by(data: usize, weight: usize, bytes: u32, scale: f32): void {
  const wide = bytes & ~15;
  const scales = f32x4.splat(scale);
  let c: u32 = 0;
  for (; c < wide; c += 16)
    v128.store(data + c, f32x4.mul(f32x4.mul(v128.load(data + c), scales), v128.load(weight + c)));
  for (; c < bytes; c += 4) store<f32>(data + c, load<f32>(data + c) * scale * load<f32>(weight + c));
}
