// Fits a pack to memory: the slider, the typed budget and the length of the conversation, and the plan that they come
// to, drawn as soon as the runtime answers.

import type { DeviceChoice, LoadOptions, Plan, PlanOptions, RemoteModel, RemotePack } from "../../runtime/browser";
import { create, find, show, write } from "./elements";
import { findGpu } from "./gpu";
import { announce } from "./notice";
import { Picture } from "./picture";
import type { Presets } from "./presets";
import {
  budgetWords,
  cutWords,
  errorWords,
  exactSize,
  grouped,
  placeWords,
  qualityWords,
  size,
  sliderWords,
} from "./words";

/** What a plan is for, where nobody says: the runtime's own default. */
const CONTEXT = 2048;
const CONTEXT_LEAST = 128;
const SLIDER_STEPS = 200;
/** Plans grow by pages of WebAssembly's memory. */
const PAGE_BYTES = 65536;
/** A screen reader is told of a plan that has stood for so long. */
const TELL_MS = 700;

type Memory = NonNullable<PlanOptions["memory"]>;
type Device = NonNullable<LoadOptions["device"]>;

export class Fit {
  readonly #onPlan: (plan: Plan | null) => void;
  readonly #picture = new Picture();
  readonly #slider = find<HTMLInputElement>("slider");
  readonly #memory = find<HTMLInputElement>("memory");
  readonly #context = find<HTMLSelectElement>("context");
  readonly #device = find<HTMLSelectElement>("device");
  #pack: RemotePack | null = null;
  /** Everything kept, at this context: where the slider ends. */
  #whole: Plan | null = null;
  #plan: Plan | null = null;
  #wanted: { memory: Memory | null } | null = null;
  #isPlanning = false;
  #telling = 0;
  #gpu = "";
  /** Where the model runs that was loaded last: where one of the faster device would, too, as far as is known. */
  #runsOn: { readonly device: "cpu" | "gpu"; readonly choice: DeviceChoice | null } = { device: "cpu", choice: null };

