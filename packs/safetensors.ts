// Weights of a checkpoint folder, as model hubs store them: one model.safetensors, or shards listed by
// model.safetensors.index.json. Headers are read at once, data by position and only when asked for, so that a packer
// never holds more than a tensor. Every byte is taken for hostile. What the names mean is left to families/.

import { type FileHandle, open, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { SnugError } from "../runtime/index";

const SINGLE_FILE = "model.safetensors";
const INDEX_FILE = "model.safetensors.index.json";
const HEADER_BYTES_MAX = 100_000_000; // what the format's own reader allows
const JSON_BYTES_MAX = 256 * 1024 * 1024;
const CHUNK_BYTES = 4 * 1024 * 1024; // of a read; a multiple of every element's size
const GIT_LFS_POINTER = "version https://git-lfs";
const VALUES_MAX = 2 ** 31; // of one read: 8 GiB in f32
const FLOATS = ["F32", "F16", "BF16"]; // dtypes that can be read; others may be present

export interface TensorEntry {
  /** As the file spells it: "F32", "F16" and "BF16" can be read. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Name of the file inside the folder. */
  readonly file: string;
  /** Of the first byte, from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

export type JsonObject = Record<string, unknown>;

/** Opens the safetensors file(s) of a folder and checks all headers; reads no weights. */
export async function openTensors(folder: string, singleFile = SINGLE_FILE): Promise<Tensors> {
  const files = new Map<string, FileHandle>();
  try {
    return new Tensors(await readEntries(folder, singleFile, files), files);
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

/** The tensors of one folder: an open file handle per shard until `close`. Reads may run at the same time. */
export class Tensors {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly #files: Map<string, FileHandle>;

  constructor(entries: ReadonlyMap<string, TensorEntry>, files: Map<string, FileHandle>) {
    this.entries = entries;
    this.#files = files;
  }

  /** What the folder says of a tensor, after checking that it exists, can be read, and has the expected shape. */
  expect(name: string, expectedShape?: readonly number[]): TensorEntry {
    const entry = this.entries.get(name);
    if (!entry) {
      throw bad(
        `Tensor ${quote(name)} is missing: expected it in the checkpoint, found ${this.#nearby(name)}. ${AGAIN}`,
      );
    }
    if (!FLOATS.includes(entry.dtype)) {
      throw bad(
        `Tensor ${quote(name)} in ${entry.file}: expected dtype ${FLOATS.join(", ")}, found ${quote(entry.dtype)}. ` +
          "Take the unquantized checkpoint, or convert it to bfloat16.",
      );
    }
    if (expectedShape && !sameShape(entry.shape, expectedShape)) {
      throw bad(
        `Tensor ${quote(name)} in ${entry.file}: expected shape ${shown(expectedShape)}, found ${shown(entry.shape)}. ` +
          "The weights and config.json belong to different models; take both from one checkpoint.",
      );
    }
    return entry;
  }

  /** The whole tensor, row-major, in f32. Refuses NaN and infinities. */
  async read(name: string, expectedShape?: readonly number[]): Promise<Float32Array> {
    const entry = this.expect(name, expectedShape);
    return this.#readRange(name, entry, 0, elements(entry.shape) ?? 0);
  }

  /** Rows first … first + count − 1 along the first axis, in f32. */
  async readRows(name: string, first: number, count: number, expectedShape?: readonly number[]): Promise<Float32Array> {
    const entry = this.expect(name, expectedShape);
    const rows = entry.shape[0] ?? 1;
    if (!isCount(first) || !isCount(count) || first + count > rows) {
      throw new SnugError("usage", `Tensor ${quote(name)} has ${rows} rows; rows ${first} … +${count} were asked for.`);
    }
    const rowSize = rows === 0 ? 0 : (elements(entry.shape) ?? 0) / rows;
    return this.#readRange(name, entry, first * rowSize, count * rowSize);
  }

  /** Closes the files; reading afterwards is refused. */
  async close(): Promise<void> {
    await closeAll(this.#files);
  }

  async #readRange(name: string, entry: TensorEntry, first: number, count: number): Promise<Float32Array> {
    const file = this.#files.get(entry.file);
    if (!file) throw new SnugError("usage", `The checkpoint was closed before ${quote(name)} was read.`);
    const out = floats(name, count);
    const elementBytes = entry.dtype === "F32" ? 4 : 2;
    const chunk = new Uint8Array(Math.min(count * elementBytes, CHUNK_BYTES));
    const decode = entry.dtype === "F32" ? decodeF32 : entry.dtype === "F16" ? decodeF16 : decodeBf16;
    for (let done = 0; done < count; ) {
      const length = Math.min(count - done, CHUNK_BYTES / elementBytes);
      const bytes = chunk.subarray(0, length * elementBytes);
      await readExactly(file, entry.file, bytes, entry.offset + (first + done) * elementBytes, quote(name));
      const wrong = decode(bytes, out, done);
      if (wrong >= 0) {
        throw bad(
          `Tensor ${quote(name)} in ${entry.file}: expected finite weights, found ${out[wrong]} at ` +
            `${shown(position(entry.shape, first + wrong))}. The checkpoint is broken (training or conversion went ` +
            "wrong); no pack can be made of it.",
        );
      }
      done += length;
    }
    return out;
  }

  #nearby(name: string): string {
    const last = name.slice(name.lastIndexOf(".", name.lastIndexOf(".") - 1) + 1);
    const similar = [...this.entries.keys()].filter((other) => other.endsWith(last)).slice(0, 3);
    const names = similar.length > 0 ? similar : [...this.entries.keys()].slice(0, 3);
    return `${this.entries.size} tensors${names.length > 0 ? ` such as ${names.map(quote).join(", ")}` : ""}`;
  }
}

/**
 * A JSON object from a file of a checkpoint, or null where the file does not exist. Python also writes Infinity,
 * -Infinity and NaN, which JSON lacks: they arrive as { "__float__": "Infinity" }, which newer files have themselves.
 */
export async function readJson(folder: string, name: string): Promise<JsonObject | null> {
  const text = await readText(folder, name);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    value = parseWithFloats(text);
    if (value === undefined) throw bad(`${name} is not JSON: ${(error as Error).message}. ${AGAIN}`, error);
  }
  if (!isObject(value)) throw bad(`${name}: expected a JSON object, found ${kindOf(value)}. ${AGAIN}`);
  return value;
}

/** Undefined where the text is not JSON in any case. */
function parseWithFloats(text: string): unknown {
  try {
    return JSON.parse(
      text.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:Infinity|NaN)\b/g, (found) =>
        found.startsWith('"') ? found : `{"__float__":"${found}"}`,
      ),
    );
  } catch {
    return undefined;
  }
}

