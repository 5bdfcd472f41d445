// OP_NORM: out = in / √(mean(in²) + eps) × weight; a workgroup does a row. Consts: INPLACE.
struct Params {
  weight: u32, // floats into the binding
  width: u32,
  eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> input: array<f32>;
//#if INPLACE
//#else
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//#endif
//#include sum

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let start = group.x * params.width;
  var squares = 0.0;
  for (var c = l; c < params.width; c += 256u) {
    let v = input[start + c];
    squares += v * v;
  }
  let scale = 1.0 / sqrt(workgroup_sum(squares, l) / f32(params.width) + params.eps);
  for (var c = l; c < params.width; c += 256u) {
    let v = input[start + c] * scale * weight[params.weight + c];
//#if INPLACE
    input[start + c] = v;
//#else
    out[start + c] = v;
//#endif
  }
}
