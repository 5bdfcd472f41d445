// OP_ATTENTION for many rows, once keys and values are in the cache: a workgroup does a head and a tile of up to TILE
// neighbouring rows of a sequence, over POSITIONS positions at a time. A thread works on 4 × 4 numbers at once.
// Consts: DIMS, VALUE_DIMS of a head; KEYS: DIMS is not 0; TILE: 16, or 8 where heads are wide: then two workgroups do a
// tile of 16.
struct Params {
  heads: u32,
  kv_heads: u32,
  units: u32,
  channels: u32,
  value_units: u32,
  value_channels: u32,
  positions: u32,
  scale: f32,
  angles: u32,
  angle_floats: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
//#if KEYS
@group(0) @binding(2) var<storage, read_write> q: array<f32>;
@group(0) @binding(3) var<storage, read_write> k_cache: array<vec4<f32>>;
//#endif
@group(0) @binding(4) var<storage, read_write> v_cache: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
//#include step
//#include math
const THREADS = 128u;
const POSITIONS = 64u;
const ROW_QUADS = TILE / 4u;
// Scores: a thread does 4 positions of 4 rows, over a slice of the dims.
const SLICES = THREADS / (POSITIONS / 4u * ROW_QUADS);
const SLICE_DIMS = (DIMS + SLICES - 1u) / SLICES;
// Powers: a thread does a part of a row's positions.
const PARTS = THREADS / TILE;
const PART = POSITIONS / PARTS;
// Values: a thread does 4 dims of 4 rows, over a share of the positions.
const QUADS = (VALUE_DIMS + 7u) / 8u * 2u;
const SHARES = THREADS / (QUADS * ROW_QUADS);
var<workgroup> query: array<vec4<f32>, max(DIMS * ROW_QUADS, 1u)>; // [dim][rows]
var<workgroup> scores: array<vec4<f32>, POSITIONS * ROW_QUADS>; // [position][rows]
var<workgroup> part_most: array<f32, THREADS>;
var<workgroup> part_sum: array<f32, THREADS>;
var<workgroup> most: array<f32, TILE>;
var<workgroup> total: array<f32, TILE>;
var<workgroup> correction: array<f32, TILE>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let head = id.x;
  var tile = step_tile(id.y); // first row, rows, sequence, position
  tile.x += id.z * TILE;
  tile.w += id.z * TILE;
  if (tile.y <= id.z * TILE) { return; }
  tile.y = min(tile.y - id.z * TILE, TILE);
  let kv_head = head / (params.heads / params.kv_heads);
  let cache = kv_head * params.positions; // behind the first kv head's
//#if KEYS
  for (var i = l; i < TILE * DIMS; i += THREADS) {
    let d = i % DIMS;
    let row = i / DIMS;
    let t = tile.x + min(row, tile.y - 1u);
    query[d * ROW_QUADS + row / 4u][row % 4u] =
      q[((t * params.units + d / params.channels) * params.heads + head) * params.channels + d % params.channels];
  }
//#endif
  if (l < TILE) {
    most[l] = -3.0e38;
    total[l] = 0.0;
  }
  let row_quad = l % (POSITIONS / 4u * ROW_QUADS) / (POSITIONS / 4u);
  let position_quad = l % (POSITIONS / 4u);
  let slice = l / (POSITIONS / 4u * ROW_QUADS);
  let own_row = l % TILE;
  let part = l / TILE;
  let value_quad = l % QUADS;
  let value_rows = l / QUADS % ROW_QUADS;
  let share = l / (QUADS * ROW_QUADS);
  var value = array<vec4<f32>, 4>();
  let end = tile.w + tile.y;
  let table = step_table(tile.z, params.positions);
  for (var start = 0u; start < end; start += POSITIONS) {
    var score = array<vec4<f32>, 4>(); // of a row, 4 positions
    workgroupBarrier();
    let four = step[table + start / 128u];
    let places = select(four.xy, four.zw, start % 128u >= 64u);
//#if KEYS
    let position = position_quad * 4u;
    let at = cache + select(places.x, places.y, position >= 32u) * 32u + position % 32u;
    let key = at / 8u * 2u * DIMS + at % 8u / 4u;
    for (var i = 0u; i < SLICE_DIMS; i++) {
      let d = slice * SLICE_DIMS + i;
      if (d < DIMS) {
        let keys = k_cache[key + d * 2u];
        let queries = query[d * ROW_QUADS + row_quad];
        score[0] += queries.x * keys;
        score[1] += queries.y * keys;
        score[2] += queries.z * keys;
        score[3] += queries.w * keys;
      }
    }
//#endif
    for (var s = 0u; s < SLICES; s++) {
      if (slice == s) {
        for (var c = 0u; c < 4u; c++) {
          let at = (position_quad * 4u + c) * ROW_QUADS + row_quad;
          let own = vec4<f32>(score[0][c], score[1][c], score[2][c], score[3][c]);
          if (s == 0u) { scores[at] = own; } else { scores[at] += own; }
        }
      }
      workgroupBarrier();
    }
    // Rows see the positions up to their own.
    let seen = tile.w + own_row;
    var larger = -3.0e38;
    for (var i = 0u; i < PART; i++) {
      let p = part * PART + i;
      if (start + p <= seen) { larger = max(larger, scores[p * ROW_QUADS + own_row / 4u][own_row % 4u] * params.scale); }
    }
    part_most[l] = larger;
    workgroupBarrier();
    larger = most[own_row];
    for (var i = 0u; i < PARTS; i++) { larger = max(larger, part_most[i * TILE + own_row]); }
    var sum = 0.0;
    for (var i = 0u; i < PART; i++) {
      let p = part * PART + i;
      var own = 0.0;
      if (start + p <= seen) { own = power(scores[p * ROW_QUADS + own_row / 4u][own_row % 4u] * params.scale - larger); }
      scores[p * ROW_QUADS + own_row / 4u][own_row % 4u] = own;
      sum += own;
    }
    part_sum[l] = sum;
    workgroupBarrier();
    if (part == 0u) {
      correction[own_row] = power(most[own_row] - larger);
      most[own_row] = larger;
      var all = total[own_row] * correction[own_row];
      for (var i = 0u; i < PARTS; i++) { all += part_sum[i * TILE + own_row]; }
      total[own_row] = all;
    }
    workgroupBarrier();
    if (share < SHARES) {
      for (var r = 0u; r < 4u; r++) { value[r] *= correction[value_rows * 4u + r]; }
      let base = cache * QUADS + value_quad / 2u * 64u + value_quad % 2u;
      let count = min(POSITIONS, end - start);
      for (var block = 0u; block * 32u < count; block++) {
        let first_value = base + places[block] * 32u * QUADS;
        for (var i = share; i < min(32u, count - block * 32u); i += SHARES) {
          let own = v_cache[first_value + i * 2u];
          let powers = scores[(block * 32u + i) * ROW_QUADS + value_rows];
          value[0] += powers.x * own;
          value[1] += powers.y * own;
          value[2] += powers.z * own;
          value[3] += powers.w * own;
        }
      }
    }
  }
  // Shares are put together, a row of each quad after the other.
  for (var r = 0u; r < 4u; r++) {
    workgroupBarrier();
    scores[l] = value[r];
    workgroupBarrier();
    let row = value_rows * 4u + r;
    if (share == 0u && row < tile.y) {
      var sum = vec4<f32>();
      for (var i = 0u; i < SHARES; i++) { sum += scores[i * QUADS * ROW_QUADS + l]; }
      for (var c = 0u; c < 4u; c++) {
        let d = value_quad * 4u + c;
        if (d < VALUE_DIMS) {
          let unit = (tile.x + row) * params.value_units + d / params.value_channels;
          out[(unit * params.heads + head) * params.value_channels + d % params.value_channels] = sum[c] / total[row];
        }
      }
    }
  }
}
