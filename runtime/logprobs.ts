// How likely tokens are, in the model's own distribution.

import type { TokenLogprob } from "./generation";

/** log softmax(logits) at `token`, and the `count` likeliest, the first of equals being the one with the lower id. */
export function logprobsOf(
  logits: Float32Array,
  token: number,
  count: number,
): { logprob: number; top: readonly TokenLogprob[] } {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > most) most = logit;
  let sum = 0;
  for (const logit of logits) sum += Number.isNaN(logit) ? 0 : Math.exp(logit - most);
  const total = most + Math.log(sum);
  const best: number[] = [];
  for (let id = 0; id < logits.length && count > 0; id++) {
    const logit = logits[id] as number;
    if (Number.isNaN(logit) || (best.length === count && logit <= (logits[best.at(-1) as number] as number))) continue;
    const place = best.findIndex((other) => (logits[other] as number) < logit);
    best.splice(place < 0 ? best.length : place, 0, id);
    if (best.length > count) best.pop();
  }
  const of = (id: number) => (logits[id] as number) - total;
  return { logprob: of(token), top: best.map((id) => ({ id, logprob: of(id) })) };
}
