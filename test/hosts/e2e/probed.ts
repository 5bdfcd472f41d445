// What gpu-probe.ts notes in a worker, and the channel on which it answers "report" with that.

export const CHANNEL = "gpu-probe";

export interface Probed {
  /** When a pipeline was asked for first, and when each was there: milliseconds since 1970. */
  readonly asked: number;
  readonly pipelines: readonly number[];
  readonly dispatches: number;
}
