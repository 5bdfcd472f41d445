// OP_MATMUL for a row or a few: out = weights · input (+ bias) (+ out). A workgroup does TILES tiles of 16 rows; SPLIT
// slots of 4 threads share the columns of a tile, and a thread has 4 of its rows.
// Consts: DTYPE; CODED: works on activations in 8 bit, and then COLS of a panel, GROUP, PIECE: blocks of 8 columns that a
// thread does at once, a group is a multiple; FUSED: they are made here, of up to STORED columns, with NORM of the row's RMS
// norm, otherwise quantize.wgsl has made them; MATRICES; AXIS_ROWS; TILES, SPLIT = 64 / TILES; ADD: to what out holds;
// SQUARED_RELU: max(result, 0)²; GATED: silu(first matrix's result) × the second's.
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;
//#if CODED
//#if FUSED
@group(0) @binding(2) var<storage, read_write> input: array<vec4<f32>>;
//#if NORM
@group(0) @binding(7) var<storage, read> norm_weight: array<f32>;
//#endif
//#else
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
//#endif
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
const BLOCKS = GROUP / 8u;
const PIECES = BLOCKS / PIECE; // of a group
const PANEL_GROUPS = COLS / GROUP;
const GROUP_VECTORS = select(2u + GROUP, 2u + GROUP / 2u, DTYPE == 2u);
const ONES = 0x01010101u;

//#if FUSED
var<workgroup> codes: array<u32, STORED / 4u>;
var<workgroup> scales: array<f32, STORED / GROUP>;
var<workgroup> inverses: array<f32, STORED / GROUP>;
var<workgroup> squares: array<f32, 256>;
const TURNS = (STORED + 1023u) / 1024u;

// Makes the codes of row t, and says what their scales are to be multiplied with: rounding does not depend on the norm.
fn quantize_row(t: u32, l: u32) -> f32 {
  let blocks = params.input_cols / 4u;
  let start = (t * params.row_floats + params.first_col) / 4u;
  var x: array<vec4<f32>, TURNS>;
  var own = 0.0;
  for (var i = 0u; i < TURNS; i++) {
    let b = i * 256u + l;
    if (b < blocks) {
      var value = input[start + b];
//#if NORM
      own += dot(value, value);
      let w = params.norm_weight + b * 4u;
      value *= vec4<f32>(norm_weight[w], norm_weight[w + 1u], norm_weight[w + 2u], norm_weight[w + 3u]);
//#endif
      x[i] = value;
      // As integers, magnitudes have the same order, and what is not a number is above all of them.
      let size = bitcast<vec4<u32>>(value) & vec4<u32>(0x7fffffffu);
      codes[b] = max(max(size.x, size.y), max(size.z, size.w));
    }
  }
  squares[l] = own;
  workgroupBarrier();
  for (var g = l; g < params.input_cols / GROUP; g += 256u) {
    var largest = 0u;
    for (var i = 0u; i < GROUP / 4u; i++) { largest = max(largest, codes[g * (GROUP / 4u) + i]); }
    let most = bitcast<f32>(largest);
    scales[g] = most / 127.0;
    inverses[g] = select(0.0, 127.0 / most, most > 0.0);
  }
//#if NORM
  if (l < 16u) {
    var sum = 0.0;
    for (var i = l; i < 256u; i += 16u) { sum += squares[i]; }
    squares[l] = sum;
  }
//#endif
  workgroupBarrier();
  for (var i = 0u; i < TURNS; i++) {
    let b = i * 256u + l;
    if (b < blocks) {
      let code = vec4<i32>(round(x[i] * inverses[b / (GROUP / 4u)]));
      codes[b] = (u32(code.x) & 255u) | ((u32(code.y) & 255u) << 8u) | ((u32(code.z) & 255u) << 16u) | (u32(code.w) << 24u);
    }
  }
  var norm = 1.0;
//#if NORM
  var sum = 0.0;
  for (var i = 0u; i < 16u; i++) { sum += squares[i]; }
  norm = 1.0 / sqrt(sum / f32(params.input_cols) + params.eps);
//#endif
  workgroupBarrier();
  return norm;
}
//#endif

// A vector of weights in 8 bit, 4 rows of 4 columns, times 4 codes.
fn dot4(w: vec4<u32>, x: u32) -> vec4<i32> {
  return vec4<i32>(dot4I8Packed(w.x, x), dot4I8Packed(w.y, x), dot4I8Packed(w.z, x), dot4I8Packed(w.w, x));
}

const VECTORS = select(2u, 1u, DTYPE == 2u) * PIECE;

// What a thread reads of a piece of a tile.
struct Piece {
  group: u32, // where the group begins
  w: array<vec4<u32>, VECTORS>,
}

// Piece i of a tile, along the columns.
fn load_piece(tile: u32, panel_vectors: u32, i: u32, v: u32) -> Piece {
  let g = i / PIECES;
  var piece: Piece;
  piece.group = tile + g * GROUP_VECTORS;
  if (!AXIS_ROWS) { piece.group = tile + g / PANEL_GROUPS * panel_vectors + g % PANEL_GROUPS * GROUP_VECTORS; }
  let at = piece.group + 2u + v + i % PIECES * VECTORS * 4u;
  for (var b = 0u; b < VECTORS; b++) { piece.w[b] = weights[at + b * 4u]; }
  return piece;
}

