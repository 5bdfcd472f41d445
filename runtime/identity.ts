// What tells a pack from every other one, whatever it is called: the checksum of its header, which holds those of all else.

import { PRELUDE_BYTES, PRELUDE_HASH } from "../packs/format";
import type { Core } from "./core";

/** Of the pack that a core has open: a number in hexadecimal digits. */
export function identityOf(core: Core): string {
  return core.view(core.exports.pack_prelude_ptr(), PRELUDE_BYTES).getBigUint64(PRELUDE_HASH, true).toString(16);
}
