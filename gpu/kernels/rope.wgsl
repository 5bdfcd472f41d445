// OP_ROPE, and what OP_ATTENTION does first: storing the step's keys and values in the cache. A thread does a pair of a
// unit and kv head, in the key and in the queries that share it; behind those, threads do values.
// Consts: ROTATE: pairs are turned; STORE: keys and values are stored (layout: assembly/kv-cache.ts).
struct Params {
  units: u32, // of queries and keys
  heads: u32,
  kv_heads: u32,
  channels: u32,
  angles: u32, // floats into the binding
  angle_floats: u32, // from unit to unit
  value_units: u32,
  value_channels: u32,
  positions: u32, // that a sequence has room for: whole blocks
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
//#if ROTATE
@group(0) @binding(2) var<storage, read> angles: array<f32>;
@group(0) @binding(3) var<storage, read_write> q: array<f32>;
//#endif
//#if KEYS
@group(0) @binding(4) var<storage, read_write> k: array<f32>;
//#endif
//#if STORE
//#if KEYS
@group(0) @binding(5) var<storage, read_write> k_cache: array<f32>;
//#endif
@group(0) @binding(6) var<storage, read_write> v: array<f32>;
@group(0) @binding(7) var<storage, read_write> v_cache: array<f32>;
//#endif
//#include step
//#if ROTATE
//#include trig
//#endif

//#if STORE
// Of a row, counted in the cache's positions.
fn cached(row: vec4<u32>, kv_head: u32) -> u32 {
  let place = step_place(row.z, row.y, params.positions);
  return place * 32u + kv_head * params.positions + row.y % 32u;
}
//#endif

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let t = id.y;
  let row = step_row(t);
  var i = id.x;
//#if KEYS
  let half = params.channels / 2u;
  let pairs = params.units * params.kv_heads * half;
  if (i < pairs) {
    let pair = i % half;
    let head = i / half; // of a unit after the other
    let kv_head = head % params.kv_heads;
    let unit = head / params.kv_heads;
    let at = t * pairs * 2u + head * params.channels + pair;
    var key = vec2<f32>(k[at], k[at + half]);
//#if ROTATE
    let turn = sine_cosine(f32(row.y) * angles[params.angles + unit * params.angle_floats + kv_head * half + pair]);
    key = vec2<f32>(key.x * turn.y - key.y * turn.x, key.y * turn.y + key.x * turn.x);
    let share = params.heads / params.kv_heads;
    for (var h = 0u; h < share; h++) {
      let base = ((t * params.units + unit) * params.heads + kv_head * share + h) * params.channels + pair;
      let a = q[base];
      let b = q[base + half];
      q[base] = a * turn.y - b * turn.x;
      q[base + half] = b * turn.y + a * turn.x;
    }
//#endif
//#if STORE
    let dims = params.units * params.channels;
    let dim = unit * params.channels + pair;
    let position = cached(row, kv_head);
    let to = position / 8u * 8u * dims + position % 8u;
    k_cache[to + dim * 8u] = key.x;
    k_cache[to + (dim + half) * 8u] = key.y;
//#else
    k[at] = key.x;
    k[at + half] = key.y;
//#endif
    return;
  }
  i -= pairs;
//#endif
//#if STORE
  let dims = params.value_units * params.value_channels;
  if (i < params.kv_heads * dims) {
    let channel = i % params.value_channels;
    let kv_head = (i / params.value_channels) % params.kv_heads;
    let dim = i / params.value_channels / params.kv_heads * params.value_channels + channel;
    let filled = (dims + 7u) / 8u * 8u;
    let position = cached(row, kv_head);
    let to = (position / 32u * filled + dim / 8u * 8u) * 32u + position % 32u * 8u + dim % 8u;
    v_cache[to] = v[t * params.kv_heads * dims + i];
  }
//#endif
}
