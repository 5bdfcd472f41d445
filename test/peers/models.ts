// One synthetic model in every format, with the same weights.

import { statSync } from "node:fs";
import { SHAPES, type SyntheticShape, writeSyntheticPack } from "../../packs/index";
import { Linalg } from "../../packs/linalg";
import { writeGguf } from "./gguf";
import { type OpModel, writeOnnx } from "./onnx";
import { PackWeights } from "./pack-weights";

export interface ModelFiles {
  readonly pack: string;
  readonly gguf: string;
  readonly ops: readonly OpModel[];
  readonly packBytes: number;
}

/** Writes a model of a shape of packs/synthetic.ts into `folder`. */
export async function writeModels(folder: string, name: string, weights: "q4" | "q8"): Promise<ModelFiles> {
  const shape = SHAPES[name] as SyntheticShape;
  const architecture = shape.model_type;
  if (architecture !== "llama" && architecture !== "qwen2") throw new Error(`${name}: no GGUF of such a model here`);
  const pack = `${folder}/model.snug`;
  const gguf = `${folder}/model.gguf`;
  await writeSyntheticPack(pack, shape, { weights, name });
  const linalg = await Linalg.load();
  const read = new PackWeights(pack);
  try {
    read.alignOutputScales((bytes) => linalg.xxh64(bytes));
    writeGguf(gguf, read, { architecture, ropeTheta: Number(shape.rope_theta) });
    const ops = writeOnnx(folder, read);
    return { pack, gguf, ops, packBytes: statSync(pack).size };
  } finally {
    read.close();
  }
}
