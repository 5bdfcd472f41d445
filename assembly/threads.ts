// Threads: instances of the core over one shared memory. One of them, the host's own, begins a step; all walk the
// program, each does its share of every op, and they meet before anything is read that another has written.
//
// The words below lie in memory and are the only thing that threads tell each other. Whatever is a global of a module
// (`let`) belongs to one thread: kernels take all that they need from the op record.

/** Most threads of a step. */
export const THREADS_MAX: u32 = 64;

/** How often a word is looked at before the thread sleeps: some tens of microseconds. */
const SPINS: u32 = 20000;
const SLEEP_NANOSECONDS: i64 = 1000000000;

// u32 each; those that threads wait for have a cache line of their own
const STEP: u32 = 0; // steps begun × STEP_ONE + threads of the last one, so that nobody joins a step halfway
const STEP_ONE: u32 = 256;
const PHASE: u32 = 64; // meetings held
const ARRIVED: u32 = 128; // at the meeting that is under way
const SLEEPERS: u32 = 192;
const READY: u32 = 256; // threads that wait for steps, the first one not counted
const TRAPPED: u32 = 260; // a thread has trapped: nobody waits for it any more
const ENDED: u32 = 264;
const PROGRAM: u32 = 320; // of the step: address of its first op
const OPS: u32 = 324;
const ROWS: u32 = 328; // address of the rows
const COUNT: u32 = 332; // rows
const OUTPUTS: u32 = 336; // rows that want logits
const BOARD_BYTES: i32 = 384;

const board = memory.data(BOARD_BYTES, 64);

let index: u32 = 0;
let threads: u32 = 1;
let seen: u32 = 0; // STEP as this thread knows it

/** This thread, from 0. */
export function thread_index(): u32 {
  return index;
}

/** Begins a step with all threads that are ready. Those that are not yet will be in a later one. */
export function threads_begin(program: usize, ops: u32, rows: usize, count: u32, outputs: u32): void {
  threads = threads_ready();
  if (threads == 1) return;
  store<u32>(board, program as u32, PROGRAM);
  store<u32>(board, ops, OPS);
  store<u32>(board, rows as u32, ROWS);
  store<u32>(board, count, COUNT);
  store<u32>(board, outputs, OUTPUTS);
  seen = (seen & ~(STEP_ONE - 1)) + STEP_ONE + threads;
  word_store(board + STEP, seen);
  wake(board + STEP);
}

/** Joins as one more thread; false when there are as many as can be. */
export function threads_join(): bool {
  seen = word_load(board + STEP);
  index = word_add(board + READY, 1) + 1;
  return index < THREADS_MAX;
}

/** Threads that take part in the next step, this one among them. */
export function threads_ready(): u32 {
  return word_load(board + READY) + 1;
}

/** Waits for the next step that this thread has a part in; false when there will be none. */
export function threads_next(): bool {
  do {
    while (wait_while(board + STEP, seen)) {}
    if (word_load(board + ENDED) != 0) return false;
    seen = word_load(board + STEP);
    threads = seen % STEP_ONE;
  } while (index >= threads);
  return true;
}

/** Of the step under way: address of its first op. */
export function step_program(): usize {
  return load<u32>(board, PROGRAM);
}

export function step_length(): u32 {
  return load<u32>(board, OPS);
}

export function step_rows(): usize {
  return load<u32>(board, ROWS);
}

export function step_count(): u32 {
  return load<u32>(board, COUNT);
}

export function step_outputs(): u32 {
  return load<u32>(board, OUTPUTS);
}

/** Lets the threads that wait for steps go. */
export function threads_end(): void {
  word_store(board + ENDED, 1);
  word_add(board + STEP, STEP_ONE);
  wake(board + STEP);
}

/** Says that this thread has trapped, so that the others do not wait for it. */
export function threads_trapped(): void {
  word_store(board + TRAPPED, 1);
  wake(board + PHASE);
}

/** Has a thread trapped? Then what the step wrote means nothing. */
export function threads_broken(): bool {
  return word_load(board + TRAPPED) != 0;
}

/** First of `items` things that this thread does; it does all from there to share_end(). */
export function share_start(items: u32): u32 {
  return threads == 1 ? 0 : share(items, index, threads);
}

/** Behind the last of `items` things that this thread does. */
export function share_end(items: u32): u32 {
  return threads == 1 ? items : share(items, index + 1, threads);
}

/** The first of `items` things that the which-th of `count` does: of all of them, where there is one more than count. */
export function share(items: u32, which: u32, count: u32): u32 {
  return (((items as u64) * which) / count) as u32;
}

/** Returns when all threads of the step have come here: what they wrote before can be read. */
export function threads_meet(): void {
  if (threads == 1) return;
  const phase = word_load(board + PHASE);
  if (word_add(board + ARRIVED, 1) + 1 == threads) {
    word_store(board + ARRIVED, 0);
    word_add(board + PHASE, 1);
    wake(board + PHASE);
    return;
  }
  while (wait_while(board + PHASE, phase) && !threads_broken()) {}
}

/** Waits while the word has this value; true if it may still have it. */
function wait_while(word: usize, value: u32): bool {
  for (let i: u32 = 0; i < SPINS; i++) if (word_load(word) != value) return false;
  word_add(board + SLEEPERS, 1);
  if (ASC_FEATURE_THREADS) atomic.wait<i32>(word, value as i32, SLEEP_NANOSECONDS);
  word_add(board + SLEEPERS, -1);
  return word_load(word) == value;
}

/** Wakes those that sleep on a word that has just changed. */
function wake(word: usize): void {
  if (ASC_FEATURE_THREADS) if (word_load(board + SLEEPERS) != 0) atomic.notify(word, -1);
}

// A build for engines without atomics has one thread, which is alone with the words.

function word_load(word: usize): u32 {
  return ASC_FEATURE_THREADS ? atomic.load<u32>(word) : load<u32>(word);
}

function word_store(word: usize, value: u32): void {
  if (ASC_FEATURE_THREADS) atomic.store<u32>(word, value);
  else store<u32>(word, value);
}

/** Adds to a word and returns what it was. */
function word_add(word: usize, value: u32): u32 {
  if (ASC_FEATURE_THREADS) return atomic.add<u32>(word, value);
  const before = load<u32>(word);
  store<u32>(word, before + value);
  return before;
}
