// The Load button: what it would fetch, how far it is, stopping it, and what came of it.

import type { LoadOptions, Plan, RemoteModel, RemotePack, SnugError } from "../../runtime/browser";
import { find, show, write } from "./elements";
import { announce, clearNotice, complain, remark } from "./notice";
import { downloadWords, exactSize, progress, sentence, size } from "./words";

export interface LoadingEvents {
  /** What to load on. */
  device(): NonNullable<LoadOptions["device"]>;
  /** Before anything is read: whatever was loaded is let go. */
  onStart(): Promise<void>;
  onModel(model: RemoteModel): void;
  /** After success or failure. */
  onEnd(): void;
}

export class Loading {
  readonly #events: LoadingEvents;
  readonly #load = find<HTMLButtonElement>("load");
  readonly #cancel = find<HTMLButtonElement>("cancel");
  readonly #progress = find<HTMLProgressElement>("progress");
  #pack: RemotePack | null = null;
  #plan: Plan | null = null;
  #loaded: Plan | null = null;
  #loadedOn: LoadOptions["device"];
  #keptBytes: number | null = 0;
  #stop: AbortController | null = null;

  constructor(events: LoadingEvents) {
    this.#events = events;
    this.#load.addEventListener("click", () => void this.#run());
    this.#cancel.addEventListener("click", () => this.#stop?.abort());
  }

  /** A pack that was just opened. keptBytes: of it on this device; null: it is a file of the device. */
  show(pack: RemotePack, keptBytes: number | null): void {
    this.#pack = pack;
    this.#plan = null;
    this.#loaded = null;
    this.keep(keptBytes);
  }

  keep(keptBytes: number | null): void {
    this.#keptBytes = keptBytes;
    this.#update();
  }

  /** What would be loaded now. */
  offer(plan: Plan | null): void {
    this.#plan = plan;
    this.#update();
  }

  get isLoading(): boolean {
    return this.#stop !== null;
  }

  /** Stops a load that is under way. */
  stop(): void {
    this.#stop?.abort();
  }

  #update(): void {
    if (this.#stop !== null) return;
    const plan = this.#plan;
    const isLoaded =
      plan !== null && this.#loaded !== null && sameCut(plan, this.#loaded) && this.#loadedOn === this.#events.device();
    this.#load.disabled = plan === null || isLoaded;
    if (plan === null) {
      write(this.#load, "Load");
      write(find("load-text"), "");
    } else if (isLoaded) {
      write(this.#load, "Loaded");
      write(find("load-text"), "In memory. Move the slider for another cut.");
    } else {
      const again = this.#loaded === null ? "Load in" : "Load again with";
      write(this.#load, `${again} ${exactSize(plan.totalBytes)}`);
      write(find("load-text"), downloadWords(plan, this.#keptBytes));
    }
  }

  async #run(): Promise<void> {
    const pack = this.#pack;
    const plan = this.#plan;
    if (pack === null || plan === null || this.#stop !== null) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#loaded = null;
    clearNotice();
    this.#showWork(true);
    this.#cancel.focus();
    const device = this.#events.device();
    write(find("load-text"), device === "auto" ? "Timing the GPU and the CPU…" : "Starting…");
    announce(`Loading ${size(plan.readBytes)}.`);
    let loaded: RemoteModel | null = null;
    try {
      await this.#events.onStart();
      loaded = await pack.load(plan, {
        device,
        signal: stop.signal,
        onProgress: ({ readBytes, totalBytes, downloadedBytes }) => {
          this.#progress.value = totalBytes > 0 ? readBytes / totalBytes : 1;
          const what = downloadedBytes > 0 ? "Downloading" : "Reading";
          write(find("load-text"), `${what} ${progress(readBytes, totalBytes)}`);
        },
        onSmaller: (smaller: Plan, error: SnugError) =>
          remark(`${sentence(error.message)} Now trying ${exactSize(smaller.totalBytes)}.`),
      });
    } catch (error) {
      if (stop.signal.aborted) announce("Loading was cancelled. What has come is kept.");
      else complain(error);
    }
    this.#stop = null;
    this.#showWork(false);
    if (loaded !== null && this.#pack === pack) {
      this.#loaded = loaded.plan;
      this.#loadedOn = device;
      this.#plan = loaded.plan;
      this.#events.onModel(loaded);
    } else {
      loaded?.dispose().catch(() => {}); // its pack may be closed
      if (document.activeElement === document.body) this.#load.focus();
    }
    this.#update();
    this.#events.onEnd();
  }

  #showWork(isWorking: boolean): void {
    const hadFocus = document.activeElement === this.#cancel;
    this.#progress.value = 0;
    show(this.#load, !isWorking);
    show(this.#cancel, isWorking);
    show(this.#progress, isWorking);
    if (hadFocus) this.#load.focus();
  }
}

function sameCut(a: Plan, b: Plan): boolean {
  return a.totalBytes === b.totalBytes && a.keptUnits === b.keptUnits && a.context === b.context;
}
