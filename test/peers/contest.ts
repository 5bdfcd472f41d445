// Contestants against each other: all are started, then take turns, round after round, so that a slow minute of the
// machine falls on all of them; what fails is reported and the others go on.

import { setTimeout } from "node:timers/promises";
import type { Answer, Remote } from "./runner";

/** One that takes part. */
export interface Contestant {
  readonly name: string;
  readonly isSnug: boolean;
  /** Far slower than the others: its tasks are TASK_SHARE of theirs, so that a round ends. */
  readonly isSlow?: boolean;
  start(): Promise<Remote>;
}

/** Something to measure; `run` returns what it is measured in, more being better. */
export interface Task {
  readonly name: string;
  run(remote: Remote, contestant: Contestant): Promise<Measure[]>;
}

export interface Measure {
  readonly name: string;
  readonly rate: number;
  readonly cores: number;
}

export interface Entry {
  readonly name: string;
  readonly isSnug: boolean;
  readonly isSlow: boolean;
  about: string;
  error: string | null;
  /** By measure: what each round gave, in the order of the rounds. */
  readonly rates: Record<string, number[]>;
  /** Processors that were busy. */
  readonly cores: Record<string, number[]>;
}

/** Of those that are slow. */
export const TASK_SHARE = 1 / 4;

const PATIENCE_MILLISECONDS = 15 * 60000;

/** All `tasks` of all contestants, `rounds` times; `say` hears how it goes. */
export async function contest(
  contestants: readonly Contestant[],
  tasks: readonly Task[],
  warmUp: Task,
  rounds: number,
  say: (text: string) => void,
): Promise<Entry[]> {
  const running: { contestant: Contestant; entry: Entry; remote: Remote }[] = [];
  const entries: Entry[] = [];
  for (const contestant of contestants) {
    const { name, isSnug, isSlow = false } = contestant;
    const entry: Entry = { name, isSnug, isSlow, about: "", error: null, rates: {}, cores: {} };
    entries.push(entry);
    await attempt(entry, undefined, async () => {
      const remote = await contestant.start();
      running.push({ contestant, entry, remote });
      await attempt(entry, remote, async () => {
        entry.about = String((await remote.call("about")).value);
        await warmUp.run(remote, contestant);
      });
    });
    say(`${name}: ${entry.error ?? entry.about}`);
  }
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another one, so that nobody always follows the same one.
    const order = running.map((_, i) => running[(i + round) % running.length] as (typeof running)[number]);
    for (const task of tasks)
      for (const { contestant, entry, remote } of order) {
        if (entry.error !== null) continue;
        await attempt(entry, remote, async () => {
          for (const { name, rate, cores } of await task.run(remote, contestant)) {
            if (!Number.isFinite(rate) || rate <= 0) throw new Error(`${name}: measured ${rate}`);
            entry.rates[name] = [...(entry.rates[name] ?? []), rate];
            entry.cores[name] = [...(entry.cores[name] ?? []), cores];
          }
        });
      }
    say(`round ${round + 1} of ${rounds}`);
  }
  for (const { entry, remote } of running) if (entry.error === null) await remote.close();
  return entries;
}

/** A task that one call does, giving seconds for `amount` things. */
export function timed(name: string, answer: Answer, amount: number): Measure {
  return { name, rate: amount / (answer.value as number), cores: answer.cores };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle] as number;
  return ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** How many times as fast `entry` is as `other`: the median over the rounds; undefined where one did not run. */
export function ratio(entry: Entry, other: Entry, measure: string): number | undefined {
  const [own, others] = [entry.rates[measure] ?? [], other.rates[measure] ?? []];
  if (entry.error !== null || other.error !== null || own.length === 0) return undefined;
  return median(own.map((rate, round) => rate / (others[round] as number)));
}

/** Notes an error, and lets the one that made it, or that takes too long, disturb the others no more. */
async function attempt(entry: Entry, remote: Remote | undefined, work: () => Promise<void>): Promise<void> {
  const patience = new AbortController();
  const tooLong = setTimeout(PATIENCE_MILLISECONDS, undefined, { signal: patience.signal }).then(
    () => Promise.reject(new Error(`no answer after ${PATIENCE_MILLISECONDS / 60000} minutes`)),
    () => {},
  );
  try {
    await Promise.race([work(), tooLong]);
  } catch (error) {
    entry.error = error instanceof Error ? error.message : String(error);
    await remote?.close();
  } finally {
    patience.abort();
  }
}
