// A conversation with a model: who said what, and what the model is asked next. No DOM.

import type { Message } from "../../runtime/browser";

/** chat: turns through the pack's chat template; continue: one text that both write on. */
export type Mode = "chat" | "continue";

export interface Turn {
  readonly role: "user" | "assistant";
  readonly content: string;
}

export class Conversation {
  mode: Mode = "chat";
  #turns: Turn[] = [];
  #isWriting = false;

  get turns(): readonly Turn[] {
    return this.#turns;
  }

  /** Is the last turn the model's, and still growing? */
  get isWriting(): boolean {
    return this.#isWriting;
  }

  /** Can the model be asked with this text? Without a text only to go on with one that is there. */
  canAsk(text: string): boolean {
    if (this.#isWriting) return false;
    return text.trim() !== "" || (this.mode === "continue" && this.#turns.length > 0);
  }

  /** Adds what the person says and an empty turn for the model. */
  ask(text: string): void {
    if (!this.canAsk(text)) throw new Error("there is nothing to ask now");
    if (text.trim() !== "")
      this.#turns.push({ role: "user", content: this.mode === "chat" ? text.trim() : this.#joined(text) });
    this.#turns.push({ role: "assistant", content: "" });
    this.#isWriting = true;
  }

  /** What the model is to answer, in chat mode. */
  get messages(): readonly Message[] {
    return this.#said().map(({ role, content }) => ({ role, content }));
  }

  /** What the model is to continue, in continue mode. */
  get text(): string {
    return this.#said()
      .map(({ content }) => content)
      .join("");
  }

  /** More of the model's turn. */
  append(piece: string): void {
    const last = this.#turns.at(-1);
    if (this.#isWriting && last) this.#turns[this.#turns.length - 1] = { ...last, content: last.content + piece };
  }

  /** The model's turn is over: at its end, or as far as it came. A turn without a text is not kept. */
  finish(): void {
    if (this.#isWriting && this.#turns.at(-1)?.content === "") this.#turns.pop();
    this.#isWriting = false;
  }

  /** Takes the last question back, with what was answered, and returns its text. */
  withdraw(): string {
    this.finish();
    while (this.#turns.at(-1)?.role === "assistant") this.#turns.pop();
    return this.#turns.pop()?.content.trim() ?? "";
  }

  clear(): void {
    this.#turns = [];
    this.#isWriting = false;
  }

  #said(): readonly Turn[] {
    return this.#isWriting ? this.#turns.slice(0, -1) : this.#turns;
  }

  /** New text after old: words that would touch get a space between them. */
  #joined(text: string): string {
    const before = this.#turns.at(-1)?.content ?? "";
    const touches = before !== "" && /\S$/.test(before) && /^\S/.test(text);
    return `${touches ? " " : ""}${text.trimEnd()}`;
  }
}