// Its products with codes from word `at` on, times the weights' scales.
fn multiply(piece: Piece, at: u32, v: u32) -> vec4<f32> {
  var products = vec4<i32>();
  var total = 0;
  for (var b = 0u; b < PIECE; b++) {
    let low = codes[at + b * 2u];
    let high = codes[at + b * 2u + 1u];
    if (DTYPE == 2u) {
      let w = piece.w[b];
      products += dot4(w & vec4<u32>(0x0f0f0f0fu), low) + dot4((w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu), high);
      total += dot4I8Packed(ONES, low) + dot4I8Packed(ONES, high);
    } else {
      products += dot4(piece.w[b * 2u % VECTORS], low) + dot4(piece.w[(b * 2u + 1u) % VECTORS], high);
    }
  }
  // The codes of Q4 are weights + 8.
  return vec4<f32>(products - 8 * total) * scales_of(piece.group, v);
}

// This thread's part of 4 rows of a tile. Pieces are read ahead, `first`, piece `split`, before anything else is done; not
// with two matrices, whose numbers would be too many for the registers.
//#if GATED
fn product(tile: u32, panel_vectors: u32, t: u32, split: u32, v: u32, norm: f32) -> vec4<f32> {
//#else
fn product(first: Piece, tile: u32, panel_vectors: u32, t: u32, split: u32, v: u32, norm: f32) -> vec4<f32> {
//#endif
//#if FUSED
  let codes_at = 0u;
//#else
  let row = t * params.row_floats + params.first_col;
  let codes_at = row / 4u;
  let scales_at = params.scales + row / GROUP;
//#endif
  let pieces = params.input_cols / GROUP * PIECES;
  var sum = vec4<f32>();
//#if GATED
//#else
  var piece = first;
//#endif
  for (var i = split; i < pieces; i += SPLIT) {
//#if GATED
    let piece = load_piece(tile, panel_vectors, i, v);
//#else
    var next = piece;
    if (i + SPLIT < pieces) { next = load_piece(tile, panel_vectors, i + SPLIT, v); }
//#endif
//#if FUSED
    let scale = scales[i / PIECES] * norm;
//#else
    let scale = bitcast<f32>(codes[scales_at + i / PIECES]);
//#endif
    sum += multiply(piece, codes_at + i * PIECE * 2u, v) * scale;
//#if GATED
//#else
    piece = next;
//#endif
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
  let tile = tile_of(min(index, params.tiles - 1u));
  let panel_vectors = params.matrices[tile.matrix].panel_vectors;
  let split = (l / 4u) % SPLIT;
//#if GATED
  let up = tile.weights + params.matrices[1].weights - params.matrices[0].weights;
//#endif
//#if CODED
//#if GATED
//#else
  // A slot without columns reads some that are there.
  let piece = min(split, max(params.input_cols / GROUP * PIECES, 1u) - 1u);
  let first_piece = load_piece(tile.weights, panel_vectors, piece, l % 4u);
//#endif
//#if FUSED
  let norm = quantize_row(t, l);
//#else
  let norm = 1.0;
//#endif
//#if GATED
  partial[l] = product(tile.weights, panel_vectors, t, split, l % 4u, norm);
  partial_up[l] = product(up, panel_vectors, t, split, l % 4u, norm);
//#else
  partial[l] = product(first_piece, tile.weights, panel_vectors, t, split, l % 4u, norm);
//#endif
//#else
  partial[l] = product(tile.weights, panel_vectors, t, split, l % 4u);
//#if GATED
  partial_up[l] = product(up, panel_vectors, t, split, l % 4u);
//#endif
//#endif
  workgroupBarrier();
  // The slots of a tile are added up in two turns.
  if (SPLIT > 8u && l < TILES * 32u) {
    let start = l / 32u * SPLIT * 4u + l % 32u;
    var sum = partial[start];
    for (var i = 32u; i < SPLIT * 4u; i += 32u) { sum += partial[start + i]; }
    partial[start] = sum;
//#if GATED
    var up = partial_up[start];
    for (var i = 32u; i < SPLIT * 4u; i += 32u) { up += partial_up[start + i]; }
    partial_up[start] = up;
//#endif
  }
  workgroupBarrier();
  let mine = first + l / 16u;
  if (l >= TILES * 16u || mine >= params.tiles) { return; }
  let r = l % 16u;
  let own = tile_of(mine);
  if (r >= own.rows) { return; }
  var sum = 0.0;
  let base = l / 16u * SPLIT * 4u + r / 4u;
  for (var s = 0u; s < min(SPLIT, 8u); s++) { sum += partial[base + s * 4u][r % 4u]; }
  if (own.bias != NO_BIAS) { sum += bias[own.bias + r]; }
//#if GATED
  var up_sum = 0.0;
  for (var s = 0u; s < min(SPLIT, 8u); s++) { up_sum += partial_up[base + s * 4u][r % 4u]; }
  let matrix = params.matrices[1];
  if (matrix.bias != NO_BIAS) {
    let panel = own.row / matrix.rows;
    up_sum += bias[matrix.bias + panel * matrix.bias_floats + own.row % matrix.rows + r];
  }
  sum = silu(sum) * up_sum;
//#endif
  finish(own.matrix, t * params.matrices[own.matrix].out_stride + own.out + r, sum);
}
//#include finish
//#if GATED
//#include math
//#endif
