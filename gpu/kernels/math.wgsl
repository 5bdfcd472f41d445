// e^x within two units in the last place; the built-in may be far off on some devices.
fn power(x: f32) -> f32 {
  if (x < -87.0) { return 0.0; }
  let y = min(x, 88.3);
  let n = round(y * 1.4426950408889634);
  let r = (y - n * 0.693359375) + n * 2.12194440e-4;
  var p = 1.9875691500e-4;
  p = p * r + 1.3981999507e-3;
  p = p * r + 8.3334519073e-3;
  p = p * r + 4.1665795894e-2;
  p = p * r + 1.6666665459e-1;
  p = p * r + 5.0000001201e-1;
  p = p * r * r + r + 1.0;
  return bitcast<f32>(bitcast<i32>(p) + (i32(n) << 23u));
}

fn silu(x: f32) -> f32 {
  return x / (1.0 + power(-x));
}
