// What the page and the main process say to each other, through preload.ts.

/** What the page may ask the main process for; it is there as `window.app`. Refusals reject. */
export interface AppBridge {
  /** Names of the packs that the app comes with. */
  packs(): Promise<string[]>;
  /** Starts a process with one of them. */
  open(name: string): Promise<void>;
  /** Lets the user choose a file, and starts a process with it. */
  choose(): Promise<void>;
  /** Starts another process with the pack of the last one. */
  restart(): Promise<void>;
}

/** What the page is told, as a message to its window. */
export type News =
  /** A process has started: the message brings the port to it. `name`: of its pack. */
  | { readonly snug: "started"; readonly name: string }
  /** The process is gone, and with it the model. `code`: its exit code. */
  | { readonly snug: "ended"; readonly code: number };

declare global {
  interface Window {
    readonly app: AppBridge;
  }
}
