// The main process: windows, and what a page may ask for. It decides which files become packs.

import { join } from "node:path";
import {
  app,
  BrowserWindow,
  dialog,
  ipcMain,
  Menu,
  type MenuItemConstructorOptions,
  protocol,
  session,
} from "electron";
import { endModel, restartModel, startModel } from "./model-process";
import { packNamed, packsIn } from "./packs";
import { PAGE, pageFile, SCHEME } from "./page-files";

/** Beside the app's archive when it is packaged (extraResources): packs are read in place. */
const PACKS = app.isPackaged
  ? join(process.resourcesPath, "packs")
  : join(app.getAppPath(), "node_modules", "snug", "packs", "demo");
const isMac = process.platform === "darwin";

function openWindow(): void {
  const window = new BrowserWindow({
    width: 640,
    height: 800,
    webPreferences: {
      preload: join(import.meta.dirname, "preload.cjs"),
      contextIsolation: true,
      sandbox: true,
      nodeIntegration: false,
    },
  });
  const page = window.webContents;
  page.setWindowOpenHandler(() => ({ action: "deny" }));
  page.on("will-navigate", (event) => event.preventDefault());
  page.once("destroyed", () => endModel(page));
  void window.loadURL(PAGE);
}

function menu(): Menu {
  const items: MenuItemConstructorOptions[] = [
    { label: "New window", accelerator: "CommandOrControl+N", click: openWindow },
    { role: "close" },
  ];
  const roles: MenuItemConstructorOptions[] = [{ role: "editMenu" }, { role: "viewMenu" }];
  if (isMac) roles.unshift({ role: "appMenu" });
  return Menu.buildFromTemplate([...roles, { role: "fileMenu", submenu: items }]);
}

ipcMain.handle("packs", () => packsIn(PACKS));
ipcMain.handle("open", async ({ sender }, name: unknown) => startModel(sender, await packNamed(PACKS, name)));
ipcMain.handle("choose", async ({ sender }) => {
  const window = BrowserWindow.fromWebContents(sender);
  if (window === null) return;
  const filters = [{ name: "Packs of snug", extensions: ["snug"] }];
  const { filePaths } = await dialog.showOpenDialog(window, { properties: ["openFile"], filters });
  if (filePaths[0] !== undefined) startModel(sender, filePaths[0]);
});
ipcMain.handle("restart", ({ sender }) => restartModel(sender));

protocol.registerSchemesAsPrivileged([{ scheme: SCHEME, privileges: { standard: true, secure: true } }]);
app.on("window-all-closed", () => {
  if (!isMac) app.quit();
});
// Not awaited: the app is ready only when this file has run to its end.
void app.whenReady().then(() => {
  protocol.handle(SCHEME, ({ url }) => pageFile(url, import.meta.dirname));
  session.defaultSession.setPermissionRequestHandler((_page, _permission, answer) => answer(false));
  Menu.setApplicationMenu(menu());
  openWindow();
  app.on("activate", () => {
    if (BrowserWindow.getAllWindows().length === 0) openWindow();
  });
});
