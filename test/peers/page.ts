// A page of Chromium that becomes one contestant: snug in a worker, or wllama, which brings its own.

import type { PageOptions, PageWindow } from "./chromium";
import type { ModelRunner } from "./runner";
import type { Wllama2, Wllama3, WllamaModule } from "./wllama";

const CONTEXT = 1024;
const FIRST_CHARACTER = 33; // what token 0 is: see gguf.ts

let runner: ModelRunner | undefined;

(window as unknown as PageWindow).contestant = async (method, args) => {
  if (method === "start") {
    if (!crossOriginIsolated) throw new Error("the page is not isolated: no threads");
    const options = args[0] as PageOptions;
    runner = options.contestant === "snug" ? await startSnug(options) : await startWllama(options);
    return;
  }
  return (runner as unknown as Record<string, (...args: readonly unknown[]) => Promise<unknown>>)[method]?.(...args);
};

async function startSnug(options: PageOptions): Promise<ModelRunner> {
  const worker = new Worker("snug-worker.js", { type: "module" });
  const call = (method: string, ...args: unknown[]) =>
    new Promise<never>((resolve, reject) => {
      worker.onmessage = ({ data }) => ("error" in data ? reject(new Error(data.error)) : resolve(data.value as never));
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage({ method, args });
    });
  await call("start", options);
  return {
    about: () => call("about"),
    prompt: (tokens) => call("prompt", tokens),
    generate: (tokens, count) => call("generate", tokens, count),
  };
}

async function startWllama(options: PageOptions): Promise<ModelRunner> {
  const { Wllama } = (await import(`${options.library}/esm/index.js`)) as WllamaModule;
  const model = await (await fetch(options.model)).blob();
  const settings = { n_threads: options.threads, n_ctx: CONTEXT, n_batch: 512, flash_attn: true, n_gpu_layers: 0 };
  const quiet = { debug() {}, log() {}, warn() {}, error() {} };
  const at = (file: string) => `${options.library}/esm/${file}`;
  const wasm =
    options.major === 2
      ? {
          "single-thread/wllama.wasm": at("single-thread/wllama.wasm"),
          "multi-thread/wllama.wasm": at("multi-thread/wllama.wasm"),
        }
      : { default: at("wasm/wllama.wasm") };
  const wllama = new Wllama(wasm, { logger: quiet });
  await wllama.loadModel([model], settings);
  if (wllama.getNumThreads() !== options.threads)
    throw new Error(`runs ${wllama.getNumThreads()} threads instead of ${options.threads}`);
  const about = async () => `llama.cpp ${Wllama.getLibllamaVersion()}`;
  return options.major === 2
    ? { about, ...byTokens(wllama as unknown as Wllama2) }
    : { about, ...byText(wllama as unknown as Wllama3) };
}

function byTokens(wllama: Wllama2): Omit<ModelRunner, "about"> {
  const prompt = async (tokens: readonly number[]) => {
    await wllama.kvClear();
    const started = performance.now();
    await wllama.decode([...tokens], {});
    return (performance.now() - started) / 1000;
  };
  return {
    prompt,
    async generate(tokens, count) {
      await wllama.samplingInit({ temp: 0 });
      await prompt(tokens);
      const started = performance.now();
      for (let i = 0; i < count; i++) {
        const { token } = await wllama.samplingSample();
        await wllama.decode([token], {});
      }
      return (performance.now() - started) / 1000;
    },
  };
}

/** Versions from 3 on take texts only: one printable character is one token. They time themselves. */
function byText(wllama: Wllama3): Omit<ModelRunner, "about"> {
  const complete = async (tokens: readonly number[], count: number) => {
    const prompt = String.fromCharCode(...tokens.map((token) => FIRST_CHARACTER + token));
    const { timings } = await wllama.createCompletion({
      prompt,
      max_tokens: count,
      temperature: 0,
      top_k: 1,
      cache_prompt: false,
      ignore_eos: true,
    });
    if (timings === undefined) throw new Error("gives no timings");
    if (timings.prompt_n !== tokens.length || timings.predicted_n !== count)
      throw new Error(`read ${timings.prompt_n} tokens and made ${timings.predicted_n}`);
    return timings;
  };
  return {
    prompt: async (tokens) => (await complete(tokens, 1)).prompt_ms / 1000,
    // The first token comes from the prompt's own step.
    generate: async (tokens, count) => (await complete(tokens, count + 1)).predicted_ms / 1000,
  };
}
