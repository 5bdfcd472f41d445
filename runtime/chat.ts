// Renders a pack's chat template: a user's turns as the prompt that the model was trained on.

import { Template } from "@huggingface/jinja";
import { SnugError } from "./errors";
import type { Info } from "./info";

export interface Message {
  readonly role: string;
  readonly content: string;
}

/** The prompt for these turns, ending where the model is to answer. */
export function renderChat(info: Info, messages: readonly Message[]): string {
  if (info.chatTemplate === null)
    throw new SnugError("unsupported", `${info.name} has no chat template: run the prompt without chat`);
  try {
    return new Template(info.chatTemplate).render({
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: true,
      bos_token: info.beginText,
      eos_token: info.endText,
    });
  } catch (cause) {
    throw new SnugError("unsupported", `the chat template of ${info.name} does not work: ${(cause as Error).message}`, {
      cause,
    });
  }
}
