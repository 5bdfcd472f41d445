// What the page tells a person: errors that stay until they are dismissed or overcome, and news for screen readers.

import { find, show, write } from "./elements";
import { errorWords } from "./words";

/** Shows an error as sentences. */
export function complain(error: unknown): void {
  show(find("notice"), true);
  write(find("notice-text"), errorWords(error, document.baseURI));
  if ((error as { code?: unknown }).code === undefined) console.error(error);
}

/** Shows a sentence that is no error. */
export function remark(text: string): void {
  show(find("notice"), true);
  write(find("notice-text"), text);
}

export function clearNotice(): void {
  const notice = find("notice");
  const hadFocus = notice.contains(document.activeElement);
  show(notice, false);
  if (hadFocus) document.querySelector<HTMLElement>("#prompt:enabled, h2[tabindex]")?.focus();
  write(find("notice-text"), "");
}

/** Tells a screen reader, politely. */
export function announce(text: string): void {
  const status = find("status");
  // The same words again are news too.
  write(status, status.textContent === text ? `${text}\u00a0` : text);
}
