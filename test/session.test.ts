// Conversations that stay: what they say is what one text says, whoever else has the model meanwhile, and after they were
// put away.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { GenerateOptions } from "../runtime/generation";
import type { Model } from "../runtime/model";
import type { Session } from "../runtime/session";
import { watchModels } from "./all-returned";
import { random } from "./random";
import { randomTokens } from "./small-models";
import { SMALL_CONFIGS, says, scratchFolder, writeCheckpoint } from "./write-checkpoint";
import { openBytes, packCheckpoint } from "./write-pack";

watchModels();

const VOCABULARY = 300;
const GREEDY: GenerateOptions = { temperature: 0, repeatPenalty: 1, seed: 1 };

async function packOf(name: keyof typeof SMALL_CONFIGS, seed = 4) {
  const { folder } = writeCheckpoint(
    scratchFolder({ after }),
    { ...SMALL_CONFIGS[name], vocab_size: VOCABULARY },
    seed,
  );
  return openBytes(await packCheckpoint(folder, { weights: name === "nemotron-h" ? "f32" : "q4" }));
}

const more = async (session: Session, maxTokens = 7) =>
  (await session.generate({ ...GREEDY, maxTokens }).result()).tokens;
const alone = async (model: Model, tokens: readonly number[], maxTokens = 7) =>
  (await model.generate(tokens, { ...GREEDY, maxTokens }).result()).tokens;

for (const name of ["llama", "mamba2", "bamba", "nemotron-h"] as const) {
  test(`turns, branches, and two that share one place: ${name}`, async () => {
    const pack = await packOf(name);
    const plain = await pack.load(pack.plan({ threads: 1 }));
    const model = await pack.load(pack.plan({ threads: 1, sequences: 1 }));
    const [one, two] = [model.session(), model.session()];
    const said: [Session, number[]][] = [
      [one, []],
      [two, []],
    ];
    for (let turn = 0; turn < 3; turn++) {
      for (const [session, tokens] of said) {
        const asked = randomTokens(12, VOCABULARY, 50 + turn);
        session.append(asked);
        tokens.push(...asked);
        const want = await alone(plain, tokens);
        assert.deepEqual(await more(session), want, `turn ${turn}`);
        tokens.push(...want);
        assert.deepEqual(session.tokens, tokens);
        // The other one needs the place: this one is put away.
        await new Promise((resolve) => setTimeout(resolve, 110));
      }
    }
    const kept = one.tokens.length;
    await more(one, 1); // it has the place again
    const branch = await one.fork();
    branch.append([9]);
    const want = await alone(plain, branch.tokens);
    const rows = model.engine.rows;
    assert.deepEqual(await more(branch), want);
    // The token before, the one that was put in, and all that were made but the last.
    if (model.plan.stateBytes > 0) assert.equal(model.engine.rows - rows, 1 + 1 + 6, "a branch was read again");
    said[0]?.[1].push(...one.tokens.slice(kept));
    assert.deepEqual(await more(one), await alone(plain, said[0]?.[1] as number[]));
    for (const session of [one, two, branch]) await session.dispose();
    assert.equal(model.engine.heldBlocks, 0);
  });

  test(`saved and taken up again, by this model or another: ${name}`, async () => {
    const pack = await packOf(name);
    const [model, other] = [
      await pack.load(pack.plan({ threads: 1, sequences: 2 })),
      await pack.load(pack.plan({ threads: 1, rows: 5 })),
    ];
    const session = model.session();
    session.append(randomTokens(45, VOCABULARY, 3));
    await more(session);
    const saved = await session.save();
    const want = await more(session);
    for (const where of [model, other]) {
      const rows = where.engine.rows;
      const again = await where.restore(saved);
      assert.deepEqual(await more(again), want);
      assert.equal(where.engine.rows - rows, 7, "what was saved was read again");
      await again.dispose();
    }
    const empty = await (await model.restore(await model.session().save())).save();
    assert.deepEqual((await model.restore(empty)).tokens, model.session().tokens);
    await session.dispose();
  });
}

