// The logits that sampling can choose from: at least `least` of the largest. argmax.wgsl has found the largest of each of
// PARTS parts; the least-th of those is a number that so many logits reach at least. First it is found, then all that reach it
// are collected. Consts: PARTS; CAPACITY; COLLECT: the second turn.
//#if COLLECT
struct Params {
  vocabulary: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
//#else
@group(0) @binding(1) var<storage, read_write> parts: array<vec2<u32>>; // [PARTS]: logit and id
@group(0) @binding(3) var<storage, read> step: array<vec4<u32>>;
var<workgroup> values: array<f32, PARTS>;
//#endif
@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>; // what was reached, how many did, then ids and logits

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) l: u32) {
//#if COLLECT
  let least = bitcast<f32>(atomicLoad(&found[0]));
  let share = (params.vocabulary + PARTS - 1u) / PARTS;
  let end = min((id.x + 1u) * share, params.vocabulary);
  for (var i = id.x * share + l; i < end; i += 256u) {
    let logit = logits[i];
    if (logit >= least) {
      let n = atomicAdd(&found[1], 1u);
      if (n < CAPACITY) {
        atomicStore(&found[2u + 2u * n], i);
        atomicStore(&found[3u + 2u * n], bitcast<u32>(logit));
      }
    }
  }
//#else
  let value = bitcast<f32>(parts[l].x);
  values[l] = value;
  workgroupBarrier();
  var rank = 0u;
  for (var i = 0u; i < PARTS; i++) {
    if (values[i] > value || (values[i] == value && i < l)) { rank++; }
  }
  // step[2].z: how many are wanted at least
  if (rank == min(step[2].z, PARTS) - 1u) {
    atomicStore(&found[0], bitcast<u32>(value));
    atomicStore(&found[1], 0u);
  }
//#endif
}
