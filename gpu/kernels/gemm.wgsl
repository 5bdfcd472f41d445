// OP_MATMUL for many rows, on coded input. A workgroup does 64 × QUADS_T rows of the step and 64 × QUADS_R rows of the
// matrices, a thread 4 × QUADS_T of the one and 4 × QUADS_R of the other, in sums of 8-bit products; after each group of
// columns they are scaled and added up in f32.
// Consts: as gemv.wgsl; QUADS_T, QUADS_R; WORDS: of 4 columns, in workgroup memory at once, a group is a multiple.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
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
const TOKENS = 64u * QUADS_T;
const ROWS = 64u * QUADS_R;
var<workgroup> xs: array<vec4<u32>, WORDS * TOKENS / 4u>; // [word][token]
var<workgroup> ws: array<vec4<u32>, WORDS * ROWS / 4u>; // [word][row]
var<workgroup> tile_at: array<u32, ROWS / 16u>;
var<workgroup> tile_panel: array<u32, ROWS / 16u>;

// 4 weights in 8 bit of 4 codes in 4 bit: each less 8.
fn signed4(codes: vec4<u32>) -> vec4<u32> {
  return ((codes | vec4<u32>(0x80808080u)) - vec4<u32>(0x08080808u)) ^ vec4<u32>(0x80808080u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let count = select(step_rows(), step_outputs(), OUTPUTS);
  let first_token = id.y * TOKENS;
  let first_tile = id.x * (ROWS / 16u);
  if (l < ROWS / 16u) {
    let tile = tile_of(min(first_tile + l, params.tiles - 1u));
    tile_at[l] = tile.weights;
    tile_panel[l] = params.matrices[tile.matrix].panel_vectors;
  }
  let tx = l % 16u;
  let ty = l / 16u;
  let groups = params.input_cols / params.group;
  let panel_groups = params.cols / params.group;
  let group_vectors = select(2u + params.group, 2u + params.group / 2u, DTYPE == 2u);
  var sums: array<vec4<f32>, 4u * QUADS_T * QUADS_R>;
  for (var g = 0u; g < groups; g++) {
    var group_at = g * group_vectors;
    var panel = 0u;
    if (!AXIS_ROWS) {
      panel = g / panel_groups;
      group_at = (g % panel_groups) * group_vectors;
    }
    var acc = array<vec4<i32>, 4u * QUADS_T * QUADS_R>();
    for (var word = 0u; word < params.group / 4u; word += WORDS) {
      workgroupBarrier();
      for (var i = l; i < TOKENS * WORDS / 2u; i += 256u) {
        let token = i / (WORDS / 2u);
        let pair = i % (WORDS / 2u);
        let row = min(first_token + token, count - 1u) * params.row_floats + params.first_col;
        let base = (row + g * params.group) / 4u + word + pair * 2u;
        xs[pair * 2u * (TOKENS / 4u) + token / 4u][token % 4u] = codes[base];
        xs[(pair * 2u + 1u) * (TOKENS / 4u) + token / 4u][token % 4u] = codes[base + 1u];
      }
      if (DTYPE == 2u) {
        for (var i = l; i < ROWS / 16u * WORDS * 2u; i += 256u) {
          let v = i % 4u;
          let block = (i / 4u) % (WORDS / 2u);
          let tile = i / (WORDS * 2u);
          let w = weights[tile_at[tile] + panel * tile_panel[tile] + group_at + 2u + (word / 2u + block) * 4u + v];
          ws[block * 2u * (ROWS / 4u) + tile * 4u + v] = signed4(w & vec4<u32>(0x0f0f0f0fu));
          ws[(block * 2u + 1u) * (ROWS / 4u) + tile * 4u + v] = signed4((w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu));
        }
      } else {
        for (var i = l; i < ROWS / 16u * WORDS * 4u; i += 256u) {
          let v = i % 4u;
          let block = (i / 4u) % WORDS;
          let tile = i / (WORDS * 4u);
          ws[block * (ROWS / 4u) + tile * 4u + v] =
            weights[tile_at[tile] + panel * tile_panel[tile] + group_at + 2u + (word + block) * 4u + v];
        }
      }
      workgroupBarrier();
      for (var k = 0u; k < WORDS; k++) {
        var w: array<vec4<u32>, QUADS_R>;
        for (var j = 0u; j < QUADS_R; j++) { w[j] = ws[k * (ROWS / 4u) + tx + 16u * j]; }
        for (var i = 0u; i < QUADS_T; i++) {
          let x = xs[k * (TOKENS / 4u) + ty + 16u * i];
          for (var j = 0u; j < QUADS_R; j++) {
            let at = i * 4u * QUADS_R + j;
            acc[at] += vec4<i32>(dot4I8Packed(x.x, w[j].x), dot4I8Packed(x.x, w[j].y), dot4I8Packed(x.x, w[j].z), dot4I8Packed(x.x, w[j].w));
            acc[at + QUADS_R] += vec4<i32>(dot4I8Packed(x.y, w[j].x), dot4I8Packed(x.y, w[j].y), dot4I8Packed(x.y, w[j].z), dot4I8Packed(x.y, w[j].w));
            acc[at + 2u * QUADS_R] += vec4<i32>(dot4I8Packed(x.z, w[j].x), dot4I8Packed(x.z, w[j].y), dot4I8Packed(x.z, w[j].z), dot4I8Packed(x.z, w[j].w));
            acc[at + 3u * QUADS_R] += vec4<i32>(dot4I8Packed(x.w, w[j].x), dot4I8Packed(x.w, w[j].y), dot4I8Packed(x.w, w[j].z), dot4I8Packed(x.w, w[j].w));
          }
        }
      }
    }
    for (var j = 0u; j < QUADS_R; j++) {
      let tile = (tx + 16u * j) / 4u;
      let scale = scales_of(tile_at[tile] + panel * tile_panel[tile] + group_at, tx % 4u);
      for (var i = 0u; i < 4u * QUADS_T; i++) {
        let token = min(first_token + (ty + 16u * (i / 4u)) * 4u + i % 4u, count - 1u);
        let x_scale = bitcast<f32>(codes[params.scales + (token * params.row_floats + params.first_col) / params.group + g]);
        sums[i * QUADS_R + j] += vec4<f32>(acc[i * QUADS_R + j]) * (scale * x_scale);
      }
    }
  }
  for (var j = 0u; j < QUADS_R; j++) {
    let index = first_tile + (tx + 16u * j) / 4u;
    if (index >= params.tiles) { continue; }
    let tile = tile_of(index);
    let stride = params.matrices[tile.matrix].out_stride;
    for (var i = 0u; i < 4u * QUADS_T; i++) {
      let token = first_token + (ty + 16u * (i / 4u)) * 4u + i % 4u;
      if (token >= count) { continue; }
      for (var c = 0u; c < 4u; c++) {
        let r = tx % 4u * 4u + c;
        if (r >= tile.rows) { continue; }
        var sum = sums[i * QUADS_R + j][c];
        if (tile.bias != NO_BIAS) { sum += bias[tile.bias + r]; }
        finish(tile.matrix, token * stride + tile.out + r, sum);
      }
    }
  }
}
//#include finish
