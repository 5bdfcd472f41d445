// Draws a plan: the bar of memory in its budget, and the network with what is kept and cut of it.

import type { Plan } from "../../runtime/browser";
import { create, find, write } from "./elements";
import { drawNetwork, memoryBar, type Part, pathOf } from "./geometry";
import { KIND_WORDS, networkWords, size } from "./words";

const SVG = "http://www.w3.org/2000/svg";
/** Room for the names beside the network, and round what is drawn for the lines. */
const NAMES_WIDTH = 104;
const EDGE = 2;
const LINE_HEIGHT = 14;

const PART_WORDS: readonly (readonly [Part, string])[] = [
  ["weights", "weights"],
  ["kv", "KV cache"],
  ["state", "state"],
  ["scratch", "scratch"],
  ["core", "core"],
];

export class Picture {
  #plan: Plan | null = null;
  readonly #bar = find<SVGSVGElement>("memory-bar");
  readonly #network = find<SVGSVGElement>("network");
  readonly #parts = find("parts");

  constructor() {
    for (const [part, word] of PART_WORDS) {
      const bytes = create("span", { className: "bytes" });
      const item = create("li", {}, create("span", { className: `swatch ${part}` }), word, " ", bytes);
      item.dataset.part = part;
      this.#parts.append(item);
    }
    new ResizeObserver(() => this.#draw()).observe(this.#network);
  }

  /** Draws another plan. */
  draw(plan: Plan): void {
    this.#plan = plan;
    this.#draw();
  }

  #draw(): void {
    const plan = this.#plan;
    if (plan === null || this.#network.clientWidth === 0) return;
    this.#drawBar(plan);
    this.#drawNetwork(plan);
  }

  #drawBar(plan: Plan): void {
    const { clientWidth, clientHeight } = this.#bar;
    const width = clientWidth - 2 * EDGE;
    const { segments, budget } = memoryBar(plan);
    const inner = { y: String(EDGE + 3), height: String(clientHeight - 2 * EDGE - 6) };
    for (const { part, start, size: share, bytes } of segments) {
      place(child(this.#bar, "rect", part), { x: EDGE + start * width, width: share * width, ...inner });
      const item = this.#parts.querySelector<HTMLElement>(`[data-part=${part}]`) as HTMLElement;
      item.hidden = bytes === 0;
      write(item.querySelector(".bytes") as Element, size(bytes));
    }
    const frame = { x: EDGE / 2, y: EDGE / 2, height: clientHeight - EDGE };
    place(child(this.#bar, "rect", "everything"), { ...frame, width: width + EDGE });
    place(child(this.#bar, "rect", "budget"), { ...frame, width: budget * width + EDGE });
    const words = segments.filter(({ bytes }) => bytes > 0).map(({ part, bytes }) => `${nameOf(part)} ${size(bytes)}`);
    this.#bar.setAttribute(
      "aria-label",
      `${size(plan.totalBytes)} of a budget of ${size(plan.memoryBytes)}: ${words.reverse().join(", ")}.`,
    );
  }

  #drawNetwork(plan: Plan): void {
    const { clientWidth, clientHeight } = this.#network;
    const box = { x: NAMES_WIDTH, y: 1, width: clientWidth - NAMES_WIDTH, height: clientHeight - 2 };
    const { bands, kept, cut } = drawNetwork(plan.layers, box);
    child(this.#network, "path", "cut").setAttribute("d", pathOf(cut));
    child(this.#network, "path", "kept").setAttribute("d", pathOf(kept));
    for (const { kinds, y, height } of bands) {
      for (const [line, kind] of kinds.entries()) {
        const name = child(this.#network, "text", `name-${kind}`);
        const middle = y + height / 2 + (line - (kinds.length - 1) / 2) * LINE_HEIGHT;
        place(name, { x: 0, y: middle, "dominant-baseline": "central" });
        write(name, KIND_WORDS[kind]);
      }
    }
    this.#network.setAttribute("aria-label", networkWords(plan));
  }

  /** Forgets the drawing: another pack has other bands. */
  clear(): void {
    this.#plan = null;
    this.#network.replaceChildren();
  }
}

function nameOf(part: Part): string {
  return PART_WORDS.find(([name]) => name === part)?.[1] ?? part;
}

/** The child of this class, made the first time. */
function child(parent: SVGSVGElement, name: string, className: string): SVGElement {
  const found = parent.querySelector<SVGElement>(`.${className}`);
  if (found) return found;
  const made = document.createElementNS(SVG, name) as SVGElement;
  made.setAttribute("class", className);
  parent.append(made);
  return made;
}

function place(element: SVGElement, attributes: Readonly<Record<string, number | string>>): void {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
}
