// After every test of a file, whatever its models held has come back: blocks of the KV cache, and slots.

import assert from "node:assert/strict";
import { afterEach } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Model } from "../runtime/model";
import { Pack } from "../runtime/pack";

/** Who left a text does not wait until it has ended. */
const PATIENCE_MS = 3000;

/** Models that were loaded in a file, by whatever way its tests took; those of earlier tests may have been collected. */
const known = new Set<WeakRef<Model>>();
/** Those that came since the last test ended. */
let fresh: Model[] = [];

/** To be called once, before a file's first model is loaded: a test that leaves anything held fails. */
export function watchModels(): void {
  for (const name of ["load", "rehearse"] as const) watch(name);
  afterEach(async () => {
    for (const model of fresh) known.add(new WeakRef(model));
    fresh = [];
    const models = [...known].flatMap((reference) => reference.deref() ?? []);
    for (const model of models) await returned(model);
  });
}

function watch(name: "load" | "rehearse"): void {
  const original = Pack.prototype[name] as (...args: unknown[]) => Promise<Model>;
  Pack.prototype[name] = async function (this: Pack, ...args: unknown[]): Promise<Model> {
    const model = await original.apply(this, args);
    fresh.push(model);
    return model;
  };
}

async function returned({ engine, info }: Model): Promise<void> {
  const held = () => ({ blocks: engine.heldBlocks, slots: engine.heldSlots, ...engine.load });
  const nothing = { blocks: 0, slots: 0, running: 0, waiting: 0 };
  const late = performance.now() + PATIENCE_MS;
  while (performance.now() < late && Object.values(held()).some((count) => count > 0)) await sleep(5);
  try {
    assert.deepEqual(held(), nothing, `what was held of ${info.name} did not come back`);
    engine.check();
  } catch (error) {
    engine.forget(); // the next test is not to blame
    throw error;
  }
}
