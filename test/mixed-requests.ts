// Drawn requests, as they come to a model that many use: texts, and sessions that branch. Some begin alike, some are stopped,
// some rest, some are put away and taken up again. Also what each of them says with the model to itself.

import { setTimeout as sleep } from "node:timers/promises";
import { CACHE_BLOCK } from "../assembly/abi";
import type { GeneratedToken, GenerateOptions, Generation } from "../runtime/generation";
import type { Model } from "../runtime/model";
import type { Session } from "../runtime/session";
import type { Random } from "./random";

const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, seed: 1 };
/** Of all requests, every so many-th is a session. */
const SESSION_EVERY = 4;
/** More than the engine waits for one that rests. */
const REST_MS = 130;

/** Tokens that are put in, the text that the model goes on with, and what comes after. */
export interface Turn {
  readonly tokens: readonly number[];
  readonly options: GenerateOptions;
  /** Tokens after which whoever asked goes away; Infinity: nobody does. */
  readonly leavesAfter: number;
  /** Milliseconds that the reader rests in the middle, and that pass before anything else is asked for. */
  readonly readerRest: number;
  readonly rest: number;
  /** Is the session saved then, disposed of, and restored? */
  readonly isPutAway: boolean;
  /** What it goes on with: the first in the session itself, the others in forks of it. */
  readonly branches: readonly Turn[];
}

export interface Request {
  readonly isSession: boolean;
  readonly turn: Turn;
  /** Milliseconds before it begins, and before it is stopped wherever it is then; Infinity: it is not. */
  readonly delay: number;
  readonly stopsAfter: number;
}

/** A session has at most four branches at the end. */
export function drawRequests(count: number, context: number, vocabulary: number, { int }: Random): Request[] {
  const tokens = (length: number) => Array.from({ length }, () => int(vocabulary));
  const starts = Array.from({ length: 3 }, () => tokens(80));
  const begin = (least: number, most: number) => (starts[int(3)] as number[]).slice(0, least + int(most - least));
  const turn = (put: readonly number[], made: number, more: Partial<Turn> = {}): Turn => ({
    tokens: put,
    options: {
      ...(int(3) === 0 ? { temperature: 0.9, seed: int(1000) } : GREEDY),
      ...{ priority: int(4) === 0 ? "background" : "interactive", maxTokens: 1 + int(made) },
    },
    leavesAfter: int(5) === 0 ? 1 + int(6) : Number.POSITIVE_INFINITY,
    ...{ readerRest: int(12) === 0 ? REST_MS : 0, rest: int(3) === 0 ? REST_MS : 0 },
    ...{ isPutAway: int(2) === 0, branches: [] },
    ...more,
  });
  const branch = (branches: readonly Turn[]) => turn(tokens(1 + int(8)), 8, { branches });
  const session = () => {
    const first = branch(int(2) === 0 ? [branch([]), branch([])] : []);
    const branches = [first, branch([]), ...(int(2) === 0 ? [branch([])] : [])];
    return turn([...begin(20, 60), ...tokens(1 + int(10))], 8, { rest: REST_MS, branches });
  };
  const text = () => turn([...begin(0, 80), ...tokens(1 + int(30))].slice(0, context - 20), 18);
  return Array.from({ length: count }, (_, i) => {
    const isSession = i % SESSION_EVERY === 0;
    const stopsAfter = !isSession && int(6) === 0 ? int(80) : Number.POSITIVE_INFINITY;
    return { isSession, turn: isSession ? session() : text(), delay: int(60), stopsAfter };
  });
}

/** The tokens of each turn; of a text that is stopped, those that came before. */
export async function askAmongOthers(model: Model, { isSession, turn, delay, stopsAfter }: Request) {
  await sleep(delay);
  if (isSession) return converse(model, model.session(), turn);
  const stop = new AbortController();
  const stopping = stopsAfter === Number.POSITIVE_INFINITY ? undefined : setTimeout(() => stop.abort(), stopsAfter);
  const said = await say((options) => model.generate(turn.tokens, options), turn, stop);
  clearTimeout(stopping);
  return [said];
}

/** Goes on with a session, and disposes of it in the end. */
async function converse(model: Model, begun: Session, turn: Turn): Promise<number[][]> {
  let session = begun;
  session.append(turn.tokens);
  const said = await say((options) => session.generate(options), turn);
  await sleep(turn.rest);
  if (turn.isPutAway) {
    const saved = await session.save();
    await session.dispose();
    session = await model.restore(saved);
  }
  const forks = await Promise.all(turn.branches.slice(1).map(() => session.fork()));
  const sessions = [session, ...forks];
  const branches = turn.branches.map((branch, i) => converse(model, sessions[i] as Session, branch));
  if (branches.length === 0) await session.dispose();
  return [said, ...(await Promise.all(branches)).flat()];
}

/** The tokens of each turn of a request. */
export type Said = readonly (readonly number[])[];

/** What a request says with the model to itself: each turn is a text of its own, begun with nothing in the cache. */
export async function askAlone(model: Model, turn: Turn, before: readonly number[] = []): Promise<Said> {
  const prompt = [...before, ...turn.tokens];
  model.engine.forget();
  const own = await say((options) => model.generate(prompt, options), { ...turn, readerRest: 0 });
  const said: (readonly number[])[] = [own];
  for (const branch of turn.branches) said.push(...(await askAlone(model, branch, [...prompt, ...own])));
  return said;
}

/** The tokens that come until it ends, or whoever asked goes away. */
async function say(
  begin: (options: GenerateOptions) => Generation,
  { options, leavesAfter, readerRest }: Turn,
  stop = new AbortController(),
): Promise<number[]> {
  const made: number[] = [];
  const onToken = ({ id }: GeneratedToken) => {
    if (made.push(id) === leavesAfter) stop.abort();
  };
  const generation = begin({ ...options, signal: stop.signal, onToken });
  let rest = readerRest;
  try {
    for await (const _ of generation) {
      if (made.length < 3) continue;
      await sleep(rest);
      rest = 0;
    }
    await generation.result();
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  }
  return made;
}

/** Rows that requests take with room for all of them: what forks have in common is read once. said: by each turn. */
export function rowsOf({ turn }: Request, said: readonly (readonly number[])[], hasState: boolean): number {
  const left = [...said];
  const rows = ({ tokens, branches }: Turn, before: number): number => {
    const length = before + tokens.length + (left.shift() as readonly number[]).length;
    // Of what it begins with a fork reads the last token, as that is where the logits are; or the block that is not full.
    const again = hasState ? 1 : length - Math.floor((length - 1) / CACHE_BLOCK) * CACHE_BLOCK;
    const own = length - before + Math.max(0, branches.length - 1) * again;
    return branches.reduce((sum, branch) => sum + rows(branch, length), own);
  };
  return rows(turn, 0);
}
