// Seeded random numbers, for tests on any host.

export interface Random {
  readonly seed: number;
  /** An integer in [0, below). */
  int(below: number): number;
  /** A number in [0, 1). */
  unit(): number;
  /** Roughly normal: mean 0, deviation 1. */
  normal(): number;
  pick<T>(items: ArrayLike<T>): T;
}

/** Seeded random numbers (xorshift32). SNUG_TEST_SEED in the environment overrides the seed. */
export function random(seed: number): Random {
  const start = Number(globalThis.process?.env.SNUG_TEST_SEED ?? seed) >>> 0 || 1;
  let state = start;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
  const unit = () => next() / 4294967296;
  const int = (below: number) => Math.floor(unit() * below);
  return {
    seed: start,
    int,
    unit,
    normal: () => Array.from({ length: 12 }, unit).reduce((sum, value) => sum + value, -6),
    pick: (items) => items[int(items.length)],
  };
}

/** Runs `body` with seeded random numbers; a failure names the seed. */
export function withRandom(seed: number, body: (random: Random) => void): void {
  const generator = random(seed);
  try {
    body(generator);
  } catch (error) {
    if (error instanceof Error) error.message += `\n(SNUG_TEST_SEED=${generator.seed} repeats this)`;
    throw error;
  }
}
