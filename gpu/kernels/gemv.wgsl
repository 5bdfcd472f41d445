// OP_MATMUL for a row or a few: out = weights · input (+ bias) (+ out). A workgroup does TILES tiles of 16 rows; SPLIT
// slots of 4 threads share the columns of a tile, and a thread has 4 of its rows.
// Consts: DTYPE; CODED: the input is what quantize.wgsl made; MATRICES; AXIS_ROWS; TILES, SPLIT = 64 / TILES; ADD: to what
// out holds; SQUARED_RELU: max(result, 0)²; GATED: silu(first matrix's result) × the second's.
struct Params {
  cols: u32, // of a panel
  group: u32,
  tile_vectors: u32, // from tile to tile
  input_cols: u32, // of all panels
  first_col: u32, // of the input
  row_floats: u32, // of the input, from row to row; columns, where it is coded
  scales: u32, // pairs into the codes' binding
  tiles: u32, // of all matrices; of the first, where GATED
  @align(16) matrices: array<Matrix, 3>,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
//#if CODED
@group(0) @binding(2) var<storage, read_write> codes: array<vec2<u32>>;
//#else
@group(0) @binding(2) var<storage, read_write> input: array<f32>;
//#endif
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out0: array<f32>;
//#if THREE
@group(0) @binding(5) var<storage, read_write> out1: array<f32>;
@group(0) @binding(6) var<storage, read_write> out2: array<f32>;
//#endif
//#if TWO
@group(0) @binding(5) var<storage, read_write> out1: array<f32>;
//#endif
//#include matrices
//#include weights
var<workgroup> partial: array<vec4<f32>, 256>;
//#if GATED
var<workgroup> partial_up: array<vec4<f32>, 256>;
//#endif

//#if CODED
// This thread's part of 4 rows of a tile.
fn product(tile: u32, panel_vectors: u32, t: u32, split: u32, v: u32) -> vec4<f32> {
  let row = (t * params.row_floats + params.first_col) / 8u;
  let groups = params.input_cols / params.group;
  let panel_groups = params.cols / params.group;
  let blocks = params.group / 8u;
  let group_vectors = select(2u + 8u * blocks, 2u + 4u * blocks, DTYPE == 2u);
  let scales = params.scales + (t * params.row_floats + params.first_col) / params.group;
  var sum = vec4<f32>();
  for (var g = split; g < groups; g += SPLIT) {
    var at = tile + g * group_vectors;
    if (!AXIS_ROWS) { at = tile + (g / panel_groups) * panel_vectors + (g % panel_groups) * group_vectors; }
    let base = row + g * blocks;
    var products = vec4<i32>();
    for (var b = 0u; b < blocks; b++) {
      let x = codes[base + b];
      if (DTYPE == 2u) {
        let w = weights[at + 2u + b * 4u + v];
        let low = w & vec4<u32>(0x0f0f0f0fu);
        let high = (w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
        products += vec4<i32>(
          dot4I8Packed(low.x, x.x) + dot4I8Packed(high.x, x.y),
          dot4I8Packed(low.y, x.x) + dot4I8Packed(high.y, x.y),
          dot4I8Packed(low.z, x.x) + dot4I8Packed(high.z, x.y),
          dot4I8Packed(low.w, x.x) + dot4I8Packed(high.w, x.y));
      } else {
        let low = weights[at + 2u + b * 8u + v];
        let high = weights[at + 6u + b * 8u + v];
        products += vec4<i32>(
          dot4I8Packed(low.x, x.x) + dot4I8Packed(high.x, x.y),
          dot4I8Packed(low.y, x.x) + dot4I8Packed(high.y, x.y),
          dot4I8Packed(low.z, x.x) + dot4I8Packed(high.z, x.y),
          dot4I8Packed(low.w, x.x) + dot4I8Packed(high.w, x.y));
      }
    }
    let scale = bitcast<vec2<f32>>(codes[scales + g]);
    let offset = select(0.0, scale.y, DTYPE == 2u);
    sum += (vec4<f32>(products) * scale.x + offset) * scales_of(at, v);
  }
  return sum;
}
//#else
fn product(tile: u32, panel_vectors: u32, t: u32, split: u32, v: u32) -> vec4<f32> {
  let row = t * params.row_floats + params.first_col;
  var sum = vec4<f32>();
  if (DTYPE == 0u) {
    for (var c = split; c < params.input_cols; c += SPLIT) {
      var at = tile + c * 4u + v;
      if (!AXIS_ROWS) { at = tile + (c / params.cols) * panel_vectors + (c % params.cols) * 4u + v; }
      sum += input[row + c] * bitcast<vec4<f32>>(weights[at]);
    }
    return sum;
  }
  let groups = params.input_cols / params.group;
  let panel_groups = params.cols / params.group;
  let blocks = select(params.group / 4u, params.group / 8u, DTYPE == 2u);
  let group_vectors = 2u + 4u * blocks;
  for (var g = split; g < groups; g += SPLIT) {
    var at = tile + g * group_vectors;
    if (!AXIS_ROWS) { at = tile + (g / panel_groups) * panel_vectors + (g % panel_groups) * group_vectors; }
    let base = row + g * params.group;
    var products = vec4<f32>();
    for (var b = 0u; b < blocks; b++) {
      let w = weights[at + 2u + b * 4u + v];
      if (DTYPE == 2u) {
        let x = base + b * 8u;
        for (var i = 0u; i < 4u; i++) {
          let low = vec4<f32>((w >> vec4<u32>(i * 8u)) & vec4<u32>(15u)) - 8.0;
          let high = vec4<f32>((w >> vec4<u32>(i * 8u + 4u)) & vec4<u32>(15u)) - 8.0;
          products += input[x + i] * low + input[x + 4u + i] * high;
        }
      } else {
        let x = base + b * 4u;
        for (var i = 0u; i < 4u; i++) {
          products += input[x + i] * vec4<f32>((bitcast<vec4<i32>>(w) << vec4<u32>(24u - i * 8u)) >> vec4<u32>(24u));
        }
      }
    }
    sum += products * scales_of(at, v);
  }
  return sum;
}
//#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let t = id.y;
  let first = id.x * TILES;
  let index = first + l / (SPLIT * 4u);
  if (index < params.tiles) {
    let tile = tile_of(index);
    let split = (l / 4u) % SPLIT;
    partial[l] = product(tile.weights, params.matrices[tile.matrix].panel_vectors, t, split, l % 4u);
//#if GATED
    let up = params.matrices[1].weights - params.matrices[0].weights;
    partial_up[l] = product(tile.weights + up, params.matrices[1].panel_vectors, t, split, l % 4u);
//#endif
  }
  workgroupBarrier();
  let mine = first + l / 16u;
  if (l >= TILES * 16u || mine >= params.tiles) { return; }
  let r = l % 16u;
  let tile = tile_of(mine);
  if (r >= tile.rows) { return; }
  var sum = 0.0;
  let base = (l / 16u) * SPLIT * 4u + r / 4u;
  for (var s = 0u; s < SPLIT; s++) { sum += partial[base + s * 4u][r % 4u]; }
  if (tile.bias != NO_BIAS) { sum += bias[tile.bias + r]; }
//#if GATED
  var up = 0.0;
  for (var s = 0u; s < SPLIT; s++) { up += partial_up[base + s * 4u][r % 4u]; }
  let matrix = params.matrices[1];
  if (matrix.bias != NO_BIAS) {
    let panel = tile.row / matrix.rows;
    up += bias[matrix.bias + panel * matrix.bias_floats + tile.row % matrix.rows + r];
  }
  sum = silu(sum) * up;
//#endif
  finish(tile.matrix, t * params.matrices[tile.matrix].out_stride + tile.out + r, sum);
}
//#include finish
//#if GATED
//#include math
//#endif
