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
import { exp4, madd4, silu1, silu4, sum4 } from "../math";
import { state_ptr } from "../state";
import { share_end, share_start } from "../threads";

/**
 * OP_CONV over `count` rows, one after the other: the rows before lie in the state, and move up by one. A thread does
 * fours of channels, which do not go across units.
 */
export function conv(op: usize, steps: usize, count: u32): void {
  const units = load<u32>(op, CONV_UNITS);
  const channels = load<u32>(op, CONV_CHANNELS);
  const before = load<u32>(op, CONV_TAPS) - 1;
  const weight: usize = load<u32>(op, CONV_WEIGHT);
  const unitBytes = load<u32>(op, CONV_UNIT_BYTES);
  const state: usize = load<u32>(op, CONV_STATE);
  const rowBytes = units * channels * 4;
  const fours = (channels + 3) / 4; // of a unit
  const start = share_start(units * fours);
  const end = share_end(units * fours);
  let data: usize = load<u32>(op, CONV_DATA);
  for (let t: u32 = 0; t < count; t++) {
    const row = steps + t * ROW_BYTES;
    // [before][units × channels], oldest first
    const past = state_ptr(state, load<u32>(row, ROW_SEQUENCE), before * units * channels);
    const begins = load<u32>(row, ROW_POSITION) == 0;
    for (let four = start; four < end; ) {
      const unit = four / fours;
      const first = (four - unit * fours) * 4;
      const last = min(channels, first + (end - four) * 4);
      const at = (unit * channels + first) * 4;
      const bytes = (last - first) * 4;
      if (begins) for (let i: u32 = 0; i < before; i++) memory.fill(past + i * rowBytes + at, 0, bytes);
      conv_channels(data + at, past + at, weight + unit * unitBytes + first * 4, before, rowBytes, channels * 4, bytes);
      four += (last - first + 3) / 4;
    }
    data += rowBytes;
  }
}

/**
 * One row of neighbouring channels. past: the rows before, pastStride bytes apart; taps: [before + 1, and the bias],
 * tapStride bytes apart.
 */
function conv_channels(
  data: usize,
  past: usize,
  taps: usize,
  before: u32,
  pastStride: u32,
  tapStride: u32,
  bytes: u32,
): void {
  const bias = taps + (before + 1) * tapStride;
  const wide = bytes & ~15;
  let c: u32 = 0;
  for (; c < wide; c += 16) {
    let sum = v128.load(bias + c);
    let tap = taps + c;
    let from = past + c;
    for (let i: u32 = 0; i < before; i++) {
      const value = v128.load(from);
      sum = madd4(v128.load(tap), value, sum);
      if (i > 0) v128.store(from - pastStride, value);
      tap += tapStride;
      from += pastStride;
    }
    const value = v128.load(data + c);
    if (before > 0) v128.store(from - pastStride, value);
    v128.store(data + c, silu4(madd4(v128.load(tap), value, sum)));
  }
  for (; c < bytes; c += 4) {
    let sum = load<f32>(bias + c);
    let tap = taps + c;
    let from = past + c;
    for (let i: u32 = 0; i < before; i++) {
      const value = load<f32>(from);
      sum += load<f32>(tap) * value;
      if (i > 0) store<f32>(from - pastStride, value);
      tap += tapStride;
      from += pastStride;
    }
    const value = load<f32>(data + c);
    if (before > 0) store<f32>(from - pastStride, value);
    store<f32>(data + c, silu1(sum + load<f32>(tap) * value));
  }
}

