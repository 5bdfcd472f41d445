// Makes the component of the core module that assembly/component.ts compiles to, and an ES module of it.

import { readFile } from "node:fs/promises";
import { componentEmbed, componentNew, preview1AdapterReactorPath, transpile } from "@bytecodealliance/jco";

/** What the WIT calls the interface; the core module's exports have names without it. */
const INTERFACE = "snug:model/model";
const WORLD = "snug";
const OWN_PREFIX = "model_";

const EXPORT_SECTION = 7;
const HEADER_BYTES = 8;

/** The component of a core module. witPath: component.wit. */
export async function buildComponent(core: Uint8Array, witPath: string): Promise<Uint8Array> {
  const binary = renameExports(core, (name) =>
    name.startsWith(OWN_PREFIX) ? `${INTERFACE}#${name.slice(OWN_PREFIX.length).replaceAll("_", "-")}` : name,
  );
  const embedded = await componentEmbed({ binary, witSource: await readFile(witPath, "utf8"), worldName: WORLD });
  const adapter = await readFile(preview1AdapterReactorPath());
  return componentNew(embedded, [["wasi_snapshot_preview1", adapter]]);
}

/** An ES module of a component, and the files that belong to it, by name. */
export async function transpileComponent(component: Uint8Array, name: string): Promise<Map<string, Uint8Array>> {
  const { files } = await transpile(component, { name });
  return new Map(Object.entries(files));
}

/** Rewrites the names in a module's export section: AssemblyScript exports identifiers only. */
export function renameExports(module: Uint8Array, rename: (name: string) => string): Uint8Array {
  const parts: Uint8Array[] = [module.subarray(0, HEADER_BYTES)];
  for (let at = HEADER_BYTES; at < module.length; ) {
    const size = readLeb(module, at + 1);
    const end = size.end + size.value;
    if (module[at] === EXPORT_SECTION) {
      const body = renamed(module.subarray(size.end, end), rename);
      parts.push(Uint8Array.of(EXPORT_SECTION), writeLeb(body.length), body);
    } else parts.push(module.subarray(at, end));
    at = end;
  }
  return Buffer.concat(parts);
}

function renamed(section: Uint8Array, rename: (name: string) => string): Uint8Array {
  const count = readLeb(section, 0);
  const parts: Uint8Array[] = [writeLeb(count.value)];
  let at = count.end;
  for (let i = 0; i < count.value; i++) {
    const length = readLeb(section, at);
    const nameEnd = length.end + length.value;
    const name = new TextEncoder().encode(rename(new TextDecoder().decode(section.subarray(length.end, nameEnd))));
    const indexEnd = readLeb(section, nameEnd + 1).end;
    parts.push(writeLeb(name.length), name, section.subarray(nameEnd, indexEnd));
    at = indexEnd;
  }
  return Buffer.concat(parts);
}

function readLeb(bytes: Uint8Array, at: number): { value: number; end: number } {
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++] as number;
    value += (byte & 127) * 2 ** shift;
    if (byte < 128) return { value, end: at };
  }
}

function writeLeb(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Uint8Array.from([...bytes, value]);
}
