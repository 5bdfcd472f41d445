// OP_ATTENTION for a few rows: a workgroup does a row, a head and a part of the positions, POSITIONS at a time. With SPLIT
// there are several parts, and each leaves its sum, its largest score and its sum of powers for combine.wgsl. Keys and values
// are in the cache; or, with ALONE, those of the row are not yet, and every row is the only one of its sequence: it puts them
// there, and with ROTATE turns query and key first (OP_ROPE).
// Cache layout: assembly/kv-cache.ts. Consts: DIMS, VALUE_DIMS of a head; KEYS: DIMS is not 0.
struct Params {
  heads: u32,
  kv_heads: u32,
  units: u32,
  channels: u32,
  value_units: u32,
  value_channels: u32,
  positions: u32, // that a sequence has room for: whole blocks
  scale: f32,
  angles: u32, // floats into the binding
  angle_floats: u32, // from unit to unit
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
//#if KEYS
@group(0) @binding(2) var<storage, read_write> q: array<f32>;
@group(0) @binding(3) var<storage, read_write> k_cache: array<vec4<f32>>;
//#endif
@group(0) @binding(4) var<storage, read_write> v_cache: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
//#if ALONE
//#if KEYS
@group(0) @binding(6) var<storage, read_write> k: array<f32>;
//#endif
@group(0) @binding(7) var<storage, read_write> v: array<f32>;
//#if ROTATE
@group(0) @binding(8) var<storage, read> angles: array<f32>;
//#include trig
//#endif
//#endif
//#include step
//#include math
const POSITIONS = 128u;
// Scores: a thread does 4 positions and a share of the dims.
const SHARES = 8u;
const SHARE_DIMS = (DIMS + SHARES - 1u) / SHARES;
// Values: a thread does 4 dims and a share of the positions.
const QUADS = (VALUE_DIMS + 7u) / 8u * 2u;
const VALUE_SHARES = max(min(256u / QUADS, 16u), 1u);
const VALUE_ROUNDS = (32u + VALUE_SHARES - 1u) / VALUE_SHARES; // over a block
var<workgroup> query: array<f32, max(SHARES * SHARE_DIMS, 1u)>;
//#if ALONE
var<workgroup> own_key: array<f32, max(SHARES * SHARE_DIMS, 1u)>;
var<workgroup> own_value: array<vec4<f32>, QUADS>;
//#endif
var<workgroup> partial: array<vec4<f32>, 256>; // scores, [SHARES][POSITIONS / 4]; then values, [VALUE_SHARES][QUADS]
var<workgroup> powers: array<f32, POSITIONS>;
var<workgroup> sums: array<f32, 16>;

// The largest, or the sum, of the numbers in powers.
fn reduce(l: u32, largest: bool) -> f32 {
  workgroupBarrier();
  if (l < 16u) {
    var all = powers[l];
    for (var i = l + 16u; i < POSITIONS; i += 16u) { all = select(all + powers[i], max(all, powers[i]), largest); }
    sums[l] = all;
  }
  workgroupBarrier();
  var all = sums[0];
  for (var i = 1u; i < 16u; i++) { all = select(all + sums[i], max(all, sums[i]), largest); }
  return all;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let head = id.x;
  let t = id.y;
  let row = step_row(t);
  let kv_head = head / (params.heads / params.kv_heads);
  let cache = kv_head * params.positions; // behind the first kv head's
//#if KEYS
  for (var d = l; d < SHARES * SHARE_DIMS; d += 256u) {
    var value = 0.0;
//#if ALONE
    var key = 0.0;
//#endif
    if (d < DIMS) {
      let unit = d / params.channels;
      let channel = d % params.channels;
      let at = ((t * params.units + unit) * params.heads + head) * params.channels + channel;
      value = q[at];
//#if ALONE
      let k_at = ((t * params.units + unit) * params.kv_heads + kv_head) * params.channels + channel;
      key = k[k_at];
//#if ROTATE
      let half = params.channels / 2u;
      let pair = channel % half;
      let angle = angles[params.angles + unit * params.angle_floats + kv_head * half + pair];
      let turn = sine_cosine(f32(row.y) * angle);
      if (channel < half) {
        value = value * turn.y - q[at + half] * turn.x;
        key = key * turn.y - k[k_at + half] * turn.x;
      } else {
        value = value * turn.y + q[at - half] * turn.x;
        key = key * turn.y + k[k_at - half] * turn.x;
      }
//#endif
//#endif
    }
    query[d] = value;
//#if ALONE
    own_key[d] = key;
//#endif
  }
//#endif
//#if ALONE
  for (var d = l; d < QUADS * 4u; d += 256u) {
    var value = 0.0;
    if (d < VALUE_DIMS) {
      let unit = t * params.value_units + d / params.value_channels;
      value = v[(unit * params.kv_heads + kv_head) * params.value_channels + d % params.value_channels];
    }
    own_value[d / 4u][d % 4u] = value;
  }
  workgroupBarrier();
  // One of the heads that share them puts them into the cache.
  if (head % (params.heads / params.kv_heads) == 0u && id.z == 0u) {
    let p = cache + step_place(row.z, row.y, params.positions) * 32u + row.y % 32u;
//#if KEYS
    for (var d = l; d < DIMS; d += 256u) { k_cache[p / 8u * 2u * DIMS + d * 2u + p % 8u / 4u][p % 4u] = own_key[d]; }
//#endif
    for (var d = l; d < VALUE_DIMS; d += 256u) {
      let base = p / 32u * 32u * QUADS + d / 8u * 64u + p % 32u * 2u + d % 8u / 4u;
      v_cache[base][d % 4u] = own_value[d / 4u][d % 4u];
    }
  }
//#endif
  let table = step_table(row.z, params.positions);
  // This part's positions: whole rounds.
  let rounds = (row.y + POSITIONS) / POSITIONS;
  let first = id.z * rounds / counts.z * POSITIONS;
  let end = min(row.y + 1u, (id.z + 1u) * rounds / counts.z * POSITIONS);
  let quad = l % QUADS;
  let share = l / QUADS;
  var most = -3.0e38;
  var total = 0.0;
  var value = vec4<f32>();
  for (var start = first; start < end; start += POSITIONS) {
    workgroupBarrier();
    let places = step[table + start / 128u];
//#if KEYS
    let position = start + l % 32u * 4u;
    // Positions past the end are somebody's, or nobody's: what comes of them is left out below.
    let pair = select(places.xy, places.zw, l % 32u >= 16u);
    let at = cache + select(pair.x, pair.y, l % 16u >= 8u) * 32u + position % 32u;
    let key = at / 8u * 2u * DIMS + at % 8u / 4u;
    let dim = l / 32u * SHARE_DIMS;
    var score = vec4<f32>();
    for (var i = 0u; i < SHARE_DIMS; i++) { score += query[dim + i] * k_cache[key + min(dim + i, DIMS - 1u) * 2u]; }
//#if ALONE
    // What the cache holds at its own position is not there yet.
    if (row.y / 4u == position / 4u) {
      var own = 0.0;
      for (var i = 0u; i < SHARE_DIMS; i++) { own += query[dim + i] * own_key[dim + i]; }
      score[row.y % 4u] = own;
    }
//#endif
    partial[l] = score;
    workgroupBarrier();
//#endif
    if (l < POSITIONS) {
      var sum = -3.0e38;
      if (start + l < end) {
        sum = 0.0;
//#if KEYS
        for (var i = 0u; i < SHARES; i++) { sum += partial[i * 32u + l / 4u][l % 4u]; }
//#endif
        sum *= params.scale;
      }
      powers[l] = sum;
    }
    let larger = max(most, reduce(l, true));
    let correction = power(most - larger);
    most = larger;
    workgroupBarrier();
    if (l < POSITIONS) { powers[l] = select(0.0, power(powers[l] - most), start + l < end); }
    total = total * correction + reduce(l, false);
    value *= correction;
    if (share < VALUE_SHARES) {
      let base = cache * QUADS + quad / 2u * 64u + quad % 2u;
      for (var block = 0u; block < POSITIONS / 32u; block++) {
        let first_value = base + places[block] * 32u * QUADS;
        for (var round = 0u; round < VALUE_ROUNDS; round++) {
          let i = round * VALUE_SHARES + share;
          let p = block * 32u + i;
//#if ALONE
          let own = select(v_cache[first_value + i * 2u], own_value[quad], start + p == row.y);
//#else
          let own = v_cache[first_value + i * 2u];
//#endif
          value += select(vec4<f32>(), powers[p] * own, i < 32u && start + p < end);
        }
      }
    }
  }
  // Shares are put together.
  workgroupBarrier();
  if (share < VALUE_SHARES) { partial[share * QUADS + quad] = value; }
  workgroupBarrier();
  for (var d = l; d < VALUE_DIMS; d += 256u) {
    var sum = 0.0;
    for (var i = 0u; i < VALUE_SHARES; i++) { sum += partial[i * QUADS + d / 4u][d % 4u]; }
//#if SPLIT
    out[((t * params.heads + head) * counts.z + id.z) * (VALUE_DIMS + 2u) + d] = sum;
//#else
    out[((t * params.value_units + d / params.value_channels) * params.heads + head) * params.value_channels + d % params.value_channels] = sum / total;
//#endif
  }
//#if SPLIT
  if (l == 0u) {
    let at = ((t * params.heads + head) * counts.z + id.z) * (VALUE_DIMS + 2u) + VALUE_DIMS;
    out[at] = most;
    out[at + 1u] = total;
  }
//#endif
}
