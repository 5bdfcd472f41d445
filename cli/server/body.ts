// The body of a request: JSON in UTF-8, of a size that was agreed on.

import type { IncomingMessage } from "node:http";
import { Refusal } from "./refusal";

/** A body that is too large is read on for as long as this, so that the other end hears why it is refused. */
const DISCARDED_BODIES = 8;

/** Reads a request's JSON object of at most `limit` bytes. */
export async function readJson(request: IncomingMessage, limit: number): Promise<Readonly<Record<string, unknown>>> {
  checkType(request);
  const bytes = await readBytes(request, limit);
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    const words = cause instanceof SyntaxError ? `not JSON: ${cause.message}` : "not UTF-8";
    throw new Refusal(400, `the body is ${words}`, {}, { cause });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw new Refusal(400, `the body must be a JSON object, not ${kindOf(parsed)}`);
  return parsed as Record<string, unknown>;
}

/** A type that a page of another site may not send without asking first. */
function checkType({ headers }: IncomingMessage): void {
  const { "content-type": type = "", "content-encoding": encoding = "identity" } = headers;
  if (!/^application\/json\s*(?:;\s*charset\s*=\s*"?utf-8"?\s*)?$/i.test(type))
    throw new Refusal(415, "the header Content-Type must be application/json");
  if (encoding.toLowerCase() !== "identity")
    throw new Refusal(415, "the body must not be compressed: leave the header Content-Encoding out");
}

async function readBytes(request: IncomingMessage, limit: number): Promise<Uint8Array> {
  const most = limit * DISCARDED_BODIES;
  if (Number(request.headers["content-length"] ?? 0) > most) throw tooLarge(limit);
  const chunks: Buffer[] = [];
  let size = 0;
  // Whoever sends too much is answered, and not hung up on.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > most) throw tooLarge(limit);
    if (size <= limit) chunks.push(chunk);
    else chunks.length = 0;
  }
  if (size > limit) throw tooLarge(limit);
  return Buffer.concat(chunks);
}

function tooLarge(limit: number): Refusal {
  return new Refusal(413, `the body is larger than the ${limit} bytes that this server takes: send less`, {
    headers: { Connection: "close" },
  });
}

/** What a JSON value is, in words. */
export function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "object":
      return "an object";
    case "string":
      return "a text";
    default:
      return String(value); // numbers, true and false
  }
}