/** OP_STEP_SIZE over `count` rows; a thread does whole rows. */
export function step_size(op: usize, count: u32): void {
  const heads = load<u32>(op, STEP_SIZE_HEADS);
  const bias: usize = load<u32>(op, STEP_SIZE_BIAS);
  const least = v128.load32_splat(op, STEP_SIZE_LEAST);
  const most = v128.load32_splat(op, STEP_SIZE_MOST);
  const bytes = heads * 4;
  const wide = bytes & ~15;
  const end = share_end(count);
  for (let t = share_start(count); t < end; t++) {
    const data: usize = load<u32>(op, STEP_SIZE_DATA) + t * bytes;
    let h: u32 = 0;
    for (; h < wide; h += 16) {
      const sizes = softplus4(f32x4.add(v128.load(data + h), v128.load(bias + h)));
      v128.store(data + h, f32x4.min(f32x4.max(sizes, least), most));
    }
    for (; h < bytes; h += 4) {
      const size = softplus4(f32x4.splat(load<f32>(data + h) + load<f32>(bias + h)));
      store<f32>(data + h, f32x4.extract_lane(f32x4.min(f32x4.max(size, least), most), 0));
    }
  }
}

/**
 * ln(1 + e^v) = max(v, 0) + ln(1 + e^−|v|) in each lane, however small it is within some units in the last place.
 * ln(1 + e) = 2·artanh(s) for s = e / (2 + e) ≤ 1/3; artanh(s) = s + s³·p(s²), where p goes through the four Chebyshev
 * nodes.
 */
function softplus4(v: v128): v128 {
  const e = exp4(f32x4.neg(f32x4.abs(v)));
  const s = f32x4.div(e, f32x4.add(e, f32x4.splat(2)));
  const square = f32x4.mul(s, s);
  let p = madd4(f32x4.splat(0.13425749), square, f32x4.splat(0.141183099));
  p = madd4(p, square, f32x4.splat(0.200037803));
  p = madd4(p, square, f32x4.splat(0.333333202));
  const twice = f32x4.add(s, s);
  return f32x4.add(f32x4.max(v, f32x4.splat(0)), madd4(twice, f32x4.mul(square, p), twice));
}

/** OP_GATED_NORM over `count` rows; a thread does whole groups of rows. */
export function gated_norm(op: usize, count: u32): void {
  const units = load<u32>(op, GATED_NORM_UNITS);
  const heads = load<u32>(op, GATED_NORM_HEADS);
  const groups = load<u32>(op, GATED_NORM_GROUPS);
  const weight: usize = load<u32>(op, GATED_NORM_WEIGHT);
  const unitBytes = load<u32>(op, GATED_NORM_UNIT_BYTES);
  const divisor = load<f32>(op, GATED_NORM_DIVISOR);
  const eps = load<f32>(op, GATED_NORM_EPS);
  const groupBytes = (heads / groups) * load<u32>(op, GATED_NORM_CHANNELS) * 4; // of one unit
  const stride = groups * groupBytes; // from unit to unit
  const end = share_end(count * groups);
  for (let i = share_start(count * groups); i < end; i++) {
    const group = i % groups;
    const at = (i / groups) * units * stride + group * groupBytes;
    const data: usize = load<u32>(op, GATED_NORM_DATA) + at;
    const gate: usize = load<u32>(op, GATED_NORM_GATE) + at;
    let sum: f32 = 0;
    for (let u: u32 = 0; u < units; u++) sum += gated_squares(data + u * stride, gate + u * stride, groupBytes);
    const scale: f32 = 1 / sqrt<f32>(sum / divisor + eps);
    for (let u: u32 = 0; u < units; u++)
      scale_by(data + u * stride, weight + u * unitBytes + group * groupBytes, groupBytes, scale);
  }
}

/** data ← data × silu(gate); returns Σ data². */
function gated_squares(data: usize, gate: usize, bytes: u32): f32 {
  const wide = bytes & ~15;
  let c: u32 = 0;
  for (; c < wide; c += 16) v128.store(data + c, f32x4.mul(v128.load(data + c), silu4(v128.load(gate + c))));
  let squares = f32x4.splat(0);
  for (let i: u32 = 0; i < wide; i += 16) {
    const v = v128.load(data + i);
    squares = madd4(v, v, squares);
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
