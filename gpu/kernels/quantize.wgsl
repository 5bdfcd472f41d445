// OP_QUANTIZE: activations in 8 bit, for matrices whose scales are for `group` columns; a workgroup does whole groups of a
// row, as many as its 256 threads have room for with 4 columns each. Behind the codes of all rows, [rows][cols], lie their
// scales, f32 [rows][groups].
// Consts: NORM: the row's RMS norm is what is rounded; rounding itself does not depend on its factor.
struct Params {
  cols: u32,
  group: u32,
  scales: u32, // where they begin in the codes' binding, in words
  blocks: u32, // of 4 columns, that a workgroup does
  weight: u32, // floats into its binding
  eps: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
//#if NORM
@group(0) @binding(3) var<storage, read> weight: array<f32>;
//#include sum
//#endif
var<workgroup> mosts: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let row_blocks = params.cols / 4u;
  let start = id.y * row_blocks;
  var norm = 1.0;
//#if NORM
  var squares = 0.0;
  for (var i = l; i < row_blocks; i += 256u) {
    let v = input[start + i];
    squares += dot(v, v);
  }
  norm = 1.0 / sqrt(workgroup_sum(squares, l) / f32(params.cols) + params.eps);
//#endif
  let block = id.x * params.blocks + l;
  let is_mine = l < params.blocks && block < row_blocks;
  var x = vec4<f32>();
  if (is_mine) {
    x = input[start + block];
//#if NORM
    let w = params.weight + block * 4u;
    x = x * vec4<f32>(weight[w], weight[w + 1u], weight[w + 2u], weight[w + 3u]);
//#endif
  }
  // As integers, magnitudes have the same order, and what is not a number is above all of them.
  let size = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
  mosts[l] = max(max(size.x, size.y), max(size.z, size.w));
  workgroupBarrier();
  let group_blocks = params.group / 4u;
  let first = l - l % group_blocks;
  var largest = 0u;
  if (is_mine) {
    for (var i = 0u; i < group_blocks; i++) { largest = max(largest, mosts[first + i]); }
  }
  let most = bitcast<f32>(largest);
  let inverse = select(0.0, 127.0 / most, most > 0.0);
  let code = vec4<i32>(round(x * inverse));
  if (!is_mine) { return; }
  codes[start + block] = (u32(code.x) & 255u) | ((u32(code.y) & 255u) << 8u) | ((u32(code.z) & 255u) << 16u) | (u32(code.w) << 24u);
  if (l == first) { codes[params.scales + id.y * (params.cols / params.group) + block / group_blocks] = bitcast<u32>(most / 127.0 * norm); }
}
