// The model's process, a utility process: it has one pack and one page, and ends with that page.

import type { MessageEvent } from "electron";
import { servePack } from "./serve";

process.parentPort.once("message", ({ data, ports: [port] }: MessageEvent) => {
  if (port === undefined) throw new Error("the first message brings the page's port");
  // The page was closed, or loaded anew.
  port.once("close", () => process.exit());
  servePack(port, (data as { pack: string }).pack);
});
