// The last failure: a status code, and two numbers of detail that a host turns into words.

const detail = memory.data(16, 8); // f64 a, f64 b

export function fail(status: i32, a: f64, b: f64): i32 {
  store<f64>(detail, a);
  store<f64>(detail, b, 8);
  return status;
}

/** Address of the two f64 of detail of the last negative status. */
export function status_detail_ptr(): usize {
  return detail;
}
