// Where words are put together. They gather in one buffer: for a file of the host, which gets them at a flush or when
// the buffer is full, or for nobody, until somebody reads the buffer; then what does not fit is left out.

import { DECODED_LENGTH_SHIFT, utf8_decode, utf8_encode } from "../characters";
import { POINT_MASK } from "../unicode";
import { is_none } from "./numbers";
import { ERRNO_NOSPC, fd_write, VECTOR_LENGTH } from "./wasi_snapshot_preview1";

export const NOWHERE: i32 = -1;

const BUFFER_BYTES: u32 = 2048;
const CHARACTER_BYTES_MAX: u32 = 4;
const buffer = memory.data(2048, 16);
const vector = memory.data(8, 4);
const done = memory.data(4, 4);

let length: u32 = 0;
let target: i32 = NOWHERE;

/** Flushes, and sends what follows to this file, or NOWHERE. */
export function write_to(fd: i32): void {
  write_flush();
  target = fd;
}

/** Sends what has gathered, or forgets it where there is no file. Returns the host's errno, or 0. */
export function write_flush(): i32 {
  let errno: i32 = 0;
  for (let from: u32 = 0; target != NOWHERE && from < length && errno == 0; from += load<u32>(done)) {
    store<u32>(vector, (buffer + from) as u32);
    store<u32>(vector, length - from, VECTOR_LENGTH);
    errno = fd_write(target, vector, 1, done);
    if (errno == 0 && load<u32>(done) == 0) errno = ERRNO_NOSPC; // a host that takes nothing would be asked for ever
  }
  length = 0;
  return errno;
}

/** Address of what has gathered. */
export function written_ptr(): usize {
  return buffer;
}

export function written_bytes(): u32 {
  return length;
}

/** Writes a character. */
export function write_point(point: u32): void {
  if (length + CHARACTER_BYTES_MAX > BUFFER_BYTES) {
    if (target == NOWHERE) return;
    write_flush();
  }
  length += utf8_encode(point, buffer + length);
}

/** Writes words of ours. */
export function write_text(words: string): void {
  const from = changetype<usize>(words);
  const end = from + ((words.length as usize) << 1);
  for (let at = from; at < end; at += 2) write_point(load<u16>(at));
}

/** Writes bytes that are not ours: what is no UTF-8 becomes U+FFFD, what could steer a terminal a question mark. */
export function write_bytes(ptr: usize, bytes: usize): void {
  const end = ptr + bytes;
  while (ptr < end) {
    const decoded = utf8_decode(ptr, end);
    const point = decoded & POINT_MASK;
    write_point(point < 32 || (point >= 127 && point < 160) ? 63 : point);
    ptr += (decoded >>> DECODED_LENGTH_SHIFT) & 7;
  }
}

/** Writes a whole number, below 2^53. */
export function write_whole(value: f64): void {
  if (value < 0) {
    write_point(45);
    value = -value;
  }
  let power: f64 = 1;
  while (power * 10 <= value && power < 1e16) power *= 10;
  for (; power >= 1; power /= 10) {
    const digit = Math.floor(value / power);
    write_point(48 + (digit as u32));
    value -= digit * power;
  }
}

/** Writes a number with so many decimals. */
export function write_decimal(value: f64, places: u32): void {
  if (!isFinite<f64>(value)) {
    write_text(is_none(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
    return;
  }
  if (value < 0) {
    write_point(45);
    value = -value;
  }
  let power: f64 = 1;
  for (let i: u32 = 0; i < places; i++) power *= 10;
  if (value * power > 9e15) places = 0;
  if (places == 0) power = 1;
  let scaled = Math.floor(value * power);
  if (value * power - scaled >= 0.5) scaled += 1;
  write_whole(Math.floor(scaled / power));
  if (places == 0) return;
  write_point(46);
  let rest = scaled - Math.floor(scaled / power) * power;
  for (power /= 10; power >= 1; power /= 10) {
    const digit = Math.floor(rest / power);
    write_point(48 + (digit as u32));
    rest -= digit * power;
  }
}

/** Writes a number with as many decimals as it has, six at most. */
export function write_number(value: f64): void {
  let places: u32 = 0;
  let power: f64 = 1;
  while (places < 6 && Math.abs(Math.round(value * power) - value * power) > 1e-9) {
    power *= 10;
    places++;
  }
  write_decimal(value, places);
}

/** Writes bytes as 13.60 MB. */
export function write_megabytes(bytes: f64): void {
  const giga = bytes >= 999.5e6;
  write_decimal(bytes / (giga ? 1e9 : 1e6), 2);
  write_text(giga ? " GB" : " MB");
}

/** Writes a share as 15.2 %; only none is 0 %, only all is 100 %. */
export function write_percent(share: f64): void {
  if (share > 0 && share < 0.001) write_text("<0.1");
  else if (share < 1 && share >= 0.9995) write_text(">99.9");
  else write_decimal(share * 100, share == 0 || share == 1 ? 0 : 1);
  write_text(" %");
}
