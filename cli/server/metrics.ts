// What the server counts, as Prometheus reads it (text format 0.0.4).

/** Upper bounds in seconds. */
const FIRST_TOKEN_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
const TOKEN_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** What is so at the moment of asking. */
export interface Gauges {
  readonly running: number;
  readonly waiting: number;
  readonly modelBytes: number;
  readonly heldBlocks: number;
  /** So far. */
  readonly sentAway: number;
}

export class Metrics {
  readonly #requests = new Map<string, number>();
  readonly #firstToken = new Histogram(FIRST_TOKEN_BUCKETS);
  readonly #perToken = new Histogram(TOKEN_BUCKETS);
  #promptTokens = 0;
  #madeTokens = 0;

  /** A request that has ended. route: one of the server's own, or "other". */
  request(route: string, status: number): void {
    const labels = `{route="${route}",status="${status}"}`;
    this.#requests.set(labels, (this.#requests.get(labels) ?? 0) + 1);
  }

  prompt(tokens: number): void {
    this.#promptTokens += tokens;
  }

  /** A token that was made, so long after the request came or after the token before it. */
  token(seconds: number, isFirst: boolean): void {
    this.#madeTokens++;
    (isFirst ? this.#firstToken : this.#perToken).observe(seconds);
  }

  text({ running, waiting, modelBytes, heldBlocks, sentAway }: Gauges): string {
    const { rss, heapUsed } = process.memoryUsage();
    return [
      ...family("snug_requests_total", "counter", "Requests that have ended; status 499: the client had left.", [
        ...[...this.#requests].map(([labels, count]) => `${labels} ${count}`),
      ]),
      ...one("snug_running", "gauge", "Answers being made.", running),
      ...one("snug_waiting", "gauge", "Answers that wait for their turn.", waiting),
      ...one("snug_prompt_tokens_total", "counter", "Tokens of prompts that were answered.", this.#promptTokens),
      ...one("snug_generated_tokens_total", "counter", "Tokens made.", this.#madeTokens),
      ...family(
        "snug_time_to_first_token_seconds",
        "histogram",
        "From a request's last byte to an answer's first token.",
        this.#firstToken.lines(),
      ),
      ...family(
        "snug_time_per_output_token_seconds",
        "histogram",
        "Between one token of an answer and the next.",
        this.#perToken.lines(),
      ),
      ...one("snug_model_memory_bytes", "gauge", "What the model takes, a GPU's memory included.", modelBytes),
      ...one("snug_kv_blocks_held", "gauge", "Blocks of the KV cache that answers hold.", heldBlocks),
      ...one("snug_sent_away_total", "counter", "How often an answer made room for another one.", sentAway),
      ...one("snug_heap_bytes", "gauge", "JavaScript objects in use.", heapUsed),
      ...one("process_resident_memory_bytes", "gauge", "What the process takes of the machine's memory.", rss),
      "",
    ].join("\n");
  }
}

class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;
  #count = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  observe(value: number): void {
    this.#sum += value;
    this.#count++;
    const bucket = this.#bounds.findIndex((bound) => value <= bound);
    if (bucket >= 0) this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
  }

  /** Names' endings, labels and values: each bucket holds those below it too. */
  lines(): string[] {
    let below = 0;
    const buckets = this.#bounds.map((bound, i) => {
      below += this.#counts[i] as number;
      return `_bucket{le="${bound}"} ${below}`;
    });
    return [...buckets, `_bucket{le="+Inf"} ${this.#count}`, `_sum ${this.#sum}`, `_count ${this.#count}`];
  }
}

function one(name: string, type: string, help: string, value: number): string[] {
  return family(name, type, help, [` ${value}`]);
}

function family(name: string, type: string, help: string, lines: readonly string[]): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines.map((line) => name + line)];
}
