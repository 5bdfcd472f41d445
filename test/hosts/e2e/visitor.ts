// What the tests do on a page: small steps by name, with JSON in and out.

import type * as Snug from "../../../runtime/browser";
import { CHANNEL, type Probed } from "./probed";

type Api = typeof Snug;

export interface Loaded {
  readonly tokens: readonly number[];
  readonly plan: Snug.Plan;
  readonly downloadedBytes: number;
  /** Progress as it was told: bytes read. */
  readonly told: readonly number[];
  readonly smaller: number;
}

/** Milliseconds since load() was called. */
export interface Timed {
  readonly tokens: readonly number[];
  readonly plan: Snug.Plan;
  readonly choice: Snug.DeviceChoice | null;
  readonly downloadedBytes: number;
  /** The last byte was checked, and is where it belongs. */
  readonly read: number;
  readonly loaded: number;
  readonly firstText: number;
  readonly pipelinesAsked: number;
  readonly pipelines: readonly number[];
  readonly dispatches: number;
}

const violations: string[] = [];
document.addEventListener("securitypolicyviolation", (event) => {
  violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});

// Not bundled: the product is tested as it is built.
const address = "/dist/browser.js";
const snug = (await import(address)) as Api;
let pack: Snug.RemotePack;
let stop = new AbortController();

const steps = {
  async open(source: string, options: Snug.OpenOptions = {}) {
    pack = await snug.open(source, options);
    const { info, size, build, spare } = pack;
    return { name: info.name, size, build, spare };
  },

  /** Fetches a pack whole and opens it as a file that somebody picked. */
  async openFile(source: string) {
    pack = await snug.open(new File([await (await fetch(source)).blob()], "picked.snug"));
    return pack.size;
  },

  /** Loads and says 16 tokens; `stopAt`: aborts when so many bytes have come. */
  async load(options: Snug.PlanOptions, stopAt = Number.POSITIVE_INFINITY): Promise<Loaded> {
    const plan = await pack.plan(options);
    const told: number[] = [];
    let downloadedBytes = 0;
    let smaller = 0;
    stop = new AbortController();
    const model = await pack.load(plan, {
      signal: stop.signal,
      onProgress(progress) {
        told.push(progress.readBytes);
        downloadedBytes = progress.downloadedBytes;
        if (progress.readBytes >= stopAt) stop.abort();
      },
      onSmaller() {
        smaller++;
      },
    });
    const prompt = pack.shape.hasTokenizer ? "Once upon a time" : [1, 2, 3];
    const said = await model.generate(prompt, { temperature: 0, repeatPenalty: 1, maxTokens: 16 }).result();
    await model.dispose();
    return { tokens: said.tokens, plan: model.plan, downloadedBytes, told, smaller };
  },

  /** Loads in a worker that gpu-probe.ts watches, and says 16 tokens, with the time that each part takes. */
  async time(source: string, device: "cpu" | "gpu" | "auto", options: Snug.PlanOptions): Promise<Timed> {
    pack = await snug.open(source, { worker: "/probed-worker.js" });
    const plan = await pack.plan(options);
    const origin = performance.timeOrigin + performance.now();
    const since = (time = performance.timeOrigin + performance.now()) => Math.round(time - origin);
    let downloadedBytes = 0;
    let read = 0;
    const model = await pack.load(plan, {
      device,
      onProgress(progress) {
        ({ downloadedBytes } = progress);
        read = since();
      },
    });
    const loaded = since();
    let firstText = 0;
    const said = model.generate("Once upon a time", { temperature: 0, repeatPenalty: 1, maxTokens: 16 });
    for await (const _ of said) firstText ||= since();
    const { tokens } = await said.result();
    const { asked, pipelines, dispatches } = await probed();
    const { plan: taken, choice } = model;
    await pack.close();
    return {
      ...{ tokens, plan: taken, choice, downloadedBytes, read, loaded, firstText, dispatches },
      pipelinesAsked: since(asked),
      pipelines: pipelines.map(since),
    };
  },

  /** Says 8 tokens in a session and keeps it under a name; what it, and a branch of it, say next. */
  async converse(source: string, options: Snug.PlanOptions, name: string) {
    pack = await snug.open(source);
    const model = await pack.load(await pack.plan(options));
    const session = await model.session();
    await session.append("Once upon a time");
    await more(session);
    await snug.keepSession(name, await session.save());
    const branch = await more(await session.fork());
    const next = await more(session);
    await pack.close();
    return { branch, next };
  },

  /** Goes on with a session that is kept. */
  async takeUp(source: string, options: Snug.PlanOptions, name: string) {
    pack = await snug.open(source);
    try {
      const model = await pack.load(await pack.plan(options));
      return await more(await model.restore(await snug.readSession(name)));
    } finally {
      await pack.close();
    }
  },

  storedSessions: () => snug.storedSessions(),
  forgetSession: (name: string) => snug.forgetSession(name),
  close: () => pack.close(),
  plan: (options: Snug.PlanOptions) => pack.plan(options),
  stored: () => snug.stored(),
  forget: (location: string) => snug.forget(location),
  about: () => ({ isolated: crossOriginIsolated, violations }),

  /** Turns over a byte of the only pack that is kept. */
  async damage(at: number) {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("snug");
    for await (const entry of folder.values()) {
      const file = entry as FileSystemFileHandle;
      const offset = (await file.getFile()).size - at;
      const byte = new Uint8Array(await (await file.getFile()).slice(offset, offset + 1).arrayBuffer());
      const writable = await file.createWritable({ keepExistingData: true });
      await writable.write({ type: "write", position: offset, data: Uint8Array.of((byte[0] as number) ^ 0xff) });
      await writable.close();
    }
  },
};

export type Steps = typeof steps;

async function more(session: Snug.RemoteSession): Promise<readonly number[]> {
  return (await session.generate({ temperature: 0, repeatPenalty: 1, maxTokens: 8 }).result()).tokens;
}

/** What the worker's probe has noted. */
function probed(): Promise<Probed> {
  const channel = new BroadcastChannel(CHANNEL);
  return new Promise((resolve) => {
    channel.onmessage = ({ data }) => {
      channel.close();
      resolve(data);
    };
    channel.postMessage("report");
  });
}

/** Runs a step; a failure is an answer too. */
Object.assign(window, {
  async visit(name: keyof Steps, args: unknown[]) {
    try {
      const step = steps[name] as (...args: unknown[]) => unknown;
      return { value: (await step(...args)) ?? null };
    } catch (error) {
      const { code = "", message } = error as { code?: string; message: string };
      return { code, message };
    }
  },
});
