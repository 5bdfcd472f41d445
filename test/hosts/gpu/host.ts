// What a host of the GPU suite is: something with WebGPU that runs the suite in a process of its own.

import type { GpuReport } from "../../gpu-suite";

/** What a script writes before its report, a line of JSON. */
export const REPORT = "report: ";

export interface GpuHost {
  readonly name: string;
  /**
   * Runs the suite. Throws CannotRun where the host is not there; rejects if it comes to no report, also when the signal is
   * aborted.
   */
  run(task: Task): Promise<GpuReport>;
}

export interface Task {
  /** Cases whose names match; "" for all. */
  readonly filter: string;
  /** All cases, also where they take long. */
  readonly thorough: boolean;
  /** Takes each line that the host writes, and each that the suite logs. */
  readonly log: (line: string) => void;
  /** Aborted when the time is up: the host must end then. */
  readonly signal: AbortSignal;
}
