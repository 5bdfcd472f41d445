// What the tests of the core share: the compiled test module, memory in it, comparisons that say where they failed. Nothing here knows a kernel or a format.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";

export type ModuleKind = "debug" | "release" | "relaxed";

/** A typed array's class. */
interface ArrayType<T> {
  new (buffer: ArrayBuffer, offset: number, length: number): T;
  readonly BYTES_PER_ELEMENT: number;
}
type AnyArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array;

export interface TestModule {
  kind: ModuleKind;
  // biome-ignore lint/suspicious/noExplicitAny: whatever the core exports, called as the test knows it
  exports: Record<string, any>;
  memory: WebAssembly.Memory;
  /** Address of `bytes` fresh bytes, aligned to 64. */
  reserve(bytes: number): number;
  /** Copies an array into fresh memory and returns its address. */
  put(array: AnyArray): number;
  /** A copy of `length` elements at an address. */
  get<T>(type: ArrayType<T>, ptr: number, length: number): T;
  /** `bytes` fresh bytes between guards; check() fails if one of the guards has changed. */
  guarded(bytes: number): { ptr: number; check(): void };
  /** Forgets all that was reserved. */
  reset(): void;
}

/** Where build:test puts the modules; a colleague who builds elsewhere says so. */
const BUILD = process.env.SNUG_TEST_BUILD ?? "build";
const FILES: Record<ModuleKind, string> = {
  debug: "core.debug.wasm",
  release: "core.test.wasm",
  relaxed: "core.relaxed.test.wasm",
};
if (process.versions.node.startsWith("20.")) setFlagsFromString("--experimental-wasm-relaxed-simd");
const PAGE = 65536;
const PAGES = 1024; // the first half is for the module's own arena, the second is handed out here
const RESERVED = (PAGES * PAGE) / 2;
const GUARD = 64;
const GUARD_BYTE = 0xa5;

/** A fresh instance of the test module. */
export function loadTestModule(kind: ModuleKind = "release"): TestModule {
  const memory = new WebAssembly.Memory({ initial: PAGES, maximum: 65536 });
  const module = new WebAssembly.Module(readFileSync(`${BUILD}/${FILES[kind]}`));
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  if (exports._initialize) (exports._initialize as () => void)();
  let next = RESERVED;

  const reserve = (bytes: number): number => {
    const ptr = next;
    next += Math.ceil(bytes / 64) * 64;
    const missing = next - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
    return ptr;
  };
  return {
    kind,
    exports,
    memory,
    reserve,
    put(array) {
      const ptr = reserve(array.byteLength);
      const source = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      new Uint8Array(memory.buffer).set(source, ptr);
      return ptr;
    },
    get(type, ptr, length) {
      const at = ptr >>> 0;
      return new type(memory.buffer.slice(at, at + length * type.BYTES_PER_ELEMENT), 0, length);
    },
    guarded(bytes) {
      const start = reserve(bytes + 2 * GUARD + 64);
      const ptr = start + GUARD;
      const after = ptr + bytes; // the very next byte is guarded
      const guards = () => {
        const view = new Uint8Array(memory.buffer);
        return [view.subarray(start, ptr), view.subarray(after, after + GUARD)];
      };
      for (const guard of guards()) guard.fill(GUARD_BYTE);
      return {
        ptr,
        check() {
          for (const [i, guard] of guards().entries()) {
            const at = guard.findIndex((byte) => byte !== GUARD_BYTE);
            assert.ok(at < 0, `wrote ${i ? `${at} bytes past the end` : `${GUARD - at} bytes before the start`}`);
          }
        },
      };
    },
    reset() {
      next = RESERVED;
    },
  };
}

/** Fails unless each |got − want| ≤ bound, one for all or one each; names the worst, and how many are out. */
export function close(got: ArrayLike<number>, want: ArrayLike<number>, bound: number | ArrayLike<number>): void {
  assert.equal(got.length, want.length, "lengths differ");
  const boundOf = (i: number) => (typeof bound === "number" ? bound : bound[i]);
  let worst = -1;
  let excess = 0;
  let outside = 0;
  for (let i = 0; i < want.length; i++) {
    const same = got[i] === want[i] || (Number.isNaN(got[i]) && Number.isNaN(want[i]));
    const over = same ? 0 : Math.abs(got[i] - want[i]) / boundOf(i);
    if (over <= 1) continue;
    outside++;
    if (worst < 0 || !(over <= excess)) {
      worst = i;
      excess = over;
    }
  }
  if (worst < 0) return;
  const detail = `got ${got[worst]}, want ${want[worst]}, bound ${boundOf(worst)}`;
  assert.fail(`${outside} of ${want.length} outside; worst at ${worst}: ${detail}`);
}
