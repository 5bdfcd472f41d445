// A pack and a model at the other end of a channel: the same answers, errors and endings as without one.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { SnugError } from "../runtime/errors";
import type { GeneratedToken, GenerateOptions } from "../runtime/generation";
import type { Model } from "../runtime/model";
import { openPack } from "../runtime/pack";
import { answerCalls, Caller, type Port } from "../runtime/port";
import { type RemoteModel, type RemotePack, RemotePacks } from "../runtime/remote";
import type { RemoteSession } from "../runtime/remote-session";
import { servePacks } from "../runtime/serve";
import type { Session } from "../runtime/session";
import { watchModels } from "./all-returned";
import { fixture } from "./tokenizer-cases";
import { says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { memorySource, openBytes, packCheckpoint, testHost } from "./write-pack";

watchModels();

const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, seed: 1, maxTokens: 24 };

const folder = scratchFolder({ after });
const { port1, port2 } = new MessageChannel();
const packs = new RemotePacks(endOf(port1));
let bytes: Uint8Array;
let pack: RemotePack;
let model: RemoteModel;
let local: Model;
/** The models at the other end, in the order in which they were loaded. */
const loaded: Model[] = [];

/** A channel's end, as a port. */
function endOf(port: MessagePort): Port {
  return { post: (message) => port.postMessage(message), listen: (hear) => port.on("message", hear) };
}

before(async () => {
  writeCheckpoint(folder, { vocab_size: 593 }, 5, { files: { "tokenizer.json": fixture() } });
  const info = { name: "a test", chatTemplate: "{% for message in messages %}{{ message.content }}. {% endfor %}" };
  bytes = await packCheckpoint(folder, { beginToken: 586, info });
  // A host that lets messages in between tokens, as one in a worker does.
  const host = { ...testHost, pause: () => new Promise<void>((resolve) => setImmediate(resolve)) };
  servePacks(endOf(port2), async (name: string) => {
    if (name !== "test") throw new SnugError("usage", `there is no ${name} here`);
    const opened = await openPack(memorySource(bytes), host, {});
    const load = opened.load.bind(opened);
    opened.load = async (...args) => {
      const made = await load(...args);
      loaded.push(made);
      return made;
    };
    return opened;
  });
  pack = await packs.open("test");
  model = await pack.load(await pack.plan({ rows: 8, sequences: 2 }));
  const here = await openBytes(bytes);
  local = await here.load(here.plan({ rows: 8, sequences: 2 }));
});
after(() => port1.close());

test("a remote pack says what a pack says", async () => {
  const here = await openBytes(bytes);
  for (const options of [{}, { pruning: 0.3 }, { memory: 2e6, context: 16 }])
    assert.deepEqual(await pack.plan(options), here.plan(options));
  assert.deepEqual([pack.info, pack.shape, pack.units, pack.size], [here.info, here.shape, here.units, here.size]);
  assert.equal(pack.identity, here.identity);
  assert.equal(pack.build.simd, here.build.simd);
  assert.deepEqual(pack.spare, here.spare());
});

test("a remote model says what a model says", async () => {
  assert.deepEqual(await model.encode("Once upon"), local.encode("Once upon"));
  assert.deepEqual(await model.prompt("Once upon"), local.prompt("Once upon"));
  assert.equal(await model.decode(local.encode("Once upon")), "Once upon");
  for (const prompt of ["Once upon a time", [1, 2, 3]]) {
    const here = await local.generate(prompt, GREEDY).result();
    const there = model.generate(prompt, GREEDY);
    const pieces: string[] = [];
    for await (const piece of there) pieces.push(piece);
    const result = await there.result();
    assert.deepEqual(result.tokens, here.tokens);
    assert.equal(result.text, here.text);
    assert.equal(pieces.join(""), here.text);
    assert.equal(result.finishReason, here.finishReason);
  }
});

test("the device that is asked for is asked for at the other end, and why it was taken comes back", async () => {
  assert.equal(model.choice, null);
  const plan = await pack.plan({ rows: 8 });
  const any = await pack.load(plan, { device: "auto" });
  assert.equal(any.choice?.device, "cpu");
  assert.match(any.choice?.reason ?? "", /GPU/);
  assert.deepEqual(any.plan, plan);
  await any.dispose();
  await assert.rejects(pack.load(plan, { device: "gpu" }), says("gpu", "GPU"));
  const onGpu = await pack.plan({ rows: 8, device: "gpu" });
  assert.ok(onGpu.deviceBytes > 0);
  const here = await pack.load(onGpu, { device: "cpu" });
  assert.equal(here.plan.deviceBytes, 0);
  await here.dispose();
});

