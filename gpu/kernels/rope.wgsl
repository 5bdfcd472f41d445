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

// 2/π in 48 bits, a limb of 16 each, the highest first; its point is before the first.
const TWO_OVER_PI = vec3<u32>(0xa2f9u, 0x836eu, 0x4e44u);

// Sine and cosine, within a few units in the last place of 1, for 0 ≤ x < 2^18.
fn sine_cosine(x: f32) -> vec2<f32> {
  var n = 0u;
  var r = x;
  if (x > 0.7853981) {
    // x × 2/π in fixed point: x is a number of 42 bits, 24 of them behind the point.
    let bits = bitcast<u32>(x);
    let shift = (bits >> 23u) - 126u; // x = mantissa × 2^(shift − 24)
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    let high = select(0u, mantissa >> (32u - shift), shift > 0u);
    let low = mantissa << shift;
    let a = vec3<u32>(high, low >> 16u, low & 0xffffu);
    // Limb products by their weight, from 2^-40 (a.z × c.z, dropped below 2^-40) up; sums of carries fit.
    let p0 = a.z * TWO_OVER_PI.z;
    let p1a = a.z * TWO_OVER_PI.y;
    let p1b = a.y * TWO_OVER_PI.z;
    let c1 = (p0 >> 16u) + (p1a & 0xffffu) + (p1b & 0xffffu);
    let p2a = a.z * TWO_OVER_PI.x;
    let p2b = a.y * TWO_OVER_PI.y;
    let p2c = a.x * TWO_OVER_PI.z;
    let c2 = (c1 >> 16u) + (p1a >> 16u) + (p1b >> 16u) + (p2a & 0xffffu) + (p2b & 0xffffu) + (p2c & 0xffffu);
    let p3a = a.y * TWO_OVER_PI.x;
    let p3b = a.x * TWO_OVER_PI.y;
    let c3 = (c2 >> 16u) + (p2a >> 16u) + (p2b >> 16u) + (p2c >> 16u) + (p3a & 0xffffu) + (p3b & 0xffffu);
    let c4 = (c3 >> 16u) + (p3a >> 16u) + (p3b >> 16u) + a.x * TWO_OVER_PI.x;
    // The number is c4, c3, c2, c1 in limbs of 16 bits, 72 bits of it behind the point: limb 4 begins at bit 64.
    let whole_high = c4; // bits 64 …: 8 bits of the fraction, then the whole
    let fraction = ((whole_high & 0xffu) << 24u) | ((c3 & 0xffffu) << 8u) | ((c2 & 0xffffu) >> 8u);
    n = whole_high >> 8u;
    // To the nearest quarter: the fraction becomes signed.
    r = f32(bitcast<i32>(fraction)) * (1.5707963267948966 / 4294967296.0);
    n += fraction >> 31u;
  }
  let square = r * r;
  // Taylor series; what they leave out is below 2^-29.
  var sine = 2.7557319e-6;
  sine = sine * square - 1.984127e-4;
  sine = sine * square + 8.3333333e-3;
  sine = sine * square - 1.6666667e-1;
  sine = sine * square * r + r;
  var cosine = -2.7557319e-7;
  cosine = cosine * square + 2.4801587e-5;
  cosine = cosine * square - 1.3888889e-3;
  cosine = cosine * square + 4.1666667e-2;
  cosine = cosine * square - 0.5;
  cosine = cosine * square + 1.0;
  let turned = select(vec2<f32>(sine, cosine), vec2<f32>(cosine, -sine), (n & 1u) == 1u);
  return select(turned, -turned, (n & 2u) == 2u);
}

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
    let to = ((row.z * params.kv_heads + kv_head) * params.positions + row.y / 8u * 8u) * dims + row.y % 8u;
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
    let sequence = (row.z * params.kv_heads + kv_head) * params.positions * filled;
    let block = (row.y / 32u * filled + dim / 8u * 8u) * 32u;
    v_cache[sequence + block + row.y % 32u * 8u + dim % 8u] = v[t * params.kv_heads * dims + i];
  }
//#endif
}