/** The text of a file of a checkpoint, or null where the file does not exist. */
export async function readText(folder: string, name: string): Promise<string | null> {
  const size = await fileSize(folder, name);
  if (size === null) return null;
  if (size > JSON_BYTES_MAX) throw bad(`${name}: expected at most ${JSON_BYTES_MAX} bytes, found ${size}. ${AGAIN}`);
  const bytes = await readFile(join(folder, name)).catch((error) => {
    throw unreadable(join(folder, name), error);
  });
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw bad(`${name}: expected UTF-8 text, found other bytes. ${AGAIN}`, error);
  }
}

/** True for what JSON calls an object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A JSON value in a few words, for messages. */
export function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value);
  return text.length <= 100 ? text : `${text.slice(0, 100)}…`;
}

// Which tensors there are

const AGAIN = "Download the checkpoint again.";

async function readEntries(folder: string, singleFile: string, files: Map<string, FileHandle>) {
  if ((await fileSize(folder, singleFile)) !== null) return openFile(folder, singleFile, files);
  const index = await readJson(folder, INDEX_FILE);
  if (!index) throw bad(await nothingHere(folder));
  const names = weightMap(index);
  const entries = new Map<string, TensorEntry>();
  const shards = new Map<string, Map<string, TensorEntry>>();
  for (const file of new Set(names.values())) shards.set(file, await openFile(folder, file, files));
  for (const [name, file] of names) {
    const entry = shards.get(file)?.get(name);
    if (!entry) throw bad(`${INDEX_FILE} says that ${quote(name)} is in ${file}, which does not hold it. ${AGAIN}`);
    entries.set(name, entry);
  }
  return entries;
}

function weightMap(index: JsonObject): Map<string, string> {
  const map = index.weight_map;
  if (!isObject(map) || Object.keys(map).length === 0) {
    throw bad(
      `${INDEX_FILE}: expected an object "weight_map" of tensor names to files, found ${kindOf(map)}. ${AGAIN}`,
    );
  }
  const names = new Map<string, string>();
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== "string" || !/^[^/\\:\0]+\.safetensors$/.test(file)) {
      throw bad(
        `${INDEX_FILE}: expected the name of a .safetensors file of this folder for ${quote(name)}, ` +
          `found ${kindOf(file)}. Nothing outside the folder is read; put the shards beside the index.`,
      );
    }
    names.set(name, file);
  }
  return names;
}

