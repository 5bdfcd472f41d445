// The part of a header that only hosts read: UTF-8 JSON. The packer writes what this file describes.

import { SnugError } from "./errors";

export interface Info {
  readonly name: string;
  readonly licence: string;
  /** Where the weights came from and what made the pack. */
  readonly provenance: string;
  /** Jinja text, or null where the model has none. */
  readonly chatTemplate: string | null;
  /** Texts that chat templates use. */
  readonly beginText: string;
  readonly endText: string;
}

/** Checks that a pack's JSON is what it should be; fields that are not there are empty. */
export function parseInfo(json: string, name: string): Info {
  let raw: unknown;
  try {
    raw = JSON.parse(json);
  } catch (cause) {
    throw new SnugError("pack", `${name} is damaged: its description is not JSON`, { cause });
  }
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new SnugError("pack", `${name} is damaged: its description is not a JSON object`);
  const fields = raw as Record<string, unknown>;
  const text = (key: string) => {
    const value = fields[key] ?? "";
    if (typeof value !== "string") throw new SnugError("pack", `${name} is damaged: its "${key}" is not a text`);
    return value;
  };
  return {
    name: text("name"),
    licence: text("licence"),
    provenance: text("provenance"),
    chatTemplate: text("chatTemplate") || null,
    beginText: text("beginText"),
    endText: text("endText"),
  };
}
