// The likeliest token of each row of logits, the lowest id where several tie; what is not a number is never one. First the
// PARTS parts of a row are looked through, then their best. FEED: there is one row, and it becomes that token at the next
// position, so that the next step can follow without the host; tokens are put one behind the other.
// Consts: PARTS; LAST: the second turn; FEED.
//#if LAST
@group(0) @binding(1) var<storage, read_write> parts: array<vec2<u32>>; // [outputs, PARTS]: logit and id
@group(0) @binding(2) var<storage, read_write> best: array<u32>; // [outputs], or all that were fed
//#if FEED
@group(0) @binding(3) var<storage, read_write> step: array<vec4<u32>>;
//#endif
//#else
struct Params {
  vocabulary: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> parts: array<vec2<u32>>;
//#endif
var<workgroup> values: array<f32, 256>;
var<workgroup> ids: array<u32, 256>;
const LEAST = -3.4e38;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
  var value = LEAST;
  var best_id = 0u;
//#if LAST
  if (l < PARTS) {
    let part = parts[id.y * PARTS + l];
    value = bitcast<f32>(part.x);
    best_id = part.y;
  }
//#else
  let share = (params.vocabulary + PARTS - 1u) / PARTS;
  let end = min((id.x + 1u) * share, params.vocabulary);
  for (var i = id.x * share + l; i < end; i += 256u) {
    let v = logits[id.y * params.vocabulary + i];
    if (v > value) {
      value = v;
      best_id = i;
    }
  }
//#endif
  values[l] = value;
  ids[l] = best_id;
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
  if (l > 0u) { return; }
//#if LAST
//#if FEED
  let row = step[1].x;
  let run = step[1].y;
  best[step[2].y] = ids[0];
  step[2].y += 1u;
  step[row].x = ids[0];
  step[row].y += 1u;
  step[run].w += 1u;
//#else
  best[id.y] = ids[0];
//#endif
//#else
  parts[id.y * PARTS + id.x] = vec2<u32>(bitcast<u32>(values[0]), ids[0]);
//#endif
}
