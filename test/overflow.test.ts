// A chat that is too long: which turns are left out, to the very token; and a model that is asked to leave them out says
// what it says when they were never there.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Message } from "../runtime/chat";
import type { GenerateOptions } from "../runtime/generation";
import type { Model } from "../runtime/model";
import { type FitOptions, fitTurns, type Overflow } from "../runtime/overflow";
import { watchModels } from "./all-returned";
import { withRandom } from "./random";
import { fixture } from "./tokenizer-cases";
import { SMALL_CONFIGS, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, seed: 1 };
const TEMPLATE =
  "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}" +
  "{% if add_generation_prompt %}assistant:{% endif %}";

const system: Message = { role: "system", content: "s" };
const user = (content: string): Message => ({ role: "user", content });
const assistant = (content: string): Message => ({ role: "assistant", content });

/** A token for each letter. */
const read = (messages: readonly Message[]) => [...messages.map(({ content }) => content).join("")].map(Number);
const fit = (messages: readonly Message[], context: number, options: FitOptions = {}) =>
  fitTurns(messages, read, context, options);
const contents = (messages: readonly Message[]) => messages.map(({ content }) => content).join(" ");

// 1 + 4 + 3 + 2 + 3 + 4 letters
const CHAT = [system, user("aaaa"), assistant("bbb"), user("cc"), assistant("ddd"), user("eeee")];

test("what fits exactly stays; one token too many, and the oldest turn goes with its answer", () => {
  assert.deepEqual(fit(CHAT, 20, { maxTokens: 3 }), { messages: CHAT, prompt: read(CHAT), droppedTurns: 0 });
  const one = fit(CHAT, 19, { maxTokens: 3 });
  assert.deepEqual([contents(one.messages), one.droppedTurns], ["s cc ddd eeee", 2]);
  assert.deepEqual(one.prompt, read(one.messages));
  assert.equal(fit(CHAT, 13, { maxTokens: 3 }).droppedTurns, 2);
  const two = fit(CHAT, 12, { maxTokens: 3 });
  assert.deepEqual([contents(two.messages), two.droppedTurns], ["s eeee", 4]);
});

test("less room for the answer than was to be kept, then none: an error", () => {
  assert.equal(fit(CHAT, 12, { maxTokens: 3 }).droppedTurns, 4);
  assert.equal(fit(CHAT, 6, { maxTokens: 1 }).droppedTurns, 4);
  assert.throws(() => fit(CHAT, 5, { maxTokens: 1 }), says("context", "is 5 tokens long", "room for 5"));
  assert.equal(fit(CHAT, 5, { maxTokens: 0 }).droppedTurns, 4);
  assert.throws(() => fit(CHAT, 4, { maxTokens: 0 }), says("context", "is 5 tokens long", "room for 4"));
  assert.throws(() => fit([user("a".repeat(30))], 20), says("context", "is 30 tokens long", "room for 20"));
});

test("room is kept for the answer, but for no more than a quarter of the context", () => {
  for (const maxTokens of [undefined, 6, 1e9]) {
    const options = maxTokens === undefined ? {} : { maxTokens };
    // Three quarters of 24 are 18.
    assert.equal(fit([...CHAT.slice(0, 5), user("eeeee")], 24, options).droppedTurns, 0);
    assert.equal(fit([...CHAT.slice(0, 5), user("eeeeee")], 24, options).droppedTurns, 2);
  }
  assert.equal(fit([...CHAT.slice(0, 5), user("eeeeee")], 24, { maxTokens: 5 }).droppedTurns, 0);
});

test("what is left begins with a turn of the user's; the system's stay wherever they are", () => {
  const odd = [user("aaaa"), assistant("b"), assistant("b"), { role: "system", content: "t" }, user("c"), user("d")];
  assert.equal(contents(fit(odd, 8, { maxTokens: 0 }).messages), "t c d");
  assert.equal(contents(fit(odd, 2, { maxTokens: 0 }).messages), "t d");
  const answered = [user("aaaa"), assistant("bbbb"), user("c"), assistant("d")];
  assert.equal(contents(fit(answered, 9, { maxTokens: 0 }).messages), "c d");
  assert.throws(() => fit(answered, 1, { maxTokens: 0 }), says("context"));
  assert.equal(contents(fit([assistant("aaa"), user("b")], 3, { maxTokens: 0 }).messages), "b");
  assert.equal(contents(fit([assistant("aaa"), assistant("b")], 3, { maxTokens: 0 }).messages), "b");
  assert.deepEqual(fit([], 3), { messages: [], prompt: [], droppedTurns: 0 });
});

test("first and last messages that stay", () => {
  const chat = [user("1"), assistant("2"), user("3"), assistant("4"), user("5"), user("6"), assistant("7")];
  const left = (context: number, first: number, last: number) =>
    contents(fit(chat, context, { maxTokens: 0, first, last }).messages);
  assert.equal(left(6, 2, 1), "1 2 5 6 7");
  assert.equal(left(5, 2, 1), "1 2 5 6 7");
  assert.equal(left(4, 2, 1), "1 2 6 7");
  assert.equal(left(3, 2, 1), "1 2 7");
  assert.equal(left(3, 0, 3), "5 6 7");
  assert.equal(left(2, 2, 0), "1 2");
  assert.throws(() => left(2, 2, 1), says("context"));
  assert.throws(() => left(6, 0, 7), says("context", "is 7 tokens long"));
});

