// An HTTP server that serves bytes as servers do, and as they should not: with and without ranges, cut off, changed,
// refusing. It counts what it sent.

import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Behaviour {
  /** Does it know ranges? Default true. */
  ranges?: boolean;
  /** Names of versions; null: the header is not sent. Default null. */
  etag?: string | null;
  lastModified?: string | null;
  /** May the reader see how long the whole is? Default true. */
  tellsSize?: boolean;
  /** Most bytes of one answer. Default: no limit. */
  rangeMost?: number;
  /** The connection breaks after so many bytes of an answer; for this many answers. */
  breakAfter?: number;
  breaks?: number;
  /** Answers with this status and nothing else; for this many answers. */
  status?: number;
  failures?: number;
  /** Milliseconds between pieces of 16 KB. Default 0. */
  delay?: number;
}

export interface Sent {
  readonly range: string | undefined;
  readonly status: number;
  bytes: number;
}

export class PackServer {
  /** What is served; may be changed between requests. */
  bytes: Uint8Array;
  behaviour: Behaviour = {};
  readonly sent: Sent[] = [];
  readonly #server: Server;

  /** `site`: answers what is no pack. */
  constructor(bytes: Uint8Array, site?: RequestListener) {
    this.bytes = bytes;
    this.#server = createServer((request, response) => {
      if (site === undefined || request.url?.endsWith(".snug")) void this.#answer(request, response);
      else site(request, response);
    });
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/test.snug`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  get sentBytes(): number {
    return this.sent.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { behaviour, bytes } = this;
    const wanted = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const partial = wanted !== null && behaviour.ranges !== false;
    const start = partial ? Number(wanted[1]) : 0;
    const end = Math.min(
      bytes.length,
      partial ? Number(wanted[2]) + 1 : bytes.length,
      start + (behaviour.rangeMost ?? Infinity),
    );
    let status = partial ? (start >= bytes.length ? 416 : 206) : 200;
    if (behaviour.status !== undefined && (behaviour.failures ?? 1) > 0) {
      behaviour.failures = (behaviour.failures ?? 1) - 1;
      status = behaviour.status;
    }
    const sent: Sent = { range: request.headers.range, status, bytes: 0 };
    this.sent.push(sent);
    response.statusCode = status;
    if (behaviour.etag) response.setHeader("ETag", behaviour.etag);
    if (behaviour.lastModified) response.setHeader("Last-Modified", behaviour.lastModified);
    if (status !== 200 && status !== 206) return void response.end();
    if (partial && behaviour.tellsSize !== false)
      response.setHeader("Content-Range", `bytes ${start}-${end - 1}/${bytes.length}`);
    response.setHeader("Content-Length", end - start);
    let stop = end;
    if (behaviour.breakAfter !== undefined && (behaviour.breaks ?? 1) > 0) {
      behaviour.breaks = (behaviour.breaks ?? 1) - 1;
      stop = Math.min(end, start + behaviour.breakAfter);
    }
    for (let at = start; at < stop && !response.destroyed; at += 16384) {
      const piece = bytes.subarray(at, Math.min(at + 16384, stop));
      sent.bytes += piece.length;
      await new Promise<void>((resolve) => {
        response.write(piece, () => resolve());
        response.once("close", resolve);
      });
      response.removeAllListeners("close");
      if (behaviour.delay !== undefined) await new Promise((resolve) => setTimeout(resolve, behaviour.delay));
    }
    if (stop < end) response.destroy();
    else response.end();
  }
}
