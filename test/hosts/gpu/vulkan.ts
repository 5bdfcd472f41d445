// Vulkan drivers that run on the CPU, and the environment that makes a program take one of them.

import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { CannotRun } from "../host";
import { BUILD } from "./places";

const LIBRARIES = "usr/lib/x86_64-linux-gnu";
const LOADER = join("/", LIBRARIES, "libvulkan.so.1");

/** Finds a driver; throws CannotRun, and says what to install, where it is not there. */
export type Driver = () => NodeJS.ProcessEnv;

/** Chromium's: no f16, subgroups of 4. */
export const swiftShader: Driver = () =>
  driver("SwiftShader, of Debian's chromium,", ["/usr/lib/chromium/vk_swiftshader_icd.json"]);

/** Mesa's: f16. Dawn refuses bookworm's. */
export const lavapipe: Driver = () =>
  driver("lavapipe, of mesa-vulkan-drivers,", [
    "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
    "/usr/share/vulkan/icd.d/lvp_icd.json",
  ]);

/** Mesa's of bookworm-backports, unpacked beside the system's: f16, subgroups of 8. */
export const newLavapipe: Driver = () => {
  const mesa = join(BUILD, "mesa25");
  const settings = driver(`Mesa 25 in ${mesa}`, [join(mesa, "usr/share/vulkan/icd.d/lvp_icd.json")]);
  return { ...settings, LD_LIBRARY_PATH: join(mesa, LIBRARIES) };
};

function driver(what: string, manifests: readonly string[]): NodeJS.ProcessEnv {
  const manifest = manifests.find((path) => existsSync(path));
  const missing = [...(existsSync(LOADER) ? [] : ["libvulkan1"]), ...(manifest ? [] : [what])];
  if (manifest === undefined || missing.length > 0)
    throw new CannotRun(`no ${missing.join(" and no ")} here: see test/hosts/install.sh`);
  return { VK_DRIVER_FILES: manifest, XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? tmpdir() };
}
