// snug inspect: what a pack is, from its header alone.

import type { Pack } from "../runtime/index";
import { withPack } from "./budget";
import { type Command, flag } from "./options";
import { digits, grouped, lookOf, megabytes, percent, plain, printJson, table } from "./output";
import { kindsOf } from "./picture";

const CURVE_POINTS = 10;

const OPTIONS = { json: flag("print the facts as one JSON object") };

export const inspectCommand: Command<typeof OPTIONS> = {
  name: "inspect",
  summary: "Tell what a pack is: name, licence, origin, size, and what its cuts come to.",
  words: ["FILE"],
  about: `
Reads no more than the header of a pack.

  snug inspect tale.snug`,
  options: OPTIONS,
  async run(values, [file = ""]) {
    await withPack(file, async (pack) => {
      const facts = factsOf(pack);
      if (values.json) printJson({ file, ...facts });
      else process.stdout.write(`${describe(file, facts).join("\n")}\n`);
    });
  },
};

type Facts = ReturnType<typeof factsOf>;

function factsOf(pack: Pack) {
  const all = pack.plan({ pruning: 0 });
  return {
    name: pack.info.name,
    licence: pack.info.licence,
    provenance: pack.info.provenance,
    bytes: pack.size,
    ...pack.shape,
    channels: channelsOf(all.layers),
    units: pack.units,
    weightsBytes: all.weightsBytes,
    minimumBytes: all.minimumBytes,
    maximumBytes: all.maximumBytes,
    context: all.context,
    chatTemplate: pack.info.chatTemplate !== null,
    core: coreOf(pack),
    cuts: cutsOf(pack),
  };
}

/** Which build of the core runs here, and why no faster one. */
function coreOf({ build }: Pack): string {
  const simd = build.simd === "relaxed" ? "relaxed SIMD" : "SIMD";
  return build.passedOver === null ? simd : `${simd} (${build.passedOver})`;
}

/** Channels of each kind in the widest layer. */
function channelsOf(layers: ReturnType<Pack["plan"]>["layers"]): Record<string, number> {
  const stacks = layers.flatMap((layer) => layer.stacks);
  const most = (kind: string) =>
    Math.max(...stacks.filter((stack) => stack.kind === kind).map(({ channels }) => channels));
  return Object.fromEntries(kindsOf(layers).map((kind) => [kind, most(kind)]));
}

/** What round pruning rates come to; the last one is the most that can be cut. */
function cutsOf(pack: Pack) {
  const cuts = Array.from({ length: CURVE_POINTS + 1 }, (_, index) => {
    const plan = pack.plan({ pruning: index / CURVE_POINTS });
    const { pruningRate, keptUnits, weightsBytes, totalBytes, expectedPerplexity } = plan;
    return { pruningRate, keptUnits, weightsBytes, totalBytes, expectedPerplexity };
  });
  return cuts.filter((cut, index) => cut.keptUnits !== cuts[index - 1]?.keptUnits);
}

function describe(file: string, facts: Facts): string[] {
  const { bold, dim } = lookOf(process.stdout);
  const channels = Object.entries(facts.channels).map(([kind, most]) => `${kind} ${grouped(most)}`);
  const rows: [string, string][] = [
    ["licence", facts.licence || "not stated"],
    ["origin", facts.provenance || "not stated"],
    ["file", `${file}, ${megabytes(facts.bytes)}`],
    ["shape", `${facts.family}, ${facts.layers} layers of width ${grouped(facts.width)}, weights in ${facts.weights}`],
    ...mixersOf(facts),
    [
      "text",
      `${facts.hasTokenizer ? "" : "no tokenizer, "}vocabulary ${grouped(facts.vocabulary)}, ` +
        `context up to ${grouped(facts.maximumContext)}`,
    ],
    ["channels", `${channels.join(", ")} in a layer, cut in ${grouped(facts.units)} units`],
    ["chat", facts.chatTemplate ? "has a chat template" : "no chat template"],
    ["core", facts.core],
    ["memory", `${megabytes(facts.minimumBytes)} to ${megabytes(facts.maximumBytes)} at context ${facts.context}`],
  ];
  const known = facts.cuts.some((cut) => cut.expectedPerplexity !== null);
  const cuts = facts.cuts.map((cut) => [
    percent(cut.pruningRate),
    grouped(cut.keptUnits),
    megabytes(cut.weightsBytes),
    megabytes(cut.totalBytes),
    ...(known ? [cut.expectedPerplexity === null ? "" : digits(cut.expectedPerplexity)] : []),
  ]);
  const [head = "", ...lines] = table([
    ["pruning rate", "units", "weights", "memory", ...(known ? ["perplexity"] : [])],
    ...cuts,
  ]);
  return [
    bold(plain(facts.name)),
    "",
    ...rows.map(([name, words]) => `  ${dim(name.padEnd(9))} ${fold(plain(words))}`),
    "",
    dim(head),
    ...lines,
  ];
}

/** Heads of the attention and of the SSM, as far as there are any. */
function mixersOf({ heads, headDim, kvHeads, ssm }: Facts): [string, string][] {
  const count = (number: number, one: string) => `${grouped(number)} ${one}${number === 1 ? "" : "s"}`;
  const rows: [string, string][] = [];
  if (heads > 0) rows.push(["attention", `${count(heads, "head")} of ${headDim} (${kvHeads} for keys and values)`]);
  if (ssm) {
    const groups = ssm.groups === 1 ? "" : ` in ${ssm.groups} groups`;
    rows.push(["SSM", `${count(ssm.heads, "head")} of ${ssm.headDim}, a state of ${ssm.state} dimensions${groups}`]);
  }
  return rows;
}

/** Continues long and many-lined words below their first. */
function fold(words: string): string {
  return words.trim().replaceAll("\n", `\n${" ".repeat(12)}`);
}
