// What a contestant does, and how main.ts reaches one that is in a process of its own. Times are in seconds.

/** Runs one model. Each call begins with an empty cache. */
export interface ModelRunner {
  /** What runs: version, build, backend. */
  about(): Promise<string>;
  /** Time to read a prompt. */
  prompt(tokens: readonly number[]): Promise<number>;
  /** Time to make `count` tokens behind a prompt, each the likeliest; the prompt's time is not in it. */
  generate(tokens: readonly number[], count: number): Promise<number>;
  /** The logits behind each token. */
  logits?(tokens: readonly number[]): Promise<number[][]>;
}

/** Matrices of a layer that work on the same input. */
export type OpGroup = "q, k, v" | "o" | "gate, up" | "down";

/** Runs a model's matrices. */
export interface OpRunner {
  about(): Promise<string>;
  /** Runs every group once over `rows` rows; multiplications a second of each. */
  products(rows: number): Promise<Record<OpGroup, number>>;
}

export interface Call {
  readonly method: string;
  readonly args: readonly unknown[];
}

export interface Answer {
  readonly value: unknown;
  /** Processors that were busy on average, by processor time. */
  readonly cores: number;
}

/** A contestant that has been started, wherever it is. One call at a time. */
export interface Remote {
  call(method: string, ...args: unknown[]): Promise<Answer>;
  close(): Promise<void>;
}

/** In a forked process: makes the runner from the options in its arguments, and answers calls. */
export async function serve<Options>(start: (options: Options) => Promise<ModelRunner | OpRunner>): Promise<void> {
  const attempt = async (work: () => Promise<unknown>) => {
    const cpu = process.cpuUsage();
    const started = performance.now();
    try {
      const value = await work();
      const { user, system } = process.cpuUsage(cpu);
      process.send?.({ value, cores: (user + system) / 1000 / (performance.now() - started) });
    } catch (error) {
      process.send?.({ error: error instanceof Error ? error.message : String(error) });
    }
  };
  const starting = start(JSON.parse(process.argv[2] as string) as Options);
  await attempt(async () => void (await starting));
  const runner = (await starting) as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
  process.on("message", ({ method, args }: Call) => attempt(async () => runner[method]?.(...args)));
}
