// The pack's file: found below the folders that the host has opened, read at any place, in pieces that every host can
// take at once.

import { file_problem, PROBLEM_NONE, PROBLEM_SOURCE, problem, write_name } from "./problem";
import {
  ERRNO_ISDIR,
  ERRNO_NOTCAPABLE,
  FILESTAT_BYTES,
  FILESTAT_FILETYPE,
  FILESTAT_SIZE,
  FILETYPE_DIRECTORY,
  FIRST_PREOPEN,
  fd_close,
  fd_filestat_get,
  fd_pread,
  fd_prestat_dir_name,
  fd_prestat_get,
  LOOKUP_SYMLINK_FOLLOW,
  PRESTAT_BYTES,
  PRESTAT_LENGTH,
  path_open,
  RIGHTS_FD_FILESTAT_GET,
  RIGHTS_FD_READ,
  RIGHTS_FD_SEEK,
  VECTOR_BYTES,
  VECTOR_LENGTH,
} from "./wasi_snapshot_preview1";
import { write_text } from "./writer";

const NONE: i32 = -1;
/** Of one read: some hosts copy it once more. */
const READ_BYTES_MAX: u32 = 1 << 20;
const VECTORS_MAX: u32 = 16;
/** Folders with longer names are passed over. */
const FOLDER_NAME_MAX: u32 = 1024;

const folderName = memory.data(1024);
const prestat = memory.data(PRESTAT_BYTES, 4);
const filestat = memory.data(FILESTAT_BYTES, 8);
const opened = memory.data(4, 4);
const done = memory.data(4, 4);
const vectors = memory.data(128, 4); // [VECTORS_MAX]

let file: i32 = NONE;
let size: f64 = 0;

// Of the read that is gathering
let readOffset: u64 = 0;
let readBytes: u32 = 0;
let readVectors: u32 = 0;

/** Opens a file for reading, in place of the one that was open before. */
export function file_open(path: usize, pathBytes: u32): i32 {
  let folder: i32 = NONE;
  let best: u32 = 0; // length of the folder's name, twice, and one more where both are absolute or both relative
  let rest = path;
  const end = path + pathBytes;
  for (let fd = FIRST_PREOPEN; fd_prestat_get(fd, prestat) == 0; fd++) {
    const bytes = load<u32>(prestat, PRESTAT_LENGTH);
    if (bytes > FOLDER_NAME_MAX || fd_prestat_dir_name(fd, folderName, bytes) != 0) continue;
    const below = path_below(path, end, folderName, folderName + bytes);
    if (below == 0) continue;
    const alike = is_absolute(path, end) == is_absolute(folderName, folderName + bytes);
    const weight: u32 = 1 + ((below - path) as u32) * 2 + (alike ? 1 : 0);
    if (weight <= best) continue;
    best = weight;
    folder = fd;
    rest = below;
  }
  if (folder == NONE) return file_problem(ERRNO_NOTCAPABLE);
  const rights = RIGHTS_FD_READ | RIGHTS_FD_SEEK | RIGHTS_FD_FILESTAT_GET;
  let errno = path_open(folder, LOOKUP_SYMLINK_FOLLOW, rest, (end - rest) as u32, 0, rights, 0, 0, opened);
  if (errno != 0) return file_problem(errno);
  errno = fd_filestat_get(load<i32>(opened), filestat);
  if (errno == 0 && load<u8>(filestat, FILESTAT_FILETYPE) == FILETYPE_DIRECTORY) errno = ERRNO_ISDIR;
  if (errno != 0) {
    fd_close(load<i32>(opened));
    return file_problem(errno);
  }
  if (file != NONE) fd_close(file);
  file = load<i32>(opened);
  size = load<u64>(filestat, FILESTAT_SIZE) as f64;
  return PROBLEM_NONE;
}

/** Bytes of the file. */
export function file_size(): f64 {
  return size;
}

/** Begins to read at an offset: what read_into() names next is filled with consecutive bytes, all of it at read_end(). */
export function read_start(offset: u64): void {
  readOffset = offset;
  readBytes = 0;
  readVectors = 0;
}

export function read_into(address: usize, bytes: u64): i32 {
  while (bytes > 0) {
    const taken = min<u64>(bytes, READ_BYTES_MAX - readBytes) as u32;
    const vector = vectors + readVectors * VECTOR_BYTES;
    store<u32>(vector, address as u32);
    store<u32>(vector, taken, VECTOR_LENGTH);
    readVectors++;
    readBytes += taken;
    address += taken;
    bytes -= taken;
    if (readBytes < READ_BYTES_MAX && readVectors < VECTORS_MAX) continue;
    const failed = read_end();
    if (failed) return failed;
  }
  return PROBLEM_NONE;
}

export function read_end(): i32 {
  let first = vectors;
  const end = vectors + readVectors * VECTOR_BYTES;
  while (readBytes > 0) {
    const errno = fd_pread(file, first, ((end - first) / VECTOR_BYTES) as u32, readOffset, done);
    if (errno != 0) return file_problem(errno);
    let came = load<u32>(done);
    if (came == 0 || came > readBytes) return ends_early();
    readOffset += came;
    readBytes -= came;
    for (; came > 0 && came >= load<u32>(first, VECTOR_LENGTH); first += VECTOR_BYTES)
      came -= load<u32>(first, VECTOR_LENGTH);
    if (came == 0) continue;
    store<u32>(first, load<u32>(first) + came);
    store<u32>(first, load<u32>(first, VECTOR_LENGTH) - came, VECTOR_LENGTH);
  }
  readVectors = 0;
  return PROBLEM_NONE;
}

function ends_early(): i32 {
  problem(PROBLEM_SOURCE);
  write_text("cannot read ");
  write_name();
  write_text(": it ended while it was read");
  return PROBLEM_SOURCE;
}

/** What is left of a path below a folder, as an address in the path; 0 if it does not lie below. */
function path_below(path: usize, pathEnd: usize, folder: usize, folderEnd: usize): usize {
  path = skip_roots(path, pathEnd);
  folder = skip_roots(folder, folderEnd);
  while (folderEnd > folder && load<u8>(folderEnd - 1) == 47) folderEnd--;
  if (folderEnd - folder == 1 && load<u8>(folder) == 46) folder = folderEnd;
  const whole = folder == folderEnd;
  for (; folder < folderEnd; folder++, path++) if (path == pathEnd || load<u8>(path) != load<u8>(folder)) return 0;
  if (whole) return path < pathEnd ? path : 0;
  if (path == pathEnd || load<u8>(path) != 47) return 0;
  while (path < pathEnd && load<u8>(path) == 47) path++;
  return path < pathEnd ? path : 0;
}

/** Skips "/" and "./" at the beginning: a program of WASI has no folder that it stands in but the root. */
function skip_roots(at: usize, end: usize): usize {
  while (at < end) {
    if (load<u8>(at) == 47) at++;
    else if (at + 1 < end && load<u8>(at) == 46 && load<u8>(at + 1) == 47) at += 2;
    else break;
  }
  return at;
}

function is_absolute(at: usize, end: usize): bool {
  return at < end && load<u8>(at) == 47;
}
