// A pack at a web address. Only the bytes that are asked for are fetched, in as few requests as the order of reading
// allows; where there is a store, what came is kept there, and what is there is not fetched again.

import { SnugError } from "./errors";
import type { Source } from "./host";
import { throwIfAborted } from "./load";

/** Which version of a file bytes belong to; null: the server did not say. */
export interface Version {
  readonly size: number | null;
  readonly etag: string | null;
  readonly lastModified: string | null;
}

/** The first bytes of a file, kept on the device. */
export interface Store {
  /** Takes the store for this reader alone, once nobody else has it. Null: there is none to be had. */
  open(signal?: AbortSignal): Promise<OpenStore | null>;
}

export interface OpenStore {
  /** Of what is kept; null: nothing is. */
  readonly version: Version | null;
  /** How many bytes are kept. */
  readonly length: number;
  read(offset: number, target: Uint8Array): void;
  /** Writes at most `length` bytes in; throws where the device has no room. */
  write(offset: number, bytes: Uint8Array): void;
  /** Forgets what is kept. What is written next belongs to this version; null: nothing will be written. */
  reset(version: Version | null): void;
  close(): void;
}

/** What the first request asks for: the header of most packs is shorter. */
const FIRST_BYTES = 65536;
/** Rather than asking anew, this much of an answer that is coming in already is read and dropped. */
const SKIPPED_BYTES = 262144;
/** A connection that breaks is tried again after these many milliseconds each. */
const RETRY_MS = [250, 1000, 4000];

/** What comes in is read into a buffer of this size, again and again: chunks of their own would pile up as garbage. */
const BUFFER_BYTES = 262144;

/** An answer that is coming in. */
interface Body {
  /** The next bytes, valid until the next call; null: there are no more. */
  read(): Promise<Uint8Array | null>;
  cancel(): Promise<void>;
  /** Did the server answer with the range that was asked for? Otherwise it sends the whole file. */
  readonly ranged: boolean;
  /** Offset of the next byte. */
  position: number;
  readonly start: number;
  /** What was read, and not taken yet. */
  rest: Uint8Array | null;
}

export class Download implements Source {
  readonly name: string;
  downloadedBytes = 0;
  readonly #store: Store | undefined;
  #version: Version | null = null;
  #kept: OpenStore | null = null;
  #isFull = false;
  #body: Body | null = null;
  #end = FIRST_BYTES;
  #session = new AbortController();
  #prepared: Promise<unknown> = Promise.resolve();
  #turn: Promise<unknown> = Promise.resolve();

  /** `location`: an absolute http or https address. Nothing is fetched before the first read. */
  constructor(location: string, store?: Store) {
    this.name = location;
    this.#store = store;
  }

  get size(): number {
    return this.#version?.size ?? Number.POSITIVE_INFINITY;
  }

