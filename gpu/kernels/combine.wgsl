// Puts together what the parts of attention.wgsl have left: a workgroup does a row and a head; as many layers of
// workgroups as there are parts are started, and the first works. Consts: VALUE_DIMS.
struct Params {
  heads: u32,
  value_channels: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
//#include math
const SPLITS_MOST = 16u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  if (id.z > 0u) { return; }
  let splits = min(counts.z, SPLITS_MOST);
  let base = (id.y * params.heads + id.x) * splits * (VALUE_DIMS + 2u);
  var most = -3.0e38;
  for (var s = 0u; s < splits; s++) { most = max(most, parts[base + s * (VALUE_DIMS + 2u) + VALUE_DIMS]); }
  var total = 0.0;
  var shares: array<f32, SPLITS_MOST>;
  for (var s = 0u; s < splits; s++) {
    let at = base + s * (VALUE_DIMS + 2u) + VALUE_DIMS;
    shares[s] = power(parts[at] - most);
    total += shares[s] * parts[at + 1u];
  }
  for (var d = l; d < VALUE_DIMS; d += 64u) {
    var sum = 0.0;
    for (var s = 0u; s < splits; s++) { sum += shares[s] * parts[base + s * (VALUE_DIMS + 2u) + d]; }
    let unit = id.y * (VALUE_DIMS / params.value_channels) + d / params.value_channels;
    out[(unit * params.heads + id.x) * params.value_channels + d % params.value_channels] = sum / total;
  }
}
