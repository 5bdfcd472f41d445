// The one error class. A message says what was expected, what came, and what to do about it.

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
  STATUS_THREAD,
  STATUS_TOKEN,
  STATUS_TRUNCATED,
  STATUS_UNSUPPORTED,
  STATUS_VERSION,
} from "../assembly/abi";

export type ErrorCode =
  | "usage" // an option, argument or call is wrong
  | "source" // a file or address cannot be read
  | "pack" // not a pack, a damaged one, or one from another version
  | "checkpoint" // a checkpoint folder is incomplete or contradicts itself
  | "unsupported" // well-formed, but nothing that this version can run
  | "budget" // does not fit the memory asked for
  | "memory" // the engine, or the GPU, refused memory that the plan allows
  | "gpu" // there is no GPU that can run this, or it computes wrongly
  | "lost" // the GPU went away
  | "context" // more tokens than the plan has room for
  | "busy" // more generations wait than there is room for
  | "aborted" // the caller's AbortSignal fired
  | "internal"; // a bug of ours

export class SnugError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "SnugError";
    this.code = code;
  }
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB (${bytes} bytes)`;
const FETCH_AGAIN = "copy or download the pack again, or make it anew with `snug pack`";

/** The words for a negative status of the core. `name`: of the pack. */
export function statusError(status: number, a: number, b: number, name: string): SnugError {
  switch (status) {
    case STATUS_NOT_A_PACK:
      return new SnugError("pack", `${name} is not a snug pack: it does not begin with "SNUGPACK"`);
    case STATUS_VERSION:
      return new SnugError(
        "pack",
        `${name} is a pack of version ${a}, this snug reads version ${b}: ${a > b ? "update snug" : "make the pack anew"}`,
      );
    case STATUS_TRUNCATED:
      return new SnugError("pack", `${name} ends early: ${a} bytes expected, ${b} there; ${FETCH_AGAIN}`);
    case STATUS_CHECKSUM:
      return new SnugError("pack", `${name} is damaged: checksum mismatch in ${b} bytes at ${a}; ${FETCH_AGAIN}`);
    case STATUS_CORRUPT:
      return new SnugError("pack", `${name} is damaged: byte ${a} holds ${b}, which cannot be; ${FETCH_AGAIN}`);
    case STATUS_NUMBER:
      return new SnugError("pack", `${name} is damaged: not a number among the weights at byte ${a}; ${FETCH_AGAIN}`);
    case STATUS_UNSUPPORTED:
      return new SnugError("unsupported", `${name} needs a newer snug: byte ${a} of its header holds ${b}`);
    case STATUS_BUDGET:
      return new SnugError(
        "budget",
        `${name} does not fit: the budget is ${megabytes(a)}, the smallest cut needs ${megabytes(b)}; ` +
          "give more memory or a smaller context",
      );
    case STATUS_MEMORY:
      return new SnugError("memory", `the engine refused ${megabytes(a)} of memory: plan with less`);
    case STATUS_CONTEXT:
      return new SnugError(
        "context",
        `${a} tokens do not fit a context of ${b}: shorten the prompt or plan a larger context`,
      );
    case STATUS_TOKEN:
      return new SnugError("usage", `token id ${a} is not below the vocabulary's ${b}`);
    case STATUS_ARGUMENT:
      return new SnugError("usage", `argument ${a} cannot be ${b}`);
    case STATUS_TEXT:
      return new SnugError("usage", `${a} bytes of text do not fit ${b}`);
    case STATUS_THREAD:
      return new SnugError("internal", "one of the core's threads trapped: please report this");
    default:
      return new SnugError("internal", `the core answered ${status} (${a}, ${b}): please report this`);
  }
}
