// What the page says in words: sizes, speeds, what a plan comes to, and what to do about an error. No DOM.

import type { DeviceChoice, ErrorCode, Plan, StackPlan } from "../../runtime/browser";

type Kind = StackPlan["kind"];

/** What each kind of units is, from a reader's side. */
export const KIND_WORDS: Readonly<Record<Kind, string>> = {
  qk: "queries, keys",
  vo: "values, outputs",
  bc: "state",
  xz: "SSM heads",
  mlp: "MLP",
};

const ADVICE: Readonly<Partial<Record<ErrorCode, string>>> = {
  source: "Check the address and the connection, then try again.",
  pack: "Choose another one.",
  unsupported: "Choose another one.",
  memory: "Close other tabs, or choose less memory.",
  context: "Start a new chat, or load again with a longer conversation.",
  budget: "The slider offers what fits.",
  internal: "Reload the page to go on.",
};

/** 640 KB, 9.73 MB, 17.0 MB, 640 MB, 1.23 GB: decimal, as budgets are given. */
export function size(bytes: number): string {
  if (bytes < 999.5) return `${Math.round(bytes)} bytes`;
  if (bytes < 999.5e3) return `${Math.round(bytes / 1e3)} KB`;
  if (bytes >= 999.5e6) return `${(bytes / 1e9).toFixed(2)} GB`;
  const megabytes = bytes / 1e6;
  return `${megabytes.toFixed(megabytes < 9.995 ? 2 : megabytes < 99.95 ? 1 : 0)} MB`;
}

/** A size to the hundredth of a megabyte: what a budget is shown and typed as. */
export function exactSize(bytes: number): string {
  return bytes < 999.995e6 ? `${(bytes / 1e6).toFixed(2)} MB` : `${(bytes / 1e9).toFixed(3)} GB`;
}

/** 4.20 of 11.7 MB: the unit once where both have the same. */
export function progress(done: number, total: number): string {
  const [left, right] = [size(Math.min(done, total)), size(total)];
  const [number, unit] = left.split(" ");
  return right.endsWith(` ${unit}`) ? `${number} of ${right}` : `${left} of ${right}`;
}

/** 25 %; only nothing is 0 %, only all is 100 %. */
export function percent(share: number): string {
  const whole = Math.round(share * 100);
  if (share > 0 && whole === 0) return "under 1 %";
  if (share < 1 && whole === 100) return "over 99 %";
  return `${whole} %`;
}

/** Three digits or more of a perplexity or a speed. */
export function digits(value: number): string {
  if (value >= 100) return grouped(Math.round(value));
  return value.toFixed(value < 10 ? 2 : 1);
}

