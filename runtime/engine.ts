// Moves sequences on, step by step, as many at once as there is room for: whoever waits for a token takes part in the next
// step. Nothing runs while nobody waits.

import { STATUS_TOKEN } from "../assembly/abi";
import { HEADER_SSM_HEADS, HEADER_VOCABULARY } from "../packs/format";
import type { Core } from "./core";
import { SnugError, statusError } from "./errors";
import type { Executor } from "./executor";
import type { GeneratedToken } from "./generation";
import type { Host } from "./host";
import { aborted } from "./load";
import { logprobsOf } from "./logprobs";
import type { Plan } from "./plan";
import { Residence } from "./residence";
import { tokenId, writeRows } from "./rows";
import { shareStep } from "./scheduler";
import { type Choice, Sequence, type Want } from "./sequence";
import { StepTimes } from "./step-times";

/** Sequences that may wait for a slot; more are refused. */
const WAITING_MOST = 64;
/** Who has not asked for a token for so long has gone, or rests: others may have its room. */
const PATIENCE_MS = 100;
/** For what steps cost: in all, and up to how many rows. */
const MEASURE_MS = 400;
const MEASURED_ROWS = 16;
const MEASURE_ROUNDS = 4;
/** What those wait who wait for others that may have gone. */
const WAIT_MS = 5;
/** GPUs lost one after the other, after which nobody tries again. */
const LOSSES_MOST = 3;

/** What an engine moves sequences of. */
export interface EngineModel {
  readonly core: Core;
  readonly executor: Executor;
  readonly plan: Plan;
  readonly host: Host;
  /** Goes on with another GPU after this one was lost. */
  revive(lost: SnugError): Promise<void>;
}

/** A sequence whose next tokens the executor makes by itself. */
interface Ahead {
  readonly sequence: Sequence;
  readonly tokens: AsyncGenerator<number, void>;
  /** How many of the sequence's tokens it began with, and has made since. */
  known: number;
}

export class Engine {
  readonly #model: EngineModel;
  readonly #times = new StepTimes();
  readonly #waiting = new Set<Sequence>();
  #residence: { readonly core: Core; readonly of: Residence } | undefined;
  #ahead: Ahead | undefined;
  #isRunning = false;
  #turn: Promise<unknown> = Promise.resolve();
  #sequences = 0;
  #steps = 0;
  #rows = 0;
  #losses = 0;

  constructor(model: EngineModel) {
    this.#model = model;
  }

  /** Rows that were worked on so far. */
  get rows(): number {
    return this.#rows;
  }

