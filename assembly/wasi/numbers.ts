// Numbers as a command line spells them; NaN stands for none.

const DIGITS_MAX: u32 = 15; // that a f64 surely holds

/** Where the reading of a number stopped. */
let stopped: usize = 0;

/** Is this NaN? */
export function is_none(value: f64): bool {
  return !(value >= -Infinity);
}

/** A whole number of decimal digits and nothing else. */
export function parse_whole(ptr: usize, bytes: usize): f64 {
  const end = ptr + bytes;
  if (bytes == 0) return NaN;
  let value: f64 = 0;
  for (; ptr < end; ptr++) {
    const byte = load<u8>(ptr);
    if (!is_digit(byte)) return NaN;
    value = value * 10 + ((byte - 48) as f64);
  }
  return value;
}

/** A number such as 1, -0.5, .5 or 1e-3. */
export function parse_number(ptr: usize, bytes: usize): f64 {
  const end = ptr + bytes;
  if (bytes == 0) return NaN;
  const sign = load<u8>(ptr);
  if (sign == 43 || sign == 45) ptr++;
  const value = decimal(ptr, end, true);
  if (stopped != end) return NaN;
  return sign == 45 ? -value : value;
}

/** Bytes of a size such as 600000000, 600MB, 0.6GB (decimal) or 512MiB. */
export function parse_size(ptr: usize, bytes: usize): f64 {
  let end = ptr + bytes;
  while (ptr < end && is_space(load<u8>(ptr))) ptr++;
  while (end > ptr && is_space(load<u8>(end - 1))) end--;
  const value = decimal(ptr, end, false);
  let at = stopped;
  while (at < end && is_space(load<u8>(at))) at++;
  return Math.floor(value * unit(at, end));
}

export function is_space(byte: u32): bool {
  return byte == 32 || (byte >= 9 && byte <= 13);
}

function is_digit(byte: u32): bool {
  return byte >= 48 && byte <= 57;
}

/** Reads digits, a point and digits, and an exponent if there may be one; NaN without a digit. */
function decimal(at: usize, end: usize, exponent: bool): f64 {
  let value: f64 = 0;
  let digits: u32 = 0; // that count
  let power: i32 = 0;
  let any = false;
  let point = false;
  for (; at < end; at++) {
    const byte = load<u8>(at);
    if (byte == 46 && !point) {
      // A number may end in a point only where it may have an exponent too.
      if (!exponent && (at + 1 == end || !is_digit(load<u8>(at + 1)))) break;
      point = true;
      continue;
    }
    if (!is_digit(byte)) break;
    any = true;
    if (digits < DIGITS_MAX) {
      value = value * 10 + ((byte - 48) as f64);
      if (value > 0) digits++;
      if (point) power--;
    } else if (!point) power++;
  }
  stopped = at;
  if (!any) return NaN;
  if (exponent && at < end && (load<u8>(at) | 32) == 101) power += read_exponent(at + 1, end);
  return scaled(value, power);
}

/** The exponent behind the e; where there is none, the number has ended before the e. */
function read_exponent(at: usize, end: usize): i32 {
  let negative = false;
  if (at < end && (load<u8>(at) == 43 || load<u8>(at) == 45)) {
    negative = load<u8>(at) == 45;
    at++;
  }
  if (at == end || !is_digit(load<u8>(at))) return 0;
  let value: i32 = 0;
  for (; at < end && is_digit(load<u8>(at)); at++) value = min(value * 10 + (load<u8>(at) - 48), 1000);
  stopped = at;
  return negative ? -value : value;
}

/** value × 10^power, rounded once up to 10^22. */
function scaled(value: f64, power: i32): f64 {
  let tens: f64 = 1;
  const negative = power < 0;
  for (let i = min(negative ? -power : power, 330); i > 0; i--) tens *= 10;
  return negative ? value / tens : value * (value == 0 ? 1 : tens);
}

/** What a size's unit stands for. */
function unit(at: usize, end: usize): f64 {
  const letters = (end - at) as u32;
  if (letters == 0) return 1;
  const first = load<u8>(at) | 32;
  if ((load<u8>(end - 1) | 32) != 98 || letters > 3) return NaN;
  if (letters == 1) return 1;
  const binary = letters == 3;
  if (binary && (load<u8>(at + 1) | 32) != 105) return NaN;
  const base: f64 = binary ? 1024 : 1000;
  if (first == 107) return base;
  if (first == 109) return base * base;
  return first == 103 ? base * base * base : NaN;
}
