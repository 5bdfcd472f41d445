// Where a chat's turns come from: a person at a terminal, with a prompt and a history, or lines that are piped in.

import { createInterface, type Interface } from "node:readline/promises";
import { Writable } from "node:stream";
import { lookOf, say } from "../output";

const HISTORY_LINES = 1000;
const PROMPT = "> ";

export class Lines {
  /** Does a person type them? */
  readonly isInteractive = process.stdin.isTTY === true;
  /** Called when a person presses Ctrl-C while nobody waits for a line. */
  onInterrupt: () => void = () => {};
  readonly #echo = new Echo();
  readonly #interface: Interface;
  readonly #queue: string[] = [];
  readonly #prompt = lookOf(process.stderr).bold(PROMPT);
  #closed = false;
  #wake: () => void = () => {};

  constructor() {
    // While an answer comes the keyboard stays ours: Ctrl-C is a key then, and what is typed ahead waits.
    this.#interface = createInterface({
      input: process.stdin,
      ...(this.isInteractive && { output: this.#echo, terminal: true, historySize: HISTORY_LINES }),
      removeHistoryDuplicates: true,
      crlfDelay: Number.POSITIVE_INFINITY,
      prompt: this.#prompt,
    });
    this.#interface.on("line", (line) => {
      this.#queue.push(line);
      if (!this.isInteractive) this.#interface.pause();
      this.#wake();
    });
    this.#interface.on("close", () => {
      this.#closed = true;
      this.#wake();
    });
    this.#interface.on("SIGINT", () => {
      if (this.#echo.muted) this.onInterrupt();
      else this.#interface.close();
    });
  }

  /** The next line; undefined: there are no more. */
  async next(signal: AbortSignal): Promise<string | undefined> {
    if (this.#queue.length === 0 && !this.#closed) await this.#wait(signal);
    else if (this.isInteractive && this.#queue.length > 0) say(`${this.#prompt}${this.#queue[0]}`); // it was typed ahead
    return signal.aborted ? undefined : this.#queue.shift();
  }

  /** Nothing is read from stdin any more, and the process may end. */
  close(): void {
    this.#interface.close();
    this.#echo.destroy();
    process.stdin.destroy();
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const line = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    signal.addEventListener("abort", this.#wake, { once: true });
    if (this.isInteractive) this.#show();
    else this.#interface.resume();
    await line;
    signal.removeEventListener("abort", this.#wake);
    if (this.isInteractive && this.#queue.length === 0) say(); // the prompt's line ends, though nobody ended it
    this.#echo.muted = true;
  }

  /** Shows the prompt, with what was typed ahead: readline believes that line to be elsewhere, so it is typed anew. */
  #show(): void {
    const ahead = this.#interface.line;
    this.#interface.write(null, { ctrl: true, name: "e" });
    this.#interface.write(null, { ctrl: true, name: "u" });
    this.#echo.muted = false;
    this.#interface.prompt();
    if (ahead !== "") this.#interface.write(ahead);
  }
}

/** What readline draws, on stderr: answers alone are on stdout. While an answer comes nothing is drawn. */
class Echo extends Writable {
  muted = true;
  readonly #resize = () => this.emit("resize");

  constructor() {
    super();
    process.stderr.on("resize", this.#resize);
  }

  get columns(): number {
    return process.stderr.columns ?? 80;
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    if (!this.muted) process.stderr.write(chunk);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    process.stderr.off("resize", this.#resize);
    done(error);
  }
}
