// The HTTP server: which route a request is for, how long it may take, and how all of it ends. What comes in is hostile
// until it was checked.

import { randomUUID } from "node:crypto";
import { once, setMaxListeners } from "node:events";
import {
  createServer,
  type IncomingMessage,
  type Server as NodeServer,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { readJson } from "./body";
import { readChat } from "./chat";
import { readCompletion } from "./completions";
import { Events } from "./events";
import { Fields } from "./fields";
import { type Ending, Generations, type ServedModel, type StopReason, usageOf } from "./generations";
import { DROPPED_TURNS_HEADER, Guard, type GuardOptions } from "./guard";
import { Metrics } from "./metrics";
import { Refusal, refusalOf, unavailable } from "./refusal";
import { type Asked, type Reply, replyStream, replyWhole } from "./reply";

const CLIENT_SECONDS = 30;
const TIMEOUT_CHECKS_MS = 1000;
const CONNECTIONS_MOST = 256;
const LAST_ANSWERS_MS = 500;
const SAID_CHARACTERS = 100;
const STATUS_LEFT = 499; // nobody is there to see it: for metrics and the access line

/** On every answer. */
const HEADERS: Readonly<Record<string, string>> = {
  "Cache-Control": "no-store",
  "Cross-Origin-Resource-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
};

/** What Node finds wrong with a request before anybody else sees it. */
const CLIENT_ERRORS: Readonly<Record<string, readonly [status: number, message: string]>> = {
  HPE_HEADER_OVERFLOW: [431, "the headers are too large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "the request did not come in time"],
};

export interface ServerOptions extends GuardOptions {
  /** What requests call the model. */
  readonly name: string;
  /** How many answers the model makes at a time. */
  readonly parallel: number;
  /** How many more may wait. */
  readonly waiting: number;
  /** Most bytes of a request's body. */
  readonly bodyBytes: number;
  /** How long a request may take. */
  readonly timeoutSeconds: number;
  /** How long a client may take to send a request, and, once its time is up, to take the rest of the answer. Default 30. */
  readonly clientSeconds?: number;
  /** Called once a request has ended. */
  readonly onEnd?: (access: Access) => void;
  /** Called with what went wrong and should not. */
  readonly onFault?: (error: unknown) => void;
}

/** How a request went. */
export interface Access {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly milliseconds: number;
  /** What its answers read and made; null: none were asked for, or they did not come to their end. */
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
}

/** A request on its way. */
interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly path: string;
  /** Ends its generations; the reason is a StopReason. */
  readonly stop: AbortController;
  endings: readonly Ending[];
}

type Handler = (exchange: Exchange) => Promise<void> | void;
type Methods = Readonly<Record<string, Handler>>;

/** OpenAI's API over one model. */
export class Server {
  readonly #model: ServedModel;
  readonly #options: ServerOptions;
  readonly #guard: Guard;
  readonly #metrics = new Metrics();
  readonly #generations: Generations;
  readonly #started = Math.floor(Date.now() / 1000);
  readonly #stops = new Set<AbortController>();
  readonly #answering = new WeakSet<Socket>();
  readonly #http: NodeServer;
  readonly #clientMs: number;
  readonly #routes: Readonly<Record<string, Methods>>;
  #ending = false;

  constructor(model: ServedModel, options: ServerOptions) {
    this.#model = model;
    this.#options = options;
    this.#guard = new Guard(options);
    this.#generations = new Generations(options, this.#metrics);
    this.#routes = {
      "/health": { GET: (exchange) => this.#health(exchange) },
      "/metrics": { GET: (exchange) => this.#showMetrics(exchange) },
      "/v1/models": { GET: ({ response }) => sendJson(response, 200, { object: "list", data: [this.#about()] }) },
      "/v1/models/{id}": { GET: (exchange) => this.#showModel(exchange) },
      "/v1/completions": { POST: (exchange) => this.#generate(exchange, readCompletion) },
      "/v1/chat/completions": { POST: (exchange) => this.#generate(exchange, readChat) },
    };
    this.#clientMs = (options.clientSeconds ?? CLIENT_SECONDS) * 1000;
    this.#http = createServer(
      {
        headersTimeout: this.#clientMs,
        requestTimeout: this.#clientMs,
        connectionsCheckingInterval: Math.min(TIMEOUT_CHECKS_MS, this.#clientMs),
        requireHostHeader: false, // the guard has better words
      },
      (request, response) => void this.#answer(request, response),
    );
    this.#http.maxConnections = CONNECTIONS_MOST;
    this.#http.on("checkExpectation", (_, response: ServerResponse) =>
      sendRefusal(response, new Refusal(417, "the header Expect may only say 100-continue")),
    );
    this.#http.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => this.#refuseBytes(error, socket));
  }

  /** Starts listening, at any free port if it is 0; the address that came of it. */
  async listen(host: string, port: number): Promise<AddressInfo> {
    this.#http.listen(port, host);
    await once(this.#http, "listening");
    return this.#http.address() as AddressInfo;
  }

  /** Takes no more requests, lets those that run go on for a while, then ends them. */
  async close(graceSeconds: number): Promise<void> {
    this.#ending = true;
    const closed = new Promise((done) => this.#http.close(done));
    this.#cutUnused();
    let cut: NodeJS.Timeout | undefined;
    const abort = setTimeout(() => {
      for (const stop of this.#stops) stop.abort("ending" satisfies StopReason);
      cut = setTimeout(() => this.#http.closeAllConnections(), LAST_ANSWERS_MS);
    }, graceSeconds * 1000);
    await closed;
    clearTimeout(abort);
    clearTimeout(cut);
  }

  /** Once no request is on its way, nobody is left to wait for. */
  #cutUnused(): void {
    if (this.#stops.size === 0) this.#http.closeAllConnections();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const started = performance.now();
    const { method = "", url = "", socket } = request;
    const [path = ""] = url.split("?");
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    const exchange: Exchange = { request, response, path, stop, endings: [] };
    const route = this.#routeOf(path);
    const { timeoutSeconds } = this.#options;
    const late = setTimeout(() => stop.abort("late" satisfies StopReason), timeoutSeconds * 1000);
    const slow = setTimeout(() => response.destroy(), timeoutSeconds * 1000 + this.#clientMs);
    this.#stops.add(stop);
    this.#answering.add(socket);
    response.on("error", () => {}); // the other end has left, which "close" tells
    let isTaken = false;
    response.prependOnceListener("finish", () => {
      isTaken = !socket.destroyed; // "finish" comes, too, where the connection broke with the rest unsent
    });
    response.once("close", () => {
      stop.abort("left" satisfies StopReason);
      clearTimeout(late);
      clearTimeout(slow);
      this.#stops.delete(stop);
      this.#answering.delete(socket);
      const status = isTaken ? response.statusCode : STATUS_LEFT;
      this.#metrics.request(route ?? "other", status);
      const usage = exchange.endings.length > 0 ? usageOf(exchange.endings) : null;
      this.#options.onEnd?.({ method, path, status, milliseconds: performance.now() - started, usage });
      if (this.#ending) this.#cutUnused();
    });
    const headers = { ...HEADERS, "X-Request-Id": `req_${randomUUID().replaceAll("-", "")}` };
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    if (this.#ending) response.setHeader("Connection", "close");
    try {
      await this.#dispatch(exchange, route);
    } catch (error) {
      this.#refuse(exchange, error);
    }
  }

  async #dispatch(exchange: Exchange, route: string | undefined): Promise<void> {
    const { request, response, path } = exchange;
    const { method = "", headers } = request;
    this.#guard.checkSite(headers);
    for (const [name, value] of Object.entries(this.#guard.headersFor(headers))) response.setHeader(name, value);
    const preflight = this.#guard.preflight(method, headers);
    if (preflight !== undefined) {
      response.writeHead(204, preflight).end();
      return;
    }
    if (route !== "/health") this.#guard.checkKey(headers);
    if (route === undefined)
      throw new Refusal(404, `there is nothing at ${said(path)}: there are ${Object.keys(this.#routes).join(", ")}`);
    const methods = this.#routes[route] as Methods;
    const handler = methods[method === "HEAD" ? "GET" : method];
    if (handler === undefined) {
      const allowed = Object.keys(methods).flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name]));
      throw new Refusal(405, `${route} takes ${allowed.join(" and ")}, not ${said(method)}`, {
        headers: { Allow: allowed.join(", ") },
      });
    }
    await handler(exchange);
  }

  /** The route that a path belongs to. */
  #routeOf(path: string): string | undefined {
    if (path.startsWith("/v1/models/")) return "/v1/models/{id}";
    return Object.hasOwn(this.#routes, path) && !path.endsWith("}") ? path : undefined;
  }

  #refuse({ request, response, stop }: Exchange, error: unknown): void {
    const isBroken = request.destroyed && !request.complete;
    if (isBroken || response.destroyed || stop.signal.reason === ("left" satisfies StopReason)) return;
    const ending = stop.signal.reason === ("ending" satisfies StopReason);
    const refusal = ending ? unavailable("the server is ending", "ending") : refusalOf(error);
    if (refusal.status === 500) this.#options.onFault?.(error);
    if (!response.headersSent) sendRefusal(response, refusal);
    else response.end(`data: ${JSON.stringify(refusal)}\n\n`); // a stream that cannot go on
  }

  /** Bytes that are no request. */
  #refuseBytes(error: NodeJS.ErrnoException, socket: Socket): void {
    const [status, message] = CLIENT_ERRORS[error.code ?? ""] ?? [400, "this is not a request of HTTP/1.1"];
    if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
    if (!this.#answering.has(socket)) this.#metrics.request("other", status);
    // Whoever got something already may be in the middle of it.
    if (socket.bytesWritten > 0) return void socket.destroy();
    const body = JSON.stringify(new Refusal(status, message));
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      "Connection: close",
      "Content-Type: application/json",
      `Content-Length: ${Buffer.byteLength(body)}`,
    ];
    socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
    socket.destroySoon();
  }

  // Routes

  #health({ response }: Exchange): void {
    if (this.#ending) sendJson(response, 503, { status: "ending" });
    else sendJson(response, 200, { status: "ok" });
  }

  #showMetrics({ response }: Exchange): void {
    const { running, waiting } = this.#generations;
    const { memoryBytes: modelBytes, engine } = this.#model;
    const { heldBlocks, sentAway } = engine;
    const text = this.#metrics.text({ running, waiting, modelBytes, heldBlocks, sentAway });
    response.setHeader("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    response.end(text);
  }

  #showModel({ path, response }: Exchange): void {
    let id: string;
    try {
      id = decodeURIComponent(path.slice("/v1/models/".length));
    } catch {
      id = path;
    }
    this.#checkName(id);
    sendJson(response, 200, this.#about());
  }

  async #generate(exchange: Exchange, read: (fields: Fields, model: ServedModel) => Asked): Promise<void> {
    const { request, response, stop } = exchange;
    if (this.#ending) throw unavailable("the server is ending", "ending");
    const fields = new Fields(await readJson(request, this.#options.bodyBytes));
    this.#checkName(fields.text("model") ?? this.#options.name);
    const asked = read(fields, this.#model);
    if (asked.droppedTurns !== undefined) response.setHeader(DROPPED_TURNS_HEADER, asked.droppedTurns);
    const { name } = this.#options;
    const reply: Reply = { asked, name, model: this.#model, generations: this.#generations, stop };
    if (asked.streaming.stream) {
      exchange.endings = await replyStream(reply, new Events(response, stop.signal));
    } else {
      const { body, endings } = await replyWhole(reply);
      exchange.endings = endings;
      sendJson(response, 200, body);
    }
  }

  /** Refuses requests for another model. */
  #checkName(id: string): void {
    const { name } = this.#options;
    if (id === name) return;
    const message = `there is no model ${said(JSON.stringify(id))} here: the one there is is "${name}"`;
    throw new Refusal(404, message, { param: "model", code: "model_not_found" });
  }

  #about(): object {
    const { name } = this.#options;
    return {
      id: name,
      object: "model",
      created: this.#started,
      owned_by: "snug",
      context_length: this.#model.plan.context,
    };
  }
}

function sendRefusal(response: ServerResponse, refusal: Refusal): void {
  for (const [name, value] of Object.entries(refusal.headers)) response.setHeader(name, value);
  sendJson(response, refusal.status, refusal);
}

function sendJson(response: ServerResponse, status: number, value: object): void {
  response.statusCode = status;
  response.setHeader("Content-Type", "application/json");
  response.end(`${JSON.stringify(value)}\n`);
}

/** What came from outside, short enough to be said back. */
function said(text: string): string {
  return text.length <= SAID_CHARACTERS ? text : `${text.slice(0, SAID_CHARACTERS)}…`;
}
