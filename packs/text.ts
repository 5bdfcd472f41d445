// How a text becomes windows of tokens, for calibration and for perplexity. The cut is that of the published
// measurements (shared/reference), so that their figures and ours are of the same tokens. Encoding is the caller's.

/** Between the documents of a text file. */
const SEPARATOR = "<|endoftext|>";
/** Characters (Unicode code points) that are encoded at once; a word may be cut there, in every tool alike. */
const SLICE_CHARACTERS = 50_000;

/**
 * The first `windows` consecutive windows of `windowTokens` tokens: documents in order, each encoded in slices and
 * followed by `endToken` (`encode` adds no tokens of its own). A last, incomplete window is left out; a short text
 * gives fewer windows. Encodes no more of the text than it needs.
 */
export function cutWindows(
  text: string,
  encode: (text: string) => ArrayLike<number>,
  windowTokens: number,
  windows: number,
  endToken = 0,
): Uint32Array[] {
  const cut: Uint32Array[] = [];
  let window = new Uint32Array(windowTokens);
  let filled = 0;
  const push = (token: number): void => {
    window[filled++] = token;
    if (filled < windowTokens) return;
    cut.push(window);
    window = new Uint32Array(windowTokens);
    filled = 0;
  };
  for (const document of text.split(SEPARATOR)) {
    if (document === "") continue; // a separator at either end of the file ends no document
    for (const slice of slices(document)) {
      const tokens = encode(slice);
      for (let i = 0; i < tokens.length; i++) {
        if (cut.length === windows) return cut;
        push(tokens[i]);
      }
    }
    if (cut.length === windows) return cut;
    push(endToken);
  }
  return cut;
}

/** Pieces of SLICE_CHARACTERS code points; a surrogate pair is one. */
function* slices(document: string): Generator<string> {
  for (let start = 0; start < document.length; ) {
    let end = start;
    for (let characters = 0; characters < SLICE_CHARACTERS && end < document.length; characters++) {
      end += (document.codePointAt(end) as number) > 0xffff ? 2 : 1;
    }
    yield document.slice(start, end);
    start = end;
  }
}
