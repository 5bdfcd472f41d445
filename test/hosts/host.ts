// What a host of the suite is.

import type { Case, HostRun } from "./case";

/** Folders, absolute. */
export interface Places {
  /** The product's bundles. */
  readonly dist: string;
  /** Where this suite is built, and what it needs is installed. */
  readonly build: string;
}

export interface Host {
  readonly name: string;
  /** How many threads it must use. */
  readonly threads: number;
  /** May it be skipped even where every host is required? Default false. */
  readonly optional?: boolean;
  /** Runs all cases. Throws CannotRun where the host is not there; anything else that it throws is a failure. */
  run(cases: readonly Case[], places: Places): Promise<HostRun>;
}

/** This machine has not what the host needs; the message says what that is. */
export class CannotRun extends Error {}

/** Of one host with all its cases. */
export const HOST_MILLISECONDS = 60_000;
