// OP_SELECT: out = the rows that want logits.
struct Params {
  width: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> input: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//#include step

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.width) { return; }
  out[id.y * params.width + id.x] = input[step_output(id.y) * params.width + id.x];
}
