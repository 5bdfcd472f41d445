// snug.wasm as a command: the arguments that a case comes to, and what its output says.

import type { Case, Result } from "./case";

/** Everything behind the command's name. pack: where the host shows it. */
export function argumentsOf({ plan, prompt, maxTokens }: Case, pack: string): string[] {
  const options = {
    ...{ pack, ...plan, tokens: prompt.join(), "max-tokens": maxTokens, temperature: 0, "repeat-penalty": 1 },
  };
  return [...Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]), "--ids"];
}

export function resultOf({ name }: Case, stdout: string): Result {
  const text = stdout.trim();
  if (/^\d+(,\d+)*$/.test(text)) return { name, tokens: text.split(",").map(Number) };
  return { name, error: `printed "${text.slice(0, 200)}" instead of ids` };
}
