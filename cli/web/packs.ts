// Choosing a pack: the demo beside the page, those kept on this device, an address, a file that is picked or dropped.

import { forget, stored } from "../../runtime/browser";
import { create, find } from "./elements";
import { announce, complain } from "./notice";
import { placeOf, progress } from "./words";

/** Where the demo pack lies, seen from the page. The model was made for conversations of 512 tokens. */
const DEMO = { path: "packs/demo/tale.snug", name: "Tale, a small story-teller", context: 512 };

export interface Choice {
  readonly source: string | File;
  readonly context?: number;
}

/** Does the server say that there is no such file? Without a network nobody knows. */
async function isMissing(location: string): Promise<boolean> {
  const response = await fetch(location, { method: "HEAD" }).catch(() => null);
  return response?.status === 404;
}

export class Packs {
  readonly #onChoose: (choice: Choice) => void;
  readonly #list = find("packs");

  constructor(onChoose: (choice: Choice) => void) {
    this.#onChoose = onChoose;
    find<HTMLFormElement>("address-form").addEventListener("submit", (event) => {
      event.preventDefault();
      onChoose({ source: new URL(find<HTMLInputElement>("address").value, document.baseURI).href });
    });
    const file = find<HTMLInputElement>("file");
    file.addEventListener("change", () => {
      const picked = file.files?.[0];
      file.value = "";
      if (picked) onChoose({ source: picked });
    });
    this.#listenForDrops();
  }

  /** Lists what is at hand anew. */
  async refresh(): Promise<void> {
    const demo = new URL(DEMO.path, document.baseURI).href;
    const kept = await stored().catch((error) => {
      complain(error);
      return [];
    });
    const demoKept = kept.find(({ location }) => location === demo);
    const items = [
      this.#item({ source: demo, context: DEMO.context }, DEMO.name, demoKept, "28 M parameters"),
      ...kept
        .filter(({ location }) => location !== demo)
        .map((pack) => {
          const { name, host } = placeOf(pack.location, document.baseURI);
          return this.#item({ source: pack.location }, name, pack, host);
        }),
    ];
    this.#list.replaceChildren(...items);
    if (demoKept === undefined && (await isMissing(demo))) items[0]?.remove();
  }

  #item(
    choice: Choice,
    name: string,
    kept: { bytes: number; size: number } | undefined,
    about: string | null,
  ): HTMLElement {
    const device = kept === undefined ? null : `${progress(kept.bytes, kept.size)} kept here`;
    const facts = [about, device].filter((fact) => fact !== null).join(" · ");
    const open = create(
      "button",
      { type: "button", className: "pack" },
      create("span", { className: "pack-name" }, name),
      create("span", { className: "quiet" }, facts),
    );
    open.dataset.location = String(choice.source);
    open.addEventListener("click", () => this.#onChoose(choice));
    const item = create("li", {}, open);
    if (kept) {
      const remove = create("button", { type: "button", className: "remove" }, "Remove");
      remove.setAttribute("aria-label", `Remove ${name} from this device`);
      remove.addEventListener("click", () => void this.#remove(String(choice.source), name));
      item.append(remove);
    }
    return item;
  }

  async #remove(location: string, name: string): Promise<void> {
    try {
      await forget(location);
      announce(`${name} was removed from this device.`);
    } catch (error) {
      complain(error);
    }
    await this.refresh();
    this.#list.querySelector("button")?.focus();
  }

  #listenForDrops(): void {
    const { body } = document;
    const hasFile = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    body.addEventListener("dragover", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      body.classList.add("dropping");
    });
    body.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) body.classList.remove("dropping");
    });
    body.addEventListener("drop", (event) => {
      body.classList.remove("dropping");
      if (!hasFile(event)) return;
      event.preventDefault();
      const dropped = event.dataTransfer?.files[0];
      if (dropped) this.#onChoose({ source: dropped });
    });
  }
}
