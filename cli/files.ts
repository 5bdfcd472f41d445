// Files that a command is to write: looked at before the work, so that minutes of it are not lost to a wrong path.

import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { SnugError } from "../runtime/index";

/** Refuses a path that cannot be written to; `option`: what gave it. */
export async function checkOutput(path: string, option: string): Promise<void> {
  const folder = dirname(path);
  const refuse = (reason: string, cause?: unknown) =>
    new SnugError("source", `cannot write ${path}: ${reason}`, { cause });
  const there = await stat(path).catch(() => undefined);
  if (there?.isDirectory()) throw refuse(`it is a folder; ${option} is the name of a file`);
  // A finished file takes the place of what had its name: of a file, never of a device or a pipe.
  if (there && !there.isFile()) throw refuse(`it is not a plain file; ${option} is the name of a file`);
  const parent = await stat(folder).catch(() => undefined);
  if (!parent) throw refuse(`there is no folder ${folder}; make it first`);
  if (!parent.isDirectory()) throw refuse(`${folder} is not a folder`);
  await access(folder, constants.W_OK).catch((cause: unknown) => {
    throw refuse(`the folder ${folder} is not writable`, cause);
  });
}

/** Why a file could not be read or written, in words. */
export function fileReason(cause: NodeJS.ErrnoException): string {
  if (cause.code === "ENOENT") return "there is no such file";
  if (cause.code === "EACCES") return "permission denied";
  if (cause.code === "EISDIR") return "it is a folder";
  if (cause.code === "ENOSPC") return "the disk is full";
  return cause.message;
}
