// What goes wrong, as a code and a sentence. The sentence is written where it happens; whoever learns of the code adds
// nothing but an end.

import {
  STATUS_ARGUMENT,
  STATUS_BUDGET,
  STATUS_CHECKSUM,
  STATUS_CONTEXT,
  STATUS_CORRUPT,
  STATUS_MEMORY,
  STATUS_NOT_A_PACK,
  STATUS_NUMBER,
  STATUS_TEXT,
  STATUS_TOKEN,
  STATUS_TRUNCATED,
  STATUS_UNSUPPORTED,
  STATUS_VERSION,
} from "../abi";
import { status_detail_ptr } from "../status";
import {
  ERRNO_ACCES,
  ERRNO_BADF,
  ERRNO_ISDIR,
  ERRNO_LOOP,
  ERRNO_NAMETOOLONG,
  ERRNO_NOENT,
  ERRNO_NOSPC,
  ERRNO_NOTCAPABLE,
  ERRNO_NOTDIR,
  ERRNO_PERM,
  ERRNO_SPIPE,
} from "./wasi_snapshot_preview1";
import { NOWHERE, write_bytes, write_megabytes, write_text, write_to, write_whole } from "./writer";

// In the order of error-code in component.wit, which counts from 0; 0 here is no problem.
export const PROBLEM_NONE: i32 = 0;
export const PROBLEM_USAGE: i32 = 1;
export const PROBLEM_SOURCE: i32 = 2;
export const PROBLEM_PACK: i32 = 3;
export const PROBLEM_UNSUPPORTED: i32 = 4;
export const PROBLEM_BUDGET: i32 = 5;
export const PROBLEM_MEMORY: i32 = 6;
export const PROBLEM_CONTEXT: i32 = 7;
export const PROBLEM_INTERNAL: i32 = 8;

let sentencesTo: i32 = NOWHERE;
let namePtr: usize = 0;
let nameBytes: u32 = 0;

/** Sends sentences to a file, with the program's name in front, or NOWHERE: they stay in the writer's buffer. */
export function problems_to(fd: i32): void {
  sentencesTo = fd;
}

/** Sets what sentences call the pack; without bytes it is "the pack". */
export function problem_name(ptr: usize, bytes: u32): void {
  namePtr = ptr;
  nameBytes = bytes;
}

/** Begins the sentence of a problem; returns its code. */
export function problem(code: i32): i32 {
  write_to(sentencesTo);
  if (sentencesTo != NOWHERE) write_text("snug: ");
  return code;
}

/** A problem whose sentence is all known. */
export function problem_words(code: i32, words: string): i32 {
  problem(code);
  write_text(words);
  return code;
}

export function write_name(): void {
  if (nameBytes == 0) write_text("the pack");
  else write_bytes(namePtr, nameBytes);
}

/** What the host said of the pack's file. */
export function file_problem(errno: i32): i32 {
  problem(PROBLEM_SOURCE);
  write_text("cannot read ");
  write_name();
  write_text(": ");
  write_errno(errno);
  return PROBLEM_SOURCE;
}

export function write_errno(errno: i32): void {
  if (errno == ERRNO_NOENT) write_text("there is no such file");
  else if (errno == ERRNO_ACCES || errno == ERRNO_PERM) write_text("the host does not permit it");
  else if (errno == ERRNO_ISDIR) write_text("it is a folder");
  else if (errno == ERRNO_NOTDIR) write_text("a part of its path is not a folder");
  else if (errno == ERRNO_NOTCAPABLE || errno == ERRNO_BADF)
    write_text("it lies outside the folders that the host has opened for this program");
  else if (errno == ERRNO_SPIPE) write_text("only a file that can be read at any place will do");
  else if (errno == ERRNO_NOSPC) write_text("there is no space left");
  else if (errno == ERRNO_LOOP) write_text("too many symbolic links");
  else if (errno == ERRNO_NAMETOOLONG) write_text("its name is too long");
  else {
    write_text("the host answered with WASI errno ");
    write_whole(errno);
  }
}

