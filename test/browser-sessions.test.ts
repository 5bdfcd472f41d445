// Saved sessions on a page's device: kept under a name, found again as they were, and nothing else is taken for one. The file
// system is a stand-in; test/hosts/e2e has that of browsers.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { forgetSession, keepSession, readSession, storedSessions } from "../runtime/browser-sessions";
import { MemoryFolder, standIn } from "./opfs";
import { withRandom } from "./random";
import { says } from "./write-checkpoint";

const FOLDER = "snug-sessions";
const FRONT_BYTES = 4096;
const BYTES = Uint8Array.from({ length: 500 }, (_, i) => (i * 7) & 255);

let root: MemoryFolder;
beforeEach(() => {
  root = new MemoryFolder();
  standIn(root);
});

const files = () => (root.folders.get(FOLDER) as MemoryFolder).files;

test("kept, listed with its size, read back, and forgotten", async () => {
  assert.deepEqual(await storedSessions(), []);
  await keepSession("b/../c", BYTES);
  await keepSession("a \u{1f98a}", BYTES.subarray(0, 3));
  assert.deepEqual(await storedSessions(), [
    { name: "a \u{1f98a}", bytes: 3 },
    { name: "b/../c", bytes: 500 },
  ]);
  assert.deepEqual(await readSession("b/../c"), BYTES);
  await keepSession("b/../c", BYTES.subarray(9));
  assert.deepEqual(await readSession("b/../c"), BYTES.slice(9));
  assert.deepEqual(await readSession("a \u{1f98a}"), BYTES.slice(0, 3));
  await forgetSession("b/../c");
  await forgetSession("never there");
  await assert.rejects(readSession("b/../c"), says("source", 'no session is kept on this device as "b/../c"'));
  assert.deepEqual(await storedSessions(), [{ name: "a \u{1f98a}", bytes: 3 }]);
});

test("what cannot be written leaves what was there", async () => {
  await keepSession("a", BYTES);
  (root.folders.get(FOLDER) as MemoryFolder).failure = new DOMException("it is full", "QuotaExceededError");
  await assert.rejects(keepSession("a", BYTES.subarray(1)), says("source", '"a" cannot be kept: it is full'));
  await assert.rejects(keepSession("b", BYTES), says("source", '"b" cannot be kept: it is full'));
  assert.deepEqual(await readSession("a"), BYTES);
  await assert.rejects(readSession("b"), says("source", "no session is kept"));
  assert.deepEqual(await storedSessions(), [{ name: "a", bytes: 500 }]);
});

test("names that cannot be", async () => {
  for (const name of ["", "\ud800", "x".repeat(4096), "€".repeat(1400), undefined, 5])
    await assert.rejects(keepSession(name as string, BYTES), says("usage", "under a name"));
  await keepSession("x".repeat(3900), BYTES);
  assert.deepEqual(await readSession("x".repeat(3900)), BYTES);
});

test("whatever else is in a file is refused: damage, another one's session, strange descriptions", async () => {
  await keepSession("a", BYTES);
  await keepSession("b", BYTES);
  const [a, b] = [...files().keys()] as [string, string];
  const good = files().get(a) as Uint8Array;
  const damaged = says("source", 'the session "a" that is kept on this device is damaged');

  files().set(a, files().get(b) as Uint8Array);
  await assert.rejects(readSession("a"), damaged);
  assert.deepEqual(await storedSessions(), [{ name: "b", bytes: 500 }]);

  const described = (text: string) => {
    const bytes = good.slice();
    bytes.set(new TextEncoder().encode(text.padEnd(FRONT_BYTES)));
    return bytes;
  };
  for (const text of [
    "",
    "null",
    "[]",
    '{"name":"a"}',
    '{"name":"a","sha256":5}',
    '{"name":["a"],"sha256":"0"}',
    "{".repeat(4096),
  ]) {
    files().set(a, described(text));
    await assert.rejects(readSession("a"), damaged, text);
    assert.deepEqual(await storedSessions(), [{ name: "b", bytes: 500 }]);
  }

  withRandom(5, ({ int }) => {
    for (let round = 0; round < 50; round++) {
      const bytes = good.slice(0, int(4) === 0 ? 1 + int(good.length - 1) : good.length);
      const at = FRONT_BYTES + int(500);
      if (bytes.length === good.length) bytes[at] = (bytes[at] as number) ^ (1 + int(255));
      files().set(`${round}`, bytes);
    }
  });
  for (let round = 0; round < 50; round++) {
    files().set(a, files().get(`${round}`) as Uint8Array);
    await assert.rejects(readSession("a"), damaged, `round ${round}`);
  }
  files().set(a, good);
  assert.deepEqual(await readSession("a"), BYTES);
});

test("a page that may keep nothing is told so, and has nothing", async () => {
  standIn();
  assert.deepEqual(await storedSessions(), []);
  await assert.rejects(readSession("a"), says("source", "no session is kept"));
  await forgetSession("a");
  await assert.rejects(keepSession("a", BYTES), says("unsupported", "this page may keep no files"));
});