  /** onPlan: what is planned now; null where the wishes come to no plan. */
  constructor(onPlan: (plan: Plan | null) => void) {
    this.#onPlan = onPlan;
    this.#slider.addEventListener("input", () => this.#wish(this.#sliderBytes()));
    this.#memory.addEventListener("change", () => this.#wish(this.#memory.value));
    this.#context.addEventListener("change", () => {
      this.#whole = null;
      this.#wish(this.#plan?.memoryBytes ?? this.#memory.value);
    });
    this.#device.addEventListener("change", () => {
      this.#runsOn = { device: "cpu", choice: null };
      this.#whole = null;
      this.#wish(this.#plan?.memoryBytes ?? this.#memory.value);
    });
    void this.#offerDevices();
  }

  /** What to load on. */
  get device(): Device {
    return this.#device.value as Device;
  }

  get plan(): Plan | null {
    return this.#plan;
  }

  /** Shows a pack that was just opened, at the preset budget or what the page may take. */
  show(pack: RemotePack, presets: Presets): void {
    this.#pack = pack;
    this.#whole = null;
    this.#plan = null;
    this.#runsOn = { device: "cpu", choice: null };
    this.#picture.clear();
    this.#offerContexts(pack.shape.maximumContext, presets.context ?? CONTEXT);
    this.#want(presets.memory ?? null);
  }

  /** Takes the plan that a model came to, such as a smaller one, or one for the faster device. */
  take({ plan, choice }: RemoteModel): void {
    this.#wanted = null;
    this.#runsOn = { device: plan.deviceBytes > 0 ? "gpu" : "cpu", choice };
    this.#draw(plan);
    if (this.#whole?.options.device !== this.#wishes().device) this.#whole = null;
  }

  /** While a model loads the wishes rest. */
  lock(isLocked: boolean): void {
    find<HTMLFieldSetElement>("fit-fields").disabled = isLocked;
  }

  /** Without a GPU there is nothing to choose; one that the CPU plays is no faster than the CPU. */
  async #offerDevices(): Promise<void> {
    const gpu = await findGpu();
    if (gpu === null) return;
    this.#gpu = gpu.name;
    this.#device.value = gpu.isSoftware ? "cpu" : "auto";
    show(find("device-choice"), true);
    if (this.#plan !== null) this.#draw(this.#plan);
  }

  #offerContexts(most: number, chosen: number): void {
    const contexts = new Set([Math.min(chosen, most), most]);
    for (let context = CONTEXT_LEAST; context < most; context *= 2) contexts.add(context);
    const options = [...contexts].sort((a, b) => a - b);
    this.#context.replaceChildren(
      ...options.map((context) => create("option", { value: String(context) }, `${grouped(context)} tokens`)),
    );
    this.#context.value = String(Math.min(chosen, most));
  }

  /** A person wants this, and hears what it comes to. */
  #wish(memory: Memory): void {
    this.#want(memory);
    clearTimeout(this.#telling);
    this.#telling = window.setTimeout(() => this.#plan !== null && announce(sliderWords(this.#plan)), TELL_MS);
  }

  /** Plans for this budget next; null: for what the page may take. Wishes that came meanwhile are passed over. */
  #want(memory: Memory | null): void {
    this.#wanted = { memory };
    if (!this.#isPlanning) void this.#work();
  }

  async #work(): Promise<void> {
    this.#isPlanning = true;
    while (this.#wanted !== null && this.#pack !== null) {
      const pack = this.#pack;
      const { memory } = this.#wanted;
      this.#wanted = null;
      const wishes = this.#wishes();
      try {
        const whole = this.#whole ?? (await pack.plan(wishes));
        const spare = Math.min(Math.max(pack.spare.bytes, whole.minimumBytes), whole.maximumBytes);
        const fitted = await pack.plan({ ...wishes, memory: memory ?? spare });
        // What is room enough for all of it on one device may not be on the other, where all of it is meant too.
        const isAll = this.device === "auto" && fitted.keptUnits === fitted.units;
        const plan = isAll ? whole : fitted;
        const { context, device } = this.#wishes();
        if (pack !== this.#pack || context !== wishes.context || device !== wishes.device) continue;
        this.#whole = whole;
        write(find("spare"), budgetWords(pack.spare, whole));
        this.#draw(plan);
      } catch (error) {
        if (pack === this.#pack && this.#wanted === null) this.#refuse(error);
      }
    }
    this.#isPlanning = false;
  }

  #wishes() {
    const device = this.device === "auto" ? this.#runsOn.device : this.device;
    return { context: Number(this.#context.value), device };
  }

  #draw(plan: Plan): void {
    this.#plan = plan;
    this.#sayError("");
    const { minimumBytes: least, maximumBytes: most } = plan;
    const pages = Math.round((most - least) / PAGE_BYTES);
    this.#slider.max = String(Math.min(SLIDER_STEPS, Math.max(1, pages)));
    this.#slider.disabled = pages === 0;
    // A thumb that has moved on meanwhile is not pulled back.
    if (this.#wanted === null && this.#sliderBytes() !== plan.memoryBytes)
      this.#slider.value = String(((plan.memoryBytes - least) / Math.max(1, most - least)) * Number(this.#slider.max));
    this.#slider.style.setProperty("--at", String(Number(this.#slider.value) / Number(this.#slider.max)));
    this.#slider.setAttribute("aria-valuetext", sliderWords(plan));
    this.#memory.value = exactSize(plan.memoryBytes);
    write(find("least"), `${size(least)}, smallest`);
    write(find("most"), `everything, ${size(most)}`);
    write(find("cut"), cutWords(plan));
    write(find("quality"), qualityWords(plan, this.#whole?.expectedPerplexity ?? null));
    const { choice } = this.#runsOn;
    const isOpen = this.device === "auto" && choice === null;
    const isolated = globalThis.crossOriginIsolated;
    write(find("runs-on"), placeWords(plan, { isOpen, choice, gpu: this.#gpu, isolated, page: document.baseURI }));
    this.#picture.draw(plan);
    this.#onPlan(plan);
  }

  /** What the slider stands for, both ends exactly. */
  #sliderBytes(): number {
    const ends = this.#plan ?? this.#whole;
    if (ends === null) return 0;
    const pages = (ends.maximumBytes - ends.minimumBytes) / PAGE_BYTES;
    return ends.minimumBytes + Math.round((Number(this.#slider.value) / Number(this.#slider.max)) * pages) * PAGE_BYTES;
  }

  #refuse(error: unknown): void {
    clearTimeout(this.#telling);
    this.#sayError(errorWords(error, document.baseURI));
    this.#onPlan(null);
  }

  #sayError(text: string): void {
    write(find("fit-error"), text);
    find("fit").dataset.plan = text === "" ? "shown" : "stale";
    this.#memory.setAttribute("aria-invalid", String(text !== ""));
  }
}