/** The problem that a status of the core stands for: 0 if it is none. Sentences: runtime/errors.ts. */
export function status_problem(status: i32): i32 {
  if (status >= 0) return PROBLEM_NONE;
  const code = problem(code_of(status));
  const a = load<f64>(status_detail_ptr());
  const b = load<f64>(status_detail_ptr(), 8);
  switch (status) {
    case STATUS_NOT_A_PACK:
      write_name();
      write_text(' is not a snug pack: it does not begin with "SNUGPACK"');
      break;
    case STATUS_VERSION:
      write_name();
      write_text(" is a pack of version ");
      write_whole(a);
      write_text(", this snug reads version ");
      write_whole(b);
      write_text(a > b ? ": update snug" : ": make the pack anew");
      break;
    case STATUS_TRUNCATED:
      write_name();
      write_text(" ends early: ");
      write_whole(a);
      write_text(" bytes expected, ");
      write_whole(b);
      write_text(" there");
      write_fetch_again();
      break;
    case STATUS_CHECKSUM:
      write_damaged("checksum mismatch in ");
      write_whole(b);
      write_text(" bytes at ");
      write_whole(a);
      write_fetch_again();
      break;
    case STATUS_CORRUPT:
      write_damaged("byte ");
      write_whole(a);
      write_text(" holds ");
      write_whole(b);
      write_text(", which cannot be");
      write_fetch_again();
      break;
    case STATUS_NUMBER:
      write_damaged("not a number among the weights at byte ");
      write_whole(a);
      write_fetch_again();
      break;
    case STATUS_UNSUPPORTED:
      write_name();
      write_text(" needs a newer snug: byte ");
      write_whole(a);
      write_text(" of its header holds ");
      write_whole(b);
      break;
    case STATUS_BUDGET:
      write_name();
      write_text(" does not fit: the budget is ");
      write_size(a);
      write_text(", the smallest cut needs ");
      write_size(b);
      write_text("; give more memory or a smaller context");
      break;
    case STATUS_MEMORY:
      write_text("the engine refused ");
      write_size(a);
      write_text(" of memory: plan with less");
      break;
    case STATUS_CONTEXT:
      write_whole(a);
      write_text(" positions do not fit ");
      write_whole(b);
      break;
    case STATUS_TOKEN:
      write_text("token id ");
      write_whole(a);
      write_text(" is not below the vocabulary's ");
      write_whole(b);
      break;
    case STATUS_ARGUMENT:
      write_text("argument ");
      write_whole(a);
      write_text(" cannot be ");
      write_whole(b);
      break;
    case STATUS_TEXT:
      write_whole(a);
      write_text(" bytes of text do not fit ");
      write_whole(b);
      break;
    default:
      write_text("the core answered ");
      write_whole(status);
      write_text(" (");
      write_whole(a);
      write_text(", ");
      write_whole(b);
      write_text("): please report this");
  }
  return code;
}

function code_of(status: i32): i32 {
  switch (status) {
    case STATUS_NOT_A_PACK:
    case STATUS_VERSION:
    case STATUS_TRUNCATED:
    case STATUS_CHECKSUM:
    case STATUS_CORRUPT:
    case STATUS_NUMBER:
      return PROBLEM_PACK;
    case STATUS_UNSUPPORTED:
      return PROBLEM_UNSUPPORTED;
    case STATUS_BUDGET:
      return PROBLEM_BUDGET;
    case STATUS_MEMORY:
      return PROBLEM_MEMORY;
    case STATUS_CONTEXT:
      return PROBLEM_CONTEXT;
    case STATUS_TOKEN:
    case STATUS_ARGUMENT:
    case STATUS_TEXT:
      return PROBLEM_USAGE;
    default:
      return PROBLEM_INTERNAL;
  }
}

function write_damaged(how: string): void {
  write_name();
  write_text(" is damaged: ");
  write_text(how);
}

function write_fetch_again(): void {
  write_text("; copy or download the pack again, or make it anew with `snug pack`");
}

function write_size(bytes: f64): void {
  write_megabytes(bytes);
  write_text(" (");
  write_whole(bytes);
  write_text(" bytes)");
}
