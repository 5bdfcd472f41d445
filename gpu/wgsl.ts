// The shaders' text: a file of kernels/, with what it includes, its switches and its constants.

import argmax from "./kernels/argmax.wgsl";
import attention from "./kernels/attention.wgsl";
import attentionRows from "./kernels/attention-rows.wgsl";
import candidates from "./kernels/candidates.wgsl";
import combine from "./kernels/combine.wgsl";
import conv from "./kernels/conv.wgsl";
import elementwise from "./kernels/elementwise.wgsl";
import embed from "./kernels/embed.wgsl";
import finish from "./kernels/finish.wgsl";
import gatedNorm from "./kernels/gated-norm.wgsl";
import gemm from "./kernels/gemm.wgsl";
import gemmF32 from "./kernels/gemm-f32.wgsl";
import gemv from "./kernels/gemv.wgsl";
import math from "./kernels/math.wgsl";
import matrices from "./kernels/matrices.wgsl";
import norm from "./kernels/norm.wgsl";
import quantize from "./kernels/quantize.wgsl";
import rope from "./kernels/rope.wgsl";
import scan from "./kernels/scan.wgsl";
import select from "./kernels/select.wgsl";
import step from "./kernels/step.wgsl";
import sum from "./kernels/sum.wgsl";
import trig from "./kernels/trig.wgsl";
import weights from "./kernels/weights.wgsl";

const SHADERS = {
  ...{
    argmax,
    attention,
    attentionRows,
    candidates,
    combine,
    conv,
    elementwise,
    embed,
    gatedNorm,
    gemm,
    gemmF32,
    gemv,
    norm,
  },
  ...{ quantize, rope, scan, select },
};
const PARTS: Readonly<Record<string, string>> = { finish, math, matrices, step, sum, trig, weights };

export type ShaderName = keyof typeof SHADERS;

/** What a shader is made with: a boolean is a switch (`//#if NAME`) and a constant, a number a constant of type u32. */
export type Settings = Readonly<Record<string, boolean | number>>;

/** One WGSL module. Lines between `//#if NAME`, `//#else` and `//#endif` stay as the switch says; they may be nested. */
export function assemble(name: ShaderName, settings: Settings): string {
  const constants = Object.entries(settings).map(([constant, value]) =>
    typeof value === "boolean" ? `const ${constant} = ${value};` : `const ${constant} = ${value}u;`,
  );
  return [
    ...constants,
    switched(
      SHADERS[name].replace(/^\/\/#include (\w+)$/gm, (_, part) => PARTS[part] as string),
      settings,
    ),
  ].join("\n");
}

function switched(text: string, settings: Settings): string {
  const open: boolean[] = [];
  return text
    .split("\n")
    .filter((line) => {
      const [, word, name] = /^\/\/#(if|else|endif) ?(\w*)$/.exec(line) ?? [];
      if (word === "if") open.push(settings[name as string] === true);
      else if (word === "else") open.push(!open.pop());
      else if (word === "endif") open.pop();
      else return open.every(Boolean);
      return false;
    })
    .join("\n");
}
