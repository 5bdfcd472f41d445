// Puts a finished sum into the output of its matrix.
fn finish(matrix: u32, to: u32, value: f32) {
  var sum = value;
  if (SQUARED_RELU) {
    sum = max(sum, 0.0);
    sum = sum * sum;
  }
//#if THREE
  if (matrix == 2u) { out2[to] = sum; return; }
  if (matrix == 1u) { out1[to] = sum; return; }
//#endif
//#if TWO
  if (matrix == 1u) { out1[to] = sum; return; }
//#endif
  if (ADD) { sum += out0[to]; }
  out0[to] = sum;
}
