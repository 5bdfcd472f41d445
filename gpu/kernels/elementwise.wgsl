// Ops that treat each number for itself, one thread a number. GATE: a = silu(a) × b; SQUARED_RELU: a = max(a, 0)²;
// STEP_SIZE: a = clamp(ln(1 + e^(a + b)), least, most), b the same for all rows.
struct Params {
  width: u32,
  b: u32, // floats into the binding
  least: f32,
  most: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
//#if GATE
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
//#endif
//#if STEP_SIZE
@group(0) @binding(2) var<storage, read> b: array<f32>;
//#endif
//#include math

//#if STEP_SIZE
// ln(1 + e^x), however small it is: 2·artanh(s) for s = e / (2 + e), e = e^−|x|, as assembly/kernels/ssm.ts has it.
fn softplus(x: f32) -> f32 {
  let e = power(-abs(x));
  let s = e / (e + 2.0);
  let square = s * s;
  var p = 0.13425749;
  p = p * square + 0.141183099;
  p = p * square + 0.200037803;
  p = p * square + 0.333333202;
  return max(x, 0.0) + ((s + s) * (square * p) + (s + s));
}
//#endif

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.width) { return; }
  let i = id.y * params.width + id.x;
//#if GATE
  a[i] = silu(a[i]) * b[i];
//#endif
//#if SQUARED_RELU
  let x = max(a[i], 0.0);
  a[i] = x * x;
//#endif
//#if STEP_SIZE
  a[i] = min(max(softplus(a[i] + b[params.b + id.x]), params.least), params.most);
//#endif
}
