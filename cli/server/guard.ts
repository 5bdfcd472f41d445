// Who may ask. Pages of other sites may not, whatever name they reach this machine by; where there is a key, nobody may
// without it.

import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { Refusal } from "./refusal";

const LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"];
const PREFLIGHT_SECONDS = "600";
/** How many turns of a chat were left out for want of room, where a request asked for that. */
export const DROPPED_TURNS_HEADER = "X-Snug-Dropped-Turns";

export interface GuardOptions {
  /** Names and addresses that requests may be sent to, without a port; null: any, which only a key makes safe. */
  readonly hosts: readonly string[] | null;
  /** Origins of pages that may ask; all others may not. */
  readonly origins: readonly string[];
  readonly key: string | undefined;
}

/** The Host headers that a server on loopback is called by; another name would be one that leads here by a trick. */
export function loopbackHosts(host: string): string[] {
  const written = host.includes(":") ? `[${host}]` : host;
  return [...LOOPBACK_NAMES, written.toLowerCase()];
}

export class Guard {
  readonly #options: GuardOptions;
  readonly #key: Buffer | undefined;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#key = options.key === undefined ? undefined : digest(options.key);
  }

  /** Refuses what a page of another site may have sent. */
  checkSite(headers: IncomingHttpHeaders): void {
    const { hosts, origins } = this.#options;
    const { host = "", origin, "sec-fetch-site": site } = headers;
    if (hosts !== null && !hosts.includes(host.replace(/:\d*$/, "").toLowerCase()))
      throw refused("the header Host is not the address of this server: ask for localhost or 127.0.0.1");
    if (origin !== undefined && !origins.includes(origin))
      throw refused("pages of this origin may not use this server: snug serve --allow-origin ORIGIN lets them");
    if (origin === undefined && site !== undefined && site !== "same-origin" && site !== "none")
      throw refused("requests of other sites' pages are refused");
  }

  /** Refuses whoever does not know the key. */
  checkKey({ authorization = "" }: IncomingHttpHeaders): void {
    if (this.#key === undefined) return;
    const given = /^Bearer +(\S+) *$/i.exec(authorization)?.[1];
    if (given !== undefined && timingSafeEqual(digest(given), this.#key)) return;
    const words = given === undefined ? "an API key is needed" : "the API key is wrong";
    throw new Refusal(401, `${words}: send the header Authorization: Bearer KEY`, {
      code: "invalid_api_key",
      headers: { "WWW-Authenticate": "Bearer" },
    });
  }

  /** The headers of every answer; what lets a page read it is there only for origins that were named. */
  headersFor({ origin }: IncomingHttpHeaders): Record<string, string> {
    if (this.#options.origins.length === 0) return {};
    if (origin === undefined || !this.#options.origins.includes(origin)) return { Vary: "Origin" };
    return {
      Vary: "Origin",
      "Access-Control-Allow-Origin": origin,
      "Access-Control-Expose-Headers": `Retry-After, X-Request-Id, ${DROPPED_TURNS_HEADER}`,
    };
  }

  /** The answer to a browser that asks whether a page may ask; undefined: it is no such question. */
  preflight(method: string, headers: IncomingHttpHeaders): Record<string, string> | undefined {
    const { origin, "access-control-request-method": wanted } = headers;
    if (method !== "OPTIONS" || origin === undefined || wanted === undefined) return undefined;
    const asked = headers["access-control-request-headers"] ?? "";
    return {
      "Access-Control-Allow-Methods": "GET, POST",
      "Access-Control-Max-Age": PREFLIGHT_SECONDS,
      ...(/^[\w\-, ]+$/.test(asked) && { "Access-Control-Allow-Headers": asked }),
      ...(headers["access-control-request-private-network"] && { "Access-Control-Allow-Private-Network": "true" }),
    };
  }
}

function refused(message: string): Refusal {
  return new Refusal(403, message, { code: "cross_site" });
}

/** Of one length for keys of any length. */
function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}
