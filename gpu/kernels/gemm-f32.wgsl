// OP_MATMUL for many rows, on f32 input. A workgroup does 64 rows of the step and 64 rows of the matrices, a thread 4 × 4;
// weights are unpacked into workgroup memory, COLS columns at once.
// Consts: as gemv.wgsl.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> input: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out0: array<f32>;
//#if THREE
@group(0) @binding(5) var<storage, read_write> out1: array<f32>;
@group(0) @binding(6) var<storage, read_write> out2: array<f32>;
//#endif
//#if TWO
@group(0) @binding(5) var<storage, read_write> out1: array<f32>;
//#endif
@group(0) @binding(7) var<storage, read> step: array<vec4<u32>>;
//#include step
//#include matrices
//#include weights
const COLS = 8u;
var<workgroup> xs: array<vec4<f32>, COLS * 16u>; // [column][token]
var<workgroup> ws: array<vec4<f32>, COLS * 16u>; // [column][row]
var<workgroup> tile_at: array<u32, 4>;
var<workgroup> tile_panel: array<u32, 4>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let count = select(step_rows(), step_outputs(), OUTPUTS);
  let first_token = id.y * 64u;
  let first_tile = id.x * 4u;
  if (l < 4u) {
    let tile = tile_of(min(first_tile + l, params.tiles - 1u));
    tile_at[l] = tile.weights;
    tile_panel[l] = params.matrices[tile.matrix].panel_vectors;
  }
  let tx = l % 16u;
  let ty = l / 16u;
  var sums: array<vec4<f32>, 4>;
  for (var col = 0u; col < params.input_cols; col += COLS) {
    workgroupBarrier();
    for (var i = l; i < 64u * COLS; i += 256u) {
      let token = i / COLS;
      let c = i % COLS;
      var x = 0.0;
      if (col + c < params.input_cols) {
        x = input[min(first_token + token, count - 1u) * params.row_floats + params.first_col + col + c];
      }
      xs[c * 16u + token / 4u][token % 4u] = x;
    }
    if (l < 16u * COLS) {
      let v = l % 4u;
      let tile = l / 4u % 4u;
      let c = l / 16u;
      var w = vec4<f32>();
      if (col + c < params.input_cols) {
        var panel = 0u;
        var in_panel = col + c;
        if (!AXIS_ROWS) {
          panel = (col + c) / params.cols;
          in_panel = (col + c) % params.cols;
        }
        let at = tile_at[tile] + panel * tile_panel[tile];
        if (DTYPE == 0u) {
          w = bitcast<vec4<f32>>(weights[at + in_panel * 4u + v]);
        } else {
          let block_cols = select(4u, 8u, DTYPE == 2u);
          let group = at + in_panel / params.group * (2u + params.group / block_cols * 4u);
          let i = in_panel % params.group;
          let codes = weights[group + 2u + i / block_cols * 4u + v];
          if (DTYPE == 2u) {
            w = vec4<f32>((codes >> vec4<u32>((i % 4u) * 8u + i % 8u / 4u * 4u)) & vec4<u32>(15u)) - 8.0;
          } else {
            w = vec4<f32>((bitcast<vec4<i32>>(codes) << vec4<u32>(24u - (i % 4u) * 8u)) >> vec4<u32>(24u));
          }
          w *= scales_of(group, v);
        }
      }
      ws[c * 16u + tile * 4u + v] = w;
    }
    workgroupBarrier();
    for (var c = 0u; c < COLS; c++) {
      let x = xs[c * 16u + ty];
      let w = ws[c * 16u + tx];
      sums[0] += x.x * w;
      sums[1] += x.y * w;
      sums[2] += x.z * w;
      sums[3] += x.w * w;
    }
  }
  let index = first_tile + tx / 4u;
  if (index >= params.tiles) { return; }
  let tile = tile_of(index);
  let stride = params.matrices[tile.matrix].out_stride;
  for (var i = 0u; i < 4u; i++) {
    let token = first_token + ty * 4u + i;
    if (token >= count) { continue; }
    for (var c = 0u; c < 4u; c++) {
      let r = tx % 4u * 4u + c;
      if (r >= tile.rows) { continue; }
      var sum = sums[i][c];
      if (tile.bias != NO_BIAS) { sum += bias[tile.bias + r]; }
      finish(tile.matrix, token * stride + tile.out + r, sum);
    }
  }
}
//#include finish
