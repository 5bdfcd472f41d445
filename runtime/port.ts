// Calls over a channel of messages: between a page and its worker, or between two processes. Arguments, answers and
// events are whatever the channel can copy; failures arrive as SnugErrors.

import { type ErrorCode, SnugError } from "./errors";

/** One end of a channel. What is posted at one end is heard at the other, in order. */
export interface Port {
  post(message: unknown): void;
  /** Sets who hears what the other end posts. */
  listen(hear: (message: unknown) => void): void;
}

type Request = { call: number; method: string; args: readonly unknown[] } | { abort: number };
type Reply =
  | { answer: number; value: unknown }
  | { event: number; value: unknown }
  | { failure: number; code: ErrorCode; message: string };

/** What a method gets besides its arguments. */
export interface CallContext {
  readonly signal: AbortSignal;
  /** Posts an event to the caller. */
  tell(value: unknown): void;
}

export type Methods = Readonly<Record<string, (context: CallContext, ...args: never[]) => unknown>>;

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: (value: unknown) => void;
}

/** Answers the calls that come in at this end. */
export function answerCalls(port: Port, methods: Methods): void {
  const underWay = new Map<number, AbortController>();
  port.listen((message) => {
    if (typeof message !== "object" || message === null) return; // not one of ours
    const request = message as Request;
    if ("abort" in request) underWay.get(request.abort)?.abort();
    else void answer(request.call, request.method, request.args);
  });

  async function answer(call: number, name: string, args: readonly unknown[]): Promise<void> {
    const controller = new AbortController();
    underWay.set(call, controller);
    const tell = (value: unknown) => port.post({ event: call, value } satisfies Reply);
    try {
      const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
      if (method === undefined) throw new SnugError("usage", `nothing here is called "${name}"`);
      const value = await method({ signal: controller.signal, tell }, ...(args as never[]));
      port.post({ answer: call, value } satisfies Reply);
    } catch (error) {
      const code = error instanceof SnugError ? error.code : "internal";
      const text = error instanceof Error ? error.message : String(error);
      port.post({ failure: call, code, message: text } satisfies Reply);
    } finally {
      underWay.delete(call);
    }
  }
}

/** Makes calls to the other end. */
export class Caller {
  readonly #port: Port;
  readonly #waiting = new Map<number, { settle: (reply: Reply) => void; fail: (error: SnugError) => void }>();
  #calls = 0;
  #failed: SnugError | undefined;

  constructor(port: Port) {
    this.#port = port;
    port.listen((message) => {
      if (typeof message !== "object" || message === null) return; // not one of ours
      const reply = message as Reply;
      const call = "answer" in reply ? reply.answer : "failure" in reply ? reply.failure : reply.event;
      this.#waiting.get(call)?.settle(reply);
    });
  }

  /** Calls a method of the other end. A signal that fires stops it there; the call then rejects with "aborted". */
  call<T>(method: string, args: readonly unknown[], options: CallOptions = {}): Promise<T> {
    const { signal, onEvent } = options;
    return new Promise<T>((resolve, reject) => {
      if (this.#failed !== undefined) return reject(this.#failed);
      if (signal?.aborted) return reject(new SnugError("aborted", "stopped by the caller", { cause: signal.reason }));
      const call = ++this.#calls;
      const abort = () => this.#port.post({ abort: call } satisfies Request);
      const end = () => {
        this.#waiting.delete(call);
        signal?.removeEventListener("abort", abort);
      };
      this.#waiting.set(call, {
        settle(reply) {
          if ("event" in reply) return onEvent?.(reply.value);
          end();
          if ("failure" in reply) reject(new SnugError(reply.code, reply.message));
          else resolve(reply.value as T);
        },
        fail(error) {
          end();
          reject(error);
        },
      });
      signal?.addEventListener("abort", abort, { once: true });
      try {
        this.#port.post({ call, method, args } satisfies Request);
      } catch (cause) {
        end();
        reject(new SnugError("usage", `this cannot be sent: ${(cause as Error).message}`, { cause }));
      }
    });
  }

  /** The other end is gone: every call under way, and every later one, rejects with this. */
  fail(error: SnugError): void {
    this.#failed ??= error;
    for (const { fail } of [...this.#waiting.values()]) fail(this.#failed);
  }
}
