// Are the models the same? The logits of two programs after each token of a prompt.

import type { Remote } from "./runner";

export interface Agreement {
  readonly positions: number;
  /** Share of positions at which both have the same likeliest token. */
  readonly topOne: number;
  /** Largest difference of two logits, and the difference's root mean square, as shares of the logits' deviation. */
  readonly largest: number;
  readonly rms: number;
  /** Mean Kullback-Leibler divergence of the second's next-token distribution from the first's, in nats. */
  readonly divergence: number;
}

/** Compares two contestants; refuses logits that are not finite. */
export async function compareLogits(first: Remote, second: Remote, tokens: readonly number[]): Promise<Agreement> {
  const read = async (remote: Remote) => (await remote.call("logits", tokens)).value as number[][];
  const [a, b] = [await read(first), await read(second)];
  if (a.length !== tokens.length || b.length !== tokens.length)
    throw new Error(`${a.length} and ${b.length} positions`);
  let same = 0;
  let largest = 0;
  let squares = 0;
  let spread = 0;
  let divergence = 0;
  a.forEach((own, position) => {
    const others = b[position] as number[];
    if (own.length !== others.length) throw new Error(`${own.length} and ${others.length} logits`);
    if (likeliest(own) === likeliest(others)) same++;
    const mean = own.reduce((sum, logit) => sum + logit, 0) / own.length;
    own.forEach((logit, token) => {
      const difference = (others[token] as number) - logit;
      if (!Number.isFinite(difference)) throw new Error(`logit ${token} is ${logit} and ${others[token]}`);
      largest = Math.max(largest, Math.abs(difference));
      squares += difference ** 2;
      spread += (logit - mean) ** 2;
    });
    const [p, q] = [logProbabilities(own), logProbabilities(others)];
    divergence += p.reduce((sum, logP, token) => sum + Math.exp(logP) * (logP - (q[token] as number)), 0);
  });
  const count = a.length * (a[0] as number[]).length;
  const deviation = Math.sqrt(spread / count);
  return {
    positions: a.length,
    topOne: same / a.length,
    largest: largest / deviation,
    rms: Math.sqrt(squares / count) / deviation,
    divergence: divergence / a.length,
  };
}

function likeliest(logits: readonly number[]): number {
  return logits.reduce((best, logit, token) => (logit > (logits[best] as number) ? token : best), 0);
}

function logProbabilities(logits: readonly number[]): number[] {
  const most = logits[likeliest(logits)] as number;
  const logSum = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  return logits.map((logit) => logit - most - logSum);
}
