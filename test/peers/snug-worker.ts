// snug in a browser's worker: the host that a page needs, in as few lines as the comparison can do with.

import type { Host, Source } from "../../runtime/host";
import type { Model } from "../../runtime/model";
import { Pack } from "../../runtime/pack";
import type { PageOptions } from "./chromium";
import type { Call } from "./runner";

const CONTEXT = 1024;

let pack: Pack;
let model: Model;

const methods: Readonly<Record<string, (...args: never[]) => unknown>> = {
  async start({ model: address, threads }: PageOptions) {
    pack = await Pack.open(await fetchSource(address), host);
    model = await pack.load(pack.plan({ context: CONTEXT, threads }));
  },
  about: () => pack.build.simd,
  prompt: async (tokens: number[]) => (await generate(tokens, 1)).prompt.seconds,
  // The first token comes from the prompt's own step.
  generate: async (tokens: number[], count: number) => (await generate(tokens, count + 1)).decode.seconds,
};

const host: Host = {
  openSource: fetchSource,
  loadModule: (file) => WebAssembly.compileStreaming(fetch(`/dist/${file}`)),
  spareMemory: () => ({ bytes: 2 ** 32, how: "not asked" }),
  startThread(module, memory) {
    const worker = new Worker("snug-thread.js", { type: "module" });
    worker.postMessage({ module, memory });
    return { end: () => worker.terminate() };
  },
  pause: async () => {},
};

addEventListener("message", async ({ data: { method, args } }: MessageEvent<Call>) => {
  try {
    postMessage({ value: await methods[method]?.(...(args as never[])) });
  } catch (error) {
    postMessage({ error: error instanceof Error ? error.message : String(error) });
  }
});

function generate(tokens: number[], maxTokens: number) {
  return model.generate(tokens, { temperature: 0, repeatPenalty: 1, maxTokens }).result();
}

async function fetchSource(address: string): Promise<Source> {
  const size = Number((await fetch(address, { method: "HEAD" })).headers.get("Content-Length"));
  return {
    name: address,
    size,
    async read(offset, target) {
      if (target.length === 0) return;
      const headers = { Range: `bytes=${offset}-${offset + target.length - 1}` };
      target.set(new Uint8Array(await (await fetch(address, { headers })).arrayBuffer()));
    },
  };
}
