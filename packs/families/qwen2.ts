// Qwen2 and Qwen2.5: Llama's shape with biases on q, k and v.

import { flag, unsupported } from "../config";
import { FAMILY_QWEN2 } from "../format";
import type { Family } from "./family";
import { LLAMA, readTransformer } from "./llama";

export const QWEN2: Family<"qwen2"> = {
  name: "qwen2",
  id: FAMILY_QWEN2,
  modelType: "qwen2",
  architecture: "Qwen2ForCausalLM",
  read: (raw) => {
    // "sliding_window" is there in most files, and means nothing without this.
    if (flag(raw, "use_sliding_window", false) && raw.sliding_window !== null) {
      throw unsupported('"use_sliding_window" is true; supported: attention over the whole context');
    }
    return readTransformer(
      raw,
      { attentionBias: true, oBias: false, mlpBias: false },
      { context: 32768, tiedHead: false, beginToken: null, endToken: null },
    );
  },
  model: LLAMA.model,
  layer: LLAMA.layer,
};
