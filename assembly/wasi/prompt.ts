// Where a text prompt comes from: the command line, or stdin, or neither. See cli/run.ts.

import { arena_base, arena_reserve, memory_reach } from "../memory";
import { bytes_are, bytes_are_text } from "./bytes";
import { OPTION_PROMPT, option_bytes, option_given, option_ptr } from "./options";
import { PROBLEM_MEMORY, PROBLEM_NONE, PROBLEM_SOURCE, PROBLEM_USAGE, problem_words } from "./problem";
import {
  FDSTAT_BYTES,
  FILETYPE_CHARACTER_DEVICE,
  FILETYPE_DIRECTORY,
  fd_fdstat_get,
  fd_read,
  STDERR,
  STDIN,
  VECTOR_LENGTH,
} from "./wasi_snapshot_preview1";
import { write_text, write_to } from "./writer";

const DEFAULT_PROMPT: string = "Once upon a time";
const STDIN_CHUNK_BYTES: u32 = 65536;
const LINE_FEED: u32 = 10;
const CARRIAGE_RETURN: u32 = 13;

const fdstat = memory.data(FDSTAT_BYTES, 8);
const vector = memory.data(8, 4);
const done = memory.data(4, 4);

let text: usize = 0;
let textBytes: u32 = 0;
let isDefault = false;

/** The prompt, UTF-8. */
export function prompt_ptr(): usize {
  return text;
}

export function prompt_bytes(): u32 {
  return textBytes;
}

/** Finds the prompt; what comes from stdin is kept before the arena. Returns a problem's code, 0 for none. */
export function prompt_find(): i32 {
  text = option_ptr(OPTION_PROMPT);
  textBytes = option_bytes(OPTION_PROMPT);
  const given = option_given(OPTION_PROMPT);
  const dash = given && bytes_are(text, textBytes, "-");
  if (given && !dash) return PROBLEM_NONE;
  textBytes = 0;
  if (dash || is_piped()) {
    const failed = read_stdin();
    if (failed) return failed;
  }
  if (dash || textBytes > 0) return PROBLEM_NONE;
  return take_default();
}

/** Says what is continued where nobody gave a prompt. */
export function prompt_say(): void {
  if (!isDefault) return;
  write_to(STDERR);
  write_text('No prompt was given: continuing "');
  write_text(DEFAULT_PROMPT);
  write_text('".\n');
}

/** Is there something other than a terminal or nothing at the other end of stdin? */
function is_piped(): bool {
  if (fd_fdstat_get(STDIN, fdstat) != 0) return false;
  const filetype: u32 = load<u8>(fdstat);
  return filetype != FILETYPE_CHARACTER_DEVICE && filetype != FILETYPE_DIRECTORY;
}

function read_stdin(): i32 {
  text = arena_base();
  for (;;) {
    const at = text + textBytes;
    if (!memory_reach((at as u64) + STDIN_CHUNK_BYTES))
      return problem_words(PROBLEM_MEMORY, "the engine refused memory for the prompt on stdin");
    store<u32>(vector, at as u32);
    store<u32>(vector, STDIN_CHUNK_BYTES, VECTOR_LENGTH);
    if (fd_read(STDIN, vector, 1, done) != 0) return problem_words(PROBLEM_SOURCE, "cannot read the prompt from stdin");
    const came = load<u32>(done);
    if (came == 0) break;
    textBytes += came;
  }
  arena_reserve(textBytes);
  if (textBytes > 0 && load<u8>(text + textBytes - 1) == LINE_FEED) {
    textBytes--;
    if (textBytes > 0 && load<u8>(text + textBytes - 1) == CARRIAGE_RETURN) textBytes--;
  }
  if (bytes_are_text(text, textBytes)) return PROBLEM_NONE;
  return problem_words(PROBLEM_USAGE, "the prompt on stdin is not UTF-8");
}

function take_default(): i32 {
  const bytes = DEFAULT_PROMPT.length as u32;
  text = arena_reserve(bytes);
  if (text == 0) return problem_words(PROBLEM_MEMORY, "the engine refused memory for the prompt");
  for (let i: u32 = 0; i < bytes; i++) store<u8>(text + i, load<u16>(changetype<usize>(DEFAULT_PROMPT) + i * 2));
  textBytes = bytes;
  isDefault = true;
  return PROBLEM_NONE;
}
