// The conversation on the page: asking, the answer as it streams, stopping it, and how fast it came.

import type { GenerateOptions, RemoteModel } from "../../runtime/browser";
import { Conversation, type Mode } from "./conversation";
import { create, find, show, write } from "./elements";
import { announce, clearNotice, complain } from "./notice";
import { Spoken } from "./spoken";
import { speed } from "./words";

const SPEED_MS = 250;
const LIMIT_REACHED = "Ended at the most tokens that Options allows.";
const ROOM_FULL = "The conversation is as long as its memory allows: start a new chat, or load for a longer one.";

export class Chat {
  readonly #conversation = new Conversation();
  readonly #turns = find("turns");
  readonly #prompt = find<HTMLTextAreaElement>("prompt");
  readonly #send = find<HTMLButtonElement>("send");
  readonly #new = find<HTMLButtonElement>("new-chat");
  #model: RemoteModel | null = null;
  #answer: { readonly stop: AbortController; readonly over: Promise<void> } | null = null;

  constructor() {
    find<HTMLFormElement>("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#answer !== null) this.#answer.stop.abort();
      else this.#ask();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (this.#answer === null) this.#ask();
    });
    this.#prompt.addEventListener("input", () => this.#update());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#answer?.stop.abort();
    });
    this.#new.addEventListener("click", () => void this.#startAnew());
    find("modes").addEventListener("change", () => void this.#startAnew());
  }

  /** The model that answers from now on; null: none does. The conversation stays. */
  use(model: RemoteModel | null): void {
    this.#model = model;
    if (model !== null) {
      const chats = model.info.chatTemplate !== null;
      show(find("modes"), chats);
      if (!chats) this.#setMode("continue");
      else this.#setMode(document.querySelector<HTMLInputElement>("#modes :checked")?.value as Mode);
    } else {
      this.#prompt.placeholder = "No model is loaded";
    }
    this.#update();
  }

  /** Stops the answer and waits until it has stopped. */
  async stop(): Promise<void> {
    this.#answer?.stop.abort();
    await this.#answer?.over;
  }

  /** Forgets the conversation: another pack has not said any of it. */
  async clear(): Promise<void> {
    await this.stop();
    this.#conversation.clear();
    this.#turns.replaceChildren();
    write(find("speed"), "");
    this.#update();
  }

  focus(): void {
    this.#prompt.focus();
  }

  async #startAnew(): Promise<void> {
    await this.clear();
    if (this.#model !== null) this.use(this.#model);
    announce("A new chat.");
    if (document.activeElement === document.body || document.activeElement === this.#new) this.focus();
  }

  #setMode(mode: Mode): void {
    this.#conversation.mode = mode;
    this.#turns.dataset.mode = mode;
    const [title, label, hint] =
      mode === "chat" ? ["Chat", "Your message", "Say something"] : ["Text", "Text to continue", "Once upon a time"];
    write(find("talk-title"), title as string);
    write(find("prompt-label"), label as string);
    this.#prompt.placeholder = hint as string;
  }

  #update(): void {
    const isWriting = this.#answer !== null;
    const canAsk = this.#model !== null && this.#conversation.canAsk(this.#prompt.value);
    write(this.#send, isWriting ? "Stop" : this.#prompt.value.trim() === "" && canAsk ? "Go on" : "Send");
    this.#send.dataset.action = isWriting ? "stop" : "send";
    this.#send.disabled = !isWriting && !canAsk;
    this.#new.disabled = this.#conversation.turns.length === 0;
    this.#turns.setAttribute("aria-busy", String(isWriting));
  }

  #ask(): void {
    const model = this.#model;
    const text = this.#prompt.value;
    if (model === null || !this.#conversation.canAsk(text)) return;
    const options = this.#options();
    if (options === null) return;
    clearNotice();
    const before = this.#conversation.turns.length;
    this.#conversation.ask(text);
    for (const turn of this.#conversation.turns.slice(before)) this.#addTurn(turn.role, turn.content, model.info.name);
    this.#prompt.value = "";
    const stop = new AbortController();
    this.#answer = { stop, over: this.#stream(model, { ...options, signal: stop.signal }) };
    this.#update();
  }

  async #stream(model: RemoteModel, options: GenerateOptions): Promise<void> {
    const conversation = this.#conversation;
    const target = this.#turns.lastElementChild?.lastElementChild as HTMLElement;
    const spoken = new Spoken();
    const clock = new Clock();
    let note = "";
    let unshown = "";
    let frame = 0;
    const flush = () => {
      frame = 0;
      const isAtEnd = this.#isAtEnd();
      target.append(unshown);
      unshown = "";
      if (isAtEnd) this.#scrollToEnd();
    };
    this.#scrollToEnd();
    announce("The model is writing.");
    try {
      const answer =
        conversation.mode === "chat"
          ? model.chat(conversation.messages, options)
          : model.generate(conversation.text, options);
      for await (const piece of answer) {
        conversation.append(piece);
        unshown += piece;
        frame ||= requestAnimationFrame(flush);
        const words = spoken.push(piece, performance.now());
        if (words !== null) announce(words);
        clock.tick();
      }
      const { decode, finishReason } = await answer.result();
      write(find("speed"), speed(decode.tokens, decode.tokensPerSecond));
      if (finishReason === "length" && conversation.mode === "chat")
        note = decode.tokens === options.maxTokens ? LIMIT_REACHED : ROOM_FULL;
      announce(`${spoken.end()} ${note || "End of the answer."}`);
    } catch (error) {
      if (options.signal?.aborted) announce("Stopped.");
      else this.#fail(error);
    }
    cancelAnimationFrame(frame);
    if (target.isConnected) flush();
    const isAtEnd = this.#isAtEnd();
    conversation.finish();
    if (target.textContent === "") target.closest("article")?.remove();
    else if (note !== "") target.after(create("p", { className: "note quiet" }, note));
    if (isAtEnd) this.#scrollToEnd();
    this.#answer = null;
    this.#update();
  }

  /** An answer that failed before it began gives the question back. */
  #fail(error: unknown): void {
    complain(error);
    if (this.#conversation.turns.at(-1)?.content !== "") return;
    const text = this.#conversation.withdraw();
    if (this.#prompt.value === "") this.#prompt.value = text;
    while (this.#turns.children.length > this.#conversation.turns.length) this.#turns.lastElementChild?.remove();
  }

  #addTurn(role: "user" | "assistant", content: string, model: string): void {
    const name = create("h3", { className: "unseen" }, role === "user" ? "You" : model);
    const text = create("p", {}, content);
    text.dir = "auto";
    const turn = create("article", { className: role }, name, text);
    this.#turns.append(turn);
  }

  /** The options below the composer; null where one cannot be: the browser says which. */
  #options(): GenerateOptions | null {
    const details = find<HTMLDetailsElement>("sampling");
    const inputs = [...details.querySelectorAll("input")];
    if (inputs.some((input) => !input.validity.valid)) {
      details.open = true;
      inputs.find((input) => !input.validity.valid)?.reportValidity();
      return null;
    }
    const number = (id: string) => find<HTMLInputElement>(id).valueAsNumber;
    const given = { temperature: number("temperature"), maxTokens: number("max-tokens"), seed: number("seed") };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => !Number.isNaN(value)));
  }

  #isAtEnd(): boolean {
    const { scrollHeight, scrollTop, clientHeight } = this.#turns;
    return scrollHeight - scrollTop - clientHeight < 48;
  }

  #scrollToEnd(): void {
    this.#turns.scrollTop = this.#turns.scrollHeight;
  }
}

/** Shows how fast pieces come, while they come. */
class Clock {
  readonly #speed = find("speed");
  #started = 0;
  #pieces = 0;
  #shown = 0;

  tick(): void {
    const now = performance.now();
    if (this.#pieces++ === 0) this.#started = this.#shown = now;
    if (now - this.#shown < SPEED_MS) return;
    this.#shown = now;
    write(this.#speed, speed(this.#pieces, (this.#pieces / (now - this.#started)) * 1000));
  }
}
