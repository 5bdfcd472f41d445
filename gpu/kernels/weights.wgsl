// A matrix as packs/format.ts lays it out, read in vectors of 16 bytes. Q4, Q8: a group of a tile is 2 vectors of f16
// scales, then blocks of 4 vectors; vector v is of rows 4v … 4v + 3, a lane of it is a row.

// The f16 scales of rows 4v … 4v + 3; `group`: the group's first vector.
fn scales_of(group: u32, v: u32) -> vec4<f32> {
  let eight = weights[group + v / 2u];
  let four = select(eight.xy, eight.zw, (v & 1u) == 1u);
  return vec4<f32>(half2(four.x), half2(four.y));
}

// Two f16 that are not negative; those below 2^-14 too, which devices may take for zero.
fn half2(bits: u32) -> vec2<f32> {
  let magnitude = vec2<u32>(bits & 0x7fffu, bits >> 16u) << vec2<u32>(13u);
  // 2^-14 × (1 + m / 1024) − 2^-14 = m × 2^-24
  let small = bitcast<vec2<f32>>(magnitude | vec2<u32>(0x38800000u)) - bitcast<f32>(0x38800000u);
  let normal = bitcast<vec2<f32>>(magnitude + vec2<u32>(0x38000000u));
  return select(normal, small, magnitude < vec2<u32>(0x800000u));
}
