// The page: which pack is open, which model is loaded, and what is to be seen of it. The parts do the rest.

import { open, type RemoteModel, type RemotePack, stored } from "../../runtime/browser";
import { Chat } from "./chat";
import { find, show, write } from "./elements";
import { Fit } from "./fit";
import { Loading } from "./loading";
import { announce, clearNotice, complain } from "./notice";
import { type Choice, Packs } from "./packs";
import { type Presets, presetsOfAddress, presetsOfMessage } from "./presets";
import { percent, placeName, size } from "./words";

type Phase = "choosing" | "opening" | "fitting" | "loading" | "ready";

class Page {
  readonly #chat = new Chat();
  readonly #packs = new Packs((choice) => void this.choose(choice));
  readonly #loading = new Loading({
    device: () => this.#fit.device,
    onStart: () => this.#startLoading(),
    onModel: (model) => this.#useModel(model),
    onEnd: () => void this.#endLoading(),
  });
  readonly #fit = new Fit((plan) => this.#loading.offer(plan));
  #presets: Presets = {};
  #pack: RemotePack | null = null;
  #source: string | File = "";
  #model: RemoteModel | null = null;
  #openings = 0;

  constructor() {
    find("choose-another").addEventListener("click", () => this.#offerOthers());
    find("notice-close").addEventListener("click", () => clearNotice());
    find("setup-toggle").addEventListener("click", () => this.#openSetup(document.body.dataset.setup !== "open"));
    this.#openSetup(true);
  }

  async start(presets: Presets): Promise<void> {
    this.#presets = presets;
    await this.#packs.refresh();
    if (presets.pack !== undefined) await this.choose({ source: presets.pack });
  }

  /** What an app sets while the page is open: a pack, or a budget for the one that is open. */
  async preset(presets: Presets): Promise<void> {
    this.#presets = { ...this.#presets, ...presets };
    if (presets.pack !== undefined) await this.choose({ source: presets.pack });
    else if (this.#pack !== null) this.#fit.show(this.#pack, this.#presets);
  }

  /** Opens a pack, which reads no more than its header. Whoever chooses last has it. */
  async choose({ source, context }: Choice): Promise<void> {
    const mine = ++this.#openings;
    const name = typeof source === "string" ? placeName(source, document.baseURI) : source.name;
    clearNotice();
    this.#setPhase("opening");
    write(find("opening"), `Opening ${name}…`);
    show(find("opening"), true);
    try {
      const pack = await open(source);
      if (mine !== this.#openings) return void pack.close();
      await this.#letGo();
      this.#show(pack, source, { ...(context ? { context } : {}), ...this.#presets });
    } catch (error) {
      if (mine !== this.#openings) return;
      this.#settle();
      complain(error);
    } finally {
      if (mine === this.#openings) show(find("opening"), false);
    }
  }

  #show(pack: RemotePack, source: string | File, presets: Presets): void {
    this.#pack = pack;
    this.#source = source;
    const { info, shape } = pack;
    write(find("chosen-name"), info.name);
    const facts = [`${shape.layers} layers, ${shape.weights}`, size(pack.size), info.licence];
    write(find("chosen-facts"), facts.filter((fact) => fact !== "").join(" · "));
    find("chosen-facts").title = info.provenance;
    show(find("chosen"), true);
    show(find("chooser"), false);
    show(find("fit"), true);
    show(find("talk"), false);
    this.#setPhase("fitting");
    this.#loading.show(pack, typeof source === "string" ? 0 : null);
    this.#fit.show(pack, presets);
    find("fit-title").focus();
    announce(`${info.name} is open. Choose how much memory it may take.`);
    void this.#countKept();
  }

  /** Closing a pack ends its model too. */
  async #letGo(): Promise<void> {
    this.#loading.stop();
    await this.#chat.clear();
    this.#chat.use(null);
    this.#model = null;
    await this.#pack?.close();
    this.#pack = null;
  }

  #offerOthers(): void {
    const chooser = find("chooser");
    show(chooser, chooser.hidden === true);
    if (chooser.hidden) return;
    void this.#packs.refresh().then(() => chooser.querySelector("button")?.focus());
  }

  // Loading

  /** Two models at once would take twice the memory: the old one goes first. */
  async #startLoading(): Promise<void> {
    this.#fit.lock(true);
    this.#setPhase("loading");
    await this.#chat.stop();
    this.#chat.use(null);
    const model = this.#model;
    this.#model = null;
    await model?.dispose();
  }

  #useModel(model: RemoteModel): void {
    this.#model = model;
    this.#fit.take(model);
    this.#setPhase("ready");
    show(find("talk"), true);
    this.#chat.use(model);
    const { plan, info } = model;
    const cut = plan.keptUnits === plan.units ? "whole" : `${percent(plan.pruningRate)} cut`;
    const device = plan.deviceBytes > 0 ? " · GPU" : "";
    write(find("setup-summary"), `${info.name} · ${size(plan.totalBytes)} · ${cut}${device}`);
    announce(`${info.name} is loaded. Write to it.`);
    this.#openSetup(false);
    this.#chat.focus();
  }

  async #endLoading(): Promise<void> {
    this.#fit.lock(false);
    if (this.#phase === "loading") this.#settle();
    await this.#countKept();
  }

  async #countKept(): Promise<void> {
    const source = this.#source;
    if (typeof source !== "string") return;
    const kept = await stored().catch(() => []);
    if (source === this.#source) this.#loading.keep(kept.find(({ location }) => location === source)?.bytes ?? 0);
  }

  // What is to be seen

  /** The phase that what is there comes to. */
  #settle(): void {
    if (this.#pack === null) this.#setPhase("choosing");
    else if (this.#model !== null) this.#setPhase("ready");
    else this.#setPhase(this.#loading.isLoading ? "loading" : "fitting");
  }

  get #phase(): Phase {
    return document.body.dataset.phase as Phase;
  }

  #setPhase(phase: Phase): void {
    document.body.dataset.phase = phase;
    show(find("setup-toggle"), phase === "ready");
    if (phase !== "ready") this.#openSetup(true);
  }

  /** On a narrow screen the setup gives way to the chat; on a wide one both are there. */
  #openSetup(isOpen: boolean): void {
    document.body.dataset.setup = isOpen ? "open" : "closed";
    find("setup-toggle").setAttribute("aria-expanded", String(isOpen));
    write(find("setup-verb"), isOpen ? "Back to the chat" : "Change");
  }
}

function keepForNoNetwork(): void {
  if (!("serviceWorker" in navigator)) return;
  // A page without it still works, with a network.
  navigator.serviceWorker.register(new URL("service-worker.js", document.baseURI)).catch(() => {});
}

/** An app's own messages come from this page's origin, or from no origin at all where a WebView posts them. */
function listenForApps(page: Page): void {
  window.addEventListener("message", ({ data, origin }) => {
    const presets = origin === location.origin || origin === "" ? presetsOfMessage(data, document.baseURI) : null;
    if (presets !== null) void page.preset(presets);
  });
}

const page = new Page();
listenForApps(page);
void page.start(presetsOfAddress(location.href));
keepForNoNetwork();