test("a session of another pack, of another cut, and what is none", async () => {
  const [pack, stranger] = [await packOf("llama"), await packOf("llama", 5)];
  const model = await pack.load(pack.plan({ threads: 1 }));
  const session = model.session();
  session.append([1, 2, 3]);
  await more(session);
  const saved = await session.save();
  await assert.rejects((await stranger.load()).restore(saved), says("usage", "another pack"));
  await assert.rejects((await pack.load(pack.plan({ pruning: 0.5 }))).restore(saved), says("usage", "another cut"));
  const exact = await pack.load(pack.plan({ activations: "f32" }));
  await assert.rejects(exact.restore(saved), says("usage", "another cut", "f32"));
  const short = await pack.load(pack.plan({ context: 8 }));
  await assert.rejects(short.restore(saved), says("context", "10", "8"));
  for (const bytes of [new Uint8Array(), saved.subarray(0, 11), new TextEncoder().encode("SNUGSES1 and no more")])
    await assert.rejects(model.restore(bytes), says("usage", "no session"));
  await session.dispose();
});

test("damaged sessions are refused or read anew, and harm nobody", async () => {
  const seed = 91;
  const { int } = random(seed);
  const pack = await packOf("bamba");
  const model = await pack.load(pack.plan({ threads: 1, sequences: 2 }));
  const session = model.session();
  session.append(randomTokens(40, VOCABULARY, 3));
  await more(session);
  const saved = await session.save();
  const want = await alone(model, [1, 2, 3]);
  let taken = 0;
  for (let round = 0; round < 300; round++) {
    const bytes = saved.slice(0, int(3) === 0 ? int(saved.length) : saved.length);
    for (let i = int(4); i > 0; i--) if (bytes.length > 0) bytes[int(int(2) === 0 ? 200 : bytes.length)] = int(256);
    try {
      const again = await model.restore(bytes);
      taken++;
      assert.equal((await more(again, 2)).length, 2, `seed ${seed}, round ${round}`);
      await again.dispose();
    } catch (error) {
      assert.match(
        String((error as { code?: string }).code),
        /usage|context/,
        `seed ${seed}, round ${round}: ${error}`,
      );
    }
  }
  assert.ok(taken > 0);
  assert.deepEqual(await alone(model, [1, 2, 3]), want);
  await session.dispose();
  assert.equal(model.engine.heldBlocks, 0);
});

test("a session makes one text at a time, and says what does not fit", async () => {
  const pack = await packOf("llama");
  const model = await pack.load(pack.plan({ threads: 1, context: 64, sequences: 2 }));
  const session = model.session();
  session.append([1, 2, 3]);
  const both = await Promise.allSettled([
    session.generate({ ...GREEDY, maxTokens: 5 }).result(),
    session.generate({ ...GREEDY, maxTokens: 5 }).result(),
  ]);
  const refused = both.filter(({ status }) => status === "rejected") as PromiseRejectedResult[];
  assert.equal(refused.length, 1);
  says("usage", "one text at a time")(refused[0]?.reason);
  assert.throws(() => session.append(randomTokens(64, VOCABULARY, 1)), says("context", "64"));
  assert.throws(() => session.append([VOCABULARY]), says("usage", String(VOCABULARY)));
  assert.throws(() => session.generate({ readTwice: true }), says("usage", "readTwice"));
  await session.dispose();
});

test("a model may go while a session is open and a text is on its way: what they held comes back when they end", async () => {
  const pack = await packOf("llama");
  const model = await pack.load(pack.plan({ threads: 1, sequences: 3 }));
  const session = model.session();
  session.append([1, 2, 3]);
  await more(session);
  const onWay = model.generate([4, 5, 6], { ...GREEDY, onToken: () => model.dispose() }).result();
  await assert.rejects(onWay, says("usage", "disposed"));
  assert.deepEqual([model.engine.heldSlots, model.engine.heldBlocks], [1, 1]);
  await session.dispose();
  assert.equal(model.engine.heldBlocks, 0);
});
