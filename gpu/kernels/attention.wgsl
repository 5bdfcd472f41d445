// OP_ATTENTION for a few rows, once keys and values are in the cache: a workgroup does a row, a head and one of `splits`
// parts of the positions. With SPLIT it leaves its sum, its largest score and its sum of powers for combine.wgsl.
// Cache layout: assembly/kv-cache.ts. Consts: DIMS, VALUE_DIMS of a head; SPLIT.
struct Params {
  heads: u32,
  kv_heads: u32,
  units: u32,
  channels: u32,
  value_units: u32,
  value_channels: u32,
  positions: u32, // that a sequence has room for: whole blocks
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
const THREADS = 128u;
var<workgroup> query: array<f32, max(DIMS, 1u)>;
var<workgroup> powers: array<f32, THREADS>;
var<workgroup> sums: array<f32, 16>;

// The largest, or the sum, of a number of each thread.
fn reduce(value: f32, l: u32, largest: bool) -> f32 {
  workgroupBarrier();
  powers[l] = value;
  workgroupBarrier();
  if (l < 16u) {
    var all = powers[l];
    for (var i = l + 16u; i < THREADS; i += 16u) { all = select(all + powers[i], max(all, powers[i]), largest); }
    sums[l] = all;
  }
  workgroupBarrier();
  var all = sums[0];
  for (var i = 1u; i < 16u; i++) { all = select(all + sums[i], max(all, sums[i]), largest); }
  return all;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) counts: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let head = id.x;
  let t = id.y;
  let row = step_row(t);
  let kv_head = head / (params.heads / params.kv_heads);
  let cache = (row.z * params.kv_heads + kv_head) * params.positions;
//#if KEYS
  for (var d = l; d < DIMS; d += THREADS) {
    query[d] = q[((t * params.units + d / params.channels) * params.heads + head) * params.channels + d % params.channels];
  }
  workgroupBarrier();
//#endif
  // This part's positions: whole rounds of THREADS.
  let rounds = (row.y + THREADS) / THREADS;
  let first = id.z * rounds / counts.z * THREADS;
  let end = min(row.y + 1u, (id.z + 1u) * rounds / counts.z * THREADS);
  var most = -3.0e38;
  var total = 0.0;
  // Dims l, l + THREADS … of the output.
  var value = array<f32, (VALUE_DIMS + THREADS - 1u) / THREADS>();
  for (var start = first; start < end; start += THREADS) {
    let position = start + l;
    var score = -3.0e38;
    if (position < end) {
      score = 0.0;
//#if KEYS
      let base = (cache + position / 8u * 8u) * DIMS + position % 8u;
      for (var d = 0u; d < params.units * params.channels; d++) { score += query[d] * k_cache[base + d * 8u]; }
//#endif
      score *= params.scale;
    }
    let larger = max(most, reduce(score, l, true));
    let correction = power(most - larger);
    most = larger;
    let own = select(0.0, power(score - most), position < end);
    total = total * correction + reduce(own, l, false);
    // reduce() has left every thread's number in powers.
    let count = min(end - start, THREADS);
    for (var i = 0u; i * THREADS + l < VALUE_DIMS; i++) {
      let d = i * THREADS + l;
      var sum = value[i] * correction;
      let base = cache * FILLED + (start * FILLED) + d / 8u * 256u + d % 8u;
      for (var p = 0u; p < count; p++) {
        sum += powers[p] * v_cache[base + p / 32u * 32u * FILLED + p % 32u * 8u];
      }
      value[i] = sum;
    }
  }
  for (var i = 0u; i * THREADS + l < VALUE_DIMS; i++) {
    let d = i * THREADS + l;
//#if SPLIT
    out[((t * params.heads + head) * counts.z + id.z) * (VALUE_DIMS + 2u) + d] = value[i];
//#else
    out[((t * params.value_units + d / params.value_channels) * params.heads + head) * params.value_channels + d % params.value_channels] = value[i] / total;
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
