// Packs and models for whoever is at the other end of a channel: see remote.ts for that end.

import type { Message } from "./chat";
import { SnugError } from "./errors";
import type { Generation } from "./generation";
import type { LoadOptions } from "./load";
import type { Model } from "./model";
import type { ChatOptions, FitOptions, Fitted } from "./overflow";
import type { Pack } from "./pack";
import type { Plan, PlanOptions } from "./plan";
import { answerCalls, type CallContext, type Port } from "./port";
import type { LoadedModel, OpenedPack, RemoteLoadOptions } from "./remote";
import type { RemoteGenerateOptions } from "./remote-generation";
import type { Session } from "./session";

/**
 * Serves packs over a port. `openPack` opens what the other end asks for, and is the place to refuse what it should not
 * have.
 */
export function servePacks<Location, Options>(
  port: Port,
  openPack: (location: Location, options: Options, signal: AbortSignal) => Promise<Pack>,
): void {
  const packs = new Map<number, Pack>();
  const models = new Map<number, Model>();
  const sessions = new Map<number, { readonly of: Session; readonly model: number }>();
  let handles = 0;
  const packOf = (handle: number) => found(packs, handle, "pack was closed");
  const modelOf = (handle: number) => found(models, handle, "model was disposed");
  const sessionOf = (handle: number) => found(sessions, handle, "session was disposed");
  const keep = (model: number, session: Session): number => {
    modelOf(model); // it may have gone meanwhile
    sessions.set(++handles, { of: session, model });
    return handles;
  };

  answerCalls(port, {
    async open({ signal }, location: Location, options: Options): Promise<OpenedPack> {
      const pack = await openPack(location, options, signal);
      packs.set(++handles, pack);
      const { info, shape, units, size, identity, build } = pack;
      const { module: _, ...about } = build;
      return { handle: handles, info, shape, units, size, identity, build: about, spare: pack.spare() };
    },
    plan: (_, handle: number, options: PlanOptions): Plan => packOf(handle).plan(options),
    async load(
      { signal, tell },
      handle: number,
      plan: Plan | undefined,
      { device }: RemoteLoadOptions,
    ): Promise<LoadedModel> {
      const options: LoadOptions = {
        ...(device && { device }),
        signal,
        onProgress: (progress) => tell({ progress }),
        onSmaller: (smaller, error) => tell({ smaller, code: error.code, message: error.message }),
      };
      const model = await packOf(handle).load(plan, options);
      models.set(++handles, model);
      return { handle: handles, plan: model.plan, choice: model.choice };
    },
    async close(_, handle: number) {
      await packOf(handle).close();
      packs.delete(handle);
    },
    generate: (context, handle: number, prompt: string | readonly number[], options: RemoteGenerateOptions) =>
      run(context, modelOf(handle).generate(prompt, optionsOf(context, options))),
    chat: (context, handle: number, messages: readonly Message[], options: RemoteGenerateOptions) =>
      run(context, modelOf(handle).chat(messages, optionsOf(context, options))),
    fit: (_, handle: number, messages: readonly Message[], options: FitOptions): Fitted =>
      modelOf(handle).fit(messages, options),
    session: (_, handle: number): number => keep(handle, modelOf(handle).session()),
    restore: async (_, handle: number, saved: Uint8Array): Promise<number> =>
      keep(handle, await modelOf(handle).restore(saved)),
    "session.tokens": (_, handle: number): readonly number[] => sessionOf(handle).of.tokens,
    "session.append": (_, handle: number, text: string | readonly number[]) => sessionOf(handle).of.append(text),
    "session.generate": (context, handle: number, options: RemoteGenerateOptions) =>
      run(context, sessionOf(handle).of.generate(optionsOf(context, options))),
    async "session.fork"(_, handle: number): Promise<number> {
      const { of, model } = sessionOf(handle);
      return keep(model, await of.fork());
    },
    "session.save": (_, handle: number): Promise<Uint8Array> => sessionOf(handle).of.save(),
    async "session.dispose"(_, handle: number) {
      const { of } = sessionOf(handle);
      sessions.delete(handle);
      await of.dispose();
    },
    encode: (_, handle: number, text: string): number[] => modelOf(handle).encode(text),
    prompt: (_, handle: number, text: string): number[] => modelOf(handle).prompt(text),
    decode: (_, handle: number, tokens: readonly number[]): string => modelOf(handle).decode(tokens),
    /** Disposes of all models and closes all packs. */
    async end() {
      for (const model of models.values()) model.dispose();
      for (const pack of packs.values()) await pack.close();
      sessions.clear();
      models.clear();
      packs.clear();
    },
    dispose(_, handle: number) {
      modelOf(handle).dispose();
      models.delete(handle);
      for (const [session, { model }] of sessions) if (model === handle) sessions.delete(session);
    },
  });
}

function optionsOf({ signal, tell }: CallContext, { tellsTokens, ...options }: RemoteGenerateOptions): ChatOptions {
  return { ...options, signal, ...(tellsTokens && { onToken: tell }) };
}

/** Tells the pieces of a text. */
async function run({ tell }: CallContext, generation: Generation) {
  for await (const piece of generation) tell(piece);
  return generation.result();
}

function found<T>(things: ReadonlyMap<number, T>, handle: number, gone: string): T {
  const thing = things.get(handle);
  if (thing === undefined) throw new SnugError("usage", `this ${gone}`);
  return thing;
}
