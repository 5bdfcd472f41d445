// Which turns of a chat are left out where the context has no room for all of them. The system's stay, the oldest of the
// others go first, and what is left begins with one of the user's.

import type { Message } from "./chat";
import { SnugError } from "./errors";
import type { GenerateOptions } from "./generation";

const OVERFLOWS = ["error", "drop"] as const;
/** While there are turns to leave out, no more than this share of the context is kept free for the answer. */
const ANSWER_SHARE = 0.25;

/** "drop": the oldest turns are left out, never the system's. */
export type Overflow = (typeof OVERFLOWS)[number];

export interface ChatOptions extends GenerateOptions {
  /**
   * What happens to a chat that the context has no room for. With "drop" room is kept for maxTokens, or for a quarter of
   * the context if that is less; it is an error still if the last turn alone is too long. Default "error".
   */
  readonly overflow?: Overflow;
}

export interface FitOptions extends Pick<GenerateOptions, "maxTokens" | "readTwice"> {
  /** How many of the first messages stay in any case, as the system's do. Default 0. */
  readonly first?: number;
  /** How many of the last do. Default: the user's last, and what follows it. */
  readonly last?: number;
  /** What the answer begins with. */
  readonly prefix?: string;
}

/** A chat that fits. */
export interface Fitted {
  readonly messages: readonly Message[];
  /** The token ids that a model reads of it. */
  readonly prompt: readonly number[];
  /** How many messages were left out. */
  readonly droppedTurns: number;
}

/** Is it one of the two? What came may be anything. */
export function checkOverflow(overflow: unknown = "error"): Overflow {
  const found = OVERFLOWS.find((one) => one === overflow);
  if (found === undefined)
    throw new SnugError("usage", `overflow is one of ${OVERFLOWS.join(", ")}, not "${overflow}"`);
  return found;
}

/** Leaves out as few turns as will do. `read`: the token ids of messages; it is called about log2 of their number times. */
export function fitTurns(
  messages: readonly Message[],
  read: (messages: readonly Message[]) => readonly number[],
  context: number,
  options: FitOptions,
): Fitted {
  const reserved = Math.min(options.maxTokens ?? context, Math.floor(context * ANSWER_SHARE));
  const room = context - reserved;
  const cuts = cutsOf(messages, options);
  const without = (place: number): Fitted => {
    const [first, cut] = [cuts[0] as number, cuts[place] as number];
    const kept = messages.filter(({ role }, i) => i < first || i >= cut || role === "system");
    return { messages: kept, prompt: read(kept), droppedTurns: messages.length - kept.length };
  };
  const whole = without(0);
  if (whole.prompt.length <= room) return whole;
  let most = cuts.length - 1;
  let fitted = most === 0 ? whole : without(most);
  const { length } = fitted.prompt;
  if (length > context - Math.min(1, reserved))
    throw new SnugError(
      "context",
      `without older turns the prompt is ${length} tokens long, the context has room for ${context}, the answer included: shorten the last turn or plan a larger context`,
    );
  // The answer gets less room than was to be kept for it.
  if (length > room) return fitted;
  for (let least = 1; least < most; ) {
    const middle = (least + most) >> 1;
    const tried = without(middle);
    if (tried.prompt.length <= room) [fitted, most] = [tried, middle];
    else least = middle + 1;
  }
  return fitted;
}

/** Where what is kept may begin: at the first place nothing is left out. */
function cutsOf(messages: readonly Message[], { first: given = 0, last }: FitOptions): number[] {
  let first = given;
  while (messages[first]?.role === "system") first++;
  const asked = messages.findLastIndex(({ role }) => role === "user");
  const end = last === undefined ? (asked < 0 ? messages.length - 1 : asked) : messages.length - last;
  const cuts = [first];
  for (let i = first + 1; i < end; i++) if (messages[i]?.role === "user") cuts.push(i);
  if (end > first) cuts.push(end);
  return cuts;
}