/** 13,598 */
export function grouped(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

export function speed(tokens: number, tokensPerSecond: number): string {
  return `${grouped(tokens)} ${tokens === 1 ? "token" : "tokens"}, ${digits(tokensPerSecond)} a second`;
}

/** What a plan cuts. */
export function cutWords(plan: Plan): string {
  if (plan.keptUnits === plan.units) return "Nothing is cut: all of it fits.";
  return `${percent(plan.pruningRate)} is cut: ${grouped(plan.keptUnits)} of ${grouped(plan.units)} units stay.`;
}

/** What a plan costs in quality. `whole`: the perplexity with everything kept. */
export function qualityWords(plan: Plan, whole: number | null): string {
  if (plan.expectedPerplexity === null) return "This pack does not say what a cut costs.";
  const here = `Expected perplexity ${digits(plan.expectedPerplexity)}`;
  if (plan.keptUnits === plan.units || whole === null) return `${here}; lower is better.`;
  return `${here}, uncut ${digits(whole)}; lower is better.`;
}

/** What loading brings over the network. `keptBytes`: of this pack on the device; null: it is a file of the device. */
export function downloadWords(plan: Plan, keptBytes: number | null): string {
  if (keptBytes === null) return `Loading reads ${size(plan.readBytes)} of the file.`;
  if (keptBytes >= plan.readBytes) return "All it needs is on this device: nothing to download.";
  // What opening a pack left there is not worth a word.
  if (keptBytes * 50 < plan.readBytes) return `Loading downloads ${size(plan.readBytes)}.`;
  return `Loading downloads ${size(plan.readBytes - keptBytes)} more; ${size(keptBytes)} is on this device.`;
}

/** How many threads work, and why not more. */
export function threadWords(threads: number, isolated: boolean): string {
  if (threads > 1) return `Runs on ${threads} threads.`;
  return isolated
    ? "Runs on one thread."
    : "Runs on one thread: more need a page that is cross-origin isolated, and this one is not.";
}

interface PlaceFacts {
  readonly isOpen: boolean;
  readonly choice: DeviceChoice | null;
  readonly gpu: string;
  readonly isolated: boolean;
  readonly page: string;
}

/**
 * Where a model runs, and why there. `isOpen`: that is found out when it is loaded; `choice`: it was; null: nobody had to;
 * `gpu`: the GPU's name; `page`: the page's address.
 */
export function placeWords(plan: Plan, { isOpen, choice, gpu, isolated, page }: PlaceFacts): string {
  const onGpu = gpu === "" ? "Runs on the GPU." : `Runs on the GPU (${gpu}).`;
  const here = plan.deviceBytes > 0 ? onGpu : threadWords(plan.threads, isolated);
  if (choice !== null && choice.cpu !== null && choice.gpu !== null) {
    const [taken, other] = choice.device === "gpu" ? [choice.gpu, choice.cpu] : [choice.cpu, choice.gpu];
    const [name, otherName] = choice.device === "gpu" ? ["GPU", "CPU"] : ["CPU", "GPU"];
    const speeds = `${digits(taken.decode)} tokens a second, the ${otherName} ${digits(other.decode)}`;
    return `${here} The ${name} is the faster one here: ${speeds}.`;
  }
  if (choice !== null) return `${here} The GPU is not used: ${sentence(withNames(choice.reason, page))}`;
  return isOpen ? "Runs on the GPU or the CPU: both are timed before it is loaded." : here;
}

/** Where the proposed budget comes from. */
export function budgetWords(spare: { bytes: number; how: string }, plan: Plan): string {
  const may = `This page may take about ${size(spare.bytes)}: ${spare.how}.`;
  if (spare.bytes < plan.minimumBytes)
    return `${may} The smallest cut takes ${size(plan.minimumBytes)}, so it may not load. A shorter conversation takes less.`;
  return may;
}

/** The slider's value for who hears it. */
export function sliderWords(plan: Plan): string {
  const quality = plan.expectedPerplexity === null ? "" : `, expected perplexity ${digits(plan.expectedPerplexity)}`;
  return `${size(plan.memoryBytes)}, ${percent(plan.pruningRate)} cut${quality}`;
}

/** The drawing of the network in words: what stays of each kind. */
export function networkWords(plan: Plan): string {
  const sums = new Map<Kind, { kept: number; units: number }>();
  for (const { kind, keptUnits, units } of plan.layers.flatMap((layer) => layer.stacks)) {
    const sum = sums.get(kind) ?? { kept: 0, units: 0 };
    sums.set(kind, { kept: sum.kept + keptUnits, units: sum.units + units });
  }
  const kinds = [...sums].map(([kind, { kept, units }]) => `${KIND_WORDS[kind]}: ${kept} of ${units} units`);
  return `The network's ${plan.layers.length} layers. Kept of ${kinds.join("; of ")}.`;
}

/**
 * An error as sentences: what happened, and what to do. Errors of any other class are ours. Addresses are shortened to
 * what they are called on the page.
 */
export function errorWords(error: unknown, pageAddress: string): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  const advice = ADVICE[(typeof code === "string" ? code : "internal") as ErrorCode];
  const whole = typeof message === "string" && message !== "" ? message : String(error);
  const text = sentence(withNames(whole, pageAddress));
  return advice === undefined ? text : `${text} ${advice}`;
}

function withNames(text: string, pageAddress: string): string {
  return text.replace(/https?:\/\/\S+?(?=[:;,.]?(?:\s|$))/g, (found) => placeName(found, pageAddress));
}

/** Begins with a capital, where it begins with a word, and ends with a stop. */
export function sentence(text: string): string {
  const begun = /^[a-z]+(?=[\s,;])/.test(text) ? `${text.charAt(0).toUpperCase()}${text.slice(1)}` : text;
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** What to call a pack by its address: the file's name, and the host if it is not the page's. */
export function placeOf(location: string, pageAddress: string): { name: string; host: string | null } {
  if (!URL.canParse(location, pageAddress)) return { name: location, host: null };
  const { host, pathname } = new URL(location, pageAddress);
  return {
    name: decoded(pathname.split("/").pop() ?? "") || host,
    host: host === new URL(pageAddress).host ? null : host,
  };
}

/** placeOf() in a sentence. */
export function placeName(location: string, pageAddress: string): string {
  const { name, host } = placeOf(location, pageAddress);
  return host === null || host === name ? name : `${name} of ${host}`;
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
