// Writes assembly/unicode-tables.ts from what this Node's own \p{…} and normalize() say:
//   npx esbuild test/unicode-tables.gen.ts --bundle --platform=node --format=esm --outfile=build/gen.js
//   node build/gen.js > assembly/unicode-tables.ts
// The test of assembly/unicode.ts calls unicodeTables() to see whether the checked-in tables still agree.

export interface UnicodeTables {
  asciiClasses: number[];
  classBreaks: number[];
  combiningBreaks: number[];
  decomposed: number[];
  composed: number[];
}

const LAST = 0x10ffff;
const CLASSES = [/\p{Lu}|\p{Lt}/u, /\p{Ll}/u, /\p{Lm}|\p{Lo}/u, /\p{M}/u, /\p{N}/u, /\p{White_Space}/u];
const NEWLINE = 7;
const SLASH = 8;
const COMPOSES_BACKWARD = 255;

const isSurrogate = (point: number) => point >= 0xd800 && point <= 0xdfff;
const isHangul = (point: number) => point >= 0xac00 && point <= 0xd7a3;
const text = (...points: number[]) => String.fromCodePoint(...points);
const points = (value: string) => Array.from(value, (character) => character.codePointAt(0) as number);

/** 0 other, 1 upper or title case, 2 lower case, 3 other letter, 4 mark, 5 number, 6 white space, 7 CR and LF. */
export function classOf(point: number): number {
  if (point === 10 || point === 13) return NEWLINE;
  return isSurrogate(point) ? 0 : CLASSES.findIndex((pattern) => pattern.test(text(point))) + 1;
}

/** Every table of assembly/unicode-tables.ts, from this Node's Unicode data. */
export function unicodeTables(): UnicodeTables {
  const { decomposed, composed } = compositions();
  return {
    asciiClasses: Array.from({ length: 128 }, (_, point) => (point === 47 ? SLASH : classOf(point))),
    classBreaks: breaks(classOf, 8),
    combiningBreaks: breaks(combining(decomposed, composed), 256),
    decomposed,
    composed,
  };
}

/** `point × unit + value` wherever the value changes. */
function breaks(value: (point: number) => number, unit: number): number[] {
  const out: number[] = [];
  let last = -1;
  for (let point = 0; point <= LAST; point++) {
    const here = isSurrogate(point) ? last : value(point);
    if (here !== last) out.push(point * unit + here);
    last = here;
  }
  return out;
}

/**
 * One level of canonical decomposition: point → (first, second), second 0 for a single one, as two u32: point << 11 |
 * first >>> 10, first << 22 | second. `composed` has the numbers of those that compose again, by (first, second).
 */
function compositions() {
  const byDecomposition = new Map<string, number>();
  const changed: number[] = [];
  for (let point = 0x80; point <= LAST; point++) {
    if (isSurrogate(point) || isHangul(point)) continue;
    const full = text(point).normalize("NFD");
    if (full === text(point)) continue;
    changed.push(point);
    const known = byDecomposition.get(full);
    if (known === undefined || text(known).normalize("NFC") !== text(known)) byDecomposition.set(full, point);
  }
  const rows = changed.map((point) => {
    const full = points(text(point).normalize("NFD"));
    const second = full.length === 1 ? 0 : (full.pop() as number);
    const first = full.length === 1 ? full[0] : byDecomposition.get(text(...full));
    if (first === undefined) throw new Error(`no first half for U+${point.toString(16)}`);
    return { point, first, second };
  });
  const decomposed = rows.flatMap((row) => [
    ((row.point << 11) | (row.first >>> 10)) >>> 0,
    ((row.first << 22) | row.second) >>> 0,
  ]);
  const composed = rows
    .map((row, number) => ({ ...row, number }))
    .filter((row) => row.second && text(row.first, row.second).normalize("NFC") === text(row.point))
    .sort((a, b) => a.first - b.first || a.second - b.second)
    .map((row) => row.number);
  return { decomposed, composed };
}

