// WebKitGTK: its MiniBrowser on a virtual screen, through WebDriver as plain HTTP.

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { browserHosts, type Settings, type Window } from "./browser";
import { endGroup, installed, start } from "./child";

const MINIBROWSERS = ["webkit2gtk-4.1", "webkit2gtk-4.0", "webkitgtk-6.0"].map(
  (name) => `/usr/lib/x86_64-linux-gnu/${name}/MiniBrowser`,
);
const START_MILLISECONDS = 20_000;
const TRIES_APART_MILLISECONDS = 100;

export const WEBKIT_HOSTS = browserHosts("WebKitGTK", launch);

async function launch({ isolated }: Settings): Promise<Window> {
  const binary = installed(...MINIBROWSERS);
  const driver = installed("WebKitWebDriver");
  const bus = installed("dbus-run-session");
  const screen = start([installed("Xvfb"), "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"]);
  const port = await freePort();
  let session = "";
  const ask = async (method: string, path: string, body?: object): Promise<unknown> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const { value } = (await response.json()) as { value: { error?: string; message?: string } };
    if (!response.ok) throw new Error(`WebKitWebDriver: ${value.error}: ${value.message}`);
    return value;
  };
  const display = `:${String((await once(screen.stdout as NodeJS.ReadableStream, "data"))[0]).trim()}`;
  const env = {
    ...process.env,
    DISPLAY: display,
    // Without it the engine has no SharedArrayBuffer, isolated or not.
    ...(isolated ? { JSC_useSharedArrayBuffer: "1" } : {}),
  };
  const drivers = start([bus, "--", driver, `--port=${port}`], { env, stdio: "ignore" });
  const end = () => {
    endGroup(drivers);
    endGroup(screen);
  };
  try {
    for (const started = Date.now(); ; await setTimeout(TRIES_APART_MILLISECONDS)) {
      const answers = await ask("GET", "/status").then(
        () => true,
        () => false,
      );
      if (answers) break;
      if (Date.now() - started > START_MILLISECONDS) throw new Error("WebKitWebDriver does not answer");
    }
    const options = { binary, args: ["--automation"] };
    const capabilities = { alwaysMatch: { "webkitgtk:browserOptions": options } };
    const made = (await ask("POST", "/session", { capabilities })) as {
      sessionId: string;
      capabilities: { browserVersion: string };
    };
    session = `/session/${made.sessionId}`;
    return {
      version: `WebKitGTK ${made.capabilities.browserVersion}`,
      async visit(address) {
        await ask("POST", `${session}/url`, { url: address });
        await once(drivers, "exit");
        throw new Error("the browser ended");
      },
      async close() {
        await ask("DELETE", session).catch(() => {});
        end();
      },
    };
  } catch (error) {
    end();
    throw error;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
