// The rows of a step, as the core reads them: ROW_* at rows_ptr().

import { ROW_BYTES, ROW_OUTPUT, ROW_POSITION, ROW_SEQUENCE, ROW_TOKEN } from "../assembly/abi";
import type { Core } from "./core";
import { SnugError } from "./errors";

export interface Stretch {
  /** Where in the step the rows begin. Default 0. */
  readonly first?: number;
  /** Default 0. */
  readonly sequence?: number;
}

/** Writes consecutive tokens of a sequence, from `position` on. */
export function writeRows(
  core: Core,
  tokens: ArrayLike<number>,
  position: number,
  wantsLogits: (row: number) => boolean,
  { first = 0, sequence = 0 }: Stretch = {},
): void {
  const rows = core.view(core.exports.rows_ptr() + first * ROW_BYTES, tokens.length * ROW_BYTES);
  for (let row = 0; row < tokens.length; row++) {
    const at = row * ROW_BYTES;
    rows.setUint32(at + ROW_TOKEN, tokenId(tokens[row] as number), true);
    rows.setUint32(at + ROW_POSITION, position + row, true);
    rows.setUint32(at + ROW_SEQUENCE, sequence, true);
    rows.setUint32(at + ROW_OUTPUT, wantsLogits(row) ? 1 : 0, true);
  }
}

/** A number that a u32 holds as it is; whether it is below the vocabulary is the core's to say. */
export function tokenId(token: number): number {
  if (token >>> 0 !== token) throw new SnugError("usage", `${token} is not a token id: give whole numbers from 0 on`);
  return token;
}
