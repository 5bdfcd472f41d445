// What an op comes to on a device: shaders, what they are made with, and which memory they see.

import { DEVICE_ALIGN, DEVICE_SPLIT_ROWS } from "../assembly/abi";
import type { Settings, ShaderName } from "./wgsl";

/** What a step is made of, as far as it decides how many workgroups there are. */
export interface StepShape {
  readonly rows: number;
  readonly outputs: number;
  readonly sequences: number;
  /** Of rows, for attention over many of them. */
  readonly tiles: number;
  /** The highest position of a row. */
  readonly position: number;
}

/** What an executor has room for. */
export interface Capacity {
  readonly rows: number;
  readonly outputs: number;
  readonly sequences: number;
}

/** Rows that are few: an op's other launches are for more. */
export const FEW_ROWS = DEVICE_SPLIT_ROWS;

/** Bytes of the device's memory that a binding shows. */
export interface Window {
  readonly start: number;
  readonly bytes: number;
  /** Kernels only read it. A buffer may not be bound both ways at once, so such windows have buffers of their own. */
  readonly isWeights: boolean;
}

/** The buffers that are no part of the device's planned memory. */
export type Buffer = "step" | "best" | "parts" | "found";

export interface Launch {
  /** Such as "matmul gate up": what it counts as when it is timed. */
  readonly label: string;
  readonly shader: ShaderName;
  readonly settings: Settings;
  /** The uniform; empty: there is none. */
  readonly params: Uint32Array<ArrayBuffer>;
  /** By the binding's number; 0 is the uniform. */
  readonly bindings: Readonly<Record<number, Window | Buffer>>;
  readonly workgroups: (step: StepShape) => readonly [number, number, number];
}

/** An op's launches, in order: which ones depends on how many rows a step has. */
export interface Launches {
  /** For at most FEW_ROWS rows; those of `many` otherwise. */
  readonly few: readonly Launch[];
  readonly many: readonly Launch[];
  /** In place of `few` where every row is the only one of its sequence, if there is something better then. */
  readonly alone?: readonly Launch[];
  /** Does it work on the rows that want logits? */
  readonly outputs: boolean;
}

interface Range {
  readonly address: number;
  readonly bytes: number;
}

/** The window over ranges that kernels write, or may. */
export function windowOver(...ranges: readonly Range[]): Window {
  return { ...extentOf(ranges), isWeights: false };
}

/** The window over ranges of weights. */
export function weightsOver(...ranges: readonly Range[]): Window {
  return { ...extentOf(ranges), isWeights: true };
}

/** Bindings begin at multiples of DEVICE_ALIGN. */
function extentOf(ranges: readonly Range[]): { start: number; bytes: number } {
  const there = ranges.filter(({ bytes }) => bytes > 0);
  if (there.length === 0) return { start: 0, bytes: 0 };
  const first = Math.min(...there.map(({ address }) => address));
  const start = first - (first % DEVICE_ALIGN);
  const end = Math.max(...there.map(({ address, bytes }) => address + bytes));
  return { start, bytes: Math.ceil((end - start) / 16) * 16 };
}

export function range(address: number, bytes: number): Range {
  return { address, bytes };
}

/** A uniform's words; numbers in an array of one are f32. */
export function uniform(...values: readonly (number | readonly [number])[]): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(values.length / 4) * 4);
  const floats = new Float32Array(words.buffer);
  for (const [i, value] of values.entries()) {
    if (typeof value === "number") words[i] = value;
    else floats[i] = value[0];
  }
  return words;
}
