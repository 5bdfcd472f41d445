// Text for a terminal as it comes: lines end between words, and nothing in it can steer the terminal.

const ZERO_WIDTH = /^[\p{M}\p{Cf}]$/u;
/** Signs that take two columns, and may be parted anywhere. */
const WIDE = /^[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\u3001-\u3011\uff01-\uff60]$/u;
const TAB = "    ";

export class Wrap {
  readonly #columns: () => number;
  /** Taken of the line so far. */
  #column = 0;
  /** The word that comes, and the spaces before it, which a line's end takes the place of. */
  #word = "";
  #wordWidth = 0;
  #spaces = "";

  /** How wide the terminal is by now. */
  constructor(columns: () => number) {
    this.#columns = columns;
  }

  /** Takes a piece; returns what can be shown of it: all but a word that may go on. */
  push(piece: string): string {
    let shown = "";
    for (const sign of piece) {
      if (sign === "\n") {
        shown += `${this.#place()}\n`;
        this.#column = 0;
        this.#spaces = "";
      } else if (sign === " " || sign === "\t") {
        shown += this.#place();
        this.#spaces += sign === "\t" ? TAB : sign;
      } else if (WIDE.test(sign)) {
        shown += this.#place();
        this.#add(sign, 2);
        shown += this.#place();
      } else {
        this.#add(/^\p{Cc}$/u.test(sign) ? "?" : sign, widthOf(sign));
        if (this.#wordWidth >= this.#columns()) shown += this.#place(); // no line has room for it
      }
    }
    return shown;
  }

  /** The rest, once no more comes. */
  end(): string {
    return this.#place();
  }

  #add(sign: string, width: number): void {
    this.#word += sign;
    this.#wordWidth += width;
  }

  /** Puts the word where it has room: on this line, or on the next. What no space parts is left to the terminal. */
  #place(): string {
    if (this.#word === "") return "";
    const columns = this.#columns();
    const taken = this.#column + this.#spaces.length + this.#wordWidth;
    const fits = taken <= columns || this.#column === 0 || this.#spaces === "";
    const shown = `${fits ? this.#spaces : "\n"}${this.#word}`;
    const end = fits ? taken : this.#wordWidth;
    this.#column = end > columns ? ((end - 1) % columns) + 1 : end;
    this.#word = "";
    this.#wordWidth = 0;
    this.#spaces = "";
    return shown;
  }
}

function widthOf(sign: string): number {
  if (ZERO_WIDTH.test(sign)) return 0;
  return /^\p{Emoji_Presentation}$/u.test(sign) ? 2 : 1;
}