async function nothingHere(folder: string): Promise<string> {
  const present = await readdir(folder).catch((error) => {
    throw unreadable(folder, error);
  });
  const weights = present.filter((name) => /\.(safetensors|bin|pt|pth|gguf)$/.test(name)).sort();
  const found = weights.length === 0 ? "no weights" : weights.slice(0, 4).join(", ");
  const advice = weights.some((name) => name.endsWith(".safetensors"))
    ? `Shards need their ${INDEX_FILE}: download it too.`
    : weights.length > 0
      ? "Other formats are not read: save the model as safetensors first."
      : "Download the weights too.";
  return `${folder}: expected ${SINGLE_FILE} or ${INDEX_FILE}, found ${found}. ${advice}`;
}

async function openFile(folder: string, name: string, files: Map<string, FileHandle>) {
  const size = await fileSize(folder, name);
  if (size === null) throw bad(`${INDEX_FILE} names ${name}, which is not in ${folder}. Download the missing file.`);
  const file = await open(join(folder, name), "r").catch((error) => {
    throw unreadable(join(folder, name), error);
  });
  files.set(name, file);
  const start = new Uint8Array(Math.min(size, 64));
  await readExactly(file, name, start, 0, "its first bytes");
  if (new TextDecoder().decode(start).startsWith(GIT_LFS_POINTER)) {
    throw bad(`${name} is a Git LFS pointer, not the weights. Run "git lfs pull" in ${folder}.`);
  }
  const view = new DataView(start.buffer);
  const headerBytes = size >= 8 ? view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32 : 0;
  if (size < 8 || headerBytes > Math.min(size - 8, HEADER_BYTES_MAX)) {
    throw bad(
      `${name} is not a safetensors file, or is cut short: its ${size} bytes ` +
        `${size < 8 ? "have no room for a header" : `announce a header of ${headerBytes} bytes`}. ${AGAIN}`,
    );
  }
  const bytes = new Uint8Array(headerBytes);
  await readExactly(file, name, bytes, 8, "the header");
  return checkHeader(name, parseHeader(name, bytes), 8 + headerBytes, size);
}

function parseHeader(file: string, bytes: Uint8Array): JsonObject {
  try {
    const header: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (isObject(header)) return header;
  } catch (error) {
    throw bad(`${file}: expected a header in JSON, found other bytes. ${AGAIN}`, error);
  }
  throw bad(`${file}: expected a JSON object as header. ${AGAIN}`);
}

function checkHeader(file: string, header: JsonObject, dataStart: number, size: number): Map<string, TensorEntry> {
  const entries = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(header)) {
    if (name !== "__metadata__") entries.set(name, checkEntry(file, name, value, dataStart, size));
  }
  let end = dataStart;
  let before = "";
  for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes)) {
    if (entry.offset < end) throw bad(`${file}: tensors ${quote(before)} and ${quote(name)} overlap. ${AGAIN}`);
    end = entry.offset + entry.bytes;
    before = name;
  }
  return entries;
}

function checkEntry(file: string, name: string, value: unknown, dataStart: number, size: number): TensorEntry {
  const where = `${file}, header of tensor ${quote(name)}`;
  if (!isObject(value)) throw bad(`${where}: expected an object, found ${kindOf(value)}. ${AGAIN}`);
  const { dtype, shape, data_offsets: range } = value;
  if (typeof dtype !== "string") throw bad(`${where}: expected a dtype, found ${kindOf(dtype)}. ${AGAIN}`);
  const count = Array.isArray(shape) && shape.every(isCount) ? elements(shape) : null;
  if (count === null) throw bad(`${where}: expected a shape of whole numbers, found ${kindOf(shape)}. ${AGAIN}`);
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isCount) || range[1] < range[0]) {
    throw bad(`${where}: expected data_offsets [begin, end], found ${kindOf(range)}. ${AGAIN}`);
  }
  const [begin, end] = range as [number, number];
  const bits = dtype === "BOOL" ? 8 : Number(/^(?:BF|[FIUC])(\d+)/.exec(dtype)?.[1]);
  const expected = Math.ceil((count * bits) / 8); // NaN for a dtype made after this was written
  if (expected >= 0 && expected !== end - begin) {
    throw bad(`${where}: ${dtype} ${shown(shape as number[])} takes ${expected} bytes, found ${end - begin}. ${AGAIN}`);
  }
  if (dataStart + end > size) {
    throw bad(`${file} is cut short: ${quote(name)} ends at byte ${dataStart + end} of a file of ${size}. ${AGAIN}`);
  }
  return { dtype, shape: shape as number[], file, offset: dataStart + begin, bytes: end - begin };
}

