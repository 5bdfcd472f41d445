// A client of snug serve that may send what no well-behaved one would.

import assert from "node:assert/strict";
import { type ClientRequest, type IncomingHttpHeaders, request } from "node:http";
import { connect } from "node:net";

export interface Question {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** An object is sent as JSON; anything else as it is, with no type. */
  readonly body?: object | string | Uint8Array | undefined;
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** Asks a server on this machine. A body makes it a POST. */
export function ask(port: number, { method, path, headers = {}, body }: Question): Promise<Reply> {
  const isJson = typeof body === "object" && !(body instanceof Uint8Array);
  const bytes = Buffer.from(isJson ? JSON.stringify(body) : (body ?? ""));
  const described = body === undefined ? {} : { "Content-Length": String(bytes.length) };
  return new Promise((done, failed) => {
    const asked = request(
      {
        ...{ host: "127.0.0.1", port, path, agent: false },
        method: method ?? (body === undefined ? "GET" : "POST"),
        headers: { ...(isJson && { "Content-Type": "application/json" }), ...described, ...headers },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", failed);
        response.on("end", () =>
          done({
            status: response.statusCode as number,
            headers: response.headers,
            text: String(Buffer.concat(chunks)),
          }),
        );
      },
    );
    asked.on("error", failed);
    asked.end(bytes);
  });
}

/** Begins a POST of JSON that may be left before its answer has come. */
export function begin(port: number, path: string): ClientRequest {
  const headers = { "Content-Type": "application/json" };
  const asked = request({ host: "127.0.0.1", port, path, method: "POST", headers, agent: false });
  asked.on("error", () => {}); // it is left, or hung up on
  return asked;
}

/** What a POST comes to; fails where it is refused. */
// biome-ignore lint/suspicious/noExplicitAny: JSON, whose fields the tests then check
export async function post(port: number, path: string, body: object, headers = {}): Promise<any> {
  const { status, text } = await ask(port, { path, body, headers });
  assert.equal(status, 200, text);
  return JSON.parse(text);
}

/** The objects of a stream that has come to its end. */
// biome-ignore lint/suspicious/noExplicitAny: as above
export function eventsOf(text: string): any[] {
  const events = text.split("\n\n");
  assert.equal(events.pop(), "");
  assert.equal(events.pop(), "data: [DONE]", text.slice(-300));
  return events.map((event) => {
    assert.match(event, /^data: \{.*\}$/);
    return JSON.parse(event.slice("data: ".length));
  });
}

/** Checks that an answer is an error in the API's shape, and returns it. */
export function errorOf({ status, headers, text }: Reply): {
  message: string;
  type: string;
  param: string | null;
  code: string | null;
} {
  assert.equal(headers["content-type"], "application/json", text);
  const body = JSON.parse(text);
  assert.deepEqual(Object.keys(body), ["error"]);
  assert.deepEqual(Object.keys(body.error), ["message", "type", "param", "code"]);
  assert.ok(typeof body.error.message === "string" && body.error.message.length > 5, text);
  assert.ok(typeof body.error.type === "string" && body.error.type !== "", text);
  assert.doesNotMatch(body.error.message, /\n\s+at |undefined|\[object/, text);
  assert.ok(status >= 400);
  return body.error;
}

/** Sends bytes as they are; what comes back until the other end, or a while of silence, ends it. */
export function sendBytes(port: number, bytes: string | Uint8Array, silenceMs = 200): Promise<string> {
  return new Promise((done) => {
    const chunks: Buffer[] = [];
    const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
    socket.setTimeout(silenceMs, () => socket.destroy());
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", () => {}); // the server may hang up in the middle
    socket.on("close", () => done(String(Buffer.concat(chunks))));
  });
}

/** One value of /metrics. */
export async function metric(port: number, name: string, headers = {}): Promise<number> {
  const { text } = await ask(port, { path: "/metrics", headers });
  const line = text.split("\n").find((one) => one.startsWith(`${name} `));
  assert.ok(line, `${name} is not among\n${text}`);
  return Number(line.slice(name.length));
}

/** Waits until something is so. */
export async function until(isSo: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (let tries = 0; !(await isSo()); tries++) {
    assert.ok(tries < 500, `${what}: never`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
