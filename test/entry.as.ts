// The core's insides that tests call, beside what assembly/index.ts exports. One line for each module.

export { attention, attention_scratch_floats } from "../assembly/kernels/attention";
export { embed, gate, norm, select_rows, squared_relu } from "../assembly/kernels/elementwise";

import { MATMUL_SCRATCH_BYTES, matmul } from "../assembly/kernels/matmul";

export { matmul };
export function matmul_scratch_bytes(): u32 {
  return MATMUL_SCRATCH_BYTES;
}

export { quantize } from "../assembly/kernels/quantize";
export { rope } from "../assembly/kernels/rope";
export { scan } from "../assembly/kernels/scan";
export { conv, gated_norm, step_size } from "../assembly/kernels/ssm";
export * from "../assembly/sampler";
export * from "../assembly/tokenizer";
export { unicode_class, unicode_combining } from "../assembly/unicode";
export { UNICODE_VERSION } from "../assembly/unicode-tables";

// A v128 cannot leave the module: these go over arrays, `count` a multiple of 4.
import { exp1, exp4, load_half, load_half4, power4 } from "../assembly/math";

export function exp4_all(from: usize, to: usize, count: u32): void {
  for (let i: u32 = 0; i < count * 4; i += 16) v128.store(to + i, exp4(v128.load(from + i)));
}

export function exp1_all(from: usize, to: usize, count: u32): void {
  for (let i: u32 = 0; i < count * 4; i += 4) store<f32>(to + i, exp1(load<f32>(from + i)));
}

export function load_half4_all(from: usize, to: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i += 4) v128.store(to + i * 4, load_half4(from + i * 2));
}

export function load_half_all(from: usize, to: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i++) store<f32>(to + i * 4, load_half(from + i * 2));
}

export function power4_all(from: usize, to: usize, count: u32): void {
  for (let i: u32 = 0; i < count * 4; i += 16) v128.store(to + i, power4(v128.load(from + i)));
}
