// What a request is answered with when it cannot have what it wants: a status, and words in the shape of OpenAI's API.

import { type ErrorCode, SnugError } from "../../runtime/index";

export interface RefusalDetails {
  /** The field that is to blame. */
  readonly param?: string | null;
  readonly code?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
}

const RETRY_SECONDS = "1";
/** Where the request is to blame. Everything else that goes wrong is ours: 500. */
const BLAMED: Readonly<Partial<Record<ErrorCode, string | null>>> = {
  usage: null,
  unsupported: null,
  context: "context_length_exceeded",
};

export class Refusal extends Error {
  readonly status: number;
  readonly param: string | null;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    { param = null, code = null, headers = {} }: RefusalDetails = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "Refusal";
    this.status = status;
    this.param = param;
    this.code = code;
    this.headers = headers;
  }

  /** The body of the answer. */
  toJSON(): object {
    const { message, param, code } = this;
    return { error: { message, type: typeOf(this.status), param, code } };
  }
}

/** A field that the request got wrong. */
export function wrong(param: string, message: string, code: string | null = null): Refusal {
  return new Refusal(400, message, { param, code });
}

/** Too much at once: worth another try soon. */
export function busy(message: string): Refusal {
  return new Refusal(429, message, { code: "rate_limit_exceeded", headers: { "Retry-After": RETRY_SECONDS } });
}

/** Nothing is wrong with the request, but it gets no answer now. */
export function unavailable(message: string, code: string): Refusal {
  return new Refusal(503, message, { code, headers: { "Retry-After": RETRY_SECONDS } });
}

/** The answer to whatever was thrown; of what is a fault of ours the other end learns no details. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (!(error instanceof SnugError) || error.code === "internal")
    return new Refusal(
      500,
      "something went wrong that should not; the server's own output says more",
      {},
      { cause: error },
    );
  if (error.code === "busy") return busy(error.message);
  if (error.code === "aborted") return unavailable("the request was stopped before its end", "stopped");
  const code = BLAMED[error.code];
  return new Refusal(code === undefined ? 500 : 400, error.message, { code: code ?? null }, { cause: error });
}

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 403) return "permission_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}