test("progress comes before the load is done", async () => {
  const seen: number[] = [];
  const plan = await pack.plan();
  const other = await pack.load(plan, { onProgress: ({ readBytes }) => seen.push(readBytes) });
  assert.ok(seen.length > 2);
  assert.equal(seen.at(-1), plan.readBytes);
  await other.dispose();
});

test("errors keep their code and their words", async () => {
  await assert.rejects(packs.open("other"), says("usage", "there is no other here"));
  await assert.rejects(pack.plan({ memory: 10 }), says("budget", "does not fit"));
  await assert.rejects(pack.plan({ memory: "lots" }), says("usage", "not a size"));
  await assert.rejects(model.generate([999999], GREEDY).result(), says("usage", "token id"));
  await assert.rejects(
    model.generate("Once", { ...GREEDY, minP: (() => 1) as never }).result(),
    says("usage", "cannot be sent"),
  );
  await assert.rejects(
    async () => {
      for await (const _ of model.generate("Once", { ...GREEDY, topP: 7 }));
    },
    says("usage", "topP"),
  );
});

test("a signal stops a generation at the other end", async () => {
  const stop = new AbortController();
  const generation = model.generate("Once", { ...GREEDY, maxTokens: 200, signal: stop.signal });
  let pieces = 0;
  await assert.rejects(async () => {
    for await (const _ of generation) if (++pieces === 3) stop.abort();
  }, says("aborted"));
  await assert.rejects(generation.result(), says("aborted"));
  await assert.rejects(model.generate("Once", { signal: AbortSignal.abort() }).result(), says("aborted"));
  assert.equal((await model.generate("Once", GREEDY).result()).tokens.length, 24);
});

test("who leaves the loop ends the generation at the other end", async () => {
  const generation = model.generate("Once", { ...GREEDY, maxTokens: 400 });
  for await (const _ of generation) break;
  await assert.rejects(generation.result(), says("aborted"));
  assert.equal((await model.generate("Once", GREEDY).result()).tokens.length, 24);
});

test("tokens are told at this end", async () => {
  const told: number[] = [];
  const onToken = ({ id, logprob, top }: GeneratedToken) => {
    assert.ok(logprob !== null && logprob <= 0 && top.length === 2);
    told.push(id);
  };
  const { tokens } = await model.generate("Once", { ...GREEDY, logprobs: 2, onToken }).result();
  assert.deepEqual(told, tokens);
});

test("generations at once do not mix", async () => {
  const prompts = ["Once", "Twice", "Once"];
  const alone = [];
  for (const prompt of prompts) alone.push((await model.generate(prompt, GREEDY).result()).tokens);
  const together = await Promise.all(prompts.map((prompt) => model.generate(prompt, GREEDY).result()));
  assert.deepEqual(
    together.map(({ tokens }) => tokens),
    alone,
  );
});

test("a chat that is too long for the context is fitted at the other end", async () => {
  const messages = Array.from({ length: 99 }, (_, i) => ({
    role: i % 2 === 0 ? "user" : "assistant",
    content: `the words of turn ${i}`,
  }));
  const fitted = await model.fit(messages, { maxTokens: 24 });
  assert.deepEqual(fitted, local.fit(messages, { maxTokens: 24 }));
  assert.ok(fitted.droppedTurns > 0);
  const options = { ...GREEDY, overflow: "drop" } as const;
  const [there, here] = [model.chat(messages, options), local.chat(messages, options)];
  const result = await there.result();
  assert.deepEqual(result.tokens, (await here.result()).tokens);
  assert.equal(result.droppedTurns, fitted.droppedTurns);
  await assert.rejects(model.chat(messages, GREEDY).result(), says("context", "the context has room for"));
  await assert.rejects(model.chat(messages, { overflow: "x" as never }).result(), says("usage", "overflow is one of"));
});

// Sessions

const more = async (session: Session | RemoteSession, maxTokens = 7) =>
  (await session.generate({ ...GREEDY, maxTokens }).result()).tokens;
/** The model that remote tests run on. */
const far = () => loaded[0] as Model;

test("a remote session says what a session says: turns, a branch, and what was saved", async () => {
  const [there, here] = [await model.session(), local.session()];
  assert.deepEqual(await there.tokens, here.tokens);
  for (const turn of ["Once upon", [1, 2, 3]]) {
    await there.append(turn);
    here.append(turn);
    assert.deepEqual(await more(there), await more(here));
    assert.deepEqual(await there.tokens, here.tokens);
  }
  const [branch, own] = [await there.fork(), await here.fork()];
  void branch.append("and then");
  own.append("and then");
  assert.deepEqual(await more(branch), await more(own));
  assert.deepEqual(await there.tokens, here.tokens, "a branch is none of its original's");

  const saved = await there.save();
  assert.deepEqual(saved, await here.save());
  const want = await more(here);
  const rows = far().engine.rows;
  const again = await model.restore(saved);
  assert.deepEqual(await more(again), want);
  assert.equal(far().engine.rows - rows, 7, "what was saved was read again");
  assert.deepEqual(await more(there), want);
  const back = await local.restore(saved);
  assert.deepEqual(await more(back), want);
  for (const session of [there, branch, again, here, own, back]) await session.dispose();
  assert.equal(far().engine.heldBlocks, 0);
  await assert.rejects(there.append("more"), says("usage", "session was disposed"));
  await assert.rejects(more(branch), says("usage", "session was disposed"));
});

