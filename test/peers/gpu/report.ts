// The GPU's figures: as data for --json, as text for people.

import type { Ceilings, Clock } from "./ceilings";
import { type ChainTime, nameOf, type OnnxruntimeFigures } from "./onnxruntime";
import type { ModelTime, ProductTime } from "./snug";

export interface Report {
  readonly machine: {
    readonly adapter: string;
    readonly features: readonly string[];
    readonly node: string;
    readonly date: string;
  };
  /** null where they were not asked for. */
  readonly ceilings: Ceilings | null;
  readonly onnxruntime: OnnxruntimeFigures | null;
  readonly snug: SnugFigures | null;
}

export interface SnugFigures {
  readonly products: readonly ProductTime[];
  readonly models: readonly ModelTime[];
}

/** What is measured, and how much. */
type Row = readonly [what: string, figure: string];

export function renderText({ machine, ceilings, onnxruntime, snug }: Report): string {
  return [
    `${machine.adapter}; Node ${machine.node}; ${machine.date}`,
    machine.features.join(" "),
    ...(ceilings ? ["", "Ceilings", ...align(ceilingRows(ceilings))] : []),
    ...(onnxruntime ? ["", `onnxruntime-web ${onnxruntime.version}`, ...align(onnxruntimeRows(onnxruntime))] : []),
    ...(snug ? ["", "snug", ...align(snugRows(snug, ceilings))] : []),
  ].join("\n");
}

function ceilingRows({ read, gemms, dispatch, readBackSeconds }: Ceilings): Row[] {
  const { gpuSeconds, wallSeconds, encodeSeconds } = dispatch;
  const onGpu = gpuSeconds === null ? "" : `${micro(gpuSeconds)} on the GPU, `;
  return [
    [
      `read-only kernel, ${(read.bytes / 2 ** 20).toFixed(0)} MiB in ${read.buffers} buffers, ${read.workgroups} workgroups`,
      `${giga(read.bytesPerSecond)}B/s${by(read.clock)}`,
    ],
    ...gemms.map(({ rows, cols, inner, seconds, operationsPerSecond, clock }): Row => {
      const rate = (operationsPerSecond / 1e12).toPrecision(3);
      return [`f32 GEMM, ${rows} × ${cols} × ${inner}`, `${micro(seconds)}, ${rate} TFLOP/s${by(clock)}`];
    }),
    ["dependent dispatch", `${onGpu}${micro(wallSeconds)} wall, and ${micro(encodeSeconds)} to encode`],
    ["submit → readback", micro(readBackSeconds)],
  ];
}

function onnxruntimeRows({ times, failures }: OnnxruntimeFigures): Row[] {
  return [...times.map(chainRow), ...failures.map((failure): Row => ["failed", failure])];
}

function chainRow(time: ChainTime): Row {
  const rate =
    time.rows === 1
      ? `${giga(time.weightBytesPerSecond)}B/s of weights`
      : `${(time.operationsPerSecond / 1e12).toPrecision(3)} TFLOP/s`;
  return [nameOf(time, time), `${micro(time.secondsPerLayer)} a layer, ${rate}`];
}

function snugRows({ products, models }: SnugFigures, ceilings: Ceilings | null): Row[] {
  const most = ceilings?.gemms.reduce((rate, { operationsPerSecond }) => Math.max(rate, operationsPerSecond), 0);
  const share = (value: number, ceiling: number | undefined) =>
    ceiling === undefined ? "" : ` (${((100 * value) / ceiling).toFixed(1)} %)`;
  return [
    ...products.map((time): Row => {
      const rate =
        time.rows === 1
          ? `${giga(time.weightBytesPerSecond)}B/s of weights`
          : `${(time.operationsPerSecond / 1e12).toPrecision(3)} TFLOP/s`;
      const rows = time.rows === 1 ? "1 row" : `${time.rows} rows`;
      return [
        `${time.size} × ${time.size} in 4 bit, chain of ${time.layers}, ${rows}`,
        `${micro(time.secondsPerLayer)} a layer, ${rate}`,
      ];
    }),
    ...models.flatMap((time): Row[] => {
      const name = `${time.shape}, scales for ${time.group}, ${(100 * time.pruningRate).toFixed(0)} % pruned`;
      const read = time.weightBytes * time.decodeTokensPerSecond;
      const multiplied = 2 * time.products * time.prefillTokensPerSecond;
      const ops = (list: ModelTime["ops"]["decode"]) =>
        list.map(({ kernel, launches, seconds }) => `${kernel} ${launches}× ${(seconds * 1000).toFixed(3)}`).join(", ");
      return [
        [name, `loaded in ${time.loadSeconds.toFixed(1)} s`],
        [
          "  decode",
          `${time.decodeTokensPerSecond.toFixed(0)} tok/s, ${giga(read)}B/s of weights${share(read, ceilings?.read.bytesPerSecond)}; sampled ${time.sampledTokensPerSecond.toFixed(0)} tok/s`,
        ],
        [
          "  prefill",
          `${time.prefillTokensPerSecond.toFixed(0)} tok/s, ${(multiplied / 1e12).toPrecision(3)} TFLOP/s${share(multiplied, most)}`,
        ],
        ["  ms of a token made", ops(time.ops.decode)],
        ["  ms of a prompt read", ops(time.ops.prefill)],
      ];
    }),
  ];
}

function align(rows: readonly Row[]): string[] {
  const width = Math.max(...rows.map(([what]) => what.length));
  return rows.map(([what, figure]) => `  ${what.padEnd(width)}  ${figure}`);
}

function micro(seconds: number): string {
  return `${Number((seconds * 1e6).toPrecision(3))} µs`;
}

function giga(perSecond: number): string {
  return `${Number((perSecond / 1e9).toPrecision(3))} G`;
}

function by(clock: Clock): string {
  return clock === "host" ? " by the host's clock" : "";
}
