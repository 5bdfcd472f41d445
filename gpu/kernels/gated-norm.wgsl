// OP_GATED_NORM: v = data × silu(gate); data = v / √(Σ v² over a group / divisor + eps) × weight. A workgroup does a group
// of a row.
struct Params {
  weight: u32, // floats into the binding
  weight_floats: u32, // from unit to unit
  units: u32,
  heads: u32,
  channels: u32,
  groups: u32,
  divisor: f32,
  eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> data: array<f32>;
@group(0) @binding(3) var<storage, read_write> gate: array<f32>;
//#include sum
//#include math

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let unit_floats = params.heads * params.channels;
  let own = unit_floats / params.groups; // of a unit
  let start = id.y * params.units * unit_floats + id.x * own;
  var squares = 0.0;
  for (var i = l; i < params.units * own; i += 256u) {
    let at = start + i / own * unit_floats + i % own;
    let v = data[at] * silu(gate[at]);
    data[at] = v;
    squares += v * v;
  }
  let scale = 1.0 / sqrt(workgroup_sum(squares, l) / params.divisor + params.eps);
  for (var i = l; i < params.units * own; i += 256u) {
    let at = start + i / own * unit_floats + i % own;
    data[at] = data[at] * scale * weight[params.weight + i / own * params.weight_floats + id.x * own + i % own];
  }
}
