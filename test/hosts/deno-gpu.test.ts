// The built package on Deno's WebGPU, which the CPU plays here.

import assert from "node:assert/strict";
import { dirname, resolve } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { DENO, runScript } from "./engines";
import { Expected } from "./expected";
import { lavapipe } from "./gpu/vulkan";
import { CannotRun } from "./host";
import type { GpuRun } from "./run-gpu";

const build = dirname(fileURLToPath(import.meta.url));
const dist = resolve("dist");
const expected = await Expected.of(dist);
after(() => expected.close());

test("a model runs on the GPU that Deno has", async (t) => {
  try {
    Object.assign(process.env, lavapipe());
    const { tokens, deviceBytes } = JSON.parse(await runScript(DENO, build, "run-gpu.js", [dist])) as GpuRun;
    assert.ok(deviceBytes > 0);
    await expected.assertSame(tokens);
  } catch (error) {
    if (!(error instanceof CannotRun) || process.env.SNUG_REQUIRE_ALL) throw error;
    t.skip(error.message);
  }
});