test("as few turns as will do, found in few readings", () => {
  withRandom(3, ({ int }) => {
    for (let round = 0; round < 400; round++) {
      const letters = () => "x".repeat(int(9));
      const chat = Array.from({ length: int(60) }, (_, i) =>
        int(15) === 0 ? system : i % 2 === 0 ? user(letters()) : assistant(letters()),
      ).concat(user(letters()));
      const context = 20 + int(200);
      const maxTokens = int(context >> 2);
      const room = context - maxTokens;
      // Plainly: one after the other.
      const begins = chat.flatMap(({ role }, i) => (role === "user" ? [i] : []));
      const tries = [0, ...begins].map((cut) => chat.filter(({ role }, i) => i >= cut || role === "system"));
      const want = tries.find((kept) => read(kept).length <= room) ?? (tries.at(-1) as Message[]);
      let readings = 0;
      const counted = (messages: readonly Message[]) => {
        readings++;
        return read(messages);
      };
      if (read(want).length > context - Math.min(1, maxTokens)) {
        assert.throws(() => fitTurns(chat, counted, context, { maxTokens }), says("context"));
        continue;
      }
      assert.deepEqual(fitTurns(chat, counted, context, { maxTokens }).messages, want, `round ${round}`);
      assert.ok(readings <= 2 + Math.ceil(Math.log2(chat.length)), `${readings} readings of ${chat.length} turns`);
    }
  });
});

// A model that is asked for it

let model: Model;
let stateful: Model;

before(async () => {
  const files = { "tokenizer.json": fixture() };
  const load = async (config: object) => {
    const { folder } = writeCheckpoint(scratchFolder({ after }), { ...config, vocab_size: 593 }, 5, { files });
    const pack = await openBytes(await packCheckpoint(folder, { info: { name: "a test", chatTemplate: TEMPLATE } }));
    return pack.load(pack.plan({ threads: 1, context: 96 }));
  };
  model = await load({});
  stateful = await load(SMALL_CONFIGS.mamba2);
});

const chatOf = (turns: number) => [
  { role: "system", content: "Be brief" },
  ...Array.from({ length: turns }, (_, i) => [user(`ask ${i}`), assistant(`answer ${i}`)]).flat(),
  user("and now?"),
];

test("overflow: an error unless it is asked for, then the text without the oldest turns", async () => {
  const messages = chatOf(9);
  const options = { ...GREEDY, maxTokens: 5 };
  for (const overflow of [undefined, "error"] as const)
    await assert.rejects(
      async () => model.chat(messages, { ...options, ...(overflow && { overflow }) }).result(),
      says("context", "the context has room for 96"),
    );
  for (const overflow of ["", "auto", null, "toString"])
    assert.throws(
      () => model.chat(messages, { overflow: overflow as Overflow }),
      says("usage", "overflow is one of error, drop"),
    );
  const generation = model.chat(messages, { ...options, overflow: "drop" });
  const result = await generation.result();
  assert.ok(result.droppedTurns > 0 && result.droppedTurns % 2 === 0, `${result.droppedTurns} turns`);
  assert.equal(generation.droppedTurns, result.droppedTurns);
  const kept = [messages[0] as Message, ...messages.slice(1 + result.droppedTurns)];
  const direct = await model.chat(kept, options).result();
  assert.deepEqual(result.tokens, direct.tokens);
  assert.equal(result.tokens.length, 5);
  assert.equal(direct.droppedTurns, 0);
  assert.equal(generation.promptTokens, direct.prompt.tokens);
  // One pair more would have left the answer too little room.
  const more = [messages[0] as Message, ...messages.slice(1 + result.droppedTurns - 2)];
  assert.ok(model.fit(more, options).droppedTurns === 2 && model.fit(kept, options).droppedTurns === 0);
});

test("the tokens that are counted are those that are read: a prefix, and a prompt that is read twice", () => {
  const messages = chatOf(9);
  const plain = model.fit(messages, { maxTokens: 5 });
  const prefix = " The old fox said that".repeat(3);
  const prefixed = model.fit(messages, { maxTokens: 5, prefix });
  assert.ok(prefixed.droppedTurns > plain.droppedTurns);
  assert.ok(prefixed.prompt.length <= 91 && model.decode(prefixed.prompt).endsWith(`assistant:${prefix}`));
  assert.throws(() => model.fit(messages, { readTwice: true }), says("usage", "has no state"));
  const once = stateful.fit(messages, { maxTokens: 5 });
  const twice = stateful.fit([user("so?")], { maxTokens: 5, readTwice: true });
  assert.ok(once.prompt.length <= 91);
  assert.deepEqual(twice.prompt.slice(twice.prompt.length / 2), twice.prompt.slice(0, twice.prompt.length / 2));
  assert.ok(stateful.fit(messages.slice(-5), { maxTokens: 5, readTwice: true }).droppedTurns > 0);
  assert.equal(stateful.fit(messages.slice(-5), { maxTokens: 5 }).droppedTurns, 0);
});
