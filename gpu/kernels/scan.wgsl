// OP_SCAN: a workgroup does 16 dims of a head of a sequence, row after row; 16 threads share a dim's state. The sums over
// the state are put together for ROWS rows at once. Consts: OWN: of a dim's state, for each of its threads.
struct Params {
  units: u32, // of x
  channels: u32,
  state_units: u32,
  state_channels: u32,
  heads: u32,
  groups: u32,
  a: u32, // floats into the binding
  d: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> weights: array<f32>; // A and D
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> dt: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
//#if STATE
@group(0) @binding(6) var<storage, read_write> b: array<f32>;
@group(0) @binding(7) var<storage, read_write> c: array<f32>;
@group(0) @binding(8) var<storage, read_write> state: array<f32>;
//#endif
//#include step
//#include math
const ROWS = 8u;
var<workgroup> sums: array<f32, ROWS * 256u>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let head = id.y;
  let sequence = step_sequence(id.z);
  let dims = params.units * params.channels;
  let states = params.state_units * params.state_channels;
  let lane = l % 16u;
  let dim = id.x * 16u + l / 16u;
  let is_there = dim < dims;
  // In x and out, of row 0; in the state, of its first number.
  let column = (min(dim, dims - 1u) / params.channels * params.heads + head) * params.channels + min(dim, dims - 1u) % params.channels;
  let width = params.heads * dims;
  let decay_rate = weights[params.a + head];
  let past = weights[params.d + head];
  let group = head / (params.heads / params.groups);
  var h = array<f32, max(OWN, 1u)>();
//#if STATE
  let cell = (sequence * width + column) * states;
  for (var i = 0u; i < OWN; i++) {
    let n = i * 16u + lane;
    if (n < states && is_there) { h[i] = state[cell + n]; }
  }
//#endif
  for (var r = 0u; r < step[0].z; r++) {
    let run = step_run(r);
    if (run.x != sequence) { continue; }
    if (run.w == 0u) { h = array<f32, max(OWN, 1u)>(); }
    for (var first = 0u; first < run.z; first += ROWS) {
      let rows = min(ROWS, run.z - first);
      for (var i = 0u; i < rows; i++) {
        let t = run.y + first + i;
        let size = dt[t * params.heads + head];
        let value = x[t * width + column];
        var sum = 0.0;
        if (lane == 0u) { sum = past * value; }
//#if STATE
        let decay = power(size * decay_rate);
        let input = size * value;
        for (var j = 0u; j < OWN; j++) {
          let n = j * 16u + lane;
          if (n < states) {
            let at = ((t * params.state_units + n / params.state_channels) * params.groups + group) * params.state_channels + n % params.state_channels;
            h[j] = h[j] * decay + input * b[at];
            sum += h[j] * c[at];
          }
        }
//#endif
        sums[i * 256u + l] = sum;
      }
      workgroupBarrier();
      for (var i = l; i < rows * 16u; i += 256u) {
        let own = id.x * 16u + i % 16u;
        if (own < dims) {
          var sum = 0.0;
          for (var j = 0u; j < 16u; j++) { sum += sums[i / 16u * 256u + i % 16u * 16u + j]; }
          out[(run.y + first + i / 16u) * width + (own / params.channels * params.heads + head) * params.channels + own % params.channels] = sum;
        }
      }
      workgroupBarrier();
    }
  }
//#if STATE
  for (var i = 0u; i < OWN; i++) {
    let n = i * 16u + lane;
    if (n < states && is_there) { state[cell + n] = h[i]; }
  }
//#endif
}
