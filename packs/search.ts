// The order of the units: what is cut first, as measured. Greedy from the whole model downwards: again and again the
// unit goes that adds least to KL(original ‖ cut) per byte. Old measurements are kept and only the best looking ones
// are taken again at the present cut (lazy greedy), which finds nearly the same order at a tenth of the cost.

import type { Shards } from "./shards";
import type { Stack } from "./write";

const MEASUREMENTS_MOST = 6; // of one removal

/** A unit that was cut, and what the model had lost then: mean KL a token, in nats. */
export interface Removal {
  readonly stack: number;
  readonly divergence: number;
}

/**
 * Removes units until `share` of their bytes is gone; a stack's first unit stays. The shards have opened the model, in
 * which a stack's units belong to sublayer sublayerOf[stack].
 * Returns the removals in their order, and the KL of the whole model.
 */
export async function searchOrder(
  shards: Shards,
  stacks: readonly Stack[],
  sublayerOf: readonly number[],
  share: number,
  onProgress: (done: number) => void,
): Promise<{ whole: number; removals: Removal[] }> {
  const kept = stacks.map(({ units }) => units);
  const bytes = stacks.map(({ layout }) => layout.bytes);
  const total = stacks.reduce((sum, { units, layout }) => sum + units * layout.bytes, 0);
  const without = (stack: number) => kept.map((units, i) => (i === stack ? units - 1 : units));
  const examine = (stack: number) => shards.examine(without(stack), sublayerOf[stack] as number);

  const whole = await shards.examine(kept, 0);
  await shards.accept();
  let now = whole;
  // What the next unit of each stack costs, when last measured.
  const measured = new Map<number, number>();
  const cost = (stack: number) => ((measured.get(stack) as number) - now) / (bytes[stack] as number);
  const candidates = () => [...measured.keys()].filter((stack) => (kept[stack] as number) > 1);
  for (let stack = 0; stack < stacks.length; stack++) {
    if ((kept[stack] as number) > 1) measured.set(stack, await examine(stack));
    onProgress((0.2 * (stack + 1)) / stacks.length);
  }

  const scores = new Map<number, number>();
  for (const stack of candidates()) scores.set(stack, cost(stack));
  const removals: Removal[] = [];
  for (let cut = 0; cut < share * total; ) {
    const open = candidates();
    if (open.length === 0) break;
    const fresh = new Set<number>();
    const cheapest = () => open.reduce((a, b) => ((scores.get(b) as number) < (scores.get(a) as number) ? b : a));
    let best = cheapest();
    let last = best;
    while (!fresh.has(best) && fresh.size < MEASUREMENTS_MOST) {
      measured.set(best, await examine(best));
      scores.set(best, cost(best));
      fresh.add(best);
      last = best;
      best = cheapest();
    }
    if (!fresh.has(best))
      best = [...fresh].reduce((a, b) => ((scores.get(b) as number) < (scores.get(a) as number) ? b : a));
    // What the shards have at hand is the cut that was examined last.
    if (last !== best) await examine(best);
    await shards.accept();
    kept[best] = (kept[best] as number) - 1;
    now = measured.get(best) as number;
    removals.push({ stack: best, divergence: now });
    cut += bytes[best] as number;
    onProgress(0.2 + 0.8 * Math.min(1, cut / (share * total)));
  }
  return { whole, removals };
}

/** Units that each stack keeps when at most `rate` of the bytes is cut, in the order of the removals. */
export function keptAt(stacks: readonly Stack[], removals: readonly Removal[], rate: number): number[] {
  const kept = stacks.map(({ units }) => units);
  const total = stacks.reduce((sum, { units, layout }) => sum + units * layout.bytes, 0);
  let cut = 0;
  for (const { stack } of removals) {
    cut += (stacks[stack] as Stack).layout.bytes;
    if (cut > rate * total) break;
    kept[stack] = (kept[stack] as number) - 1;
  }
  return kept;
}
