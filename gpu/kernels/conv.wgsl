// OP_CONV: a thread does a channel of a sequence, row after row. Consts: BEFORE = taps − 1.
struct Params {
  units: u32,
  channels: u32,
  weight: u32, // floats into the binding
  weight_floats: u32, // from unit to unit
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> data: array<f32>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
//#include step
//#include math
const AHEAD = 8u; // rows that are read at once

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let width = params.units * params.channels;
  let i = id.x;
  if (i >= width) { return; }
  let sequence = step_sequence(id.y);
  let taps = params.weight + i / params.channels * params.weight_floats + i % params.channels;
  var tap: array<f32, BEFORE + 2u>; // the last is the bias
  for (var b = 0u; b < BEFORE + 2u; b++) { tap[b] = weight[taps + b * params.channels]; }
  let past = sequence * BEFORE * width + i;
  var window: array<f32, max(BEFORE, 1u)>; // oldest first
  for (var b = 0u; b < BEFORE; b++) { window[b] = state[past + b * width]; }
  for (var n = 0u; n < step[0].z; n++) {
    let run = step_run(n);
    if (run.x != sequence) { continue; }
    if (run.w == 0u) {
      for (var b = 0u; b < BEFORE; b++) { window[b] = 0.0; }
    }
    for (var first = 0u; first < run.z; first += AHEAD) {
      var rows: array<f32, AHEAD>;
      for (var r = 0u; r < AHEAD; r++) { rows[r] = data[(run.y + min(first + r, run.z - 1u)) * width + i]; }
      for (var r = 0u; r < AHEAD; r++) {
        if (first + r < run.z) {
          var sum = tap[BEFORE + 1u];
          for (var b = 0u; b < BEFORE; b++) { sum += tap[b] * window[b]; }
          sum += tap[BEFORE] * rows[r];
          data[(run.y + first + r) * width + i] = silu(sum);
          for (var b = 0u; b + 1u < BEFORE; b++) { window[b] = window[b + 1u]; }
          if (BEFORE > 0u) { window[max(BEFORE, 1u) - 1u] = rows[r]; }
        }
      }
    }
  }
  for (var b = 0u; b < BEFORE; b++) { state[past + b * width] = window[b]; }
}
