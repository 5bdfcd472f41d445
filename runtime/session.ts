// A conversation with a model that stays: it is continued, branched off, put away and taken up again.

import { SnugError } from "./errors";
import { type GenerateOptions, Generation, type Generator } from "./generation";
import { identityOf } from "./identity";
import type { Sequence } from "./sequence";

/** What a session needs of its model. */
export interface SessionModel extends Generator {
  encode(text: string): number[];
}

/** The first bytes of a saved session; then u32, the length of the facts; the facts, JSON; what the cache holds. */
const MAGIC = new TextEncoder().encode("SNUGSES1");
const FRONT_BYTES = MAGIC.length + 4;
const FACTS_MOST = 64e6;

/** What a saved session says of itself. */
interface Facts {
  /** The pack's identity. */
  readonly pack: string;
  readonly keptUnits: number;
  readonly activations: string;
  /** Of what follows: a cache of other numbers is read anew. */
  readonly kv: string;
  readonly tokens: readonly number[];
  /** How many of them what follows is of; 0: nothing follows. */
  readonly seen: number;
}

export class Session {
  readonly #model: SessionModel;
  readonly #sequence: Sequence;

  constructor(model: SessionModel, sequence: Sequence = model.engine.begin()) {
    this.#model = model;
    this.#sequence = sequence;
  }

  /** All tokens so far: those that were put in, and those that the model made. */
  get tokens(): readonly number[] {
    return this.#sequence.tokens;
  }

  /** Puts a text behind what is there, or token ids as they are. It is read when it is needed. */
  append(text: string | readonly number[]): void {
    const tokens = typeof text === "string" ? this.#model.encode(text) : text;
    const { context } = this.#model.plan;
    const length = this.tokens.length + tokens.length;
    if (length > context)
      throw new SnugError("context", `${length} tokens do not fit a context of ${context}: plan a larger one`);
    this.#model.engine.append(this.#sequence, tokens);
  }

  /** Continues. What comes belongs to the session, the end token too, if there was one. One at a time. */
  generate(options: GenerateOptions = {}): Generation {
    if (options.readTwice === true)
      throw new SnugError("usage", "a session reads its tokens once: append them again in place of readTwice");
    return new Generation(this.#model, this.#sequence, options);
  }

  /**
   * Another session that has said the same so far. Blocks of the KV cache are shared with it, a state is copied; what was
   * restored is shared with nobody, and read anew.
   */
  async fork(): Promise<Session> {
    const { engine, plan } = this.#model;
    const session = new Session(this.#model);
    session.append(this.tokens);
    const kept = plan.stateBytes > 0 ? await engine.save(this.#sequence) : null;
    if (kept !== null) await engine.restore(session.#sequence, kept.seen, kept.bytes);
    return session;
  }

  /** All that it takes to go on later, with the same pack and cut. On a GPU the tokens only, which are read again then. */
  async save(): Promise<Uint8Array> {
    const { core, engine, plan } = this.#model;
    const kept = await engine.save(this.#sequence);
    const facts: Facts = {
      pack: identityOf(core),
      keptUnits: plan.keptUnits,
      activations: plan.options.activations ?? "int8",
      kv: plan.kv,
      tokens: this.tokens,
      seen: kept?.seen ?? 0,
    };
    const json = new TextEncoder().encode(JSON.stringify(facts));
    const saved = new Uint8Array(FRONT_BYTES + json.length + (kept?.bytes.length ?? 0));
    saved.set(MAGIC);
    new DataView(saved.buffer).setUint32(MAGIC.length, json.length, true);
    saved.set(json, FRONT_BYTES);
    if (kept) saved.set(kept.bytes, FRONT_BYTES + json.length);
    return saved;
  }

  /** A session that was saved: refused if it is none, or of another pack or cut. */
  static async restore(model: SessionModel, saved: Uint8Array): Promise<Session> {
    const { facts, rest } = readFacts(saved);
    const { plan } = model;
    const own = {
      pack: identityOf(model.core),
      keptUnits: plan.keptUnits,
      activations: plan.options.activations ?? "int8",
    };
    if (facts.pack !== own.pack) throw new SnugError("usage", "this session was saved with another pack");
    if (facts.keptUnits !== own.keptUnits || facts.activations !== own.activations)
      throw new SnugError(
        "usage",
        `this session was saved with another cut: ${facts.keptUnits} units and ${facts.activations} activations, not ${own.keptUnits} and ${own.activations}`,
      );
    const session = new Session(model);
    session.append(facts.tokens);
    if (facts.seen > 0 && facts.kv === plan.kv) await model.engine.restore(session.#sequence, facts.seen, rest);
    return session;
  }

  /** Gives back what is kept of it. */
  async dispose(): Promise<void> {
    await this.#model.engine.end(this.#sequence);
  }
}

function readFacts(saved: Uint8Array): { facts: Facts; rest: Uint8Array } {
  const none = (cause?: unknown) => new SnugError("usage", "this is no session that was saved by snug", { cause });
  if (!(saved instanceof Uint8Array) || saved.length < FRONT_BYTES || MAGIC.some((byte, i) => saved[i] !== byte))
    throw none();
  const length = new DataView(saved.buffer, saved.byteOffset).getUint32(MAGIC.length, true);
  if (length > Math.min(saved.length - FRONT_BYTES, FACTS_MOST)) throw none();
  let facts: Facts;
  try {
    facts = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(saved.subarray(FRONT_BYTES, FRONT_BYTES + length)),
    );
  } catch (cause) {
    throw none(cause);
  }
  const { tokens, seen } = facts ?? {};
  const isWhole = (value: unknown) => typeof value === "number" && Number.isInteger(value) && value >= 0;
  if (!Array.isArray(tokens) || !tokens.every(isWhole) || !isWhole(seen)) throw none();
  if (seen > Math.max(0, tokens.length - 1)) throw none();
  return { facts, rest: saved.subarray(FRONT_BYTES + length) };
}
