// OP_EMBED: out[t] = row `token` of the embedding, unpacked. An embedding that is too long for one binding comes in parts:
// a part does those tokens that it has. Consts: DTYPE.
struct Params {
  offset: u32, // vectors into the binding
  width: u32,
  group: u32,
  first: u32, // token of the part's first row
  tokens: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//#include step
//#include weights

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let token = step_row(id.y).x - params.first;
  if (c >= params.width || token >= params.tokens) { return; }
  let tile = token / 16u;
  let row = token % 16u;
  let to = id.y * params.width + c;
  if (DTYPE == 0u) {
    out[to] = bitcast<f32>(weights[params.offset + (tile * params.width + c) * 4u + row / 4u][row % 4u]);
    return;
  }
  let block_cols = select(4u, 8u, DTYPE == 2u);
  let group_vectors = 2u + params.group / block_cols * 4u;
  let group = params.offset + (tile * (params.width / params.group) + c / params.group) * group_vectors;
  let i = c % params.group;
  let code = weights[group + 2u + i / block_cols * 4u + row / 4u][row % 4u];
  var value = 0i;
  if (DTYPE == 2u) {
    value = i32((code >> ((i % 4u) * 8u + (i % 8u) / 4u * 4u)) & 15u) - 8;
  } else {
    value = (i32(code) << (24u - (i % 4u) * 8u)) >> 24u;
  }
  out[to] = f32(value) * scales_of(group, row / 4u)[row % 4u];
}
