// Contestants in Node processes of their own.

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Answer, Call, Remote } from "./runner";

/** Starts a bundle beside this one, such as "run-snug.js", under a Node binary; rejects if its runner cannot start. */
export async function startNode(bundle: string, options: object, execPath = process.execPath): Promise<Remote> {
  const child = fork(fileURLToPath(new URL(bundle, import.meta.url)), [JSON.stringify(options)], { execPath });
  const answer = () =>
    new Promise<Answer>((resolve, reject) => {
      const ended = (code: number | null, signal: string | null) => reject(new Error(`ended: ${signal ?? code}`));
      child.once("exit", ended);
      child.once("message", (message: Answer | { error: string }) => {
        child.off("exit", ended);
        if ("error" in message) reject(new Error(message.error));
        else resolve(message);
      });
    });
  const close = async () => void child.kill();
  await answer().catch(async (error) => {
    await close();
    throw error;
  });
  return {
    call(method, ...args) {
      const call: Call = { method, args };
      child.send(call);
      return answer();
    },
    close,
  };
}
