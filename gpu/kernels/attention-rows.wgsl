// OP_ATTENTION for many rows, once keys and values are in the cache: a workgroup does a head and a tile of up to TILE
// neighbouring rows of a sequence, over 32 positions at a time.
// Consts: DIMS, VALUE_DIMS of a head; TILE: 16, or 8 where queries are long: then two workgroups do a tile of 16.
struct Params {
  heads: u32,
  kv_heads: u32,
  units: u32,
  channels: u32,
  value_units: u32,
  value_channels: u32,
  positions: u32,
  scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
//#if KEYS
@group(0) @binding(2) var<storage, read_write> q: array<f32>;
@group(0) @binding(3) var<storage, read_write> k_cache: array<f32>;
//#endif
@group(0) @binding(4) var<storage, read_write> v_cache: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
//#include step
//#include math
const FILLED = (VALUE_DIMS + 7u) / 8u * 8u;
const TURNS = TILE / 8u; // rows whose scores a thread does
const SHARE = 256u / TILE; // threads that a row of the output has
const OWN = (VALUE_DIMS + SHARE - 1u) / SHARE; // its dims for each of them
var<workgroup> query: array<f32, max(TILE * DIMS, 1u)>;
var<workgroup> scores: array<array<f32, 32>, TILE>;
var<workgroup> most: array<f32, TILE>;
var<workgroup> total: array<f32, TILE>;
var<workgroup> correction: array<f32, TILE>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let head = id.x;
  var tile = step_tile(id.y); // first row, rows, sequence, position
  tile.x += id.z * TILE;
  tile.w += id.z * TILE;
  if (tile.y <= id.z * TILE) { return; }
  tile.y = min(tile.y - id.z * TILE, TILE);
  let kv_head = head / (params.heads / params.kv_heads);
  let cache = (tile.z * params.kv_heads + kv_head) * params.positions;
//#if KEYS
  for (var i = l; i < TILE * DIMS; i += 256u) {
    let d = i % DIMS;
    let t = tile.x + min(i / DIMS, tile.y - 1u);
    query[i] = q[((t * params.units + d / params.channels) * params.heads + head) * params.channels + d % params.channels];
  }
//#endif
  if (l < TILE) {
    most[l] = -3.0e38;
    total[l] = 0.0;
  }
  let dims = params.units * params.channels;
  var value = array<f32, OWN>();
  let r = l / SHARE; // this thread's row of the output; its dims are l % SHARE, and every SHARE-th on
  let end = tile.w + tile.y;
  for (var start = 0u; start < end; start += 32u) {
    workgroupBarrier();
    let position = start + l % 32u;
    var score = array<f32, TURNS>();
//#if KEYS
    if (position < end) {
      let base = (cache + position / 8u * 8u) * DIMS + position % 8u;
      for (var d = 0u; d < dims; d++) {
        let key = k_cache[base + d * 8u];
        for (var i = 0u; i < TURNS; i++) { score[i] += query[(l / 32u + i * 8u) * DIMS + d] * key; }
      }
    }
//#endif
    for (var i = 0u; i < TURNS; i++) {
      let row = l / 32u + i * 8u;
      scores[row][l % 32u] = select(-3.0e38, score[i] * params.scale, position <= tile.w + row);
    }
    workgroupBarrier();
    if (l < TILE) {
      var larger = most[l];
      for (var p = 0u; p < 32u; p++) { larger = max(larger, scores[l][p]); }
      correction[l] = power(most[l] - larger);
      most[l] = larger;
    }
    workgroupBarrier();
    for (var i = 0u; i < TURNS; i++) {
      let row = l / 32u + i * 8u;
      let own = select(0.0, power(scores[row][l % 32u] - most[row]), position <= tile.w + row);
      scores[row][l % 32u] = own;
    }
    workgroupBarrier();
    if (l < TILE) {
      var sum = total[l] * correction[l];
      for (var p = 0u; p < 32u; p++) { sum += scores[l][p]; }
      total[l] = sum;
    }
    let count = min(32u, end - start);
    for (var i = 0u; i < OWN; i++) {
      let d = l % SHARE + i * SHARE;
      if (d < VALUE_DIMS) {
        var sum = value[i] * correction[r];
        let base = (cache + start) * FILLED + d / 8u * 256u + d % 8u;
        for (var p = 0u; p < count; p++) { sum += scores[r][p] * v_cache[base + p * 8u]; }
        value[i] = sum;
      }
    }
  }
  workgroupBarrier();
  if (r >= tile.y) { return; }
  for (var i = 0u; i < OWN; i++) {
    let d = l % SHARE + i * SHARE;
    if (d < VALUE_DIMS) {
      let unit = (tile.x + r) * params.value_units + d / params.value_channels;
      out[(unit * params.heads + head) * params.value_channels + d % params.value_channels] = value[i] / total[r];
    }
  }
}
