// Keeps the page's own files for use without a network: all of one build together, so that none meets a stranger.
// Packs are not its business, the runtime keeps those.

/** Filled in by build.ts: the files of this build, and a name that changes with any of them. */
declare const FILES: readonly string[];
declare const BUILD: string;

interface ExtendableEvent extends Event {
  waitUntil(work: Promise<unknown>): void;
}

interface FetchEvent extends ExtendableEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

const scope = globalThis as unknown as EventTarget & { readonly location: Location };
const PREFIX = "snug-page-";
const CACHE = PREFIX + BUILD;
const here = new URL(".", scope.location.href);

scope.addEventListener("install", (event) => (event as ExtendableEvent).waitUntil(keep()));
scope.addEventListener("activate", (event) => (event as ExtendableEvent).waitUntil(forgetOthers()));
scope.addEventListener("fetch", (event) => {
  const { request, respondWith } = event as FetchEvent;
  const file = fileOf(request);
  if (file !== null) respondWith.call(event, answer(file, request));
});

async function keep(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((file) => new Request(new URL(file, here), { cache: "no-cache" })));
}

async function forgetOthers(): Promise<void> {
  const names = await caches.keys();
  await Promise.all(
    names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)),
  );
}

/** Which of the page's files a request is for; null: none. */
function fileOf({ method, url }: Request): string | null {
  if (method !== "GET" || !url.startsWith(here.href)) return null;
  const { pathname } = new URL(url);
  const file = pathname.slice(here.pathname.length) || "index.html";
  return FILES.includes(file) ? file : null;
}

async function answer(file: string, request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  return (await cache.match(new URL(file, here))) ?? fetch(request);
}
