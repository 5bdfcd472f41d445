// Each page has a process for its model: what goes wrong there hurts no window, and what it took is free when it ends.

import { basename, dirname, join } from "node:path";
import { MessageChannelMain, type UtilityProcess, utilityProcess, type WebContents } from "electron";
import type { News } from "./bridge";

interface ModelProcess {
  readonly pack: string;
  readonly process: UtilityProcess;
}

const processes = new WeakMap<WebContents, ModelProcess>();

/** Starts a process with this pack for a page, instead of the one that it has, and brings the two together. */
export function startModel(page: WebContents, pack: string): void {
  if (page.isDestroyed()) return;
  endModel(page);
  // It starts where its pack is, and knows it by its name: no message to the page says where that is.
  const options = { serviceName: "snug", cwd: dirname(pack) };
  const name = basename(pack);
  const child = utilityProcess.fork(join(import.meta.dirname, "model.js"), [], options);
  processes.set(page, { pack, process: child });
  child.on("error", () => {}); // V8 gave up; the exit that follows is what counts
  child.once("exit", (code) => {
    // The last one that this page had, and not ended for another.
    if (processes.get(page)?.process === child && !page.isDestroyed())
      page.postMessage("news", { snug: "ended", code } satisfies News);
  });
  const { port1, port2 } = new MessageChannelMain();
  child.postMessage({ pack: name }, [port1]);
  page.postMessage("news", { snug: "started", name } satisfies News, [port2]);
}

/** Starts a process with the pack that the page had last. */
export function restartModel(page: WebContents): void {
  const last = processes.get(page);
  if (last === undefined) throw new Error("this page has opened no pack yet");
  startModel(page, last.pack);
}

export function endModel(page: WebContents): void {
  processes.get(page)?.process.kill();
}