  /** Sequences that are worked on, and those that wait for a slot. */
  get load(): { readonly running: number; readonly waiting: number } {
    const waiting = [...this.#waiting];
    const running = waiting.filter(({ slot }) => slot !== undefined).length;
    return { running, waiting: waiting.length - running };
  }

  /** Blocks of the KV cache that sequences hold. */
  get heldBlocks(): number {
    return this.#residence?.of.heldBlocks ?? 0;
  }

  /** Sequences that have a slot. */
  get heldSlots(): number {
    return this.#residence?.of.holders.length ?? 0;
  }

  /** How often a sequence had to make room for another one, and is read again when its turn comes. */
  get sentAway(): number {
    return this.#residence?.of.sentAway ?? 0;
  }

  /** Throws where more, or less, is held than the sequences that have a slot hold. */
  check(): void {
    this.#residence?.of.check();
  }

  /** Finds out how long steps of more and more rows take. Before anything is read: what they write is written over. */
  async measure(): Promise<void> {
    const { core, executor, plan, host } = this.#model;
    const most = Math.min(plan.rows, plan.context, MEASURED_ROWS);
    const end = performance.now() + MEASURE_MS;
    const measure = async (rows: number) => {
      writeRows(core, new Uint32Array(rows), 0, (row) => row === rows - 1);
      const started = performance.now();
      await executor.logits(rows);
      this.#times.add(rows, (performance.now() - started) / 1000);
      await host.pause();
    };
    // Code is slow at first, and threads come late: all are measured in turn, the shortest counts, and one row, which the
    // others are compared with, is measured at the end again.
    for (let round = 0; round < MEASURE_ROUNDS && performance.now() < end; round++)
      for (let rows = 1; rows <= most && performance.now() < end; rows *= 2) await measure(rows);
    await measure(1);
  }

  begin(): Sequence {
    return new Sequence(++this.#sequences);
  }

  /** Puts tokens behind those of a sequence. */
  append(sequence: Sequence, tokens: readonly number[]): void {
    const vocabulary = this.#model.core.exports.pack_field(HEADER_VOCABULARY) >>> 0;
    for (const token of tokens)
      if (tokenId(token) >= vocabulary) throw statusError(STATUS_TOKEN, token, vocabulary, "");
    for (const token of tokens) sequence.tokens.push(token);
  }

  /** The next token of a sequence, which becomes one of its own. */
  next(sequence: Sequence, choice: Choice, signal?: AbortSignal): Promise<GeneratedToken> {
    return new Promise((resolve, reject) => {
      if (sequence.want !== undefined) {
        reject(new SnugError("usage", "a session makes one text at a time"));
        return;
      }
      if (sequence.slot === undefined && this.load.waiting >= WAITING_MOST) {
        reject(new SnugError("busy", `${WAITING_MOST} texts wait for their turn already: try again later`));
        return;
      }
      const stop = () => {
        this.#waiting.delete(sequence);
        sequence.want = undefined;
        reject(aborted(signal));
      };
      const settled = <T>(settle: (value: T) => void) => {
        return (value: T) => {
          signal?.removeEventListener("abort", stop);
          this.#waiting.delete(sequence);
          sequence.want = undefined;
          sequence.restsSince = performance.now();
          settle(value);
        };
      };
      if (signal?.aborted) return stop();
      signal?.addEventListener("abort", stop, { once: true });
      sequence.want = { choice, resolve: settled(resolve), reject: settled(reject) };
      this.#waiting.add(sequence);
      if (!this.#isRunning) void this.#run();
    });
  }

  /** Nothing more is wanted of a sequence. */
  end(sequence: Sequence): Promise<void> {
    return this.#alone(async () => {
      if (this.#ahead?.sequence === sequence) await this.#endAhead();
      this.#residence?.of.leave(sequence);
    });
  }

  /** What is kept of a sequence, and of how many of its tokens; null: nothing that could be seen. */
  save(sequence: Sequence): Promise<{ seen: number; bytes: Uint8Array } | null> {
    return this.#alone(async () => {
      if (this.#ahead?.sequence === sequence) await this.#endAhead();
      const bytes = this.#residence?.of.read(sequence) ?? null;
      return bytes && { seen: sequence.seen, bytes };
    });
  }

  /** Brings it back. Where there is no room for it now, it is read anew when it is needed. */
  restore(sequence: Sequence, seen: number, bytes: Uint8Array): Promise<void> {
    return this.#alone(async () => {
      const residence = this.#residenceOf(this.#model.core);
      if (!residence.write(sequence, seen, bytes, ({ want }) => want === undefined)) residence.leave(sequence);
    });
  }

  /** The logits of every token, `rows` at a time, in a sequence of their own; visit: of the row-th output. */
  forward(tokens: readonly number[], rows: number, visit: (output: number, position: number) => void): Promise<void> {
    const sequence = this.begin();
    return this.#alone(async () => {
      this.append(sequence, tokens);
      await this.#endAhead();
      const { core, executor } = this.#model;
      const residence = this.#residenceOf(core);
      const anybody = () => true;
      residence.admit(sequence, anybody);
      try {
        while (sequence.pending > 0) {
          const { seen } = sequence;
          const chunk = tokens.slice(seen, seen + rows);
          residence.makeRoom(sequence, chunk.length, anybody);
          writeRows(core, chunk, seen, () => true, { sequence: sequence.slot as number });
          await executor.logits(chunk.length);
          sequence.seen += chunk.length;
          for (let row = 0; row < chunk.length; row++) visit(row, seen + row);
        }
      } finally {
        residence.leave(sequence);
      }
    });
  }

  /** Whatever the cache held is void: somebody else works in it. */
  forget(): void {
    this.#residence?.of.clear();
  }

  /** Works once nobody else does. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.size > 0) {
      await this.#model.host.pause();
      try {
        await this.#alone(() => this.#step());
        this.#losses = 0;
      } catch (error) {
        await this.#survive(error);
      }
    }
    this.#isRunning = false;
  }

  /** A step failed. If its GPU was lost, another one reads everything anew. */
  async #survive(error: unknown): Promise<void> {
    if (this.#ahead !== undefined) this.#ahead.sequence.seen = 0;
    this.#ahead = undefined;
    try {
      const isLost = error instanceof SnugError && error.code === "lost";
      if (!isLost || ++this.#losses > LOSSES_MOST) throw error;
      await this.#alone(() => this.#model.revive(error));
      this.forget();
    } catch (last) {
      if (last instanceof SnugError && last.code === "lost" && this.#losses <= LOSSES_MOST) return;
      for (const { want } of [...this.#waiting]) want?.reject(last);
    }
  }

  #residenceOf(core: Core): Residence {
    if (this.#residence?.core !== core) this.#residence = { core, of: new Residence(core, this.#model.plan) };
    return this.#residence.of;
  }

  async #step(): Promise<void> {
    const [sole, ...others] = this.#waiting;
    if (sole !== undefined && others.length === 0 && (await this.#runAhead(sole))) return;
    await this.#endAhead();
    const waiting = [...this.#waiting].toSorted((a, b) => a.number - b.number);
    if (waiting.length === 0) return;
    const { core, executor, plan } = this.#model;
    const residence = this.#residenceOf(core);
    this.#steps++;
    const shares = this.#shares(residence, waiting, plan);
    const parts = waiting.flatMap((sequence) => {
      const rows = shares.get(sequence) ?? 0;
      return rows === 0 ? [] : [{ sequence, rows, isOutput: rows === sequence.pending }];
    });
    if (parts.length === 0) {
      // They wait for the room of others, who may have gone.
      if (residence.holders.some(({ want }) => want === undefined)) return sleep(WAIT_MS);
      throw new SnugError("internal", "no sequence could be moved on");
    }
    let first = 0;
    for (const { sequence, rows, isOutput } of parts) {
      const { seen, tokens, slot } = sequence;
      const isLast = (row: number) => isOutput && row === rows - 1;
      writeRows(core, tokens.slice(seen, seen + rows), seen, isLast, { first, sequence: slot as number });
      sequence.lastStep = this.#steps;
      first += rows;
    }
    this.#rows += first;
    // Whoever wants something else by the time it is done, has to wait for the next step.
    const outputs = parts
      .filter(({ isOutput }) => isOutput)
      .map(({ sequence }) => ({ sequence, want: sequence.want as Want }));
    await runRows(executor, first, outputs);
    for (const { sequence, rows } of parts) {
      sequence.seen += rows;
      residence.note(sequence);
    }
    for (const [output, { sequence, want }] of outputs.entries())
      if (sequence.want === want) this.#choose(sequence, want, output);
  }

  /** Rows of the next step for those that wait, once there is room for them. */
  #shares(residence: Residence, waiting: readonly Sequence[], plan: Plan): Map<Sequence, number> {
    const order = waiting.toSorted((a, b) => Number(a.isBackground) - Number(b.isBackground));
    const now = performance.now();
    const isIdle = ({ want, restsSince }: Sequence) => want === undefined && now - restsSince > PATIENCE_MS;
    const works = new Set<string>();
    const ready = order.filter((sequence) => {
      if (!residence.admit(sequence, isIdle)) return false;
      residence.adopt(sequence);
      // What another one reads in this step is there for the taking in the next.
      const work = residence.workOf(sequence);
      if (work === undefined) return true;
      const isFirst = !works.has(work);
      works.add(work);
      return isFirst;
    });
    const facts = ready.map((sequence) => {
      const { pending, isRunning, isBackground } = sequence;
      return { tokens: pending, isRunning, isBackground, most: residence.stopAt(sequence) - sequence.seen };
    });
    const rows = shareStep(facts, { rows: plan.rows, outputs: plan.outputs }, this.#times);
    const shares = new Map(ready.map((sequence, i) => [sequence, rows[i] ?? 0]));
    for (const sequence of ready) {
      const share = shares.get(sequence) ?? 0;
      if (sequence.slot === undefined || share === 0) continue;
      // Where all blocks are held, those make room that nobody waits for, then those that came later.
      const later = (other: Sequence) => isIdle(other) || order.indexOf(other) > order.indexOf(sequence);
      if (!residence.makeRoom(sequence, share, isIdle) && !residence.makeRoom(sequence, share, later))
        shares.set(sequence, 0);
    }
    return new Map([...shares].filter(([{ slot }]) => slot !== undefined));
  }

  #choose(sequence: Sequence, want: Want, output: number): void {
    const { core, executor } = this.#model;
    try {
      const sampler = core.bytes(core.exports.logits_sampler_ptr(), sequence.sampler.length);
      sampler.set(sequence.sampler);
      const token = executor.choose(sequence.tokens, output);
      sequence.sampler.set(core.bytes(core.exports.logits_sampler_ptr(), sequence.sampler.length));
      this.#give(sequence, want, token, output);
    } catch (error) {
      want.reject(error);
    }
  }

  #give(sequence: Sequence, want: Want, id: number, output: number): void {
    const { logprobs } = want.choice;
    const { core } = this.#model;
    const vocabulary = core.exports.pack_field(HEADER_VOCABULARY) >>> 0;
    const logits = () => core.floats((core.exports.logits_ptr() >>> 0) + output * vocabulary * 4, vocabulary);
    const known = logprobs === undefined ? { logprob: null, top: [] } : logprobsOf(logits(), id, logprobs);
    sequence.tokens.push(id);
    sequence.isRunning = true;
    want.resolve({ id, ...known });
  }

  /** Lets the executor make tokens by itself, where it can and nobody else waits. */
  async #runAhead(sequence: Sequence): Promise<boolean> {
    const want = sequence.want;
    const { core, executor } = this.#model;
    if (executor.greedy === undefined || !want?.choice.isGreedy || want.choice.logprobs !== undefined) return false;
    if (this.#ahead?.sequence !== sequence || this.#ahead.known !== sequence.tokens.length) {
      await this.#endAhead();
      if (sequence.slot === undefined || sequence.pending !== 1) return false;
      const { most } = want.choice;
      const residence = this.#residenceOf(core);
      if (!residence.makeRoom(sequence, most, () => false)) return false;
      writeRows(core, sequence.tokens.slice(-1), sequence.seen, () => true, { sequence: sequence.slot });
      this.#ahead = { sequence, tokens: executor.greedy(most), known: sequence.tokens.length };
    }
    const ahead = this.#ahead;
    const next = await ahead.tokens.next();
    if (next.done) {
      await this.#endAhead();
      return false;
    }
    if (sequence.want === want) {
      this.#give(sequence, want, next.value, 0);
      ahead.known = sequence.tokens.length;
    } else await this.#endAhead();
    return true;
  }

  async #endAhead(): Promise<void> {
    const ahead = this.#ahead;
    if (ahead === undefined) return;
    this.#ahead = undefined;
    await ahead.tokens.return();
    // The cache has run ahead: what it holds of the tokens that came is right, but a state is of those behind them.
    const { sequence, known } = ahead;
    if (sequence.slot === undefined) return;
    const { core } = this.#model;
    const residence = this.#residenceOf(core);
    sequence.seen = core.exports.pack_field(HEADER_SSM_HEADS) > 0 ? 0 : known - 1;
    residence.trim(sequence);
    residence.note(sequence);
  }
}

/** Runs the rows of a step; `outputs` of them want logits, in this order. */
async function runRows(
  executor: Executor,
  rows: number,
  outputs: readonly { readonly sequence: Sequence; readonly want: Want }[],
): Promise<void> {
  const [sole] = outputs;
  if (sole === undefined) await executor.run(rows);
  else if (outputs.length > 1 || sole.want.choice.logprobs !== undefined) await executor.logits(rows);
  else await executor.forChoice(rows, { ...sole.want.choice.sampling, history: sole.sequence.tokens });
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
