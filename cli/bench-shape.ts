// What snug bench measures where it is given no pack: one of a given shape, with random weights.

import { readFile } from "node:fs/promises";
import { SHAPES, type SyntheticShape } from "../packs/index";
import { SnugError } from "../runtime/index";
import { fileReason } from "./files";
import { nearest, usage } from "./options";

/** NAME, NAME:key=value,… with keys of config.json, or the path of a config.json. */
export async function readShape(written: string): Promise<SyntheticShape> {
  if (written.endsWith(".json")) return readConfig(written);
  const colon = written.indexOf(":");
  const name = colon < 0 ? written : written.slice(0, colon);
  const shape = Object.hasOwn(SHAPES, name) ? SHAPES[name] : undefined;
  if (shape === undefined) {
    const near = nearest(name, Object.keys(SHAPES));
    const hint = near ? `did you mean ${near}?` : `there are ${Object.keys(SHAPES).join(", ")}`;
    throw usage(`--shape: "${name}" is no shape: ${hint} Or give the path of a config.json`);
  }
  if (colon < 0) return shape;
  return {
    ...shape,
    ...Object.fromEntries(
      written
        .slice(colon + 1)
        .split(",")
        .map(readSetting),
    ),
  };
}

async function readConfig(path: string): Promise<SyntheticShape> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    throw new SnugError("source", `cannot read ${path}: ${fileReason(cause)}`, { cause });
  });
  const config = parseJson(text);
  if (typeof config !== "object" || config === null || Array.isArray(config))
    throw usage(`--shape: ${path} is not a config.json`);
  return config as SyntheticShape;
}

function readSetting(written: string): [string, unknown] {
  const equals = written.indexOf("=");
  if (equals < 1) throw usage(`--shape: "${written}" is not key=value, such as num_hidden_layers=4`);
  const value = written.slice(equals + 1);
  return [written.slice(0, equals), parseJson(value) ?? value];
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
