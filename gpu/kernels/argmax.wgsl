// The likeliest token of each row of logits, the lowest id where several tie; what is not a number is never one. FEED: there
// is one row, and it becomes that token at the next position, so that the next step can follow without the host; tokens
// are put one behind the other.
struct Params {
  vocabulary: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> best: array<u32>; // [outputs], or all that were fed
//#if FEED
@group(0) @binding(3) var<storage, read_write> step: array<vec4<u32>>;
//#endif
var<workgroup> values: array<f32, 256>;
var<workgroup> ids: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  let start = group.x * params.vocabulary;
  var value = -3.4e38;
  var id = 0u;
  for (var i = l; i < params.vocabulary; i += 256u) {
    let v = logits[start + i];
    if (v > value) {
      value = v;
      id = i;
    }
  }
  values[l] = value;
  ids[l] = id;
  workgroupBarrier();
  for (var half = 128u; half > 0u; half /= 2u) {
    if (l < half) {
      let other = values[l + half];
      if (other > values[l] || (other == values[l] && ids[l + half] < ids[l])) {
        values[l] = other;
        ids[l] = ids[l + half];
      }
    }
    workgroupBarrier();
  }
  if (l == 0u) {
//#if FEED
    let row = step[1].x;
    let run = step[1].y;
    best[step[2].y] = ids[0];
    step[2].y += 1u;
    step[row].x = ids[0];
    step[row].y += 1u;
    step[run].w += 1u;
//#else
    best[group.x] = ids[0];
//#endif
  }
}
