// The worker in a browser: runs the suite, and tells the server what it logs and finds.

import { runGpuSuite } from "../../gpu-suite";
import type { Answer } from "./server";

let sent: Promise<unknown> = Promise.resolve();

/** Sends in order. */
function send(path: string, body: string): void {
  sent = sent.then(() => fetch(path, { method: "POST", body }));
}

async function fetchBytes(name: string): Promise<Uint8Array> {
  const response = await fetch(`/fixtures/${name}`);
  if (!response.ok) throw new Error(`fixture ${name}: HTTP status ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function answer(): Promise<Answer> {
  try {
    if (!navigator.gpu) return { error: "the browser has no navigator.gpu" };
    const query = new URLSearchParams(location.search);
    const [filter, thorough] = [query.get("filter") ?? "", query.has("thorough")];
    const log = (line: string) => send("/log", line);
    const report = await runGpuSuite(navigator.gpu, { executes: true, thorough, filter, log, fetchBytes });
    const [browser] = /(?:Chrome|Firefox)\/\d+/.exec(navigator.userAgent) ?? [];
    return { report: { ...report, adapter: [browser, report.adapter].filter(Boolean).join(": ") } };
  } catch (error) {
    const { message, stack = "" } = error as Error;
    return { error: stack.includes(message) ? stack : `${error}\n${stack}` };
  }
}

send("/answer", JSON.stringify(await answer()));