  async prepare(end: number, signal?: AbortSignal): Promise<() => Promise<void>> {
    const before = this.#prepared;
    let over: () => void = () => {};
    this.#prepared = new Promise<void>((resolve) => {
      over = resolve;
    });
    try {
      await before;
      throwIfAborted(signal);
      this.#kept = await this.#openStore(signal);
      if (this.#kept?.version != null) this.#recognise(this.#kept.version);
    } catch (error) {
      this.#kept?.close();
      this.#kept = null;
      over();
      throw error;
    }
    this.#end = Math.max(end, FIRST_BYTES);
    this.#isFull = false;
    const session = new AbortController();
    this.#session = session;
    const abort = () => session.abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    return async () => {
      signal?.removeEventListener("abort", abort);
      session.abort(); // reads that nobody waits for any more
      await this.#turn;
      await this.#leave();
      this.#kept?.close();
      this.#kept = null;
      this.#session = new AbortController();
      over();
    };
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const end = offset + target.length;
      let done = 0;
      if (this.#kept !== null) {
        await this.#keep(this.#kept, end);
        done = Math.min(Math.max(0, this.#kept.length - offset), target.length);
        if (done > 0) this.#kept.read(offset, target.subarray(0, done));
      }
      while (done < target.length) {
        const chunk = await this.#chunk(offset + done, end);
        const wanted = chunk.subarray(0, target.length - done);
        target.set(wanted, done);
        done += wanted.length;
        if (wanted.length < chunk.length) this.#putBack(chunk.subarray(wanted.length));
      }
    });
  }

  repair(offset: number, length: number): Promise<boolean> {
    return this.#inTurn(async () => {
      const kept = this.#kept;
      if (kept === null || offset >= kept.length) return false;
      const end = Math.min(offset + length, kept.length);
      await this.#leave();
      for (let at = offset; at < end; ) {
        const chunk = (await this.#chunk(at, end, end)).subarray(0, end - at);
        kept.write(at, chunk);
        at += chunk.length;
      }
      await this.#leave();
      return true;
    });
  }

  discard(): void {
    this.#kept?.reset(null);
    this.#version = null;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    this.#turn = mine.catch(() => {});
    return mine;
  }

  /** Fetches into the store until it holds the bytes below `end`, or has no room for more. */
  async #keep(kept: OpenStore, end: number): Promise<void> {
    // The first answer is taken whole, and not broken off behind the header.
    const least = () => (this.size < Number.POSITIVE_INFINITY ? Math.min(FIRST_BYTES, this.size) : 0);
    while (kept.length < Math.max(end, least()) && !this.#isFull) {
      const chunk = await this.#chunk(kept.length, end);
      try {
        if (kept.version === null) kept.reset(this.#version);
        kept.write(kept.length, chunk);
      } catch {
        this.#isFull = true;
        this.#putBack(chunk);
      }
    }
  }

  /** The next bytes from `position` on, at least one. They will be needed up to `end`, and more after that. */
  async #chunk(position: number, end: number, requested = Math.max(end, this.#end)): Promise<Uint8Array> {
    for (let attempt = 0; ; attempt++) {
      try {
        const body = await this.#bodyAt(position, requested);
        for (;;) {
          const piece = body.rest ?? (await this.#next(body));
          body.rest = null;
          if (piece === null) break;
          body.position += piece.length;
          if (body.position > position) return piece.subarray(piece.length - (body.position - position));
        }
        this.#body = null;
        // A server may answer with less than the range that was asked for; one that has nothing more has nothing more.
        if (!body.ranged || body.position === body.start) throw this.#endedAt(body.position);
        attempt--;
      } catch (cause) {
        await this.#leave();
        throwIfAborted(this.#session.signal);
        if (cause instanceof SnugError) throw cause;
        const wait = RETRY_MS[attempt];
        if (wait === undefined) throw this.#broken(position, cause);
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
      throwIfAborted(this.#session.signal);
    }
  }

  /** An answer that comes to `position` before long. */
  async #bodyAt(position: number, end: number): Promise<Body> {
    const body = this.#body;
    if (body !== null && body.position <= position && (!body.ranged || position - body.position <= SKIPPED_BYTES))
      return body;
    await this.#leave();
    this.#body = await this.#request(position, end);
    return this.#body;
  }

  async #request(start: number, end: number): Promise<Body> {
    const response = await fetch(this.name, {
      headers: { Range: `bytes=${start}-${end - 1}` },
      signal: this.#session.signal,
      cache: this.#store === undefined ? "default" : "no-store",
    });
    if (response.status === 416) throw this.#endedAt(start);
    if (response.status === 429 || response.status >= 500) throw new Error(`the server answered ${response.status}`);
    if (!response.ok || response.body === null)
      throw new SnugError(
        "source",
        `cannot read ${this.name}: the server answered ${`${response.status} ${response.statusText}`.trim()}`,
      );
    const ranged = response.status === 206;
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("Content-Range") ?? "");
    if (ranged && range !== null && Number(range[1]) !== start)
      throw new SnugError("source", `cannot read ${this.name}: the server sent other bytes than it was asked for`);
    const etag = response.headers.get("ETag");
    this.#recognise({
      size: range === null || range[2] === "*" ? null : Number(range[2]),
      etag: etag === null || etag.startsWith("W/") ? null : etag,
      lastModified: response.headers.get("Last-Modified"),
    });
    const position = ranged ? start : 0;
    return { ...reader(response.body), ranged, position, start: position, rest: null };
  }

  async #next(body: Body): Promise<Uint8Array | null> {
    const bytes = await body.read();
    this.downloadedBytes += bytes?.length ?? 0;
    return bytes;
  }

  #putBack(bytes: Uint8Array): void {
    const body = this.#body;
    if (body === null) return;
    body.rest = bytes;
    body.position -= bytes.length;
  }

  async #leave(): Promise<void> {
    const body = this.#body;
    this.#body = null;
    await body?.cancel().catch(() => {});
  }

  /** Takes note of the version that bytes are of; they are of no use beside bytes of another. */
  #recognise(version: Version): void {
    const known = this.#version;
    const differs = (name: keyof Version) =>
      known !== null && known[name] !== null && version[name] !== null && known[name] !== version[name];
    if (differs("size") || differs("etag") || differs("lastModified")) {
      this.discard();
      throw new SnugError("source", `${this.name} has changed since it was opened: open it again`);
    }
    this.#version = {
      size: known?.size ?? version.size,
      etag: known?.etag ?? version.etag,
      lastModified: known?.lastModified ?? version.lastModified,
    };
  }

  /** A device that cannot keep anything can still run a pack. */
  async #openStore(signal: AbortSignal | undefined): Promise<OpenStore | null> {
    try {
      return (await this.#store?.open(signal)) ?? null;
    } catch {
      throwIfAborted(signal);
      return null;
    }
  }

  #endedAt(offset: number): SnugError {
    return new SnugError("source", `${this.name} ended at byte ${offset} while it was being read`);
  }

  #broken(offset: number, cause: unknown): SnugError {
    // An engine does not tell a page whether there is no network or the server refuses other sites.
    const unknown =
      cause instanceof TypeError ? ": no network, or a server that other sites may not read from (CORS)" : "";
    const reason = `${cause instanceof Error ? cause.message : String(cause)}${unknown}`;
    const kept = this.#kept !== null && this.#kept.length > 0 ? "; what has come is kept" : "";
    return new SnugError(
      "source",
      `cannot read ${this.name}: the connection broke at byte ${offset} (${reason})${kept}: try again later`,
      { cause },
    );
  }
}

/** Reads a stream into one buffer where the engine can do that, else in chunks as they come. */
function reader(stream: ReadableStream<Uint8Array>): Pick<Body, "read" | "cancel"> {
  let into: ReadableStreamBYOBReader;
  try {
    into = stream.getReader({ mode: "byob" });
  } catch {
    const chunks = stream.getReader();
    return { read: async () => (await chunks.read()).value ?? null, cancel: () => chunks.cancel() };
  }
  let buffer = new ArrayBuffer(BUFFER_BYTES);
  return {
    async read() {
      const { value, done } = await into.read(new Uint8Array(buffer));
      if (value !== undefined) buffer = value.buffer;
      return done ? null : value;
    },
    cancel: () => into.cancel(),
  };
}
