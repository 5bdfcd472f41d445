// Several AbortSignals as one, for engines without AbortSignal.any().

export interface JoinedSignal {
  /** Fires with the reason of the first that does. */
  readonly signal: AbortSignal;
  /** Lets go of the others. */
  release(): void;
}

export function joinSignals(...signals: readonly (AbortSignal | undefined)[]): JoinedSignal {
  const controller = new AbortController();
  const stop = ({ target }: Event) => controller.abort((target as AbortSignal).reason);
  for (const signal of signals) {
    if (signal?.aborted) controller.abort(signal.reason);
    else signal?.addEventListener("abort", stop, { once: true });
  }
  return {
    signal: controller.signal,
    release() {
      for (const signal of signals) signal?.removeEventListener("abort", stop);
    },
  };
}