test("two remote sessions at once do not mix, and each makes one text at a time", async () => {
  const asked = ["Once", "Twice"];
  const alone: (readonly number[])[] = [];
  for (const text of asked) {
    const session = local.session();
    session.append(text);
    alone.push(await more(session, 20));
    await session.dispose();
  }
  const sessions = await Promise.all(asked.map(() => model.session()));
  await Promise.all(sessions.map((session, i) => session.append(asked[i] as string)));
  assert.deepEqual(await Promise.all(sessions.map((session) => more(session, 20))), alone);
  const [one, two] = sessions as [RemoteSession, RemoteSession];
  const both = await Promise.allSettled([more(one), more(one)]);
  assert.deepEqual(both.map(({ status }) => status).toSorted(), ["fulfilled", "rejected"]);
  await Promise.all([one.dispose(), two.dispose()]);
  assert.equal(far().engine.heldBlocks, 0);
});

test("a remote session that is stopped keeps what was made, and goes on", async () => {
  const session = await model.session();
  await session.append("Once");
  const begun = (await session.tokens).length;
  const stop = new AbortController();
  const generation = session.generate({ ...GREEDY, maxTokens: 200, signal: stop.signal });
  let pieces = 0;
  await assert.rejects(async () => {
    for await (const _ of generation) if (++pieces === 3) stop.abort();
  }, says("aborted"));
  const kept = await session.tokens;
  assert.ok(kept.length > begun && kept.length < begun + 200, `${kept.length} tokens`);
  assert.deepEqual(await more(session), (await local.generate(kept, { ...GREEDY, maxTokens: 7 }).result()).tokens);
  const last = (await session.tokens).length;
  await assert.rejects(session.generate({ signal: AbortSignal.abort() }).result(), says("aborted"));
  await assert.rejects(session.generate({ readTwice: true }).result(), says("usage", "readTwice"));
  await assert.rejects(session.append(Array.from({ length: 9999 }, () => 1)), says("context", "do not fit"));
  await assert.rejects(session.append([593]), says("usage", "token id 593"));
  assert.equal((await session.tokens).length, last);
  await session.dispose();
  assert.equal(far().engine.heldBlocks, 0);
});

test("what is no saved session is refused at the other end, whatever it is", async () => {
  const session = await model.session();
  await session.append("Once");
  await more(session);
  const saved = await session.save();
  for (const bytes of [null, undefined, "SNUGSES1", {}, [...saved], saved.buffer, new Uint8Array(), saved.slice(0, 30)])
    await assert.rejects(model.restore(bytes as Uint8Array), says("usage", "no session"));
  const cut = await pack.load(await pack.plan({ pruning: 0.5 }));
  await assert.rejects(cut.restore(saved), says("usage", "another cut"));
  const other = await cut.session();
  await cut.dispose();
  for (const late of [other.tokens, other.save(), other.fork(), more(other)])
    await assert.rejects(late, says("usage", "session was disposed"));
  await assert.rejects(cut.session(), says("usage", "model was disposed"));
  await session.dispose();
  assert.equal(far().engine.heldBlocks, 0);
});

test("a disposed model and a closed pack refuse", async () => {
  const own = await packs.open("test");
  const mine = await own.load();
  await mine.dispose();
  await assert.rejects(mine.encode("a"), says("usage", "model was disposed"));
  await own.close();
  await assert.rejects(own.plan(), says("usage", "pack was closed"));
});

test("calls under way when the other end goes are told so", async () => {
  const channel = new MessageChannel();
  const caller = new Caller(endOf(channel.port1));
  answerCalls(endOf(channel.port2), { never: () => new Promise(() => {}), constructor: () => 1 });
  const waiting = caller.call("never", []);
  await assert.rejects(caller.call("toString", []), says("usage", "nothing here is called"));
  caller.fail(new SnugError("internal", "it is gone"));
  await assert.rejects(waiting, says("internal", "it is gone"));
  await assert.rejects(caller.call("never", []), says("internal", "it is gone"));
  channel.port1.close();
});
