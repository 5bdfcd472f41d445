// Activations in 8 bit: kernels/quantize.wgsl has the layout.

import { range, type Window, windowOver } from "./launch";

/** Where the scales begin behind the codes of `count` rows, in words. */
export function scalesAt(count: number, cols: number): number {
  return (count * cols) / 4;
}

export function codesWindow(address: number, count: number, cols: number, group: number): Window {
  return windowOver(range(address, count * (cols + (cols / group) * 4)));
}
