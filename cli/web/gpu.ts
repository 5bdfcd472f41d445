// The GPU that a page may use, if there is one. The runtime asks in its worker, and gets the same.

export interface Gpu {
  readonly name: string;
  /** The CPU plays it. */
  readonly isSoftware: boolean;
}

export async function findGpu(): Promise<Gpu | null> {
  const wanted = { powerPreference: "high-performance" } as const;
  const adapter = await navigator.gpu?.requestAdapter(wanted).catch(() => null);
  if (!adapter) return null;
  const { description, vendor, architecture, isFallbackAdapter } = adapter.info;
  return { name: description || [vendor, architecture].filter(Boolean).join(" "), isSoftware: isFallbackAdapter };
}