// Bytes to numbers
// Each decoder fills out[at …] and returns the index in `out` of the first NaN or infinity, or −1.

function decodeF32(bytes: Uint8Array, out: Float32Array, at: number): number {
  const count = bytes.length / 4;
  const bits = new Uint32Array(bytes.buffer, bytes.byteOffset, count);
  new Uint32Array(out.buffer).set(bits, at);
  for (let i = 0; i < count; i++) if ((bits[i] & 0x7f800000) === 0x7f800000) return at + i;
  return -1;
}

function decodeBf16(bytes: Uint8Array, out: Float32Array, at: number): number {
  const count = bytes.length / 2;
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
  const outBits = new Uint32Array(out.buffer);
  let wrong = -1;
  for (let i = count - 1; i >= 0; i--) {
    outBits[at + i] = bits[i] << 16;
    if ((bits[i] & 0x7f80) === 0x7f80) wrong = at + i;
  }
  return wrong;
}

function decodeF16(bytes: Uint8Array, out: Float32Array, at: number): number {
  const count = bytes.length / 2;
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
  let wrong = -1;
  for (let i = count - 1; i >= 0; i--) {
    const exponent = (bits[i] >> 10) & 31;
    const fraction = bits[i] & 1023;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction === 0
            ? Infinity
            : NaN
          : (1024 + fraction) * 2 ** (exponent - 25);
    out[at + i] = bits[i] & 0x8000 ? -size : size;
    if (exponent === 31) wrong = at + i;
  }
  return wrong;
}

// Small things

async function readExactly(file: FileHandle, name: string, into: Uint8Array, at: number, what: string): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, at + done).catch((error) => {
      throw unreadable(name, error);
    });
    if (bytesRead === 0) throw bad(`${name} ends at byte ${at + done}, in the middle of ${what}. ${AGAIN}`);
    done += bytesRead;
  }
}

/** Bytes of a plain file (links are followed: hubs cache files that way), or null where there is none. */
async function fileSize(folder: string, name: string): Promise<number | null> {
  const path = join(folder, name);
  const found = await stat(path).catch((error) => {
    if (error.code === "ENOENT") return null;
    throw unreadable(path, error);
  });
  if (found === null) return null;
  if (!found.isFile()) throw bad(`${path}: expected a plain file, found something else. ${AGAIN}`);
  return found.size;
}

async function closeAll(files: Map<string, FileHandle>): Promise<void> {
  const handles = [...files.values()];
  files.clear();
  for (const handle of handles) await handle.close();
}

function floats(name: string, count: number): Float32Array {
  let cause: unknown;
  try {
    if (count <= VALUES_MAX) return new Float32Array(count);
  } catch (error) {
    cause = error;
  }
  const message = `Tensor ${quote(name)} needs ${count * 4} bytes at once, more than can be had. Read it by rows.`;
  throw new SnugError("memory", message, { cause });
}

/** Product of a shape, or null where no array could have it. */
function elements(shape: readonly number[]): number | null {
  let count = 1;
  for (const size of shape) count *= size;
  return Number.isSafeInteger(count * 8) ? count : null;
}

function position(shape: readonly number[], index: number): number[] {
  const at: number[] = [];
  for (let axis = shape.length - 1, rest = index; axis >= 0; axis--) {
    at.unshift(rest % shape[axis]);
    rest = Math.floor(rest / shape[axis]);
  }
  return at;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

function shown(shape: readonly number[]): string {
  return `[${shape.slice(0, 8).join(", ")}${shape.length > 8 ? ", …" : ""}]`;
}

function quote(name: string): string {
  return kindOf(name);
}

function bad(message: string, cause?: unknown): SnugError {
  return new SnugError("checkpoint", message, cause === undefined ? {} : { cause });
}

function unreadable(path: string, error: Error): SnugError {
  return new SnugError("source", `Cannot read ${path}: ${error.message}. Check the path and its permissions.`, {
    cause: error,
  });
}
