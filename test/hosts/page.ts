// The page that a browser opens: imports the built package as a page does, runs the cases, and tells the server.

import type * as Snug from "../../runtime/browser";
import { runCases } from "./case";
import type { PageReport, PageTask } from "./page-server";

async function report(): Promise<PageReport> {
  const { cases, threads } = (await (await fetch("task.json")).json()) as PageTask;
  const address = "/dist/browser.js";
  const { open } = (await import(address)) as typeof Snug;
  const { simd, results } = await runCases(open, cases, threads);
  return { agent: navigator.userAgent, isolated: crossOriginIsolated, simd, results };
}

const body = await report().catch((error: Error) => ({ error: `${error.name}: ${error.message}` }));
await fetch("report", { method: "POST", body: JSON.stringify(body) });
