// What an app, or a link, may set beforehand: the pack, the memory and the context. Both come from outside, so that
// anything that is not what it should be is left out. No DOM.
//
// As an address:  index.html?pack=https://example.org/my.snug&memory=300MB&context=1024
// As a message:   postMessage({ type: "snug", pack: "my.snug", memory: "300MB", context: 1024 })

export interface Presets {
  /** Absolute http or https address; a relative one is taken from the page's. */
  readonly pack?: string;
  /** As PlanOptions has it: bytes, or such as "300MB". */
  readonly memory?: string | number;
  readonly context?: number;
}

const ADDRESS_LONGEST = 4096;

/** Of the page's address. */
export function presetsOfAddress(address: string): Presets {
  const { searchParams } = new URL(address);
  return presetsOf(Object.fromEntries(searchParams), address);
}

/** Of a message's data; null: it is not for us. */
export function presetsOfMessage(data: unknown, address: string): Presets | null {
  if (typeof data !== "object" || data === null || (data as { type?: unknown }).type !== "snug") return null;
  return presetsOf(data as Record<string, unknown>, address);
}

function presetsOf(from: Readonly<Record<string, unknown>>, address: string): Presets {
  const { pack, memory, context } = from;
  const positions = typeof context === "string" && /^\d+$/.test(context) ? Number(context) : context;
  return {
    ...(typeof pack === "string" ? location(pack, address) : {}),
    ...(isSize(memory) ? { memory } : {}),
    ...(typeof positions === "number" && Number.isInteger(positions) && positions > 0 ? { context: positions } : {}),
  };
}

function isSize(value: unknown): value is string | number {
  if (typeof value === "number") return Number.isFinite(value) && value > 0;
  return typeof value === "string" && value.length < 32 && /^\s*[\d.]+\s*[a-z]*\s*$/i.test(value);
}

function location(pack: string, address: string): { pack?: string } {
  if (pack === "" || pack.length > ADDRESS_LONGEST || !URL.canParse(pack, address)) return {};
  const { protocol, href } = new URL(pack, address);
  return protocol === "http:" || protocol === "https:" ? { pack: href } : {};
}
