// Who said what: an optional system turn, then questions and answers in turn. The last question may be without an answer.

import type { Message } from "../../runtime/index";

export class Conversation {
  system: string | undefined;
  #turns: Message[] = [];

  constructor(system?: string) {
    this.system = system;
  }

  /** All of it, as a chat template takes it. */
  get messages(): readonly Message[] {
    return this.system === undefined ? this.#turns : [{ role: "system", content: this.system }, ...this.#turns];
  }

  get turns(): readonly Message[] {
    return this.#turns;
  }

  /** Adds what the person says. It takes the place of a question that got no answer: turns alternate. */
  ask(content: string): void {
    if (this.#turns.at(-1)?.role === "user") this.#turns.pop();
    this.#turns.push({ role: "user", content });
  }

  /** Adds the answer to the last question; an empty one is none. */
  answer(content: string): void {
    if (content !== "") this.#turns.push({ role: "assistant", content });
  }

  /** Takes the last answer back, if there is one. Is there a question then? */
  reopen(): boolean {
    if (this.#turns.at(-1)?.role === "assistant") this.#turns.pop();
    return this.#turns.length > 0;
  }

  /** Drops so many of the oldest turns. */
  dropOldest(count: number): void {
    this.#turns.splice(0, count);
  }

  clear(): void {
    this.#turns = [];
  }

  /** Takes the place of all that was said. */
  restore(messages: readonly Message[]): void {
    const [first] = messages;
    this.system = first?.role === "system" ? first.content : undefined;
    this.#turns = messages.filter(({ role }) => role !== "system");
  }
}
