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
