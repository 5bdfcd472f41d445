// A matrix as packs/format.ts lays it out, read in vectors of 16 bytes. Q4, Q8: a group of a tile is 2 vectors of f16
// scales, then blocks of 4 vectors; vector v is of rows 4v … 4v + 3, a lane of it is a row.

// The f16 scales of rows 4v … 4v + 3; `group`: the group's first vector.
fn scales_of(group: u32, v: u32) -> vec4<f32> {
  let eight = weights[group + v / 2u];
  let four = select(eight.xy, eight.zw, (v & 1u) == 1u);
  return vec4<f32>(half2(four.x), half2(four.y));
}

// Two f16; those below 2^-14 too, which devices may take for zero.
fn half2(bits: u32) -> vec2<f32> {
  let mantissa = vec2<u32>(bits & 0x3ffu, (bits >> 16u) & 0x3ffu);
  let exponent = vec2<u32>((bits >> 10u) & 31u, (bits >> 26u) & 31u);
  let normal = bitcast<vec2<f32>>(((exponent + 112u) << vec2<u32>(23u)) | (mantissa << vec2<u32>(13u)));
  return select(normal, vec2<f32>(mantissa) * 5.9604644775390625e-8, exponent == vec2<u32>(0u));
}
