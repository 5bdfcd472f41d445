// Between the page and the main process: a few calls, and the port to the model's process, which is all that it brings.
// Sandboxed preload scripts are CommonJS.

import { contextBridge, ipcRenderer } from "electron";
import type { AppBridge, News } from "./bridge";

const app: AppBridge = {
  packs: () => ipcRenderer.invoke("packs"),
  open: (name) => ipcRenderer.invoke("open", name),
  choose: () => ipcRenderer.invoke("choose"),
  restart: () => ipcRenderer.invoke("restart"),
};
contextBridge.exposeInMainWorld("app", app);

// Ports do not pass the context bridge; messages to the window can bring them.
ipcRenderer.on("news", ({ ports }, news: News) => window.postMessage(news, location.origin, ports));
