// Stands in for the module "electron" of a main process, as far as cli/electron uses it: windows are pages that a test
// opens in a browser, utility processes are Node processes behind electron-parent-port.ts. What Electron itself does
// (its sandbox, its scheme, its menus) is not here.

import { type ChildProcess, fork } from "node:child_process";
import { EventEmitter } from "node:events";
import { fileURLToPath } from "node:url";
import type { ToChild } from "../electron-parent-port";

/** Whoever a port was sent to. */
export interface PortOwner {
  hear(message: unknown): void;
  closed(): void;
}

export class StandInPort {
  peer = this;
  #owner: PortOwner | undefined;
  readonly #early: unknown[] = [];

  own(owner: PortOwner): void {
    this.#owner = owner;
    for (const message of this.#early.splice(0)) owner.hear(message);
  }

  /** What the owner says, to the other end. */
  post(message: unknown): void {
    const { peer } = this;
    if (peer.#owner === undefined) peer.#early.push(message);
    else peer.#owner.hear(message);
  }

  close(): void {
    this.peer.#owner?.closed();
  }
}

export class MessageChannelMain {
  readonly port1 = new StandInPort();
  readonly port2 = new StandInPort();

  constructor() {
    this.port1.peer = this.port2;
    this.port2.peer = this.port1;
  }
}

export class UtilityProcess extends EventEmitter {
  readonly child: ChildProcess;

  constructor(file: string, cwd: string) {
    super();
    const parentPort = fileURLToPath(new URL("parent-port.js", import.meta.url));
    this.child = fork(file, { execArgv: ["--import", parentPort], serialization: "advanced", cwd });
    this.child.once("exit", (code) => this.emit("exit", code ?? 9));
    standIn.processes.push(this);
  }

  postMessage(first: unknown, [port]: [StandInPort]): void {
    const tell = (told: ToChild) => this.child.connected && this.child.send(told, () => {});
    port.own({ hear: (message) => tell({ message }), closed: () => tell({ closed: true }) });
    this.child.on("message", (message) => port.post(message));
    tell({ first });
  }

  kill(): boolean {
    return this.child.kill("SIGKILL");
  }
}

export class WebContents extends EventEmitter {
  /** The page that shows it; a test sets it. */
  show: (channel: string, message: unknown, port?: StandInPort) => void = () => {};
  #isDestroyed = false;
  windowOpenHandler: (() => { action: string }) | undefined;

  isDestroyed(): boolean {
    return this.#isDestroyed;
  }

  setWindowOpenHandler(handler: () => { action: string }): void {
    this.windowOpenHandler = handler;
  }

  postMessage(channel: string, message: unknown, ports: StandInPort[] = []): void {
    if (this.#isDestroyed) throw new TypeError("Object has been destroyed");
    this.show(channel, message, ports[0]);
  }

  destroy(): void {
    this.#isDestroyed = true;
    this.emit("destroyed");
  }
}

export interface WindowOptions {
  readonly webPreferences: Readonly<Record<string, unknown>> & { readonly preload: string };
}

export class BrowserWindow {
  static readonly all = new Set<BrowserWindow>();
  readonly webContents = new WebContents();
  readonly options: WindowOptions;

  constructor(options: WindowOptions) {
    this.options = options;
    BrowserWindow.all.add(this);
  }

  static getAllWindows(): BrowserWindow[] {
    return [...BrowserWindow.all];
  }

  static fromWebContents(page: WebContents): BrowserWindow | null {
    return BrowserWindow.getAllWindows().find(({ webContents }) => webContents === page) ?? null;
  }

  loadURL(address: string): Promise<void> {
    standIn.windows.push({ window: this, address });
    return Promise.resolve();
  }

  close(): void {
    BrowserWindow.all.delete(this);
    this.webContents.destroy();
    if (BrowserWindow.all.size === 0) app.emit("window-all-closed");
  }
}

interface MenuItem {
  readonly label?: string;
  readonly click?: () => void;
  readonly submenu?: readonly MenuItem[];
}

let startApp: () => void;
const ready = new Promise<void>((resolve) => {
  startApp = resolve;
});
type Handler = (event: { sender: WebContents }, ...args: unknown[]) => unknown;

/** What a test looks at, and does in a person's place. */
export const standIn = {
  windows: [] as { window: BrowserWindow; address: string }[],
  processes: [] as UtilityProcess[],
  handlers: new Map<string, Handler>(),
  schemes: new Map<string, (request: Request) => Promise<Response>>(),
  menu: [] as readonly MenuItem[],
  /** What the next person who is asked for a file chooses. */
  chosen: [] as string[],
  hasQuit: false,
  /** Ready only when the main script has run to its end. */
  start: () => startApp(),
};

export const app = Object.assign(new EventEmitter(), {
  isPackaged: false,
  getAppPath: () => fileURLToPath(new URL("../..", import.meta.url)),
  whenReady: () => ready,
  quit() {
    standIn.hasQuit = true;
  },
});
export const dialog = { showOpenDialog: async () => ({ filePaths: standIn.chosen }) };
export const ipcMain = { handle: (channel: string, handler: Handler) => standIn.handlers.set(channel, handler) };
export const Menu = {
  buildFromTemplate: (template: readonly MenuItem[]) => template,
  setApplicationMenu(menu: readonly MenuItem[]) {
    standIn.menu = menu;
  },
};
export const protocol = {
  registerSchemesAsPrivileged: () => {},
  handle: (scheme: string, handler: (request: Request) => Promise<Response>) => standIn.schemes.set(scheme, handler),
};
export const session = { defaultSession: { setPermissionRequestHandler: () => {} } };
export const utilityProcess = {
  fork: (file: string, _: string[], { cwd }: { cwd: string }) => new UtilityProcess(file, cwd),
};
