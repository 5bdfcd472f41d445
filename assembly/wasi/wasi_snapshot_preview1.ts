// What the host is asked for: functions of WASI preview 1, as its witx files declare them, imported from the module that
// this file is named after. They return an errno, 0 for success, unless they return nothing.

/** Files that are always open. */
export const STDIN: i32 = 0;
export const STDOUT: i32 = 1;
export const STDERR: i32 = 2;
/** First of the folders that the host has opened. */
export const FIRST_PREOPEN: i32 = 3;

export const ERRNO_ACCES: i32 = 2;
export const ERRNO_BADF: i32 = 8;
export const ERRNO_ISDIR: i32 = 31;
export const ERRNO_LOOP: i32 = 32;
export const ERRNO_NAMETOOLONG: i32 = 37;
export const ERRNO_NOENT: i32 = 44;
export const ERRNO_NOSPC: i32 = 51;
export const ERRNO_NOTDIR: i32 = 54;
export const ERRNO_PERM: i32 = 63;
export const ERRNO_PIPE: i32 = 64;
export const ERRNO_SPIPE: i32 = 70;
export const ERRNO_NOTCAPABLE: i32 = 76;

export const FILETYPE_CHARACTER_DEVICE: u32 = 2;
export const FILETYPE_DIRECTORY: u32 = 3;

/** Struct filestat. */
export const FILESTAT_FILETYPE: u32 = 16; // u8
export const FILESTAT_SIZE: u32 = 32; // u64
export const FILESTAT_BYTES: i32 = 64;

/** Struct fdstat begins with its filetype, u8. */
export const FDSTAT_BYTES: i32 = 24;

/** Struct prestat: a tag, 0 for a folder, then the length of its name. */
export const PRESTAT_LENGTH: u32 = 4;
export const PRESTAT_BYTES: i32 = 8;

/** Of a vector of buffers: struct (c)iovec, an address and a length, u32 each. */
export const VECTOR_LENGTH: u32 = 4;
export const VECTOR_BYTES: u32 = 8;

export const RIGHTS_FD_READ: u64 = 1 << 1;
export const RIGHTS_FD_SEEK: u64 = 1 << 2;
export const RIGHTS_FD_FILESTAT_GET: u64 = 1 << 21;

export const LOOKUP_SYMLINK_FOLLOW: i32 = 1;
export const CLOCK_MONOTONIC: i32 = 1;

export declare function args_sizes_get(count: usize, bytes: usize): i32;

export declare function args_get(pointers: usize, bytes: usize): i32;

export declare function clock_time_get(clock: i32, precision: u64, time: usize): i32;

export declare function fd_close(fd: i32): i32;

export declare function fd_fdstat_get(fd: i32, fdstat: usize): i32;

export declare function fd_filestat_get(fd: i32, filestat: usize): i32;

export declare function fd_pread(fd: i32, vectors: usize, count: u32, offset: u64, done: usize): i32;

export declare function fd_prestat_get(fd: i32, prestat: usize): i32;

export declare function fd_prestat_dir_name(fd: i32, name: usize, bytes: u32): i32;

export declare function fd_read(fd: i32, vectors: usize, count: u32, done: usize): i32;

export declare function fd_write(fd: i32, vectors: usize, count: u32, done: usize): i32;

export declare function path_open(
  folder: i32,
  lookup: i32,
  path: usize,
  pathBytes: u32,
  oflags: i32,
  rights: u64,
  inherited: u64,
  fdflags: i32,
  fd: usize,
): i32;

export declare function proc_exit(code: i32): void;

export declare function random_get(bytes: usize, count: u32): i32;