/**
 * How a character behaves after another: 0 it starts afresh; 1…254 a mark, numbered in the order of combining classes;
 * 255 a starter that may compose with what stands before it, or that decomposes into marks.
 */
function combining(decomposed: number[], composed: number[]): (point: number) => number {
  const reorders = (a: number, b: number) => text(a, b).normalize("NFD") !== text(a, b);
  const overlay = 0x334; // class 1, the lowest
  const iota = 0x345; // class 240, the highest
  const ranks: number[] = []; // one mark of each class, ascending
  const rankOf = new Map<number, number>();
  const isStable = (point: number) => text(point).normalize("NFD") === text(point);
  for (let point = 0x300; point <= LAST; point++) {
    if (isSurrogate(point) || !/\p{M}/u.test(text(point)) || !isStable(point)) continue;
    if (point === iota || reorders(point, overlay) || reorders(iota, point)) {
      let at = 0;
      while (at < ranks.length && reorders(point, ranks[at])) at++;
      if (at === ranks.length || reorders(ranks[at], point)) ranks.splice(at, 0, point);
      rankOf.set(point, 0);
    }
  }
  for (const point of rankOf.keys()) rankOf.set(point, ranks.findIndex((mark) => !reorders(point, mark)) + 1);
  const seconds = new Set(composed.map((number) => decomposed[number * 2 + 1] & 0x1fffff));
  return (point) => {
    if (isHangul(point)) return 0;
    const rank = rankOf.get(point);
    if (rank !== undefined) return rank;
    const isJamo = (point >= 0x1161 && point <= 0x1175) || (point >= 0x11a8 && point <= 0x11c2);
    const first = points(text(point).normalize("NFD"))[0];
    return isJamo || seconds.has(first) || rankOf.has(first) ? COMPOSES_BACKWARD : 0;
  };
}

/** The source of assembly/unicode-tables.ts. */
export function unicodeTablesSource(): string {
  const tables = unicodeTables();
  const data = (name: string, type: string, values: number[], doc: string) =>
    `/** ${doc} */\nexport const ${name}: usize = memory.data<${type}>([\n${lines(values)}]);\n`;
  return `// Generated by test/unicode-tables.gen.ts from Unicode ${process.versions.unicode}. Do not edit.
// biome-ignore-all format: rows of numbers

/** Of the Unicode version: 16.0 is 1600. */
export const UNICODE_VERSION: i32 = ${Math.round(Number(process.versions.unicode) * 100)};

${data("ASCII_CLASSES", "u8", tables.asciiClasses, "Class of each ASCII character.")}
export const CLASS_BREAKS_COUNT: u32 = ${tables.classBreaks.length};
${data("CLASS_BREAKS", "u32", tables.classBreaks, "Code point << 3 | class, wherever the class changes.")}
export const COMBINING_BREAKS_COUNT: u32 = ${tables.combiningBreaks.length};
${data("COMBINING_BREAKS", "u32", tables.combiningBreaks, "Code point << 8 | combining, wherever it changes.")}
export const DECOMPOSED_COUNT: u32 = ${tables.decomposed.length / 2};
${data("DECOMPOSED", "u32", tables.decomposed, "Code point << 11 | first >>> 10, first << 22 | second.")}
export const COMPOSED_COUNT: u32 = ${tables.composed.length};
${data("COMPOSED", "u16", tables.composed, "Numbers of the decompositions that compose again, by (first, second).")}`;
}

function lines(values: number[]): string {
  let out = "";
  let line = " ";
  for (const value of values) {
    const item = ` ${value},`;
    if (line.length + item.length > 120) {
      out += `${line}\n`;
      line = " ";
    }
    line += item;
  }
  return `${out}${line}\n`;
}

if (process.argv[1]?.endsWith("gen.js")) process.stdout.write(unicodeTablesSource());
