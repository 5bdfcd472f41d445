var<workgroup> sums: array<f32, 256>;

// The sum of a number of each of 256 threads, the same in all of them.
fn workgroup_sum(value: f32, l: u32) -> f32 {
  workgroupBarrier();
  sums[l] = value;
  workgroupBarrier();
  if (l < 16u) {
    var sum = 0.0;
    for (var i = l; i < 256u; i += 16u) { sum += sums[i]; }
    sums[l] = sum;
  }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < 16u; i++) { sum += sums[i]; }
  return sum;
}
