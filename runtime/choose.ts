// Which device runs a pack: both are timed on the plan's own steps before anything is loaded, and the faster one is taken.

import { SnugError } from "./errors";
import type { Pack } from "./pack";
import type { Plan, PlanOptions } from "./plan";
import { Stopwatch } from "./stopwatch";

/** Tokens a second, as the device is now, at the start of a text. */
export interface DeviceSpeed {
  readonly prefill: number;
  readonly decode: number;
}

export interface DeviceChoice {
  readonly device: "cpu" | "gpu";
  /** In words: what decided. */
  readonly reason: string;
  readonly cpu: DeviceSpeed | null;
  readonly gpu: DeviceSpeed | null;
}

/** What is weighed: a prompt of this many tokens, and as long an answer. */
const TOKENS = 128;
/** A GPU that makes one token in no less is not asked for a prompt. */
const SLOW_SECONDS = 0.1;
const DECODED = 8;

/**
 * Times both devices at these plan options, each for some tens of milliseconds once its kernels are there, and says which is
 * the faster. Without a GPU that works it is the CPU, with the reason. What it takes beside: see Pack.rehearse().
 */
export async function chooseDevice(pack: Pack, options: PlanOptions, signal?: AbortSignal): Promise<DeviceChoice> {
  let gpu: DeviceSpeed | null;
  try {
    gpu = await gpuSpeed(pack, pack.plan({ ...options, device: "gpu" }), signal);
  } catch (error) {
    if (!(error instanceof SnugError) || !["gpu", "lost", "memory", "budget"].includes(error.code)) throw error;
    return { device: "cpu", reason: error.message, cpu: null, gpu: null };
  }
  const cpu = await cpuSpeed(pack, pack.plan({ ...options, device: "cpu" }), signal);
  const seconds = ({ prefill, decode }: DeviceSpeed) => TOKENS / prefill + TOKENS / decode;
  const device = seconds(gpu) < seconds(cpu) ? "gpu" : "cpu";
  const rates = ({ prefill, decode }: DeviceSpeed) => `${Math.round(prefill)} and ${Math.round(decode)} tok/s`;
  return { device, reason: `reading and writing: GPU ${rates(gpu)}, CPU ${rates(cpu)}`, cpu, gpu };
}

async function gpuSpeed(pack: Pack, plan: Plan, signal: AbortSignal | undefined): Promise<DeviceSpeed> {
  const model = await pack.rehearse(plan, false);
  try {
    const watch = new Stopwatch(model, signal);
    await watch.decode(1);
    const one = await watch.decode(1);
    if (one > SLOW_SECONDS) return { decode: 1 / one, prefill: 1 / one };
    const count = Math.min(DECODED, plan.context);
    const decode = count / (await watch.decode(count));
    const rows = Math.min(plan.rows, plan.context);
    await watch.prefill(rows);
    return { decode, prefill: rows / (await watch.prefill(rows)) };
  } finally {
    model.dispose();
  }
}

async function cpuSpeed(pack: Pack, plan: Plan, signal: AbortSignal | undefined): Promise<DeviceSpeed> {
  const model = await pack.rehearse(plan);
  try {
    const watch = new Stopwatch(model, signal);
    await watch.ready();
    const rows = Math.min(plan.rows, plan.context);
    return { decode: 1 / (await watch.estimate(1)), prefill: rows / (await watch.estimate(rows)) };
  } finally {
    model.dispose();
  }
}
